"""Common parts of an AWS account's services: log, end on a signal, errors as one sentence."""

import logging
import signal
import sys
from collections.abc import Callable

from deployments.aws.runtime.infrastructure import PARAMETER, VARIABLE, Infrastructure, infrastructure_named
from deployments.settings import DeploymentSettings
from tasks.core.errors import InputError, SpaceportError


def exit_status_of(serve: Callable[[], None]) -> int:
    """Serve with a log on standard output. Returns 0, or prints an error's sentence and returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    try:
        serve()
    except SpaceportError as error:
        print(f"error {error}", file=sys.stderr)
        return error.exit_status
    return 0


def on_end_signal(stop: Callable[[], None]) -> None:
    """Call `stop`, which has to be safe in a signal handler, at SIGTERM and Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def served_account(settings: DeploymentSettings) -> Infrastructure:
    """Read the account that SPACEPORT_INFRASTRUCTURE names. Raises InputError, also if it is not set."""
    account = infrastructure_named(settings.infrastructure)
    if account is None:
        raise InputError(f"{VARIABLE} is not set: {PARAMETER} is its usual value.")
    return account
