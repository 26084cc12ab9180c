"""Messages become runs: exactly one for each version of an upload, whatever the queue does."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Completed, Failed, Running, State

from deployments.apply import apply_all
from deployments.listener.runs import Runs
from deployments.listener.service import Listener
from deployments.listener.signals import Places
from deployments.listener.uploads import DONE, FAILED, Upload
from deployments.plan import Plan
from tests.conftest import REPOSITORY
from tests.deployments.listener.fakes import Broken, Refusing, Slow, Unsettled
from tests.deployments.listening import Account, event, listening, prefect_process, runs_of
from tests.support.aws_server import AwsServer
from tests.support.patience import ended, eventually, work_of

MANY, DUPLICATES = 200, 40


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A server of its own with the deployment `reconstruct`; no worker takes its runs.

    Our server, since Prefect's own lets writers of its SQLite fail that meet: docs/deploy.md.
    """
    folder = tmp_path_factory.mktemp("server")
    with prefect_process(folder) as api_url, temporary_settings({PREFECT_API_URL: api_url}):
        asyncio.run(apply_all(Plan(workspace=str(folder / "workspace"))))
        with get_client(sync_client=True) as client:
            yield Runs(client)


def test_many_at_once_with_duplicates_out_of_order_and_poisoned(deployed: Runs, account: Account) -> None:
    uploads = [account.upload(f"uploads/{i:03}.zip") for i in range(MANY - 2)]
    uploads.append(account.upload("uploads/folder/READY.json", b'{"options": {"preset": "draft"}}'))
    older = account.upload("uploads/again/READY.json")
    uploads.append(account.upload("uploads/again/READY.json", b'{"fresh": true}'))
    wrong = account.upload("uploads/wrong/READY.json", b'{"options": {"nonsense": 1}}')
    bodies = [event(upload) for upload in uploads]
    dice = random.Random(0)
    bodies += [dice.choice(bodies) for _ in range(DUPLICATES)]
    dice.shuffle(bodies)
    poisoned = ["no json", event(wrong)]
    account.send(*bodies, event(older), *poisoned)
    with listening(account.listener(deployed)):
        eventually(lambda: account.waiting() == 0, "empty queue", account.waiting)
    runs = runs_of(account.infrastructure.uploads_bucket)
    assert sorted(run.idempotency_key or "" for run in runs) == sorted(upload.identity for upload in uploads)
    assert len({run.name for run in runs}) == len(runs), "names tell runs apart"
    assert len({run.parameters["destination"] for run in runs}) == len(runs), "every result has a place of its own"
    by_name = {capture_of(run): run.parameters for run in runs}
    assert by_name["folder"]["photos"] == f"s3://{account.infrastructure.uploads_bucket}/uploads/folder"
    assert by_name["folder"]["destination"].startswith(f"{account.infrastructure.results}/folder-")
    assert by_name["folder"]["options"]["preset"] == "draft"
    assert by_name["again"]["fresh"] is True
    dead = dict(account.dead())
    assert set(dead) == set(poisoned)
    assert "nonsense" in dead[event(wrong)]
    failed = account.places().signal(wrong, FAILED)
    assert failed is not None
    assert "nonsense" in (failed.error or "")


def capture_of(run: FlowRun) -> str:
    upload = Upload.of_identity(run.idempotency_key)
    assert upload is not None
    return upload.capture


def in_state(run: UUID, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, state, force=True)


def test_ends_of_runs_are_told_beside_the_uploads(deployed: Runs, account: Account) -> None:
    good, bad = account.upload("uploads/good/READY.json"), account.upload("uploads/bad.zip")
    report = {"train": {"psnr_db": 27.5}, "seconds": {"total": 61.0}, "cost_usd": {"total": 0.2}}
    account.result(good, "report.json", json.dumps(report).encode())
    account.send(event(good), event(bad))
    places = account.places()
    with listening(account.listener(deployed)):
        eventually(lambda: len(runs_of(good.bucket)) == 2, "two runs")
        runs = {capture_of(run): run.id for run in runs_of(good.bucket)}
        for run in runs.values():
            in_state(run, Running())
        in_state(runs["good"], Completed())
        in_state(runs["bad"], Failed(message="PhotosError: 2 photos; 3 are needed."))
        eventually(lambda: places.signal(good, DONE) is not None, DONE)
        eventually(lambda: places.signal(bad, FAILED) is not None, FAILED)
    done, failed = places.signal(good, DONE), places.signal(bad, FAILED)
    assert done is not None
    assert failed is not None
    assert (done.psnr_db, done.seconds, done.cost_usd) == (27.5, 61.0, 0.2)
    assert done.run == str(runs["good"])
    assert done.results == places.destination(good)
    assert (done.page or "").startswith("http")
    assert f"results/{good.place}/index.html" in (done.page or "")
    assert failed.error == "PhotosError: 2 photos; 3 are needed."
    # A person retries the failed one in Prefect's UI.
    with listening(account.listener(deployed)):
        eventually(lambda: places.signal(bad, FAILED) is not None, FAILED)
        for state in (AwaitingRetry(), Running(), Completed()):
            in_state(runs["bad"], state)
        eventually(lambda: places.signal(bad, DONE) is not None, DONE)
        eventually(lambda: places.signal(bad, FAILED) is None, "DONE.json alone")
    # The same capture again: what answered the older version is gone as soon as the newer one has its run.
    newer = account.upload("uploads/good/READY.json")
    account.send(event(newer))
    with listening(account.listener(deployed)):
        eventually(lambda: account.waiting() == 0, "an empty queue")
    assert places.signal(newer, DONE) is None
    assert len(runs_of(good.bucket)) == 3


