"""Reads an image file of any kind as upright 8-bit RGB.

A file that cannot be used raises ImageError with a short reason. Nothing that a file holds raises anything else.
"""

import contextlib
import errno
import hashlib
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, features

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")  # no EPS: it would start a program
if "avif" in features.modules and features.check("avif"):  # Pillow 11.3, if it was built with it
    FORMATS += ("AVIF",)
# Bytes 8 to 12 of a file, after `ftyp`. Phones write HEIC, also under the name .jpg.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
MAX_MEGAPIXELS = 150  # larger images are left out: these take 600 MB in each worker process
# The same where decoding takes several copies (WebP, JPEG 2000, alpha, more than 8 bits): up to 20 bytes a pixel.
MAX_MEGAPIXELS_COSTLY = 50


class ImageError(ValueError):
    """An image that cannot be used. The message is a short reason without the file's name."""


class UprightImage(NamedTuple):
    """An upright RGB image, perhaps decoded at reduced size.

    pixels: what was decoded.
    size:   width and height of the image in the file, upright. Boxes are in these pixels.
    """

    pixels: Image.Image
    size: tuple[int, int]


def read_image(path: Path | str, shrink: float = 1.0, longest: int | None = None) -> UprightImage:
    """Read an image file: EXIF rotation is applied, and any number of channels and bits becomes 8-bit RGB.

    shrink:  fraction of the width and height that the caller needs.
    longest: pixels that the caller needs on the longer side, in place of `shrink`.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough, which is several times faster.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and about sizes that are checked here
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ImageError("a folder or a device, not a file")
            with Image.open(path, formats=FORMATS) as image:
                return _upright_rgb(image, shrink if longest is None else longest / max(*image.size, 1))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("missing file, or a broken link") from None
    except PermissionError:
        raise ImageError("no permission to read the file") from None
    except Image.UnidentifiedImageError:
        raise ImageError(_why_unidentified(Path(path))) from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_MEGAPIXELS} million pixels") from None
    except MemoryError:
        raise ImageError("too large for the memory") from None
    except Exception as error:  # decoders raise errors of every type for damaged files
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ImageError("a link that leads back to itself") from None
        raise ImageError("truncated image" if "truncated" in str(error).lower() else "damaged image") from error


def _why_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        return "empty file"
    brand = head[8:] if head[4:8] == b"ftyp" else b""
    for name, brands in (("HEIC", HEIC_BRANDS), ("AVIF", AVIF_BRANDS)):
        if brand in brands:
            return f"{name} image, which cannot be read here: convert it to JPEG or PNG"
    return "not an image, or of a type that is not supported"


def file_digest(path: Path) -> bytes:
    """16 bytes that are equal for files of equal content alone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()[:16]


def _upright_rgb(image: Image.Image, shrink: float) -> UprightImage:
    width, height = image.size
    is_plain = image.mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr") and "transparency" not in image.info
    is_costly = not is_plain or image.format in ("WEBP", "JPEG2000", "AVIF")
    max_megapixels = MAX_MEGAPIXELS_COSTLY if is_costly else MAX_MEGAPIXELS
    if width * height > max_megapixels * 1_000_000:
        raise ImageError(f"more than {max_megapixels} million pixels")
    if shrink < 1:
        image.draft(None, (max(1, int(width * shrink)), max(1, int(height * shrink))))
    image.load()
    stored_size = image.size
    with contextlib.suppress(Exception):  # damaged EXIF data does not make the pixels unusable
        ImageOps.exif_transpose(image, in_place=True)
    if image.size != stored_size:
        width, height = height, width
    return UprightImage(_to_rgb(image), (width, height))


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. 16 bits are scaled, not clipped; transparent pixels lie over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_uint8(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits as uint8. 16-bit files use 0..65535; float ones 0..1, 0..255 or 0..65535."""
    if values.dtype.itemsize == 2:
        white = 65535.0
    else:
        is_float = values.dtype.kind == "f"
        values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
        peak = float(values.max(initial=0))
        white = 1.0 if is_float and peak <= 1 else 255.0 if peak <= 255 else 65535.0
    return np.clip(np.round(values * np.float32(255 / white)), 0, 255).astype(np.uint8)
