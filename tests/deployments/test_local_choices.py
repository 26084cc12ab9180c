"""`spaceport up` keeps earlier choices, and its options change one each."""

import http.server
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from deployments.local.processes import start, stop
from deployments.local.server import UNASSIGNED_PORTS, Choices, _has_other_workers, chosen
from deployments.local.state import LocalServer, folder_of, read_state, running_server, write_state
from deployments.local.status import pages_answer
from deployments.plan import Plan
from tasks.core.errors import InputError, ServerError
from tasks.core.viewer.serve import open_server
from tests.support.server_process import free_port

SECRET = "open-sesame"
HOOK = "http://hooks.test/services/secret"


@pytest.fixture
def before(tmp_path: Path) -> LocalServer:
    """All that can be chosen, chosen, and taken down."""
    port, pages_port = free_port(), free_port()
    plan = Plan(
        workspace=str(tmp_path / "workspace"),
        pages_url=f"http://127.0.0.1:{pages_port}/{SECRET}",
        hourly_cost_usd=0.5,
        dispatch=("train",),
        cpu_slots=3,
        gpu_slots=2,
        notify=HOOK,
    )
    return LocalServer(port=port, pages_port=pages_port, plan=plan, up=False)


def test_nothing_is_forgotten(before: LocalServer, tmp_path: Path) -> None:
    write_state(tmp_path, before)
    remembered = read_state(tmp_path)
    assert remembered == before
    assert running_server(tmp_path) is None
    assert chosen(Choices(), remembered, tmp_path, SECRET) == before.model_copy(update={"up": True})


def test_an_option_changes_one_thing(before: LocalServer, tmp_path: Path) -> None:
    port, pages_port = free_port(), free_port()
    was = before.model_copy(update={"up": True})
    assert chosen(Choices(port=port), before, tmp_path, SECRET) == was.model_copy(update={"port": port})
    for update in ({"gpu_slots": 4}, {"dispatch": ()}, {"workspace": "/elsewhere"}, {"hourly_cost_usd": 1.0}):
        plan = before.plan.model_copy(update=update)
        assert chosen(Choices.model_validate(update), before, tmp_path, SECRET) == was.model_copy(update={"plan": plan})
    longer = was.model_copy(update={"keep_days": 365})
    assert chosen(Choices(keep_days=365), before, tmp_path, SECRET) == longer
    assert chosen(Choices(), longer, tmp_path, SECRET) == longer
    silent = before.plan.model_copy(update={"notify": None})
    assert chosen(Choices(notify=""), before, tmp_path, SECRET) == was.model_copy(update={"plan": silent})
    moved = chosen(Choices(pages_port=pages_port), before, tmp_path, SECRET)
    assert (moved.port, moved.pages_port) == (before.port, pages_port)
    assert moved.plan.pages_url == f"http://127.0.0.1:{pages_port}/{SECRET}"


def test_the_pages_port_survives_a_bucket(before: LocalServer, tmp_path: Path) -> None:
    on_s3 = chosen(Choices(workspace="s3://bucket/prefix"), before, tmp_path, SECRET)
    assert on_s3.plan.pages_url is None
    assert "pages" not in on_s3.processes
    back = chosen(Choices(workspace=before.plan.workspace), on_s3, tmp_path, SECRET)
    assert (back.pages_port, back.plan) == (before.pages_port, before.plan)


def test_zero_takes_a_free_port(before: LocalServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before.port))
        taken.listen()
        with pytest.raises(InputError, match=f"{before.port} cannot be used .* --port, or 0"):
            chosen(Choices(), before, tmp_path, SECRET)
        assert chosen(Choices(port=0), before, tmp_path, SECRET).port != before.port


def test_zero_takes_a_port_that_the_system_gives_to_no_one_else(tmp_path: Path) -> None:
    """Its server starts seconds later; meanwhile other programs bind to port 0 and connect to servers."""
    for _ in range(20):
        server = chosen(Choices(workspace=str(tmp_path / "w"), port=0), None, tmp_path, SECRET)
        assert {server.port, server.pages_port} <= set(UNASSIGNED_PORTS)


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(http.HTTPStatus.NOT_FOUND)


def test_another_program_on_the_pages_port_is_not_taken_for_them(before: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with open_server(tmp_path / "runs", before.pages_port or 0, SECRET) as ours:
        threading.Thread(target=ours.serve_forever).start()
        assert pages_answer(before)
        ours.shutdown()
    assert not pages_answer(before)
    with http.server.HTTPServer(("127.0.0.1", before.pages_port or 0), _Stranger) as theirs:
        threading.Thread(target=theirs.serve_forever).start()
        assert not pages_answer(before)
        theirs.shutdown()


def test_one_port_is_not_enough(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(InputError, match="--pages-port"):
        chosen(Choices(workspace="/w", port=port, pages_port=port), None, tmp_path, SECRET)
    assert chosen(Choices(workspace="/w", port=65535), None, tmp_path, SECRET).pages_port != 65536


def test_the_choices_can_be_read_without_the_secret_in_them(before: LocalServer) -> None:
    assert before.choices == (
        f"--workspace {before.plan.workspace} --port {before.port} --pages-port {before.pages_port} --cpu-slots 3 "
        "--gpu-slots 2 --keep-days 30 --dispatch train --notify http://hooks.test/… (SPACEPORT_HOURLY_COST_USD=0.5)"
    )


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir()
    (folder_of(tmp_path) / "up.json").write_text("{")
    with pytest.raises(ServerError, match=r"up\.json cannot be read .* remove it"):
        read_state(tmp_path)


def test_workers_of_an_earlier_release_are_known_by_their_pool(tmp_path: Path) -> None:
    def worker(pool: str) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(600)", "--pool", pool]

    for pool, other in (("cpu", True), ("spaceport-cpu", False)):
        start("worker-cpu", worker(pool), folder_of(tmp_path), os.environ)
        try:
            assert _has_other_workers(folder_of(tmp_path)) is other
        finally:
            stop("worker-cpu", folder_of(tmp_path), 5)
    assert not _has_other_workers(folder_of(tmp_path))
