"""Photos on the disk during training: a bounded number of them is in memory, and a thread reads the next ones ahead.

The photos are in one file, which is read and not mapped: pages of a mapped file count as memory of the process and of
its container, and nothing bounds their number. Pages that the kernel keeps of a file that is read are not the process's
memory, and the kernel gives them up for anything else.
"""

import errno
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import DiskFullError
from tasks.core.storage.disk import free_bytes, watching_disk

Photo = NDArray[np.uint8]

FEWEST_IN_MEMORY = 2  # the photo in use and the next one
MOST_AHEAD = 8  # photos: a disk that is slower than training is late with the hundredth as well


class Place(NamedTuple):
    """Where a photo is in the file."""

    begin: int
    shape: tuple[int, ...]


@dataclass
class _Held:
    place: Place
    photo: Photo | None  # None when it has been let go
    reading: "Future[None] | None" = None  # until the reader's result has been waited for


class PhotoFile:
    """A file without a name for photos of all sizes, of which at most `most_in_memory` are in memory at once.

    A photo that the caller still uses counts. All methods are for one thread; only `_fill` runs in the reader's. The
    file disappears with this object and its `StoredPhoto`s.
    """

    def __init__(self, folder: Path, size_bytes: int, most_in_memory: int) -> None:
        """`size_bytes`: of all photos that will be stored, at least 1. Raises DiskFullError."""
        free = free_bytes(folder)
        if free < size_bytes:
            raise DiskFullError(
                f"The photos take {size_bytes / 1e9:.1f} GB in training, and at most {most_in_memory:,} of them may be "
                f"in memory (by free memory, or train.max_photos_in_memory). The disk of {folder} has no room for them "
                f"({free / 1e9:.1f} GB are free there): lower train.max_image_size, make room, or name a workspace on "
                "another disk."
            )
        self.most_in_memory = max(most_in_memory, FEWEST_IN_MEMORY)
        self.most_held = 0  # so far, the photos in use and those being read included
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this object
        self._file.truncate(size_bytes)
        self._filled = 0
        self._held: OrderedDict[Place, _Held] = OrderedDict()  # those used longest ago first
        self._in_use: Place | None = None
        self._expected: dict[Place, None] = {}
        self._alive: list[weakref.ref[Photo]] = []
        self._reader = ThreadPoolExecutor(1, "photos")  # its thread ends with this object

    @property
    def most_ahead(self) -> int:
        """The number of coming photos that `expect` can use."""
        return min(MOST_AHEAD, self.most_in_memory - 1)

    def stored(self, levels: Iterable[Photo]) -> "StoredPhoto":
        """Append a photo [H, W, 3] in all its sizes. Raises DiskFullError."""
        places = []
        for pixels in levels:
            begin, self._filled = self._filled, self._filled + pixels.nbytes
            with watching_disk(self._folder):
                self._file.seek(begin)
                self._file.write(np.ascontiguousarray(pixels).data)
                self._file.flush()
            places.append(Place(begin, pixels.shape))
        return StoredPhoto(self, tuple(places))

    def photo(self, place: Place) -> Photo:
        """The photo at a place, an array of its own. Do not keep it: it counts as long as it exists."""
        held = self._held.get(place)
        if held is None:
            if not self._has_room(besides=self._expected):
                self._has_room(besides=())
            held = self._new(place)
            self._fill(held)
            self._held[place] = held
        elif held.reading is not None:
            held.reading.result()
            held.reading = None
        self._held.move_to_end(place)
        self._in_use = place
        assert held.photo is not None
        return held.photo

    def expect(self, coming: Iterable[tuple[Sequence[Photo], int]]) -> None:
        """Read ahead the photos that will be used next, in this order, each with its level.

        Photos that are not in the file are skipped. What is no longer expected may be let go.
        """
        places = dict.fromkeys(photos.places[level] for photos, level in coming if isinstance(photos, StoredPhoto))
        self._expected = places
        for place in places:
            if place in self._held:
                continue
            if not self._has_room(besides={*places, self._in_use}):
                return
            held = self._held[place] = self._new(place)
            held.reading = self._reader.submit(self._fill, held)

    def _has_room(self, besides: Container[Place | None]) -> bool:
        """Let go of photos until there is room for one more, those used longest ago first; none of `besides`."""
        for place in [place for place in self._held if place not in besides]:
            if self._count() < self.most_in_memory:
                return True
            held = self._held.pop(place)
            if held.reading is not None and not held.reading.cancel():
                wait([held.reading])
            held.photo = None
        return self._count() < self.most_in_memory

    def _count(self) -> int:
        """The number of photos in memory, those included that only the caller still has."""
        self._alive = [reference for reference in self._alive if reference() is not None]
        return len(self._alive)

    def _new(self, place: Place) -> _Held:
        photo = np.empty(place.shape, np.uint8)
        self._alive.append(weakref.ref(photo))
        self.most_held = max(self.most_held, self._count())
        return _Held(place, photo)

    def _fill(self, held: _Held) -> None:
        """Read a photo. The thread keeps `held` for a moment after its result, but not the photo itself."""
        begin, end = held.place.begin, held.place.begin + prod(held.place.shape)
        assert held.photo is not None
        rest = held.photo.reshape(-1)
        while begin < end:
            count = os.preadv(self._file.fileno(), [rest.data], begin)
            if count == 0:
                raise OSError(errno.EIO, "a file of photos ends too early", str(self._folder))
            rest, begin = rest[count:], begin + count


class StoredPhoto(Sequence[Photo]):
    """A photo in all its sizes, each read from the file when it is asked for."""

    def __init__(self, file: PhotoFile, places: tuple[Place, ...]) -> None:
        self.places = places
        self.file = file

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, level: int) -> Photo: ...
    @overload
    def __getitem__(self, level: slice) -> tuple[Photo, ...]: ...
    def __getitem__(self, level: int | slice) -> Photo | tuple[Photo, ...]:
        if isinstance(level, slice):
            return tuple(self.file.photo(place) for place in self.places[level])
        return self.file.photo(self.places[level])
