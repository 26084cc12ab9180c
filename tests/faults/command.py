"""`spaceport run` in a process of its own, watched from outside."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.own_home import without_users_servers
from tests.support.patience import ended, eventually, work_of

LOOK_SECONDS = 0.01  # the shortest stage takes a third of a second


def _hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which tests under nohup would hand down as ignored


class Command:
    """A command line that has been started."""

    def __init__(
        self,
        arguments: Sequence[str],
        home: Path,
        variables: dict[str, str] | None = None,
        *,
        module: Sequence[str] = ("flows.cli",),
        seen_from: Sequence[str] = (),
    ) -> None:
        """
        Args:
            arguments: what follows `spaceport`.
            home: SPACEPORT_HOME; the command starts beside it.
            variables: more of its environment.
            module: the Python module to run, and arguments that come before those of `spaceport`.
            seen_from: a command that runs it somewhere else.
        """
        kept = without_users_servers()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read after the process's end
        self.process = subprocess.Popen(
            [*seen_from, sys.executable, "-m", *module, *arguments],
            env={**kept, "SPACEPORT_HOME": str(home), "COLUMNS": "200", **(variables or {})},
            cwd=home.parent,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a signal for the tests is none for it
            preexec_fn=_hear_hangups,
        )

    @property
    def said(self) -> str:
        """All that it has written so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def has_begun(self, stage: str) -> bool:
        """Whether it has written a line of a stage's progress."""
        return re.search(rf"^{stage} ", self.said, re.MULTILINE) is not None

    def wait_for(self, stage: str, seconds: float = 0.0) -> None:
        """Wait until a stage has worked for some seconds, or the command has ended."""
        eventually(
            lambda: self.has_begun(stage) or self.is_over, stage, lambda: work_of(self.process.pid), LOOK_SECONDS
        )
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Wait for some seconds, or until the command has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.is_over:
            time.sleep(LOOK_SECONDS)

    def family(self) -> list[psutil.Process]:
        """Its processes at the moment, itself first."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def server(self) -> psutil.Process | None:
        """The Prefect server that it has started for itself."""
        for process in self.family()[1:]:
            try:
                if "deployments.local.prefect_server" in process.cmdline():
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit status when neither the process nor one that it has started is left."""
        family = self.family()
        self.process.send_signal(number)
        status = self.wait()
        eventually(lambda: not any(map(psutil.Process.is_running, family)), "end of all its processes")
        return status

    def wait(self) -> int:
        """Wait as long as it works. Returns its exit status."""
        return ended(self.process, "the command")
