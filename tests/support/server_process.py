"""Servers as processes of the tests' own: a free port, an end with the context, and waiting until they answer."""

import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.patience import STALL_SECONDS, eventually, work_of


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_process(
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the log's folder, which ends with the context."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:  # no test asks how such a server ends
            process.kill()
            process.wait()


def until_answers(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path) -> None:
    """Wait until a server answers; fails with its log when it has ended."""

    def ready() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        return answers()

    eventually(ready, f"answer of the server that writes {log}", lambda: work_of(process.pid))


def is_up(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=STALL_SECONDS, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
