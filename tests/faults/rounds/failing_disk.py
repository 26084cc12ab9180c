"""The command line on a disk that fails: `python -m tests.faults.rounds.failing_disk TRIGGER FOLDER run …`.

While the file TRIGGER exists, calls that change FOLDER, and writes to files in it, end with EIO.
"""

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CALLS = ("open", "replace", "rename", "unlink", "rmdir", "mkdir", "link", "symlink")


class FailingDisk:
    """Replaces Python's calls; what C++ writes by itself does not fail."""

    def __init__(self, trigger: Path, folder: Path) -> None:
        self._trigger, self._folder = trigger, str(folder)
        self._open = open

    def install(self) -> None:
        """Put it in place of the real calls, for the rest of the process's life."""
        for name in CALLS:
            setattr(os, name, partial(self._call, getattr(os, name)))
        os.fsync = partial(self._fsync, os.fsync)
        builtins.open = io.open = self.open

    def fail_at(self, *places: Any) -> None:
        """Raise OSError if the disk fails at the moment and one of these paths is on it."""
        for place in places:
            if isinstance(place, str | os.PathLike) and self._is_on_disk(place) and self._trigger.exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(place))

    def open(self, file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        """The function `open`, whose files fail later if the disk does."""
        self.fail_at(file)
        writes = bool(set(mode) & set("wax+"))
        if not writes or not isinstance(file, str | os.PathLike) or not self._is_on_disk(file):
            return self._open(file, mode, *arguments, **more)
        raw = _FailingFile(self, file, mode.replace("b", "").replace("t", ""))
        if (arguments[0] if arguments else more.get("buffering")) == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = {name: more[name] for name in ("encoding", "errors", "newline") if name in more}
        return io.TextIOWrapper(buffered, **text)

    def _is_on_disk(self, place: Any) -> bool:
        return str(Path(os.fsdecode(place)).absolute()).startswith(self._folder)

    def _call(self, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        self.fail_at(*arguments[:2])
        return call(*arguments, **more)

    def _fsync(self, call: Callable[[int], None], descriptor: int) -> None:
        self.fail_at(Path(f"/proc/self/fd/{descriptor}").readlink())
        call(descriptor)


class _FailingFile(io.FileIO):
    def __init__(self, disk: FailingDisk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk

    def write(self, content: Any) -> int:
        self._disk.fail_at(self.name)
        return super().write(content)


def main() -> None:
    """Run the command line."""
    trigger, folder, *arguments = sys.argv[1:]
    from flows.cli import app as cli

    sys.argv[1:] = arguments
    FailingDisk(Path(trigger), Path(folder)).install()
    cli.main()


if __name__ == "__main__":
    main()
