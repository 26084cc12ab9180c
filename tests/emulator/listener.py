"""The listener as its service runs it, in the account that the emulator plays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.aws.runtime.infrastructure import PARAMETER, VARIABLE
from tests.conftest import REPOSITORY
from tests.emulator.account import Emulated
from tests.support.local_server import Served
from tests.support.patience import ended


@contextmanager
def listening(emulated: Emulated, server: Served) -> Iterator[dict[str, str]]:
    """A listener until the block ends; yields the environment in which commands find the account and the server."""
    environment = {
        **os.environ,
        **emulated.environment,
        VARIABLE: PARAMETER,
        **server.access,
        "PYTHONPATH": str(REPOSITORY),
    }
    listener = subprocess.Popen([sys.executable, "-m", "deployments.listener"], env=environment, cwd=REPOSITORY)
    try:
        yield environment
    finally:
        listener.terminate()
        assert ended(listener, "the listener") == 0
