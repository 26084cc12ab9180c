"""Working folders where locks fail: a sentence, not a loop, and nothing is left."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import DestinationError
from tasks.core.storage import LocalWorkspace, OutputCache
from tasks.core.storage.locks import LockHolder, lock_file, remove_unused, sole_writer, working_folder

MOST_CALLS = 200


def refusing_with(code: int) -> Callable[..., None]:
    """A stand-in for flock on a file system without locks; ends a caller that never gives up."""
    calls = 0

    def flock(*_: object) -> None:
        nonlocal calls
        calls += 1
        assert calls < MOST_CALLS, "asked for ever"
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing_with(code))
    refused = pytest.raises(DestinationError, match=r"has no file locks \(.+\).*--workspace, --out or SPACEPORT_HOME")
    with refused, LocalWorkspace(tmp_path / "workspace").new_output("train", "k"):
        pass
    assert list((tmp_path / "workspace/stages/train").iterdir()) == []
    refused = pytest.raises(DestinationError, match="has no file locks")
    with refused, OutputCache(tmp_path / "cache", 1).scratch():
        pass
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_others_always_lock_first_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing_with(errno.EWOULDBLOCK))
    with pytest.raises(DestinationError, match="20 attempts"), working_folder(tmp_path, "."):
        pass


def test_a_lock_file_that_an_nfs_server_has_lost_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, failures = fcntl.flock, [errno.ESTALE]

    def stale_once(descriptor: int, kind: int) -> None:
        if failures:
            raise OSError(failures.pop(), "Stale file handle")
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", stale_once)
    with working_folder(tmp_path, ".") as folder:
        assert folder.is_dir()
    assert (failures, list(tmp_path.iterdir())) == ([], [])


def test_too_many_open_files_are_not_taken_for_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_descriptor)
        with pytest.raises(OSError, match="Too many open files"), working_folder(tmp_path, "."):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /tmp, whose sticky bit lets no other user rename it."""

    def not_ours(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr(Path, "rename", not_ours)
    assert not remove_unused(theirs)
    assert theirs.is_dir()


def test_a_folder_is_not_locked_but_a_file_that_names_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux' NFS knows locks of files on every machine, and those of folders on one."""
    flock = fcntl.flock
    locked: list[Path] = []

    def noted(descriptor: int, kind: int) -> None:
        locked.append(Path(f"/dev/fd/{descriptor}").readlink())
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", noted)
    with working_folder(tmp_path, "."), OutputCache(tmp_path / "cache", 1).scratch() as folder:
        assert LockHolder.model_validate_json(lock_file(folder).read_bytes()) == LockHolder.here()
        assert len(locked) >= 2
        assert all(path.is_file() for path in locked)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["cache"]


ELSEWHERE = LockHolder(host="elsewhere", boot="another", pid=1)
RESTARTED = LockHolder(host=LockHolder.here().host, boot="an earlier one", pid=1)
CONTAINER = LockHolder(host="elsewhere", boot=LockHolder.here().boot, pid=1)


@pytest.mark.parametrize(
    ("holder", "age_seconds", "stays"),
    [
        (ELSEWHERE, 0, True),
        (ELSEWHERE, 8 * 24 * 3600, False),
        (RESTARTED, 0, False),
        (CONTAINER, 0, False),
        (None, 0, False),
    ],
    ids=["another machine", "another machine long ago", "before a restart", "a container of this machine", "no lock"],
)
def test_what_another_machine_works_on_stays(
    tmp_path: Path, holder: LockHolder | None, age_seconds: float, stays: bool
) -> None:
    """Also where the file system knows its lock on that machine alone, so that it seems free here."""
    theirs = tmp_path / ".0123abcd.partial"
    theirs.mkdir()
    if holder is not None:
        lock_file(theirs).write_text(holder.model_dump_json())
        written_at = lock_file(theirs).stat().st_mtime - age_seconds
        os.utime(lock_file(theirs), (written_at, written_at))
    with working_folder(tmp_path, ".", ".partial"):
        assert theirs.is_dir() == stays
        assert lock_file(theirs).exists() == stays


def test_folders_that_others_have_named_stay(tmp_path: Path) -> None:
    (tmp_path / ".partial-download").mkdir()
    (tmp_path / ".lock-mine.lock").touch()
    with working_folder(tmp_path, ".partial-"):
        pass
    assert {entry.name for entry in tmp_path.iterdir()} == {".partial-download", ".lock-mine.lock"}


def test_a_lock_whose_folder_is_gone_is_removed(tmp_path: Path) -> None:
    lock_file(tmp_path / ".partial-0123abcd").write_text(RESTARTED.model_dump_json())
    with working_folder(tmp_path, ".partial-"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_writer_at_a_time_and_the_other_is_told_of_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    here = LockHolder.here()
    with sole_writer(path, "the result", 0):
        told = f"Process {here.pid} on {here.host} has been putting a result at the result"
        with pytest.raises(DestinationError, match=told), sole_writer(path, "the result", 0):
            pass
    path.write_text(ELSEWHERE.model_dump_json())
    with pytest.raises(DestinationError, match="Process 1 on elsewhere"), sole_writer(path, "the result", 0):
        pass
    path.write_text(RESTARTED.model_dump_json())
    with sole_writer(path, "the result", 0):
        pass
    assert list(tmp_path.iterdir()) == []
