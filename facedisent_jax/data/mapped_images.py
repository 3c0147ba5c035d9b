"""Images that stay on disk: for data sets larger than memory."""

import zlib
from pathlib import Path

import numpy as np

from facedisent_jax.errors import UserError


class MappedImages:
    """Images read when indexed: `images[index]` -> [len(index), 64, 64, 3] uint8.

    A record holds its image as raw bytes, so the image is a slice of the memory-mapped shard. Its CRC-32 is checked
    whenever it is read. Raises UserError for an image whose bytes have changed.
    """

    def __init__(self, shard_paths: list[Path], shard: np.ndarray, offset: np.ndarray, crc: np.ndarray, shape: tuple):
        """For each image, the index of its shard, its first byte there and its CRC-32. shape: of one image."""
        self._shard_paths = shard_paths
        # As plain arrays: slicing a memmap takes five times as long.
        self._maps = [np.asarray(np.memmap(path, mode="r")) for path in shard_paths]
        self._shard, self._offset, self._crc = shard, offset, crc
        self.shape = (len(offset), *shape)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index) -> np.ndarray:
        shard, offset, crc = (np.asarray(column[index]) for column in (self._shard, self._offset, self._crc))
        out = np.empty((shard.size, int(np.prod(self.shape[1:]))), np.uint8)
        maps, size = self._maps, out.shape[1]
        for image, shard_k, start, crc_k in zip(out, *(c.ravel().tolist() for c in (shard, offset, crc)), strict=True):
            image[:] = maps[shard_k][start : start + size]
            if zlib.crc32(image) != crc_k:
                raise UserError(
                    f"{self._shard_paths[shard_k]} has changed since it was opened: the image at byte {start} has "
                    "another checksum. Copy the file again, or prepare the folder again."
                )
        return out.reshape(*shard.shape, *self.shape[1:])
