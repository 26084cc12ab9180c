"""Rounds of runs that a server hands to its workers, each stage to a process of its own."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import psutil
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling

from deployments.local.processes import find
from deployments.local.state import folder_of
from tasks.core.stages import STAGES
from tests.faults.harness import Reconstruction
from tests.faults.rounds.places import FolderPlace, Place, S3Place, other_outputs
from tests.faults.rounds.plan import Round
from tests.faults.rounds.proxy import Proxy, proxy
from tests.faults.rounds.results import difference
from tests.faults.rounds.terminal import TRAIN, Reference
from tests.faults.rounds.verdict import Verdict, family_of, orphans
from tests.support.engines import engines
from tests.support.local_server import Served, serving
from tests.support.s3_server import S3Server

END_SECONDS = 1.0  # of a stage's process, when its stage has ended


class Server:
    """The rounds of one kind of storage, with a server of their own."""

    def __init__(self, served: Served, flight: Path, place: Place, reference: Reference, spoils: Proxy | None) -> None:
        self._served, self._flight, self._place = served, flight, place
        self._reference, self._proxy = reference, spoils

    def play(self, round_: Round) -> Verdict:
        """Start a run, damage it, wait for its end, and start another one if it was cancelled."""
        verdict, place, reference = Verdict(), self._place, self._reference
        place.forget(place.outputs())
        place.prepare(reference.place, round_.stage)
        run = self._start()
        process = self._caught(run, round_.stage)
        time.sleep(round_.moment * (END_SECONDS + reference.stage_seconds[round_.stage]))
        self._befall(round_, run, process)
        ended = self._ended(run)
        verdict.happened = f"{ended.state_name}, its {round_.stage} {run.states(round_.stage)}"
        if ended.state_name == "Cancelled" and round_.fault == "cancel":
            run = self._start()
            ended = self._ended(run)
        if ended.state_name == "Completed":
            if differs := difference(place.published(run.tag), reference.result):
                verdict.wrong.append(f"the result {differs}")
            if others := other_outputs(place.outputs(), reference.outputs):
                verdict.wrong.append(f"other outputs: {others}")
        else:
            verdict.wrong.append(f"{ended.state_name}: {ended.state.message if ended.state else None}")
        verdict.orphans += orphans(lambda: list(engines().values()))
        verdict.left_over += place.left_over()
        with self._served.client() as client:
            unfinished = [each for each in client.read_flow_runs(limit=200) if each.state and not each.state.is_final()]
        verdict.running += [f"{each.name} is {each.state_name}" for each in unfinished]
        return verdict

    def _start(self) -> Reconstruction:
        return Reconstruction.start(self._served, self._flight, train=TRAIN)

    def _caught(self, run: Reconstruction, stage: str) -> psutil.Process | None:
        """The process of a stage that has begun; None when the run has ended before it was seen."""

        def process_or_end() -> psutil.Process | str | None:
            ids = {str(each.id) for each in run.stage_runs(stage) if each.state_name == "Running"}
            found = next((process for run_id, process in engines().items() if run_id in ids), None)
            return found or ("ended" if self._state(run).is_final() else None)

        caught = run.eventually(process_or_end, f"process of {stage}")
        return caught if isinstance(caught, psutil.Process) else None

    def _befall(self, round_: Round, run: Reconstruction, process: psutil.Process | None) -> None:
        if round_.fault in ("kill -9 of the stage", "SIGTERM of the stage"):
            if process is not None and process.is_running():
                (process.kill if "kill" in round_.fault else process.terminate)()
        elif round_.fault == "cancel":
            with self._served.client() as client:
                if not self._state(run).is_final():
                    client.set_flow_run_state(run.id, Cancelling())
        elif self._proxy is not None:
            self._proxy.mode = round_.fault
            time.sleep(round_.lasts_seconds)
            self._proxy.mode = None
        else:
            name = "server" if "server" in round_.fault else "worker-gpu" if round_.stage == "train" else "worker-cpu"
            lost = find(name, folder_of(self._served.home))
            assert lost is not None, f"{name} was not there before it was killed"
            psutil.Process(lost.pid).kill()
            up = self._served.spaceport("up")
            assert up.returncode == 0, up.stdout + up.stderr

    def _state(self, run: Reconstruction) -> State:
        with self._served.client() as client:
            state = client.read_flow_run(run.id).state
        assert state is not None
        return state

    def _ended(self, run: Reconstruction) -> FlowRun:
        run.eventually(lambda: self._state(run).is_final(), "end of the run")
        with self._served.client() as client:
            return client.read_flow_run(run.id)


@contextmanager
def server(
    folder: Path, flight: Path, reference: Reference, s3: S3Server | None
) -> Iterator[tuple[Server, Callable[[], list[str]]]]:
    """A server that is up, and a function for afterwards: what its end has left running."""
    folder.mkdir()
    home = folder / "home"
    with ExitStack() as stack:
        spoils = stack.enter_context(proxy(s3.endpoint, 0)) if s3 is not None else None
        place = S3Place(s3, spoils.url) if s3 is not None and spoils is not None else FolderPlace(folder / "place")
        stack.enter_context(patch.dict(os.environ, place.variables))
        served = stack.enter_context(serving(home, place.workspace, dispatch=",".join(STAGES)))
        yield Server(served, flight, place, reference, spoils), lambda: orphans(lambda: family_of(home))
