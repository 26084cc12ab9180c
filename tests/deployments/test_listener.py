"""Messages become runs: exactly one for each version of an upload, whatever the queue does."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from botocore.exceptions import ClientError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Completed, Crashed, Failed, Running, State

from deployments.apply import apply_all
from deployments.listener.messages import Message, Messages
from deployments.listener.runs import Runs
from deployments.listener.service import Listener
from deployments.listener.signals import DONE, FAILED, Places, Signal
from deployments.listener.uploads import MessageError, Ready, Upload, read_event, read_ready
from deployments.plan import Plan
from tasks.core.errors import OptionsError
from tests.aws_server import AwsServer, aws_server
from tests.conftest import REPOSITORY
from tests.deployments.listening import Account, event, new_account, prefect_process
from tests.patience import ended, eventually, work_of

MANY, DUPLICATES = 200, 40
A, B = (Upload(bucket="b", key=f"uploads/{name}", version="1") for name in ("site a/READY.json", "x/y.zip"))


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture
def account(aws: AwsServer, request: pytest.FixtureRequest) -> Account:
    return new_account(aws, f"t{abs(hash(request.node.name)) % 10**9}")


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


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    thread = threading.Thread(target=listener.listen, args=(1, 0.2))
    thread.start()
    try:
        yield
    finally:
        listener.stop()
        thread.join()


def runs_of(bucket: str) -> list[FlowRun]:
    """Every run of an upload to that bucket."""
    found: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(limit=200, offset=len(found)):
            found += page
    return [run for run in found if (run.idempotency_key or "").startswith(f"s3://{bucket}/")]


@pytest.mark.parametrize(
    ("upload", "capture", "photos", "done"),
    [
        (A, "site a", "s3://b/uploads/site a", "uploads/site a/DONE.json"),
        (B, "x/y", "s3://b/uploads/x/y.zip", "uploads/x/y.zip.DONE.json"),
    ],
)
def test_an_event_names_an_upload(upload: Upload, capture: str, photos: str, done: str) -> None:
    read = read_event(event(upload), "b")
    assert read == upload
    assert (read.capture, read.photos, read.signal_key(DONE)) == (capture, photos, done)
    assert Upload.of_identity(read.identity) == read


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not an event"),
        ("[1]", "not an event"),
        ('{"Records": []}', "not an event"),
        (event(A, **{"detail-type": "Object Deleted"}), "Object Deleted"),
        (event(A, detail=None), "not an event"),
        (event(A.model_copy(update={"bucket": "other"})), "other"),
        (event(A.model_copy(update={"key": "uploads/site/photo.jpg"})), "neither"),
        (event(A.model_copy(update={"key": "uploads/READY.json"})), "neither"),
        (event(A.model_copy(update={"key": "uploads/../secret/READY.json"})), "neither"),
        (event(A.model_copy(update={"version": ""})), None),  # the ETag will do
    ],
)
def test_a_message_that_is_no_upload_says_why(body: str, says: str | None) -> None:
    if says is None:
        assert read_event(body, "b").version == "0" * 32
        return
    with pytest.raises(MessageError, match=says):
        read_event(body, "b")


def test_options_of_an_upload_are_checked() -> None:
    assert read_ready(b" ") == Ready()
    assert read_ready(b'{"options": {"preset": "draft"}, "fresh": true}').options.preset == "draft"
    for content, says in (
        (b'{"options": {"sfm": {"nonsense": 1}}}', "nonsense"),
        (b"{", "JSON"),
        (b" " * 70_000, "70000"),
    ):
        with pytest.raises(OptionsError, match=says):
            read_ready(content)


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
    by_name = {run.parameters["destination"].rpartition("/")[2]: run.parameters for run in runs}
    assert by_name["folder"]["photos"] == f"s3://{account.infrastructure.uploads_bucket}/uploads/folder"
    assert by_name["folder"]["destination"] == f"{account.infrastructure.results}/folder"
    assert by_name["folder"]["options"]["preset"] == "draft"
    assert by_name["again"]["fresh"] is True
    dead = dict(account.dead())
    assert set(dead) == set(poisoned)
    assert "nonsense" in dead[event(wrong)]
    failed = account.places().signal(wrong, FAILED)
    assert failed is not None
    assert "nonsense" in (failed.error or "")


def in_state(run: UUID, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, state, force=True)


def test_ends_of_runs_are_told_beside_the_uploads(deployed: Runs, account: Account) -> None:
    good, bad = account.upload("uploads/good/READY.json"), account.upload("uploads/bad.zip")
    report = {"train": {"psnr_db": 27.5}, "seconds": {"total": 61.0}, "cost_usd": {"total": 0.2}}
    account.s3.put_object(
        Bucket=account.infrastructure.results_bucket, Key="results/good/report.json", Body=json.dumps(report).encode()
    )
    account.send(event(good), event(bad))
    places = account.places()
    with listening(account.listener(deployed)):
        eventually(lambda: len(runs_of(good.bucket)) == 2, "two runs")
        runs = {run.parameters["destination"].rpartition("/")[2]: run.id for run in runs_of(good.bucket)}
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
    assert done.results == f"{account.infrastructure.results}/good"
    assert (done.page or "").startswith("http")
    assert "results/good/index.html" in (done.page or "")
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


def test_files_that_are_not_ours_hold_up_nobody(account: Account) -> None:
    """A DONE.json that somebody else has put there, and a report that is none."""
    strange, good = account.upload("uploads/strange/READY.json"), account.upload("uploads/good.zip")
    account.s3.put_object(Bucket=strange.bucket, Key=strange.signal_key(DONE), Body=b"[1, 2]")
    results = account.infrastructure.results_bucket
    account.s3.put_object(Bucket=results, Key="results/strange/report.json", Body=b'{"train": 7}')
    listener, places = account.listener(Ended([strange, good])), account.places()
    listener.announce_ends()
    for upload in (strange, good):
        told = places.signal(upload, DONE)
        assert told is not None, upload.key
        assert (told.version, told.psnr_db) == (upload.version, None)
    places.forget_older(strange)  # it may meet such a file as well
    assert places.signal(strange, DONE) is not None


def test_an_unforeseen_error_of_signals_ends_the_listener(account: Account) -> None:
    class Unforeseen(Slow):
        def ended(self, since: datetime) -> list[FlowRun]:
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        account.listener(Unforeseen(0, 0)).listen(1, 0.1)


class Slow(Runs):
    """A Prefect server that is away, and then takes its time."""

    def __init__(self, away: int, seconds: float) -> None:
        self.asked = 0
        self._away, self._seconds = away, seconds

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        self.asked += 1
        if self.asked <= self._away:
            raise httpx.ConnectError("no server")
        time.sleep(self._seconds)
        return FlowRun(flow_id=UUID(int=0), name=upload.capture)

    def ended(self, since: datetime) -> list[FlowRun]:
        return []


def test_a_message_stays_ours_while_it_is_worked_on(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than its visibility, and while the server is away: it is delivered once."""
    monkeypatch.setattr("deployments.listener.service.RETRY_SECONDS", 0.1)
    visibility_seconds, works_seconds = 6, 9.0  # it is extended every 2 s, so that a busy machine may be 4 s late
    runs = Slow(away=2, seconds=works_seconds)
    account.send(event(account.upload("uploads/slow.zip")))
    with listening(account.listener(runs, account.messages(visibility_seconds))):
        eventually(lambda: account.waiting() == 0, "an empty queue")
    assert runs.asked == 3, "two answers that nobody is there, and one run"


