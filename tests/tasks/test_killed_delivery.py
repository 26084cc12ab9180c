"""A delivery that is killed before any of its system calls leaves the older result whole or the new one whole."""

import errno
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tasks.core.errors import DestinationError, SpaceportError
from tasks.core.storage import folder_switch
from tasks.core.storage.folder_switch import VERSIONS_FOLDER
from tasks.places.destination import LOCK_FILE, open_destination
from tasks.places.result_files import CONTENTS_FILE
from tasks.places.workspace import open_workspace

CALLS = ("open", "replace", "rename", "unlink", "rmdir", "mkdir", "link", "symlink", "fsync", "ftruncate", "pwrite")
MINE = {"colmap/images/mine.txt": b"mine"}
Result = dict[str, bytes]


def result(version: str, *names: str) -> Result:
    return {name: f"{name} of {version}".encode() for name in ("index.html", "report.html", *names)}


OLD = result("old", "colmap/images/a.jpg", "lod/0/means.webp")
NEW = result("new", "colmap/images/a.jpg", "colmap/images/c/d.jpg")
NEXT = result("next", "colmap/images/b.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has one: what is tried here is tried hundreds of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def no_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No moment for readers, which would be waited for in each of hundreds of deliveries."""
    monkeypatch.setattr(folder_switch, "_READERS_SECONDS", 0)


def save(folder: Path, files: Result) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@contextmanager
def no_change() -> Iterator[None]:
    """The file system as it is."""
    yield


def deliver(out: Path, files: Result, during: Callable[[], AbstractContextManager[None]] = no_change) -> None:
    destination = open_destination(str(out), open_workspace(str(out.parent)))
    with destination.scratch() as scratch:
        save(scratch, files)
        with during():
            destination.deliver(scratch)


class Killed(BaseException):
    """Stands for SIGKILL: from then on no call of the process reaches the disk."""


class Calls:
    """Counts the calls that change a folder, and is notified before each of them."""

    def __init__(self, before: Callable[[str, int], None]) -> None:
        self.made = 0
        self._before = before
        self._real = {name: getattr(os, name) for name in CALLS}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, partial(self._call, name))
            patch.setattr(io, "open", partial(self._call, "io.open"))
            self._real["io.open"] = open
            yield

    def _call(self, name: str, *arguments: object, **more: object) -> object:
        number, self.made = self.made, self.made + 1
        self._before(name, number)
        if name != "fsync":  # which has nothing to do with what other processes see
            return self._real[name](*arguments, **more)
        return None


def deliver_and_die(out: Path, files: Result, calls: int) -> bool:
    """Deliver as a process that is killed after so many calls. False when it was."""
    dead = False

    def die(_: str, number: int) -> None:
        nonlocal dead
        dead = dead or number >= calls
        if dead:
            raise Killed

    with suppress(Killed):
        deliver(out, files, Calls(die))
    return not dead


def kill_at(number: int, _: str, call: int) -> None:
    """End this process before the call of that number."""
    if call == number:
        os.kill(os.getpid(), signal.SIGKILL)


def shown(out: Path) -> Result:
    """All that somebody sees who looks into the folder and knows nothing of deliveries."""
    files = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return {
        path.as_posix(): (out / path).read_bytes()
        for path in files
        if path.parts[0] != VERSIONS_FOLDER and not path.name.startswith(".") and not path.parts[0].startswith(".")
    }


