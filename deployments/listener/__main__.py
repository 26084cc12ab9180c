"""Run the listener of an AWS account until SIGTERM."""

import sys

import boto3
from prefect.client.orchestration import get_client

from deployments.aws.runtime.service import exit_status_of, on_end_signal, served_account
from deployments.listener.messages import Messages
from deployments.listener.runs import Runs
from deployments.listener.service import Listener
from deployments.listener.signals import Places
from deployments.listener.uploads import Limits
from deployments.settings import DeploymentSettings
from tasks.core.storage.s3_folder import CLIENT_CONFIG
from tasks.running.settings import use_settings


def serve() -> None:
    """Listen until SIGTERM. Raises InputError if there is no account, or for invalid limits."""
    settings = use_settings(DeploymentSettings())
    limits = Limits.from_json(settings.upload_limits)
    account = served_account(settings)
    messages = Messages(boto3.client("sqs"), account.queue_url, account.dead_letters_url)
    places = Places(boto3.client("s3", config=CLIENT_CONFIG), account.results, account.public_url)
    with get_client(sync_client=True) as client:
        listener = Listener(messages, places, Runs(client), account.uploads_bucket, limits)
        on_end_signal(listener.stop)
        listener.listen()


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
