"""Damaged picture files, drawn by seed: bit flips, truncations, exchanged headers, extreme numbers in the header."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data_prep.synthetic.faces import draw
from data_prep.synthetic.identity import random_identity

SIDE = 112
ENDINGS = ("png", "jpg", "bmp", "gif", "tif", "webp", "jp2", "ppm", "JPEG")


def face(seed: int = 1, intensity: float = 1.0) -> Image.Image:
    """A drawn face on grey, in which the Haar detector finds it."""
    crop = Image.fromarray(draw(random_identity(0, seed), intensity)).resize((80, 80))
    out = Image.new("RGB", (SIDE, SIDE), (120, 120, 120))
    out.paste(crop, (16, 16))
    return out


def image_bytes(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def originals() -> list[bytes]:
    """One picture in every way of writing it that prep reads."""
    rgb = face()
    grey, alpha = rgb.convert("L"), rgb.convert("RGBA")
    deep_grey = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    return [
        image_bytes(rgb, "PNG"),
        image_bytes(alpha, "PNG"),
        image_bytes(deep_grey, "PNG"),
        image_bytes(rgb.quantize(64), "PNG", transparency=3),
        image_bytes(rgb, "JPEG", quality=85, exif=exif),
        image_bytes(rgb, "JPEG", progressive=True),
        image_bytes(rgb.convert("CMYK"), "JPEG"),
        image_bytes(rgb, "BMP"),
        image_bytes(rgb.quantize(16), "BMP"),
        image_bytes(rgb.quantize(128), "GIF", save_all=True, append_images=[face(2).quantize(128)], transparency=5),
        image_bytes(rgb, "TIFF"),
        image_bytes(rgb, "TIFF", compression="tiff_lzw"),
        image_bytes(rgb, "TIFF", compression="tiff_deflate"),
        image_bytes(rgb, "TIFF", compression="jpeg"),
        image_bytes(grey.convert("F"), "TIFF"),
        image_bytes(grey.convert("1"), "TIFF", compression="group4"),
        image_bytes(rgb, "WEBP"),
        image_bytes(alpha, "WEBP", lossless=True),
        image_bytes(rgb, "PPM"),
        image_bytes(rgb, "JPEG2000"),
    ]


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Names (whose ending need not fit) and contents of `count` damaged files."""
    rng = np.random.default_rng(seed)
    contents = originals()
    for number in range(count):
        content = bytearray(contents[number % len(contents)])
        kind = ("bits", "cut", "header", "number", "block")[int(rng.integers(5))]
        header = min(len(content), 64 if rng.random() < 0.5 else 600)
        if kind == "bits":
            for _ in range(int(rng.integers(1, 30))):
                at = int(rng.integers(header if rng.random() < 0.5 else len(content)))
                content[at] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            content = content[: int(rng.integers(len(content)))]
        elif kind == "header":
            donor, size = contents[int(rng.integers(len(contents)))], int(rng.integers(2, 80))
            content[:size] = donor[:size]
        elif kind == "number":
            at, width = int(rng.integers(header)), int(rng.choice([1, 2, 4, 8]))
            content[at : at + width] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * width
        else:
            at, width = int(rng.integers(len(content))), int(rng.integers(1, 2000))
            source = int(rng.integers(len(content)))
            content[at : at + width] = content[source : source + int(rng.integers(1, 2000))]
        ending = ENDINGS[int(rng.integers(len(ENDINGS)))]
        yield f"p{number % 7:02}_{('neutral', 'smile')[number % 2]}_{number:05}_{kind}.{ending}", bytes(content)
