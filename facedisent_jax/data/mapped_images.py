"""TODO."""

import zlib
from pathlib import Path

import numpy as np

from facedisent_jax.errors import UserError


class MappedImages:
    """Pictures read when indexed: `images[index]` -> [len(index), 64, 64, 3] uint8.

    A record holds its picture as raw bytes, so the picture is a slice of the shard: a memory map, one offset and one
    CRC-32 a picture serve instead of a copy. A picture that is not any more what it was is a RecordError.
    """

    def __init__(self, shards: list[Path], shard: np.ndarray, offset: np.ndarray, check: np.ndarray, shape: tuple):
        """The files; for each picture the number of its file, its first byte there and its CRC; a picture's shape."""
        self._shards = shards
        # As plain arrays: a slice of a memmap takes five times as long.
        self._maps = [np.asarray(np.memmap(path, mode="r")) for path in shards]
        self._shard, self._offset, self._check = shard, offset, check
        self.shape = (len(offset), *shape)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index) -> np.ndarray:
        found = [np.asarray(column[index]) for column in (self._shard, self._offset, self._check)]
        out = np.empty((found[0].size, int(np.prod(self.shape[1:]))), np.uint8)
        maps, size = self._maps, out.shape[1]
        for picture, shard, start, check in zip(out, *(column.ravel().tolist() for column in found), strict=True):
            picture[:] = maps[shard][start : start + size]
            if zlib.crc32(picture) != check:
                raise UserError(
                    f"{self._shards[shard]} has changed since it was opened: the picture at byte {start} is not what "
                    "it was. Copy the file again, or prepare the folder again."
                )
        return out.reshape(*found[0].shape, *self.shape[1:])