class Ended(Slow):
    """A server on which the runs of some uploads have completed."""

    def __init__(self, uploads: list[Upload]) -> None:
        super().__init__(0, 0)
        self.runs = [ended_run(upload, Completed()) for upload in uploads]

    def ended(self, since: datetime) -> list[FlowRun]:
        return self.runs


def ended_run(upload: Upload, state: State[Any], run: UUID | None = None) -> FlowRun:
    """A run that is in this final state since now."""
    return FlowRun(
        id=run or uuid4(),
        flow_id=UUID(int=0),
        idempotency_key=upload.identity,
        state=state,
        state_type=state.type,
        state_name=state.name,
        end_time=datetime.now(UTC),
    )


@pytest.mark.parametrize("first", [Failed(message="no memory"), Crashed(message="its task was evicted")])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_is_retried_ends_with_done_alone(account: Account, first: State[Any], restarted: bool) -> None:
    upload = account.upload("uploads/again.zip")
    runs, places = Ended([]), account.places()
    listener = account.listener(runs)
    failed = ended_run(upload, first)
    runs.runs = [failed]
    listener.announce_ends()
    told = places.signal(upload, FAILED)
    assert told is not None
    assert told.error == first.message
    runs.runs = [ended_run(upload, Failed(message="no disk"), failed.id)]
    listener.announce_ends()
    told = places.signal(upload, FAILED)
    assert told is not None
    assert told.error == "no disk", "the last failure counts"
    runs.runs = [ended_run(upload, Completed(), failed.id)]
    (account.listener(runs) if restarted else listener).announce_ends()
    done = places.signal(upload, DONE)
    assert done is not None
    assert done.run == str(failed.id)
    assert places.signal(upload, FAILED) is None


