"""A lock on S3: one holder, told to others, taken over from the dead."""

import subprocess
import sys

import pytest

from tasks.core.errors import DestinationError, StorageError
from tasks.core.storage import S3Folder, s3_switch
from tasks.core.storage.locks import LockHolder
from tasks.core.storage.s3_switch import LOCK_FILE, sole_writer_on_s3
from tests.support.s3_server import S3Server

ELSEWHERE = LockHolder(host="elsewhere", boot="another", pid=1)


@pytest.fixture
def folder(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Folder:
    monkeypatch.setattr(s3_switch, "_POLL_SECONDS", 0.01)
    return S3Folder(s3.client(), s3.new_bucket(), "a/b")


def leave(folder: S3Folder, holder: LockHolder, token: str = "theirs") -> None:
    """Put a lock as another process does."""
    folder.write(LOCK_FILE, s3_switch._Record(**holder.model_dump(), token=token).model_dump_json().encode())


def test_one_holder_and_the_others_are_told(folder: S3Folder) -> None:
    here = LockHolder.here()
    with sole_writer_on_s3(folder, 0) as confirm:
        confirm()
        told = f"Process {here.pid} on {here.host} has been putting a result at {folder.uri}"
        with pytest.raises(DestinationError, match=told), sole_writer_on_s3(folder, 0):
            pass
        confirm()
    assert folder.head(LOCK_FILE) is None


def test_a_lock_that_does_not_change_is_taken_over(folder: S3Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(folder, ELSEWHERE)
    with pytest.raises(DestinationError, match="Process 1 on elsewhere"), sole_writer_on_s3(folder, 0):
        pass
    monkeypatch.setattr(s3_switch, "_DEAD_SECONDS", 0.05)
    with sole_writer_on_s3(folder, 60.0):
        pass
    folder.write(LOCK_FILE, b"no record of ours")
    with sole_writer_on_s3(folder, 60.0):
        pass
    assert folder.head(LOCK_FILE) is None


def test_a_lock_that_changes_is_not_taken_over(folder: S3Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder is at work for longer than a dead one is waited for."""
    monkeypatch.setattr(s3_switch, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(s3_switch, "_DEAD_SECONDS", 60.0)
    with sole_writer_on_s3(folder, 0):
        present = folder.read(LOCK_FILE)
        assert present is not None
        while (changed := folder.read(LOCK_FILE)) == present:
            pass
        assert changed is not None


def test_the_lock_of_a_process_of_this_machine_that_died_is_taken_over_at_once(folder: S3Folder) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    leave(folder, LockHolder.here().model_copy(update={"pid": process.pid}))
    with sole_writer_on_s3(folder, 0):
        pass


def test_one_who_was_taken_over_is_told(folder: S3Folder) -> None:
    with sole_writer_on_s3(folder, 0) as confirm:
        leave(folder, ELSEWHERE)
        with pytest.raises(StorageError, match="Another run has begun to put its result"):
            confirm()
    found = folder.read(LOCK_FILE)
    assert found is not None
    assert b"elsewhere" in found[0], "theirs stays"
