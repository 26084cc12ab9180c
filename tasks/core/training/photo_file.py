"""Photos that do not fit into memory: in a mapped file on the disk, of which the kernel keeps as much as fits."""

import tempfile
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np

from tasks.core.errors import DiskFullError
from tasks.core.scene import Camera
from tasks.core.storage.disk import free_bytes, watching_disk
from tasks.core.training.views import Photo, level_sizes

CHANNELS = 3


def photo_bytes(cameras: Iterable[Camera], max_image_size: int) -> int:
    """Bytes of the cameras' photos at training size, smaller copies included."""
    return sum(CHANNELS * prod(size) for camera in cameras for size in level_sizes(camera, max_image_size))


class PhotoFile:
    """A file without a name, of fixed size on the folder's disk, which is gone once its arrays are."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """`size_bytes`: of all photos that will be stored, at least 1. Raises DiskFullError."""
        free = free_bytes(folder)
        if free < size_bytes:
            raise DiskFullError(
                f"The photos take {size_bytes / 1e9:.1f} GB in training. Neither the free memory suffices for them nor "
                f"the disk of {folder} ({free / 1e9:.1f} GB are free there): lower train.max_image_size, make room, or "
                "name a workspace on another disk."
            )
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this object
        self._file.truncate(size_bytes)
        # Shared and writeable: kernels are compiled for that, and such a mapping counts as no memory of this process.
        # One for all: each has a descriptor of its own, and processes may have a thousand.
        self._bytes = np.asarray(np.memmap(self._file, np.uint8, "r+"))
        self._filled = 0

    def stored(self, pixels: Photo) -> Photo:
        """Append a photo [H, W, 3] and return it as an array that the file backs. Raises DiskFullError.

        It is written, not copied through the mapping: if the disk ran full, that would kill the process.
        """
        begin, self._filled = self._filled, self._filled + pixels.nbytes
        with watching_disk(self._folder):
            self._file.seek(begin)
            self._file.write(np.ascontiguousarray(pixels).data)
            self._file.flush()
        return self._bytes[begin : self._filled].reshape(pixels.shape)
