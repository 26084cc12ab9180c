"""Checkpoints in a workspace, local and on S3: two are kept, the best that can be used is gone on from."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.core.refs import RunContext
from tasks.core.storage import CheckpointPlace
from tasks.core.training.checkpoint import Arrays
from tasks.places.workspace import open_workspace
from tasks.running.checkpoints import Interrupted, StageCheckpoints
from tests.support.patience import STALL_SECONDS, eventually
from tests.support.s3_server import S3Server, s3_server

KEY = "0123abcd"


def state(step: int) -> Arrays:
    return {"a": np.full((50, 3), step, np.float32)}


def step_of(arrays: Arrays | None) -> int | None:
    return None if arrays is None else int(arrays["a"][0, 0])


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an upload take as long as it takes: what a run that ends gives up on is no matter here."""
    monkeypatch.setattr("tasks.running.checkpoints.UPLOAD_PATIENCE_SECONDS", STALL_SECONDS)


@pytest.fixture(params=["local", "s3"])
def context(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    if request.param == "local":
        return RunContext(workspace=str(tmp_path / "workspace"), run="flight-1")
    s3: S3Server = request.getfixturevalue("s3_environment")
    return RunContext(workspace=f"s3://{s3.new_bucket()}/workspace", run="flight-1")


def opened(context: RunContext, interval_seconds: float = 0.01) -> StageCheckpoints:
    return StageCheckpoints(context, KEY, interval_seconds)


def place(context: RunContext, run: str | None = None) -> CheckpointPlace:
    return open_workspace(context.workspace).checkpoints(KEY, run)


def save(checkpoints: StageCheckpoints, *steps: int) -> None:
    """Save when it is due, as training does."""
    for step in steps:
        eventually(checkpoints.due, "checkpoint that is due", poll_seconds=0.005)
        checkpoints.save(step, "me", state(step))
    checkpoints._wait_for_upload()


def put(context: RunContext, name: str, content: bytes) -> None:
    with place(context).scratch() as scratch:
        (scratch / name).write_bytes(content)
        place(context).put(scratch / name)


def test_the_newest_two_are_kept(context: RunContext) -> None:
    save(opened(context), 9, 80, 700, 6000)
    assert place(context).names() == ["000006000.npz", "000000700.npz"]
    assert step_of(opened(context).load("me")) == 6000


def test_nothing_half_written_is_left(context: RunContext, tmp_path: Path) -> None:
    save(opened(context), 1, 2)
    left = {entry.name for entry in tmp_path.rglob("*") if entry.name.startswith(".") or "partial" in entry.name}
    assert left == set()


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"\0" * len(whole)])
def test_a_damaged_one_is_passed_over_and_removed(
    context: RunContext, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    save(opened(context), 1, 2)
    with place(context).scratch() as scratch:
        whole = place(context).get("000000002.npz", scratch).read_bytes()
    put(context, "000000002.npz", damage(whole))
    with caplog.at_level(logging.INFO):
        assert step_of(opened(context).load("me")) == 1
    assert "000000002.npz is not used: 000000002.npz is damaged" in caplog.text
    assert "resumed at step 1" in caplog.text
    assert place(context).names() == ["000000001.npz"]


@pytest.mark.parametrize("context", ["local"], indirect=True)
def test_one_that_cannot_be_read_just_now_stays(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(opened(context), 1)

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", broken)
        assert opened(context).load("me") is None
    assert "checkpoint 000000001.npz cannot be read" in caplog.text
    assert step_of(opened(context).load("me")) == 1


def test_one_of_another_training_is_not_used(context: RunContext, caplog: pytest.LogCaptureFixture) -> None:
    save(opened(context), 1, 2)
    assert opened(context).load("you") is None
    assert "belongs to another training" in caplog.text
    assert place(context).names() == []


def test_a_run_that_computes_anew_goes_on_from_its_own_only(context: RunContext) -> None:
    save(opened(context), 5)
    fresh = context.model_copy(update={"fresh": True})
    assert opened(fresh).load("me") is None
    save(opened(fresh), 3)
    assert step_of(opened(fresh).load("me")) == 3, "the second attempt of the same run"
    assert opened(fresh.model_copy(update={"run": "flight-2"})).load("me") is None
    assert step_of(opened(context).load("me")) == 5


def test_discarded_are_all_of_this_output(context: RunContext) -> None:
    fresh = context.model_copy(update={"fresh": True})
    save(opened(context), 5)
    save(opened(fresh), 6)
    other = StageCheckpoints(context, "other", 0.01)
    save(other, 7)
    opened(context).discard()
    assert place(context).names() == []
    assert place(context, "flight-1").names() == []
    assert step_of(StageCheckpoints(context, "other", 1).load("me")) == 7
    opened(context).discard()  # nothing there is no trouble


def test_interval_and_interruption(context: RunContext) -> None:
    checkpoints = opened(context, interval_seconds=3600)
    assert checkpoints.load("me") is None
    assert not checkpoints.due()
    checkpoints.interrupt()
    assert checkpoints.due()
    with pytest.raises(Interrupted):
        checkpoints.save(12, "me", state(12))
    assert place(context).names() == ["000000012.npz"], "it is there before the run ends"


def test_interval_zero_saves_and_looks_for_nothing(context: RunContext) -> None:
    save(opened(context), 5)
    none = opened(context, interval_seconds=0)
    assert none.load("me") is None
    assert not none.due()
    none.interrupt()
    assert none.due()
    with pytest.raises(Interrupted):
        none.save(6, "me", state(6))
    assert place(context).names() == ["000000005.npz"]


def test_a_disk_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints = opened(context)
    assert checkpoints.load("me") is None
    checkpoints.save(5, "me", state(5))
    checkpoints.discard()
    assert "the state at step 5 could not be saved" in caplog.text


@pytest.mark.parametrize("context", ["s3"], indirect=True)
def test_an_upload_does_not_hold_up_training(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    arrives = threading.Event()
    kind = type(place(context))
    put_now = kind.put

    def put_slowly(self: CheckpointPlace, file: Path) -> None:
        arrives.wait()
        put_now(self, file)

    monkeypatch.setattr(kind, "put", put_slowly)
    checkpoints = opened(context)
    time.sleep(0.02)
    checkpoints.save(5, "me", state(5))  # returns, although nothing arrives
    time.sleep(0.02)
    assert not checkpoints.due(), "one upload at a time"
    arrives.set()
    checkpoints._wait_for_upload()
    assert checkpoints.due()
    assert step_of(opened(context).load("me")) == 5


def test_s3_gone_is_a_warning_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
        context = RunContext(workspace=f"s3://{server.new_bucket()}/workspace", run="flight-1")
        checkpoints = opened(context)
        save(checkpoints, 5)
        server.stop()
        checkpoints.save(6, "me", state(6))
        assert checkpoints._upload is not None
        checkpoints._upload.join()
        assert "checkpoint 000000006.npz could not be uploaded" in caplog.text
        assert opened(context).load("me") is None
        assert "checkpoints could not be looked for" in caplog.text
        server.start()
        save(checkpoints, 7)
        assert step_of(opened(context).load("me")) == 7
