"""Artifacts and files of a run in Prefect's UI and in its folder, read back from a real server."""

import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.runtime import flow_run

from tasks.core.progress import Progress
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.training.trainer import TrainingStats
from tasks.photos import PHOTOS
from tasks.reporting import recording
from tasks.reporting.artifacts import RunArtifacts, Shown
from tasks.reporting.progress import run_logger, stage_progress
from tasks.reporting.recording import BackgroundWriter
from tasks.reporting.training_board import TrainingBoard
from tasks.running.retries import stage_task
from tests.support.flow_runs import PAGES, artifacts_of, run_file, run_in_flow
from tests.support.patience import eventually


@pytest.fixture
def context(tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setenv("SPACEPORT_PAGES_URL", PAGES)
    return RunContext(workspace=str(tmp_path), run="flight-1")


def test_a_stage_shows_its_progress_and_keeps_its_log(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.reporting.progress.LOG_INTERVAL_SECONDS", 3600)  # however long the stage takes

    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        report = stage_progress("sfm")
        run_logger().info("looking for features")
        for done in range(201):
            report(Progress(done, 200, f"pair {done}"))
        return 7

    run = run_in_flow(lambda: stage(context))
    [artifact] = artifacts_of(run).values()
    assert (artifact.key, artifact.type, artifact.data) == ("progress-sfm", "progress", 100)
    assert artifact.description == "100 %, pair 200"
    assert artifact.task_run_id is not None

    lines = run_file(context, "logs/sfm.log").decode().splitlines()
    assert "INFO     looking for features" in lines[0]
    assert [line.split(" pair ")[1] for line in lines if "PROGRESS" in line] == [str(done) for done in range(201)]
    assert len(lines) == 202, "what the run's log says in few lines is not said twice"
    assert lines[0][:11].count("-") == 2
    assert lines[0].split()[0].endswith("Z")
    with get_client(sync_client=True) as client:
        sent = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
    assert len([log for log in sent if "pair" in log.message]) <= 2, "the run's log in the UI is throttled"


def test_many_reports_are_few_updates(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Shown] = []
    monkeypatch.setattr(RunArtifacts, "show", lambda self, key, what: shown.append(what))
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.5)

    @stage_task("train")
    def stage(context: RunContext) -> float:
        report, start = stage_progress("train"), time.monotonic()
        for done in range(1000):
            report(Progress(done, 1000))
            time.sleep(0.001)
        report(Progress(1000, 1000))
        return time.monotonic() - start

    seconds: list[float] = []
    run_in_flow(lambda: seconds.append(stage(context)))
    # One at the start, one for each half second, one at the end.
    assert 2 <= len(shown) <= 2 + seconds[0] / 0.5
    assert shown[-1].data == 100


def test_a_long_stage_updates_its_artifacts_less_often() -> None:
    """An hour of training used to send 720 updates of each."""
    moments = [0.0]
    while moments[-1] < 3600:
        moments.append(moments[-1] + recording.pause_seconds(moments[-1]))
    assert len([moment for moment in moments if moment <= 60]) >= 12, "the first minute is as lively as before"
    assert len(moments) <= 100
    assert recording.pause_seconds(10 * 24 * 3600) == 60


def test_what_says_the_same_is_not_sent_again(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    update = SyncPrefectClient.update_artifact

    def count(self: SyncPrefectClient, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        sent.append(artifact_id)
        if len(sent) == 1:
            raise ConnectionError("the server is away")
        update(self, artifact_id, artifact)

    monkeypatch.setattr(SyncPrefectClient, "update_artifact", count)

    def body() -> None:
        artifacts = RunArtifacts.of_this_run()
        assert artifacts is not None
        first, second = Shown("progress", 1.0, "1 %"), Shown("progress", 2.0, "2 %")
        for shown in (first, first):
            artifacts.show("progress-sfm", shown)
        assert not sent
        with pytest.raises(ConnectionError):
            artifacts.show("progress-sfm", second)
        for shown in (second, second, first, first):
            artifacts.show("progress-sfm", shown)

    run = run_in_flow(body)
    assert len(sent) == 3, "the one that failed, the same again, and the other one"
    assert artifacts_of(run)["progress-sfm"].data == 1


def test_a_server_that_refuses_does_not_stop_a_stage(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RunArtifacts, key: str, shown: Shown) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(RunArtifacts, "show", refuse)
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.0)

    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        report = stage_progress("sfm")
        for done in range(50):
            report(Progress(done, 50))
            time.sleep(0.002)
        return 7

    results: list[int] = []
    run_in_flow(lambda: results.append(stage(context)))
    assert results == [7]
    log = run_file(context, "logs/sfm.log").decode()
    assert log.count("could not be updated (ConnectionError: nobody there)") == 1


def test_a_log_that_cannot_be_kept_does_not_stop_a_stage(context: RunContext) -> None:
    runs = Path(context.workspace) / "runs"
    runs.write_text("in the way")

    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        stage_progress("sfm")(Progress(1, 1))
        return 7

    results: list[int] = []
    run_in_flow(lambda: results.append(stage(context)))
    assert results == [7]
    assert runs.read_text() == "in the way"


def test_another_attempt_continues_the_log_and_the_artifact(context: RunContext) -> None:
    attempts: list[int] = []

    @stage_task("photos")
    def stage(context: RunContext) -> int:
        attempts.append(1)
        stage_progress("photos")(Progress(len(attempts), 2, f"attempt {len(attempts)}"))
        if len(attempts) == 1:
            raise ConnectionError("the network is gone")
        return 7

    quick = stage.with_options(retry_delay_seconds=0)
    [artifact] = artifacts_of(run_in_flow(lambda: quick(context))).values()
    assert artifact.data == 100
    log = run_file(context, "logs/photos.log").decode()
    assert log.index("attempt 1") < log.index("ConnectionError: the network is gone") < log.index("attempt 2")


def test_a_stage_in_a_run_of_its_own_shows_itself_in_the_run_that_asked_for_it(context: RunContext) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> None:
        report = stage_progress("sfm")
        report(Progress(1, 2))
        report(Progress(2, 2, "done"))

    children: list[UUID] = []

    @flow(name="sfm")
    def stage_flow() -> None:
        children.append(UUID(str(flow_run.id)))
        stage(context)

    def body() -> None:
        stage_flow()
        stage_flow()  # the next attempt, after the first one was killed

    parent = run_in_flow(body)
    for run in (parent, *children):
        assert [(artifact.data, artifact.description) for artifact in artifacts_of(run).values()] == [
            (100, "100 %, done")
        ]


def test_a_stage_from_the_workspace_is_cached(context: RunContext) -> None:
    ref = PhotosRef(uri="/stored", digest="d", capture="fox", usable=38, rejected=0, cached=True)
    found: list[PhotosRef] = []

    @PHOTOS.task
    def stage(context: RunContext) -> PhotosRef:
        return ref

    run = run_in_flow(lambda: found.append(stage(context)))
    assert found == [ref]
    [artifact] = artifacts_of(run).values()
    assert (artifact.data, artifact.description) == (100, "100 %, 38 photos, from the workspace")

    def states(client: SyncPrefectClient) -> list[tuple[str, str | None, bool]]:
        in_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        runs = client.read_task_runs(flow_run_filter=in_run)
        return [(each.name, each.state_name, each.state is not None and each.state.is_completed()) for each in runs]

    # A task run's states reach the server as events, a moment later.
    with get_client(sync_client=True) as client:
        eventually(
            lambda: states(client) == [("photos", "Cached", True)], "state of the task run", lambda: states(client)
        )


def test_outside_of_a_run_nothing_is_shown_or_kept(tmp_path: Path) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        stage_progress("sfm")(Progress(1, 1))
        TrainingBoard(context).on_step(TrainingStats(1, 1, 0.25, 1, 1.0, None, None, 0.0))
        return 7

    assert stage.fn(RunContext(workspace=str(tmp_path), run="flight-1")) == 7
    assert list(tmp_path.iterdir()) == []


def test_the_newest_write_of_a_name_is_done_and_all_others_are_dropped() -> None:
    done: list[int] = []
    writer = BackgroundWriter()
    for value in range(100):
        writer.put("value", lambda value=value: done.append(value), 60)
    writer.close()
    assert done[-1] == 99
    assert len(done) <= 2, "the first at once, and the last when the writer was closed"
