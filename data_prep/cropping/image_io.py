"""Reads any picture file as upright 8-bit RGB. Imports none of ours.

A file that cannot be used raises PictureError with a short reason; nothing that a file holds raises anything else.
"""

import contextlib
import errno
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")  # no EPS: it would start a program
MILLION_PIXELS = 150
"""Larger pictures are left out: 150 million pixels are 600 MB in each worker process."""
COSTLY_MILLION_PIXELS = 50
"""The same where reading takes several copies (WebP and JPEG 2000; alpha, more than 8 bits): up to 20 bytes a pixel."""


class ImageError(ValueError):
    """A picture that cannot be used; the message is a short reason without the file's name."""


class UprightImage(NamedTuple):
    """An upright RGB picture, maybe read at reduced size.

    image: the pixels that were read.
    size:  width and height of the picture in the file, upright; boxes are in these pixels.
    """

    image: Image.Image
    size: tuple[int, int]


def read_image(path: Path | str, shrink: float = 1.0, longest: int | None = None) -> UprightImage:
    """The picture in a file: EXIF rotation applied, any number of channels and bits made 8-bit RGB.

    The caller needs no more than the fraction `shrink` of the width and height, or `longest` pixels on the longer side:
    a JPEG is then decoded at 1/2, 1/4 or 1/8 where that is enough, which is several times faster.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes that we judge ourselves
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ImageError("a folder or a device, not a file")
            with Image.open(path, formats=FORMATS) as image:
                return _upright_rgb(image, shrink if longest is None else longest / max(*image.size, 1))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("the file is gone, or a broken link") from None
    except PermissionError:
        raise ImageError("no permission to read the file") from None
    except Image.UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        raise ImageError("empty file" if empty else "not a picture (or of a type that is not read)") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MILLION_PIXELS} million pixels") from None
    except MemoryError:
        raise ImageError("too large for the memory") from None
    except Exception as error:  # decoders answer damaged files with errors of every type
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise ImageError("a link that leads back to itself") from None
        truncated = "truncated" in str(error).lower()
        raise ImageError("truncated picture" if truncated else "damaged picture") from error


def _upright_rgb(image: Image.Image, shrink: float) -> UprightImage:
    width, height = image.size
    plain = image.mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr") and "transparency" not in image.info
    costly = not plain or image.format in ("WEBP", "JPEG2000")
    most = COSTLY_MILLION_PIXELS if costly else MILLION_PIXELS
    if width * height > most * 1_000_000:
        raise ImageError(f"more than {most} million pixels")
    if shrink < 1:
        image.draft(None, (max(1, int(width * shrink)), max(1, int(height * shrink))))
    image.load()
    before = image.size
    with contextlib.suppress(Exception):  # damaged EXIF data does not make the pixels unusable
        ImageOps.exif_transpose(image, in_place=True)
    if image.size != before:
        width, height = height, width
    return UprightImage(_rgb(image), (width, height))


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16 bits are scaled, not clipped; what is transparent is laid over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits -> uint8. 16-bit files use 0..65535; float ones 0..1, 0..255 or 0..65535."""
    if values.dtype.itemsize == 2:
        top = 65535.0
    else:
        unit = values.dtype.kind == "f"
        values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
        peak = float(values.max(initial=0))
        top = 1.0 if unit and peak <= 1 else 255.0 if peak <= 255 else 65535.0
    return np.clip(np.round(values * np.float32(255 / top)), 0, 255).astype(np.uint8)
