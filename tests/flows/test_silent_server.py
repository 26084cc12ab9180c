"""A Prefect server that falls silent or refuses in the middle of a command: one sentence, and an end."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.support.local_server import spaceport
from tests.support.patience import ended, eventually, work_of

QUICKLY = {"PREFECT_API_REQUEST_TIMEOUT": "0.5", "PREFECT_CLIENT_MAX_RETRIES": "0"}

# A command that got SIGTERM, whose main thread waits for Prefect's client. Its stage saves its work meanwhile.
COMMAND = """
import subprocess, sys, time
from pathlib import Path
from flows.cli import connection, ending
from tasks.running.interruption import run_apart

connection.ANSWER_SECONDS = ending.LOOK_SECONDS = 0.1

def save():
    ending.end_when_silent(143)
    time.sleep(1)
    Path(sys.argv[1]).write_text("saved")

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
run_apart(save, lambda: None)
print("waits for the server", flush=True)
time.sleep(600)
"""


@contextmanager
def server(status: int | None) -> Iterator[str]:
    """Answers when it is asked how it is, and everything else with `status`, or not at all."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200 if self.path in ("/api/health", "/api/admin/version") else status)

        def do_POST(self) -> None:
            self.answer(status)

        def answer(self, status: int | None) -> None:
            if status is None:
                over.wait()
                return
            self.send_response(status)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b"no reason")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.server_address[1]}/api"
        finally:
            over.set()
            opened.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (None, "does not answer any more (ReadTimeout). What was finished is in the workspace"),
        (500, "refused a request with status 500 (GET /api/csrf-token): no reason"),
    ],
)
def test_a_command_in_the_middle_of_its_questions_ends_in_a_sentence(
    status: int | None, says: str, tmp_path: Path
) -> None:
    with server(status) as url:
        done = spaceport(tmp_path / "home", "runs", PREFECT_API_URL=url, **QUICKLY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error The Prefect server at {url} {says}" + done.stderr.partition(says)[2]
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_signal_ends_it_once_its_work_is_saved(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(tmp_path / "work")],
            env={**os.environ, "PREFECT_API_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        [child] = eventually(lambda: psutil.Process(process.pid).children(), "child")
        assert ended(process, "the command") == 143
        assert (tmp_path / "work").read_text() == "saved"
        eventually(lambda: not child.is_running(), "end of the child", lambda: work_of(child.pid))
        process.stdout.close()
