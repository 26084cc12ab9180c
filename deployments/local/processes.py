"""Processes that outlive the command that starts them, each with a record and a log in one folder."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.paths import private_folder, write_private
from tasks.core.storage.locks import LockHolder

LOG_BYTES = 16 * 2**20  # of a log, and the same for the earlier one


class Detached(BaseModel):
    """A process of ours. A pid alone does not identify it, because pids are reused after a process has ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created_at: float  # seconds since the epoch; changes if the machine's clock is set
    after_boot: float | None = None  # seconds; null in records of earlier versions
    boot: str = ""  # differs after each boot of the machine; empty if the system does not report it

    @classmethod
    def of(cls, name: str, pid: int) -> "Detached":
        """Describe a living process. Raises psutil.NoSuchProcess."""
        created_at = psutil.Process(pid).create_time()
        after_boot = created_at - psutil.boot_time()
        return cls(name=name, pid=pid, created_at=created_at, after_boot=after_boot, boot=LockHolder.here().boot)

    def process(self) -> psutil.Process | None:
        """Return the living process; None if it has ended, even if another process has its pid now."""
        try:
            process = psutil.Process(self.pid)
            return process if self._is(process) and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def _is(self, process: psutil.Process) -> bool:
        now = Detached.of(self.name, process.pid)
        if self.after_boot is None or now.after_boot is None:
            return abs(now.created_at - self.created_at) < 1.0
        return now.boot == self.boot and abs(now.after_boot - self.after_boot) < 1.0  # counted in hundredths


def log_file(folder: Path, name: str) -> Path:
    """Return the log of a process's output; earlier output is next to it, in `….log.1`."""
    return folder / f"{name}.log"


def shorten_logs(names: Iterable[str], folder: Path) -> None:
    """Empty every log that is longer than LOG_BYTES, while its process keeps writing to it.

    The lines replace those in `….log.1`; lines written during the copy are lost. A log that cannot be copied stays as
    it is.
    """
    for name in names:
        log = log_file(folder, name)
        with suppress(OSError):
            if log.stat().st_size > LOG_BYTES:
                earlier = _earlier(log)
                shutil.copyfile(log, earlier)
                os.truncate(log, 0)


def _earlier(log: Path) -> Path:
    return log.with_suffix(".log.1")


def start(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Detached:
    """Start a process in a session of its own, so that Ctrl-C in this terminal does not reach it."""
    private_folder(folder)
    log = log_file(folder, name)
    if log.exists():
        log.replace(_earlier(log))
    with log.open("ab") as output:  # appends, so that writing continues correctly after `shorten_logs`
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    detached = Detached.of(name, child.pid)
    try:
        write_private(_record(folder, name), detached.model_dump_json().encode())
    except OSError:
        child.kill()  # without a record, no command could find it again
        child.wait()
        raise
    return detached


def find(name: str, folder: Path) -> Detached | None:
    """Return the living process of that name, or None."""
    try:
        detached = Detached.model_validate_json(_record(folder, name).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        return None  # cut short by a full disk or a lost machine
    return detached if detached.process() is not None else None


def died(name: str, folder: Path) -> bool:
    """Whether a process of that name was started, was not stopped by `stop` or `kill`, and has ended."""
    return _record(folder, name).exists() and find(name, folder) is None


def stop(name: str, folder: Path, patience_seconds: float) -> bool:
    """End a process and all that it started. Returns whether there was one.

    It first receives SIGTERM, and is killed if it still lives after `patience_seconds`.
    """
    detached = find(name, folder)
    process = detached.process() if detached else None
    if process is None:
        _record(folder, name).unlink(missing_ok=True)
        return False
    family = [process, *process.children(recursive=True)]
    with suppress(psutil.NoSuchProcess):
        process.terminate()
    psutil.wait_procs([process], timeout=patience_seconds)
    for member in family:
        with suppress(psutil.NoSuchProcess):  # psutil also raises it for a pid that another process has now
            member.kill()
    psutil.wait_procs(family, timeout=5)
    _record(folder, name).unlink(missing_ok=True)
    return True


def kill(name: str, folder: Path) -> bool:
    """Kill a process and all that it started; none of them can report its end. Returns whether there was one."""
    detached = find(name, folder)
    process = detached.process() if detached else None
    if process is None:
        _record(folder, name).unlink(missing_ok=True)
        return False
    with suppress(psutil.NoSuchProcess):
        process.suspend()  # so that it starts no more processes
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=5)
    _record(folder, name).unlink(missing_ok=True)
    return True


def last_lines(folder: Path, name: str, count: int = 3) -> str:
    """Return the last lines of a process's log, for a message."""
    log = log_file(folder, name)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(line.strip() for line in lines[-count:])


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
