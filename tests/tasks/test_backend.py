"""The backend that a stage is expected to be computed by, before it runs."""

import json
from pathlib import Path

import pytest

from tasks.core.estimate import machine
from tasks.core.refs import RunContext
from tasks.running.gpu import computing_backend

CONTEXT = RunContext(workspace="workspace", run="run")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a driver, whatever this one has."""
    monkeypatch.setattr(machine, "NVIDIA_DRIVER", tmp_path / "none")


def test_a_choice_is_a_choice() -> None:
    assert computing_backend("train", "cuda", CONTEXT) == "cuda"
    assert computing_backend("train", "cpu", CONTEXT) == "cpu"


def test_auto_is_what_this_machine_has() -> None:
    assert computing_backend("train", "auto", CONTEXT) == "cpu"


@pytest.mark.parametrize(("gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_what_the_stages_machine_has(monkeypatch: pytest.MonkeyPatch, gpu: bool, expected: str) -> None:
    monkeypatch.setenv("SPACEPORT_DISPATCH", "train")
    machines = {"train": {"name": "elsewhere", "cores": 4, "gpu": gpu}}
    monkeypatch.setenv("SPACEPORT_MACHINES", json.dumps(machines))
    assert computing_backend("train", "auto", CONTEXT) == expected
    assert computing_backend("compress", "auto", CONTEXT) == "cpu", "which runs here"
    own_run = CONTEXT.model_copy(update={"dispatched": True})
    assert computing_backend("train", "auto", own_run) == "cpu", "the stage's own run looks at its own machine"
