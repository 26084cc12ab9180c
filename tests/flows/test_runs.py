"""Runs as the terminal shows them: states as people write them and as Prefect has them, lines, logs."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import prefect.states
import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run
from prefect.server.schemas import states as server_states

from flows.cli.flow_runs import HEADINGS, STATES, log_lines, row, stage_in_progress, state_named
from flows.cli.terminal import lines_of_cells
from tasks.core.errors import InputError
from tasks.reporting.artifacts import RunArtifacts, Shown
from tasks.reporting.progress import run_logger
from tasks.running.settings import Settings
from tests.support.patience import eventually


@pytest.mark.parametrize("name", STATES)
def test_every_way_to_write_a_state_means_it(name: str) -> None:
    spaced = "".join(f"-{letter}" if letter.isupper() else letter for letter in name).strip("-")
    for text in (name, name.lower(), name.upper(), spaced, spaced.replace("-", " "), spaced.replace("-", "_").lower()):
        assert state_named(text) == name


@pytest.mark.parametrize("text", ["Bogus", "", "Runnin", "-"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"There is no state {text!r}; the states are Scheduled"):
        state_named(text)


def test_no_state_of_prefect_is_missing() -> None:
    """Those that Prefect has functions for; the rest are written in its source as names."""
    makers = [
        value
        for module in (prefect.states, server_states)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if name[0].isupper() and name not in ("Paused", "Suspended", "AwaitingRetry", "Late", "Scheduled")
    ]
    made = [maker() for maker in makers if "cls" in inspect.signature(maker).parameters]
    names = {state.name for state in made if isinstance(state, State) or hasattr(state, "name")}
    assert len(names) > 8
    assert names <= set(STATES)


def test_the_first_cell_in_progress_is_shown() -> None:
    asked: list[Any] = []

    class Client:
        def read_task_runs(self, **filters: Any) -> list[Any]:
            return [SimpleNamespace(name=name) for name in ("cell-07", "swift-otter", "cell-03")]

        def read_artifacts(self, artifact_filter: Any, **options: Any) -> list[Any]:
            asked.append(artifact_filter.key.any_)
            return [SimpleNamespace(data=45.0)]

    run = FlowRun(flow_id=uuid4())
    assert stage_in_progress(cast(SyncPrefectClient, Client()), run) == "cell-03 45 %"
    assert asked == [["progress-cell-03"]]


@pytest.mark.usefixtures("prefect_server")
def test_a_line_shows_the_stage_in_progress_and_then_what_came_out(tmp_path: Path) -> None:
    settings = Settings(workspace=str(tmp_path / "workspace"), home=tmp_path / "home")
    out = tmp_path / "out"
    out.mkdir()
    seen: list[FlowRun] = []

    @task(name="train", task_run_name="train")
    def train() -> None:
        artifacts = RunArtifacts.of_this_run()
        assert artifacts is not None
        artifacts.show("progress-sfm", Shown("progress", 100.0))
        artifacts.show("progress-train", Shown("progress", 45.0))
        run_logger().info("first")
        run_logger().warning("second")
        with get_client(sync_client=True) as client:
            seen.append(client.read_flow_run(UUID(str(flow_run.id))))
            # The task run arrives at the server as an event.
            assert eventually(lambda: stage_in_progress(client, seen[0]), "a stage in progress") == "train 45 %"
        (out / "report.json").write_text('{"train": {"psnr_db": 21.234}}')

    @flow(name="reconstruct")
    def reconstruct(photos: str, destination: str) -> None:
        train()

    reconstruct(str(tmp_path / "north field"), str(out))
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(seen[0].id)
        cells = dict(zip(HEADINGS, row(client, run, settings), strict=True))
        assert cells["started"]
        assert cells["took"].endswith(" s")
        assert cells == {
            "id": str(run.id)[:8],
            "name": run.name,
            "state": "Completed",
            "stage": "",
            "started": cells["started"],
            "took": cells["took"],
            "PSNR": "21.23 dB",
            "page": f"{out}/index.html",
        }
        (out / "report.json").write_text('{"train": {"psnr_db": null}}')
        assert row(client, run, settings)[-2:] == ("", f"{out}/index.html")
        (out / "report.json").unlink()
        assert row(client, run, settings)[-2:] == ("", "")
        said = [(line.message, origin) for line, origin in log_lines(client, run, follow=True)]
    assert [text for text in said if text[0] in ("first", "second")] == [("first", "run"), ("second", "run")]


def test_lines_of_a_table_have_a_length_of_their_own() -> None:
    rows = [("stage", "time", "where"), ("sfm", "12 min", ""), ("train", "3 h", "ecs-gpu")]
    assert lines_of_cells(rows, numbers=(1,)) == ["stage    time  where", "sfm    12 min", "train     3 h  ecs-gpu"]
