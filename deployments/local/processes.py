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

LOG_BYTES = 16 * 2**20  # of a log, and as much again of the earlier one


class Detached(BaseModel):
    """A process of ours. A pid alone says little: once the process has ended, another one may get its number."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created_at: float  # seconds since the epoch; all of them change when the machine's clock is set
    after_boot: float | None = None  # seconds; null in records of earlier versions
    boot: str = ""  # another one after each start of the machine, where the system says it

    @classmethod
    def of(cls, name: str, pid: int) -> "Detached":
        """A living process. Raises psutil.NoSuchProcess."""
        created_at = psutil.Process(pid).create_time()
        after_boot = created_at - psutil.boot_time()
        return cls(name=name, pid=pid, created_at=created_at, after_boot=after_boot, boot=LockHolder.here().boot)

    def process(self) -> psutil.Process | None:
        """The living process, or None when it has ended, also when another process has its pid now."""
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
    """Where a process of that name writes its output; what it wrote before that is beside it, in `….log.1`."""
    return folder / f"{name}.log"


def shorten_logs(names: Iterable[str], folder: Path) -> None:
    """Empty every log that is longer than LOG_BYTES, while its process keeps writing to it.

    The earlier lines take the place of those in `….log.1`; what is written during the copy is lost. A log that
    cannot be copied stays as it is.
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
    with log.open("ab") as output:  # at its end, wherever that is after `shorten_logs`
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
        child.kill()  # no command could find it again
        child.wait()
        raise
    return detached


def find(name: str, folder: Path) -> Detached | None:
    """The living process of that name."""
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
    """End a process and all that it started; says whether there was one.

    Asked first (SIGTERM), killed when it is still there after `patience_seconds`.
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
    """Kill a process and all that it started: none of them reports its end. Returns whether there was one."""
    detached = find(name, folder)
    process = detached.process() if detached else None
    if process is None:
        _record(folder, name).unlink(missing_ok=True)
        return False
    with suppress(psutil.NoSuchProcess):
        process.suspend()  # it starts no further ones
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=5)
    _record(folder, name).unlink(missing_ok=True)
    return True


def last_lines(folder: Path, name: str, count: int = 3) -> str:
    """The end of a process's log, for a message."""
    log = log_file(folder, name)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(line.strip() for line in lines[-count:])


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
