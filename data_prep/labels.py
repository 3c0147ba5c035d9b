"""Multi-PIE's landmark labels, .mat files with the key `pts`. Imports none of ours; SciPy where a file is read."""

import io
import stat
import struct
import zlib
from pathlib import Path

import numpy as np

LARGEST = 100_000
"""Bytes: a label file of 68 points has about 1,300; what is larger, packed or unpacked, is none and is not read."""
NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
COMPRESSED = 15
"""Type of a compressed variable (miCOMPRESSED)."""


def read_points(path: Path) -> np.ndarray | None:
    """The 68 landmarks [68, 2] in pixels; None if the file holds fewer (cameras from the side), or is none of these."""
    import scipy.io

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        content = io.BytesIO(_unpacked(path.read_bytes()))
        said = [(shape, kind) for name, shape, kind in scipy.io.whosmat(content) if name == "pts"]
        if said not in [[((68, 2), kind)] for kind in NUMBERS]:  # no other kind of variable is read
            return None
        points = scipy.io.loadmat(content, variable_names=["pts"]).get("pts")
    except Exception:  # scipy answers damaged files with errors of every type
        return None
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "iuf" or points.shape != (68, 2):
        return None
    return points.astype(np.float64) if np.isfinite(points).all() else None


def _unpacked(content: bytes) -> bytes:
    """A MAT 5 file with its compressed variables unpacked. ValueError if that takes more than LARGEST bytes.

    SciPy would unpack and reserve whatever the file promises.
    """
    if content[124:126] not in (b"\x00\x01", b"\x01\x00"):
        return content  # MAT 4 knows no compression
    order, at, out = "<" if content[126:128] == b"IM" else ">", 128, content[:128]
    while at + 8 <= len(content):
        kind, size = struct.unpack(f"{order}II", content[at : at + 8])
        part = content[at : at + 8 + size]
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            part = unpacker.decompress(part[8:], LARGEST)
            if not unpacker.eof:
                raise ValueError("a variable is cut or too large")
        out, at = out + part, at + 8 + size
        if len(out) > LARGEST:
            raise ValueError("the variables are too large")
    return out