def all_files(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def without_list(files: Result) -> Result:
    return {name: content for name, content in files.items() if name != CONTENTS_FILE}


@pytest.mark.parametrize("older", [OLD, {}], ids=["over an older result", "in an empty place"])
def test_killed_before_any_system_call(folder: Path, older: Result) -> None:
    before, out = folder / "before", folder / "out"
    save(before, MINE)
    if older:
        deliver(before, older)
    seen, calls, ended = set(), 0, False
    while not ended:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(before, out)
        ended = deliver_and_die(out, NEW, calls)
        there = without_list(shown(out))
        assert there in ({**older, **MINE}, {**NEW, **MINE}), f"killed after {calls} calls"
        seen.add(there == {**NEW, **MINE})
        deliver(out, NEXT, Calls(lambda *_: None))
        assert without_list(shown(out)) == {**NEXT, **MINE}, f"killed after {calls} calls"
        left = {entry.name for entry in out.rglob("*")}
        assert not [name for name in left if name.startswith(".")]
        assert not [entry for entry in out.rglob("*") if entry.is_symlink()]
        assert VERSIONS_FOLDER not in left
        calls += 1
    assert seen == {False, True}
    assert calls > 50, "it was killed in many places"


def test_processes_that_are_killed_one_after_the_other(folder: Path) -> None:
    """By a real SIGKILL. Each begins with what the one before it has left."""
    out = folder / "out"
    deliver(out, OLD)
    whole = [OLD, NEW, NEXT]
    for number in range(12):
        child = os.fork()
        if child == 0:
            try:
                deliver(out, whole[number % 3], Calls(partial(kill_at, 15 * number + 10)))
            finally:
                os._exit(1)  # must not go on as pytest
        os.waitpid(child, 0)
        assert without_list(shown(out)) in whole, number
    deliver(out, NEW)
    assert all_files(out) == {*NEW, CONTENTS_FILE}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_call_that_fails_leaves_one_whole_result(folder: Path, code: int) -> None:
    """An error in one call, whichever it is, and no death: what can be tidied up is."""
    before, out = folder / "before", folder / "out"
    deliver(before, OLD)
    number, failed = 0, True
    while failed:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(before, out)
        failed = False

        def fail(name: str, call: int, number: int = number) -> None:
            nonlocal failed
            if call == number:
                failed = True
                raise OSError(code, os.strerror(code), name)

        with suppress(OSError, SpaceportError):
            deliver(out, NEW, Calls(fail))
        there = without_list(shown(out))
        assert there in (OLD, NEW), f"call {number} failed"
        deliver(out, NEXT, Calls(lambda *_: None))
        assert all_files(out) == {*NEXT, CONTENTS_FILE}
        number += 1
    assert number > 50


def test_two_writers_never_mix_and_know_each_others_files(folder: Path) -> None:
    out = folder / "out"
    deliver(out, OLD)
    for _ in range(3):
        start = threading.Barrier(3)

        def work(files: Result, start: threading.Barrier = start) -> None:
            start.wait()
            deliver(out, files)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, (OLD, NEW, NEXT)))
        files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        listed = files.pop(CONTENTS_FILE)
        assert files in (OLD, NEW, NEXT)
        assert listed.decode().count('"') == 2 * len(files)


def test_a_reader_on_the_way_through_a_link_finds_the_file(folder: Path) -> None:
    """It has followed a link of a page, the delivery makes its next call, and then it opens what the link named."""
    out = folder / "out"
    pages = {OLD["index.html"], NEW["index.html"]}
    followed: list[Path] = []
    through_links = 0

    def read(_: str, number: int) -> None:
        nonlocal through_links
        for place in followed:
            with open_file(place, "rb") as file:
                assert file.read() in pages, f"before call {number}"
        page = out / "index.html"
        through_links += page.is_symlink()
        followed[:] = [page.resolve()]

    open_file = open  # as it is before it is counted as a call of the delivery
    deliver(out, OLD)
    deliver(out, NEW, Calls(read))
    assert through_links > 10


def test_a_file_system_without_links_holds_one_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    out = folder / "out"
    destination = open_destination(str(out), open_workspace(str(folder)))
    destination.check()
    deliver(out, OLD)
    assert without_list(shown(out)) == OLD
    with pytest.raises(DestinationError, match=r"no symbolic links, .* remove it, or name another destination"):
        destination.check()
    with pytest.raises(DestinationError, match="cannot be written"):
        deliver(out, NEW)
    assert without_list(shown(out)) == OLD


def test_without_second_names_the_older_files_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    deliver(folder / "out", OLD)
    deliver(folder / "out", NEW)
    assert without_list(shown(folder / "out")) == NEW


def test_a_lock_that_a_killed_writer_left_is_no_trouble(folder: Path) -> None:
    out = folder / "out"
    deliver(out, OLD)
    (out / LOCK_FILE).write_text("")
    deliver(out, NEW)
    assert not (out / LOCK_FILE).exists()
