"""Multi-PIE's landmark labels, .mat files (MAT 5: what MATLAB saves but for -v4 and -v7.3) with the key `pts`.

Imports none of ours. Read by hand: SciPy's reader crashes on some damaged files, and takes what memory they ask for.
"""

import itertools
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LARGEST = 100_000
"""Bytes: a label file of 68 points has about 1,300; what is larger, packed or unpacked, is none and is not read."""
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of data elements (miINT8 ... miUINT64), as numpy has them."""
NUMERIC, COMPLEX = range(6, 16), 0x800
"""Classes of matrices of numbers (mxDOUBLE_CLASS ... mxUINT64_CLASS), and the flag of complex ones."""


def read_mat_landmarks(path: Path) -> np.ndarray | None:
    """The 68 landmarks [68, 2] in pixels; None if the file holds fewer (cameras from the side), or is none of these."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        return None
    for kind, part in _elements(content[128:], order):
        if kind == COMPRESSED:
            try:
                unpacked = zlib.decompressobj().decompress(part, LARGEST)
            except zlib.error:
                return None
            kind, part = next(_elements(unpacked, order), (0, b""))
        if kind == MATRIX and (points := _points(part, order)) is not None:
            return points
    return None


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the data elements that follow each other; they end where one is cut."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, following = at + 8, at + 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if kind >> 16:  # a small one: its size beside the type, up to 4 bytes of content in place of the size
            kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if start + size > min(len(data), following):
            return
        yield kind, data[start : start + size]
        at = following


def _points(matrix: bytes, order: str) -> np.ndarray | None:
    """The points in a variable; None if it is another, or none of 68 points."""
    parts = list(itertools.islice(_elements(matrix, order), 4))  # flags, dimensions, name, numbers
    if len(parts) < 4 or len(parts[0][1]) != 8 or parts[1][1] != struct.pack(f"{order}ii", 68, 2):
        return None
    (flags,), (_, name), (kind, numbers) = struct.unpack_from(f"{order}I", parts[0][1]), *parts[2:]
    if name != b"pts" or flags & 0xFF not in NUMERIC or flags & COMPLEX or kind not in NUMBERS:
        return None
    dtype = np.dtype(order + NUMBERS[kind])
    if len(numbers) != 136 * dtype.itemsize:
        return None
    points = np.frombuffer(numbers, dtype).astype(np.float64).reshape(2, 68).T  # column by column
    return points if np.isfinite(points).all() else None