class Refusing(Places):
    """Buckets that refuse what concerns one upload."""

    def __init__(self, places: Places, refused: Upload) -> None:
        self.__dict__.update(places.__dict__)
        self.refused: Upload | None = refused

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        if upload == self.refused:
            raise REFUSED
        super().announce(upload, name, signal)


REFUSED = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")


def test_a_signal_that_cannot_be_put_waits_and_holds_up_no_other(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.ends.Ends.__init__.__defaults__", (0.0,))
    first, second = account.upload("uploads/first.zip"), account.upload("uploads/second.zip")
    places = Refusing(account.places(), first)
    listener = Listener(account.messages(), places, Ended([first, second]), first.bucket)
    listener.announce_ends()
    assert places.signal(second, DONE) is not None
    assert places.signal(first, DONE) is None
    places.refused = None
    listener.announce_ends()
    assert places.signal(first, DONE) is not None


def test_runs_of_other_buckets_and_of_other_keys_are_left_alone(account: Account) -> None:
    """Two accounts may share a Prefect server; and a run may have any tags and any key."""
    ours = account.upload("uploads/ours.zip")
    theirs = Upload(bucket="another-account", key="uploads/theirs.zip", version="1")
    nobodys = Upload(bucket=ours.bucket, key="elsewhere/file", version="1")
    listener = account.listener(Ended([theirs, nobodys, ours]))
    listener.announce_ends()
    assert account.places().signal(ours, DONE) is not None
    assert listener._ends._waiting == {}


class Unsettled(Messages):
    """A queue that takes nothing back: receipts have expired."""

    def _set_visibility(self, message: Message, seconds: int) -> None:
        raise REFUSED

    def done(self, message: Message) -> None:
        raise REFUSED

    def put_aside(self, message: Message, reason: str) -> None:
        raise REFUSED


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


def test_a_rejected_upload_has_failed_alone(account: Account) -> None:
    good = account.upload("uploads/capture/READY.json")
    account.listener(Ended([good])).announce_ends()
    wrong = account.upload("uploads/capture/READY.json", b"{")
    account.send(event(wrong))
    messages = account.messages()
    (message,) = messages.take(1)
    account.listener(Slow(0, 0), messages).handle(message)
    assert account.places().signal(wrong, FAILED) is not None
    assert account.places().signal(wrong, DONE) is None


def test_a_public_link_leads_to_a_capture_of_any_name(account: Account) -> None:
    upload = account.upload("uploads/site #1 100% ä/READY.json")
    places = Places(account.s3, account.infrastructure.results, "https://results.example.org/")
    page = places.done(upload, "run").page
    assert page == "https://results.example.org/site%20%231%20100%25%20%C3%A4/index.html"


class Broken(Slow):
    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        raise ValueError("a fault of ours")


def test_what_fails_again_and_again_is_put_aside_with_the_reason(account: Account) -> None:
    account.send(event(account.upload("uploads/cursed.zip")))
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
    assert [reason for _, reason in account.dead()] == ["ValueError: a fault of ours"]


@pytest.mark.usefixtures("deployed")
def test_the_process_listens_until_it_is_told_to_stop(aws: AwsServer, account: Account) -> None:
    parameter = f"/{account.infrastructure.uploads_bucket}"
    content = account.infrastructure.model_dump_json()
    aws.client("ssm").put_parameter(Name=parameter, Value=content, Type="String")
    environment = {
        **os.environ,
        **aws.environment,
        "SPACEPORT_INFRASTRUCTURE": parameter,
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
