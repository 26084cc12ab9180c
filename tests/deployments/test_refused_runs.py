"""A destination that cannot be written, on a real server with a real worker: the run fails before its first stage."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.listener.runs import Runs
from deployments.listener.uploads import FAILED, READY_FILE
from flows.cli.flow_runs import stage_runs
from tasks.running.preflight import CHECK
from tests.deployments.listening import event, listening, new_account, runs_of
from tests.support.aws_server import AwsServer, aws_server
from tests.support.local_server import Served, serving
from tests.support.pictures import save_textured
from tests.support.server_process import eventually


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture(scope="module")
def server(aws: AwsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Its workers find the account."""
    folder = tmp_path_factory.mktemp("refused")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        with serving(folder / "home", folder / "workspace") as served:
            yield served


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(3):
        save_textured(tmp_path / "meadow" / f"{i}.jpg", i)
    return tmp_path / "meadow"


def failed_before_any_stage(server: Served, run_id: UUID) -> FlowRun:
    """The run once it has failed, after nothing but the check."""
    run = server.wait(run_id, "Failed")
    with server.client() as client:
        in_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        eventually(
            lambda: bool(client.read_task_runs(flow_run_filter=in_run)), "the task run, which arrives as an event"
        )
        assert [task_run.name for task_run in client.read_task_runs(flow_run_filter=in_run)] == [CHECK]
        assert stage_runs(client, run) == []
    assert not (server.workspace / "stages").exists()
    return run


def test_a_run_started_through_the_api(server: Served, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = server.start({"photos": str(photos), "destination": str(tmp_path / "file" / "out")})
    run = failed_before_any_stage(server, run.id)
    assert run.state is not None
    assert "DestinationError: The output folder" in str(run.state.message)


def test_a_run_started_by_the_listener(server: Served, aws: AwsServer, photos: Path) -> None:
    account = new_account(aws, "refused")
    bucket = account.infrastructure.uploads_bucket
    for photo in photos.iterdir():
        account.s3.put_object(Bucket=bucket, Key=f"uploads/meadow/{photo.name}", Body=photo.read_bytes())
    account = replace(
        account, infrastructure=account.infrastructure.model_copy(update={"results": "s3://no-such-bucket/results"})
    )
    upload = account.upload(f"uploads/meadow/{READY_FILE}")
    account.send(event(upload))
    settings = {PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.secret}
    with temporary_settings(settings), server.client() as client:
        with listening(account.listener(Runs(client))):
            eventually(lambda: bool(runs_of(bucket)), "the run")
            [run] = runs_of(bucket)
            run = failed_before_any_stage(server, run.id)
            eventually(lambda: account.places().signal(upload, FAILED) is not None, FAILED)
        signal = account.places().signal(upload, FAILED)
    assert run.state is not None
    assert "DestinationError: There is no bucket for s3://no-such-bucket/results/meadow-" in str(run.state.message)
    assert signal is not None
    assert "no-such-bucket" in (signal.error or "")
