"""The ways of a validation, without the computing: what is brought where, how an end is heard of, and what is removed.

What is looked at in a result is tested on a real one, in tests/flows/test_reconstruct.py.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed, State
from typer.testing import CliRunner

from deployments.apply import apply_pools_only
from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.listener.signals import Places, Signal
from deployments.listener.uploads import DONE, FAILED, READY_FILE, Limits, Upload, read_ready
from deployments.plan import Plan
from deployments.pools import POOLS
from deployments.validation.in_this_process import InThisProcess
from deployments.validation.through_prefect import ThroughDeployment, ThroughListener
from deployments.validation.ways import Published, RunFailedError, Way
from flows.cli import validate
from flows.cli.app import app
from flows.reconstruct import reconstruct
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.errors import OptionsError, RegistrationError
from tasks.core.options import ReconstructOptions
from tasks.core.progress import ProgressCallback
from tasks.core.refs import RunContext
from tasks.core.storage import S3Folder, describe_output
from tasks.places.workspace import open_workspace
from tasks.running.run_folder import note_output
from tests.deployments.accounts import account
from tests.support.patience import eventually
from tests.support.s3_server import S3Server

OPTIONS = ReconstructOptions(preset="draft")


def take_photos(out: Path, options: DemoOptions, on_progress: ProgressCallback) -> None:
    out.mkdir()
    for i in range(options.photos):
        (out / f"{i}.jpg").write_bytes(b"photo %d" % i)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "taken" / "photos"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(b"photo %d" % i)
    return folder


def made_by_a_run(workspace: str, capture: str) -> None:
    """What a run leaves in the workspace: an output that it made, one that it found, and its own folder."""
    store, context = open_workspace(workspace), RunContext(workspace=workspace, run=f"{capture}-12345678")
    for stage, cached in (("photos", True), ("sfm", False)):
        note_output(store, context, stage, "abc", cached=cached)
        with store.new_output(stage, "abc") as folder:
            (folder / "file").write_text(stage)
            store.commit(folder, stage, "abc", describe_output(folder, stage, {}, "1", 1.0))
    store.write_run_file(context.run, "pictures/preview.jpg", b"picture")


def is_tidy(workspace: str, capture: str) -> bool:
    """Nothing of the capture is left, and what its run had found is still there."""
    store = open_workspace(workspace)
    left = [name for run in store.run_names(capture) for name in store.run_files(run)]
    return store.find("photos", "abc") is not None and store.find("sfm", "abc") is None and left == []


class Account:
    """Buckets on a real S3 server, and a stand-in for listener and run."""

    def __init__(self, server: S3Server) -> None:
        self.uploads, self.results = S3Folder(server.client(), server.new_bucket()), server.new_bucket()
        self.infrastructure: Infrastructure = account(
            uploads_bucket=self.uploads.bucket,
            results_bucket=self.results,
            workspace=f"s3://{self.results}/workspace",
            results=f"s3://{self.results}/results",
        )
        self.places = Places(server.client(), self.infrastructure.results, None)
        self.captures: list[str] = []

    def answer(self, name: str, publish: Callable[[str], None]) -> None:
        """Wait for one READY.json and put a signal beside it; `publish` is given the destination."""

        def ready() -> list[str]:
            return [each.name for each in self.uploads.objects() if each.name.endswith(READY_FILE)]

        keys = eventually(ready, "READY.json")
        upload = Upload(bucket=self.uploads.bucket, key=keys[0], version="1")
        assert read_ready(self.places.content(upload), Limits()).fresh
        self.captures.append(upload.capture)
        made_by_a_run(self.infrastructure.workspace, upload.capture)
        publish(self.places.destination(upload))
        run = FlowRun(flow_id=UUID(int=0))
        signal = self.places.done(upload, run) if name == DONE else Signal(version="1", run="a run", error="no GPU")
        self.places.announce(upload, name, signal)

    def left(self) -> list[str]:
        """Objects of uploads and results."""
        results = S3Folder(self.uploads.client, self.results, "results")
        return [each.name for place in (self.uploads, results) for each in place.objects()]


@pytest.fixture
def there(s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    made = Account(s3_environment)
    monkeypatch.setattr(validate, "infrastructure_named", lambda name: made.infrastructure)
    monkeypatch.setattr("tasks.core.demo.flight.fly", take_photos)  # nobody looks at them; a flight takes seconds
    monkeypatch.setattr(validate, "POLL_SECONDS", 0.1)
    return made


@pytest.mark.parametrize(("name", "says"), [(FAILED, "no GPU"), (DONE, "report.json is not at")])
def test_a_run_that_fails_and_a_result_that_is_none_end_with_one(there: Account, name: str, says: str) -> None:
    def publish(destination: str) -> None:
        bucket, _, prefix = destination.removeprefix("s3://").partition("/")
        S3Folder(there.uploads.client, bucket, prefix).write("index.html", b"<html>no splat</html>")

    player = threading.Thread(target=there.answer, args=(name, publish))
    player.start()
    ended = CliRunner().invoke(app, ["validate", "--timeout", "3600"])
    player.join()
    assert ended.exit_code == 1, ended.output
    assert says in ended.output
    assert "→" in ended.output
    assert f"upload to s3://{there.uploads.bucket}/uploads/validation-" in ended.output
    assert there.left() == []
    assert is_tidy(there.infrastructure.workspace, there.captures[0])


def test_nobody_who_listens_is_not_waited_for_longer_than_asked(there: Account) -> None:
    way = ThroughListener(there.infrastructure, "validation-0")
    findings = {each.part: each for each in validate.Validation(way, 0.3, False, lambda _: None).findings()}
    assert not findings["run"].ok
    assert "waited for DONE.json" in findings["run"].says
    assert not findings["removed"].ok, "whoever listens later may still make more"
    assert there.left() == []


def test_what_was_made_can_be_kept(there: Account) -> None:
    way = ThroughListener(there.infrastructure, "validation-1")
    list(validate.Validation(way, 0.1, True, lambda _: None).findings())
    assert f"uploads/validation-1/{READY_FILE}" in there.left()


def test_an_error_on_the_way_removes_what_was_made(there: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    way = ThroughListener(there.infrastructure, "validation-2")

    def interrupted() -> Published | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(way, "ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(validate.Validation(way, 60, False, lambda _: None).findings())
    assert there.left() == []


@pytest.fixture
def client(prefect_server: None, tmp_path: Path) -> Iterator[SyncPrefectClient]:
    """With the deployment, whose runs no worker takes."""
    workspace = str(tmp_path / "workspace")
    asyncio.run(apply_pools_only(Plan(workspace=workspace)))
    reconstruct.to_deployment(name="reconstruct", work_pool_name="spaceport-cpu").apply()
    with get_client(sync_client=True) as client:
        yield client
        for name in POOLS:
            client.delete_work_pool(name)


def started(client: SyncPrefectClient, photos: Path, workspace: Path) -> tuple[ThroughDeployment, UUID]:
    way = ThroughDeployment(client, None, "validation-3")
    way.start(photos, OPTIONS)
    assert way.ended() is None
    assert "Scheduled" in way.waits_for()
    runs = [run for run in client.read_flow_runs() if run.name == "validation-3"]
    (run,) = [run for run in runs if run.state is not None and not run.state.is_final()]
    place = workspace / "validation" / "validation-3"
    assert run.parameters["photos"] == str(place / "photos")
    assert run.parameters["fresh"] is True
    assert {path.name for path in (place / "photos").iterdir()} == {"0.jpg", "1.jpg", "2.jpg"}
    return way, run.id


def end(client: SyncPrefectClient, run: UUID, state: State) -> None:
    client.set_flow_run_state(run, state, force=True)


def test_a_run_of_the_deployment_is_followed_to_its_end(
    client: SyncPrefectClient, photos: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    way, run = started(client, photos, workspace)
    end(client, run, Completed())
    published = way.ended()
    assert published is not None
    assert published.page == str(workspace / "validation" / "validation-3" / "splat" / "index.html")
    made_by_a_run(str(workspace), "validation-3")
    assert way.clean_up() == 1
    assert is_tidy(str(workspace), "validation-3")
    assert not (workspace / "validation").exists()


def test_a_run_of_the_deployment_that_fails_says_why(client: SyncPrefectClient, photos: Path, tmp_path: Path) -> None:
    way, run = started(client, photos, tmp_path / "workspace")
    end(client, run, Failed(message="3 of 14 photos registered"))
    with pytest.raises(RunFailedError, match="Failed: 3 of 14 photos"):
        way.ended()


def test_a_run_of_the_deployment_can_be_stopped(client: SyncPrefectClient, photos: Path, tmp_path: Path) -> None:
    way: Way
    way, run = started(client, photos, tmp_path / "workspace")
    assert way.stop(), "a run that nobody works on is cancelled at once"
    assert client.read_flow_run(run).state_name in ("Cancelled", "Cancelling")


def test_another_workspace_than_the_deployments_is_refused(client: SyncPrefectClient) -> None:
    with pytest.raises(OptionsError, match=r"works in .*, not in /elsewhere"):
        ThroughDeployment(client, "/elsewhere", "validation-4")


def test_without_a_server_the_flow_runs_here_and_its_error_is_told(
    s3_environment: S3Server, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a workspace on S3."""
    bucket = S3Folder(s3_environment.client(), s3_environment.new_bucket())
    monkeypatch.setenv("SPACEPORT_WORKSPACE", "elsewhere")  # and set back at the end
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    workspace = f"s3://{bucket.bucket}/field"
    seen: list[str] = []

    def refuse(photos: str, destination: str, options: ReconstructOptions, fresh: bool) -> None:
        seen.extend(each.name for each in bucket.objects())
        made_by_a_run(workspace, "validation-5")
        S3Folder(bucket.client, bucket.bucket, destination.removeprefix(f"s3://{bucket.bucket}/")).write("a", b"half")
        raise RegistrationError("3 of 14 photos could be placed.")

    way = InThisProcess(workspace, "validation-5", refuse)
    way.start(photos, OPTIONS)
    assert seen == [f"field/validation/validation-5/photos/{i}.jpg" for i in range(3)]
    with pytest.raises(RunFailedError, match="3 of 14"):
        way.ended()
    assert way.clean_up() == 1
    assert is_tidy(workspace, "validation-5")
    assert not [each.name for each in bucket.below("field/validation").objects()]
