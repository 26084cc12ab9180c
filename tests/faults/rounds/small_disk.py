"""A disk that can be filled: a tmpfs in a mount namespace, which needs no rights and ends with its process."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNT = 'mount -t tmpfs -o size="$2" tmpfs "$1" && echo mounted && exec sleep infinity'


class SmallDisk:
    """The disk as seen from outside, and what makes a command see it."""

    def __init__(self, holder: int, place: Path) -> None:
        self.seen_from = ("nsenter", f"--target={holder}", "--user", "--mount", "--preserve-credentials", "--")
        self.folder = Path(f"/proc/{holder}/root{place}")  # never resolve it: that leads out of the namespace
        self._filler = self.folder / "filler"

    def fill(self) -> None:
        """Leave no byte of it free."""
        try:
            with self._filler.open("wb", buffering=0) as file:
                for size in (1 << 20, 1):
                    while file.write(bytes(size)) == size:
                        pass
        except OSError:
            return

    def make_room(self) -> None:
        """Free what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(place: Path, size: str = "200m") -> Iterator[SmallDisk]:
    """A disk mounted at a folder, for commands started with its `seen_from`."""
    place.mkdir(parents=True)
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", MOUNT, "bash", str(place), size]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n"
            yield SmallDisk(holder.pid, place)
        finally:
            holder.kill()