def test_a_newer_version_cancels_the_run_of_the_older_one(deployed: Runs, account: Account) -> None:
    older = account.upload("uploads/flight/READY.json")
    neighbour = account.upload("uploads/flight.zip")
    for upload in (older, neighbour):
        account.handle(deployed, upload)
    newer = account.upload("uploads/flight/READY.json")
    account.handle(deployed, newer)
    states = {run.idempotency_key: run.state_name for run in runs_of(older.bucket)}
    assert states == {older.identity: "Cancelled", neighbour.identity: "Scheduled", newer.identity: "Scheduled"}
    account.handle(deployed, older)  # its message comes once more
    assert len(runs_of(older.bucket)) == 3


def test_runs_that_compute_everything_anew_are_counted(deployed: Runs, account: Account) -> None:
    upload = account.upload("uploads/fresh/READY.json", b'{"fresh": true}')
    before = deployed.fresh_since(upload, datetime.now(UTC) - timedelta(days=1))
    account.handle(deployed, upload)
    account.handle(deployed, account.upload("uploads/other/READY.json"))
    other = upload.model_copy(update={"version": "other"})
    assert deployed.fresh_since(other, datetime.now(UTC) - timedelta(days=1)) == before + 1
    assert deployed.fresh_since(upload, datetime.now(UTC) - timedelta(days=1)) == before, "it does not count itself"


def test_an_unforeseen_error_of_signals_ends_the_listener(account: Account) -> None:
    class Unforeseen(Slow):
        def ended(self, since: datetime) -> list[FlowRun]:
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        account.listener(Unforeseen(0, 0)).listen(1, 0.1)


def test_a_message_stays_ours_while_it_is_worked_on(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than its visibility, and while the server is away: it is delivered once."""
    monkeypatch.setattr("deployments.listener.service.RETRY_SECONDS", 0.1)
    visibility_seconds, works_seconds = 6, 9.0  # it is extended every 2 s, so that a busy machine may be 4 s late
    runs = Slow(away=2, seconds=works_seconds)
    account.send(event(account.upload("uploads/slow.zip")))
    with listening(account.listener(runs, account.messages(visibility_seconds))):
        eventually(lambda: account.waiting() == 0, "an empty queue")
    assert runs.asked == 3, "two answers that nobody is there, and one run"


@pytest.mark.parametrize("kind", ["done", "no json", "wrong options", "given back", "announced"])
def test_a_message_that_cannot_be_settled_ends_no_listener(account: Account, kind: str) -> None:
    content = b'{"options": {"nonsense": 1}}' if kind in ("wrong options", "announced") else b"{}"
    upload = account.upload("uploads/some/READY.json", content)
    account.send("no json" if kind == "no json" else event(upload))
    there = account.infrastructure
    messages = Unsettled(account.sqs, there.queue_url, there.dead_letters_url)
    runs: Runs = Broken(0, 0) if kind == "given back" else Slow(0, 0)
    places: Places = account.places()
    if kind == "announced":
        places = Refusing(places, upload)
        messages = account.messages()
    listener = Listener(messages, places, runs, there.uploads_bucket)
    (message,) = messages.take(1)
    listener.handle(message)
    assert account.waiting() == 1, "it is delivered again"


def test_what_fails_again_and_again_is_put_aside_with_the_reason(account: Account) -> None:
    upload = account.upload("uploads/cursed.zip")
    account.send(event(upload))
    listener = account.listener(Broken(0, 0))
    messages = account.messages()
    for delivery in range(1, 6):
        (message,) = messages.take(1)
        assert message.deliveries == delivery
        listener.handle(message)
        if delivery < 5:  # it would come back in some minutes
            account.sqs.change_message_visibility(
                QueueUrl=account.infrastructure.queue_url, ReceiptHandle=message.handle, VisibilityTimeout=0
            )
    assert account.waiting() == 0
    assert [reason for _, reason in account.dead()] == ["ValueError: a fault of ours, with a secret"]
    told = account.places().signal(upload, FAILED)
    assert told is not None
    assert "5 tries" in (told.error or "")
    assert "secret" not in (told.error or ""), "that is for the operator, who has the dead letters"


@pytest.mark.usefixtures("deployed")
def test_the_process_listens_until_it_is_told_to_stop(aws: AwsServer, account: Account) -> None:
    parameter = f"/{account.infrastructure.uploads_bucket}"
    content = account.infrastructure.model_dump_json()
    aws.client("ssm").put_parameter(Name=parameter, Value=content, Type="String")
    environment = {
        **os.environ,
        **aws.environment,
        "SPACEPORT_INFRASTRUCTURE": parameter,
        "SPACEPORT_UPLOAD_LIMITS": '{"max_preset": "draft"}',
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PYTHONPATH": str(REPOSITORY),
    }
    upload = account.upload("uploads/by-process.zip")
    account.send(event(upload))
    process = subprocess.Popen([sys.executable, "-m", "deployments.listener"], env=environment, cwd=REPOSITORY)
    try:
        eventually(lambda: len(runs_of(upload.bucket)) == 1, "run", lambda: work_of(process.pid))
        process.send_signal(signal.SIGTERM)
        assert ended(process, "the listener") == 0
    finally:
        process.kill()
        process.wait()
    assert account.waiting() == 0
    (run,) = runs_of(upload.bucket)
    assert run.parameters["options"]["preset"] == "draft", "the limits of its environment hold"
