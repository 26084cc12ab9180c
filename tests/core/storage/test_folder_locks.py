"""Working folders where locks fail: a sentence, not a loop, and nothing is left."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import DestinationError
from tasks.core.storage import LocalWorkspace, OutputCache
from tasks.core.storage.folder_locks import remove_unused, working_folder

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
