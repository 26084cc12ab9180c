"""Local checkpoints and a power cut."""

import os
from pathlib import Path

import pytest

from tasks.core.storage.local import LocalCheckpoints


def test_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut could otherwise leave a file of zeros under its name."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(Path(f"/dev/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        done.append("renamed")
        return replace(self, target)

    place = LocalCheckpoints(tmp_path / "kept")
    with place.scratch() as scratch:
        (scratch / "state").write_bytes(b"bytes")
        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "replace", noted_replace)
        place.put(scratch / "state")
    assert done == ["state", "renamed", "kept"]
