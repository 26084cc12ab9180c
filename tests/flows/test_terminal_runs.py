"""Records of runs in terminals."""

import errno
import os
import uuid
from pathlib import Path

import pytest

from deployments.local.processes import Detached
from flows.cli.flow_runs import processes_of_runs
from tasks.core.paths import write_private


def is_alive(home: Path, run: uuid.UUID) -> bool:
    return any(id_ == run and process is not None for id_, process, _ in processes_of_runs(home))


def test_a_record_that_cannot_be_read_for_a_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the server would wait for the run for ever."""
    run = uuid.uuid4()
    record = tmp_path / "terminal-runs" / f"{run}.json"
    record.parent.mkdir()
    write_private(record, Detached.of(str(run), os.getpid()).model_dump_json().encode())

    def fail(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        assert not is_alive(tmp_path, run)
    assert is_alive(tmp_path, run)
    record.write_bytes(b"{")  # which no moment mends
    assert not is_alive(tmp_path, run)
    assert not record.exists()
