"""The process that holds a lock, as the lock itself says."""

import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

_MOST_BYTES = 1000
_PID_NAMESPACE = Path("/proc/self/ns/pid")  # a link that names it; containers of one host name may have several
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine, another after a restart


class LockHolder(BaseModel):
    """A process and its machine."""

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str  # empty where the system does not say
    pid: int
    namespace: str = ""  # in which the number means something; empty where the system does not say

    @staticmethod
    def here() -> "LockHolder":
        """This process."""
        return LockHolder(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), namespace=_namespace())

    @classmethod
    def read(cls, descriptor: int) -> "LockHolder | None":
        """The process that an open lock file names; None where it names none. Raises OSError."""
        try:
            return cls.model_validate_json(os.pread(descriptor, _MOST_BYTES, 0))
        except ValidationError:
            return None

    def write(self, descriptor: int) -> None:
        """Put this process into an open lock file. Raises OSError."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self.model_dump_json().encode(), 0)

    def is_of_this_machine(self) -> bool:
        """Whether the process runs here, or did before the machine started anew."""
        here = LockHolder.here()
        return self.host == here.host or self.boot == here.boot != ""

    def has_died(self) -> bool:
        """Whether the process ran here and is gone. False where that cannot be known."""
        here = LockHolder.here()
        if self.host != here.host:
            return False  # another machine, or another container, which counts its processes by itself
        if self.boot != here.boot:
            return True
        if self.namespace != here.namespace:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"Process {self.pid} on {self.host}"


def _namespace() -> str:
    with suppress(OSError):
        return str(_PID_NAMESPACE.readlink())
    return ""


@lru_cache
def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""
