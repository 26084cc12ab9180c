"""Processes that outlive a command: found again, never mistaken for another user's, and ended with their children."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.local import processes
from deployments.local.processes import Detached, died, find, kill, log_file, start, stop
from tasks.core.errors import InputError
from tasks.core.viewer.serve import open_server
from tests.support.patience import STALL_SECONDS, eventually

SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


def said(folder: Path, name: str) -> str:
    return eventually(lambda: log_file(folder, name).read_text(encoding="utf-8"), f"word of {name}")


def test_a_process_is_found_by_the_next_command_and_stopped(tmp_path: Path) -> None:
    started = start("sleeper", SLEEPER, tmp_path, os.environ)
    assert find("sleeper", tmp_path) == started
    assert said(tmp_path, "sleeper") == "awake\n"
    assert stop("sleeper", tmp_path, patience_seconds=STALL_SECONDS)
    assert find("sleeper", tmp_path) is None
    assert not stop("sleeper", tmp_path, patience_seconds=STALL_SECONDS)


def test_a_clock_that_is_set_makes_no_process_a_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux counts from the start of the machine, whose time of day changes with the clock."""
    started = start("sleeper", SLEEPER, tmp_path, os.environ)
    try:
        boot_time = psutil.boot_time() + 3600
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot_time)
        assert psutil.Process(started.pid).create_time() > started.created_at + 3000
        assert find("sleeper", tmp_path) == started
        assert not died("sleeper", tmp_path)
    finally:
        assert stop("sleeper", tmp_path, patience_seconds=STALL_SECONDS)


def test_the_same_number_after_a_new_start_of_the_machine_is_another_process(tmp_path: Path) -> None:
    here = Detached.of("me", os.getpid())
    assert here.process() is not None
    assert here.model_copy(update={"boot": "an earlier one"}).process() is None
    old = here.model_copy(update={"after_boot": None, "boot": ""})  # as earlier versions wrote it
    assert old.process() is not None
    assert old.model_copy(update={"created_at": here.created_at - 60}).process() is None


def test_who_does_not_react_is_killed_with_its_children(tmp_path: Path) -> None:
    start("stubborn", STUBBORN, tmp_path, os.environ)
    child = psutil.Process(int(said(tmp_path, "stubborn")))
    assert stop("stubborn", tmp_path, patience_seconds=0.5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_log_stays_short_while_its_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10_000)
    writing = "import time\nfor i in range(10**9):\n print('line', i, flush=True); time.sleep(i % 50 == 0 and 0.01)"
    start("writer", [sys.executable, "-c", writing], tmp_path, os.environ)
    log, earlier = log_file(tmp_path, "writer"), tmp_path / "writer.log.1"
    others = tmp_path / "others.log"
    others.write_bytes(b"x" * 20_000)
    try:
        for _ in range(2):
            eventually(lambda: log.stat().st_size > 10_000, "long log")
            processes.shorten_logs(["writer", "reader"], tmp_path)
            assert earlier.stat().st_size > 10_000
            eventually(lambda: log.stat().st_size, "first line after that")
            assert log.read_bytes()[:1] != b"\0", "it is written on from its beginning"
    finally:
        stop("writer", tmp_path, patience_seconds=1)
    assert others.stat().st_size == 20_000


def test_a_log_that_cannot_be_copied_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    log_file(tmp_path, "server").write_text("a line of the server")
    (tmp_path / "server.log.1").mkdir()
    processes.shorten_logs(["server"], tmp_path)
    assert log_file(tmp_path, "server").read_text() == "a line of the server"


def test_who_is_killed_says_nothing_more(tmp_path: Path) -> None:
    reporting = "import time\ntry: print('awake', flush=True); time.sleep(600)\nfinally: print('the end', flush=True)"
    start(
        "reporter",
        [sys.executable, "-c", f"import signal, sys\nsignal.signal(15, sys.exit)\n{reporting}"],
        tmp_path,
        os.environ,
    )
    start("stubborn", STUBBORN, tmp_path, os.environ)
    child = psutil.Process(int(said(tmp_path, "stubborn")))
    assert said(tmp_path, "reporter") == "awake\n"
    assert kill("reporter", tmp_path)
    assert kill("stubborn", tmp_path)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert log_file(tmp_path, "reporter").read_text(encoding="utf-8") == "awake\n"
    assert find("reporter", tmp_path) is None
    assert not kill("reporter", tmp_path)


def test_a_pid_that_somebody_else_has_now_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ours = Detached(name="server", pid=stranger.pid, created_at=psutil.Process(stranger.pid).create_time() - 3600)
        (tmp_path / "server.json").write_text(ours.model_dump_json(), encoding="utf-8")
        assert not stop("server", tmp_path, patience_seconds=1)
        assert stranger.poll() is None
        assert not (tmp_path / "server.json").exists()
    finally:
        stranger.communicate(b"\n")


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"name": "ser', encoding="utf-8")
    assert find("server", tmp_path) is None


def test_pages_show_the_runs_and_nothing_else(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "meadow").mkdir(parents=True)
    (runs / "meadow" / "index.html").write_text("<html>page</html>", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (runs / "way-out").symlink_to(tmp_path)
    environment = {**os.environ, "SPACEPORT_PAGES_URL": "http://127.0.0.1:0/open-sesame"}
    server = start("pages", [sys.executable, "-m", "deployments.local.companions", str(runs)], tmp_path, environment)
    try:
        port = listening_port(server.pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/open-sesame", timeout=STALL_SECONDS) as http:
            assert http.get("/meadow/index.html").text == "<html>page</html>"
            for path in ("/way-out/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/way-out/"):
                assert http.get(path).status_code in (401, 404), path
        assert "open-sesame" not in " ".join(psutil.Process(server.pid).cmdline())
        with pytest.raises(InputError, match=f"Port {port}"):
            open_server(runs, port, "open-sesame")
    finally:
        stop("pages", tmp_path, patience_seconds=10)


def listening_port(pid: int) -> int:
    def listening() -> int | None:
        for connection in psutil.Process(pid).net_connections(kind="tcp4"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
                return int(connection.laddr.port)
        return None

    return eventually(listening, "port that is listened on")
