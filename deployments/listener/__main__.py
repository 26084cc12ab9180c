"""Run the listener of an AWS account until SIGTERM."""

import logging
import signal
import sys

import boto3
from prefect.client.orchestration import get_client

from deployments.infrastructure import PARAMETER, VARIABLE, infrastructure_from_environment
from deployments.listener.messages import Messages
from deployments.listener.runs import Runs
from deployments.listener.service import Listener
from deployments.listener.signals import Places
from tasks.core.errors import SpaceportError
from tasks.core.storage.s3_folder import CLIENT_CONFIG


def main() -> int:
    """Exit status 2 when there is no account to listen for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    try:
        account = infrastructure_from_environment()
    except SpaceportError as error:
        print(f"error {error}", file=sys.stderr)
        return error.exit_status
    if account is None:
        print(f"error {VARIABLE} is not set: {PARAMETER} is its usual value.", file=sys.stderr)
        return 2
    messages = Messages(boto3.client("sqs"), account.queue_url, account.dead_letters_url)
    places = Places(boto3.client("s3", config=CLIENT_CONFIG), account.results, account.public_url)
    with get_client(sync_client=True) as client:
        listener = Listener(messages, places, Runs(client), account.uploads_bucket)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        listener.listen()
    return 0


if __name__ == "__main__":
    sys.exit(main())
