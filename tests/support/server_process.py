"""Servers as processes of the tests' own: a free port, an end with the context, and waiting until they answer."""

import random
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from deployments.local.server import UNASSIGNED_PORTS
from tests.support.patience import STALL_SECONDS, eventually, work_of

_ports = iter(random.sample(UNASSIGNED_PORTS, len(UNASSIGNED_PORTS)))


def free_port() -> int:
    """A port of this machine that is free now, and that no `bind` to port 0 takes before its server starts.

    A process returns each one once. Another process can return the same one: one of 20,000.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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
