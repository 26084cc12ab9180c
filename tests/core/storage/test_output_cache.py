"""Local copies: bounded, safe for several processes, and gone when the disk is full."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.core.errors import DestinationError, DiskFullError
from tasks.core.storage import Manifest, OutputCache, StoredFile, describe_output

MB = 10**6


def add(cache: OutputCache, content: bytes) -> Manifest:
    """Make a copy, as a process does that has ended since."""
    with cache.scratch() as folder:
        (folder / "file").write_bytes(content)
        manifest = describe_output(folder, "train", {}, "0/1", 1.0)
        cache.adopt(folder, manifest)
    for lock in cache._held.values():
        os.close(lock)
    cache._held.clear()
    return manifest


def test_copies_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Photos are among them, and the folder around them may be open."""
    (tmp_path / "home" / "outputs").mkdir(mode=0o755, parents=True)
    add(OutputCache(tmp_path / "home" / "outputs", MB), b"x")
    assert (tmp_path / "home" / "outputs").stat().st_mode & 0o077 == 0


@contextmanager
def in_use_elsewhere(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Another process that has got a copy."""
    code = (
        "import sys; from pathlib import Path; from tasks.core.storage import Manifest, OutputCache\n"
        "manifest = Manifest.model_validate_json(sys.argv[2])\n"
        "assert OutputCache(Path(sys.argv[1]), 1).get(manifest)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder), manifest.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.kill()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    first, second, third = (add(OutputCache(tmp_path, MB), bytes([number]) * 1000) for number in range(3))
    for age, manifest in enumerate([second, third, first]):
        os.utime(tmp_path / manifest.full_digest, (age, age))
    limit = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) - 1
    OutputCache(tmp_path, limit).make_room(0)
    assert {entry.name for entry in tmp_path.iterdir() if entry.is_dir()} == {first.full_digest, third.full_digest}
    OutputCache(tmp_path, limit).make_room(limit)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_in_use_stays_until_its_user_ends(tmp_path: Path) -> None:
    manifest = add(OutputCache(tmp_path, MB), b"used")
    with in_use_elsewhere(tmp_path, manifest):
        OutputCache(tmp_path, 0).make_room(0)
        assert (tmp_path / manifest.full_digest / "file").read_bytes() == b"used"
    OutputCache(tmp_path, 0).make_room(0)
    assert not (tmp_path / manifest.full_digest).exists()


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_fills_is_not(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path, MB)
    left = tmp_path / ".left.partial"
    left.mkdir(parents=True)
    with cache.scratch() as filling:
        for folder in (left, filling):
            os.utime(folder, (1, 1))
        cache.make_room(0)
        assert filling.is_dir()
    assert not left.exists()


def test_the_same_output_twice_is_one_copy(tmp_path: Path) -> None:
    cache = OutputCache(tmp_path, MB)
    assert add(cache, b"same").full_digest == add(cache, b"same").full_digest
    assert len([entry for entry in tmp_path.iterdir() if entry.is_dir()]) == 1


def test_a_full_disk_is_said_before_a_download(tmp_path: Path) -> None:
    huge = Manifest(
        stage="train",
        files=(StoredFile(path="file", size=10**18, sha256="0"),),
        options={},
        code_version="0/1",
        seconds=1,
    )
    kept = add(OutputCache(tmp_path, MB), b"goes")
    with pytest.raises(DiskFullError, match=r"is full: [\d,]+ MB are free, 1,000,000,000,000 MB are needed") as caught:
        OutputCache(tmp_path, MB).make_room(huge.total_bytes)
    assert not caught.value.retryable
    assert not (tmp_path / kept.full_digest).exists(), "copies go before a disk counts as full"


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with OutputCache(tmp_path, MB).scratch() as folder:
            (folder / "half").write_bytes(b"half")
            Path("/dev/full").write_bytes(b"no room")

    with pytest.raises(DiskFullError, match="is full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError, match="SPACEPORT_HOME"), OutputCache(tmp_path / "file", MB).scratch():
        pass
