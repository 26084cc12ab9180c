"""Cancel: the run and its stage end, their processes are gone, nothing half-written is left."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.states import Cancelling

from tasks.core.stages import STAGES
from tasks.core.storage.locks import remove_unused
from tests.faults.harness import Reconstruction
from tests.support.engines import engines
from tests.support.local_server import Served

NEEDS: dict[str, dict[str, Any]] = {  # what makes a stage compute
    "photos": {"fresh": True},
    "sfm": {"fresh": True},
    "train": {"train": {"steps": 1500}},
    "compress": {"compress": {"sh_degree": 1}},
    "publish": {},
}
LONG = ("sfm", "train")  # with so few photos the others may end before the news reaches them


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_in(stage: str, server: Served, flight: Path) -> None:
    run = Reconstruction.start(server, flight, **NEEDS[stage])
    process = run.caught(stage)
    started_by_it = process.children(recursive=True)
    with server.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    run.wait("Cancelled")
    [child] = run.stage_runs(stage)
    ends = ("Cancelled",) if stage in LONG else ("Cancelled", "Completed")
    server.wait(child.id, *ends)
    run.eventually(
        lambda: (
            not {str(run.id), str(child.id)} & set(engines())
            and not [left for left in started_by_it if left.is_running() and left.status() != psutil.STATUS_ZOMBIE]
        ),
        "end of the processes",
    )
    # A second SIGTERM can interrupt the tidying up. Nobody holds what is left: the next stage of its kind removes it.
    assert all(remove_unused(left) for left in run.partial_folders(stage))
    assert not [later for later in STAGES[STAGES.index(stage) + 1 :] if run.stage_runs(later)]
