"""A server that runs and does not answer: nothing is stopped unasked."""

import os
import sys
from pathlib import Path

import pytest

from deployments.local import server as local_server
from deployments.local.processes import find, start, stop
from deployments.local.server import Choices, bring_up, take_down
from deployments.local.state import SERVER, LocalServer, folder_of, read_state, write_state
from deployments.plan import Plan
from tasks.core.errors import ServerError
from tests.support.server_process import free_port


def test_down_asks_before_it_stops_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "ANSWER_SECONDS", 1.0)
    start(SERVER, [sys.executable, "-c", "import time; time.sleep(600)"], folder_of(tmp_path), os.environ)
    server = LocalServer(port=free_port(), pages_port=None, plan=Plan(workspace="/w"))
    write_state(tmp_path, server)

    def end_runs(client: object) -> None:
        raise AssertionError("it was reached")

    with pytest.raises(ServerError, match="not known whether runs are in progress; `spaceport down --now`"):
        take_down(tmp_path, print, end_runs, now=False)
    assert find(SERVER, folder_of(tmp_path)) is not None
    assert take_down(tmp_path, print, end_runs, now=True) == [SERVER]
    assert find(SERVER, folder_of(tmp_path)) is None
    assert read_state(tmp_path) == server.model_copy(update={"up": False})


def test_up_says_that_its_server_has_stopped_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(local_server, "START_SECONDS", 0.0)  # it had its time to start
    start(SERVER, [sys.executable, "-c", "import time; time.sleep(600)"], folder_of(tmp_path), os.environ)
    write_state(tmp_path, LocalServer(port=free_port(), pages_port=None, plan=Plan(workspace="/w")))
    try:
        with pytest.raises(ServerError, match="has not answered within 1 s: `spaceport down --now` stops it"):
            bring_up(Choices(), tmp_path, print)
    finally:
        assert stop(SERVER, folder_of(tmp_path), 0.0)
