"""GPUs: the backend that will compute a stage, and a slot of the Prefect server's GPU limit for training on CUDA.

The backend is part of an output's name, since the results of CPU and CUDA differ. The slots are a global concurrency
limit in Prefect, which `spaceport up` and `python -m deployments.apply` create. Runs in terminals wait for a slot too.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import httpx
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.core.estimate.machine import has_usable_gpu
from tasks.core.refs import RunContext
from tasks.core.stages import stage_of
from tasks.reporting.progress import run_logger
from tasks.running.dispatch import runs_elsewhere
from tasks.running.settings import settings_in_use

GPU_LIMIT = "spaceport-gpu"
LEASE_SECONDS = 120.0  # if a process dies, the server frees its slot after this time
POLL_SECONDS = 5.0


@contextmanager
def gpu_slot(backend: str, poll_seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Hold one of the server's GPU slots while the block runs. Waits for a free slot, and says so in the run's log.

    Does nothing for backends other than `cuda`, or if the server has no such limit. A server that does not answer never
    keeps a run from training: it then trains without a slot. A slot that cannot be returned ends with its lease.
    """
    with ExitStack() as stack:
        if backend == "cuda" and _is_limited():
            _acquire(stack, poll_seconds)
        slot = stack.pop_all()
        try:
            yield
        finally:
            try:
                slot.close()
            except Exception as error:  # noqa: BLE001 - must not hide how the block ended
                run_logger().warning("The GPU slot ends with its lease, since it could not be returned (%s).", error)


def _acquire(stack: ExitStack, poll_seconds: float) -> None:
    """Enter the limit's context in `stack`. Each try is a separate request, so that a signal can end the wait."""
    waiting = False
    while True:
        try:
            stack.enter_context(
                concurrency(
                    GPU_LIMIT,
                    max_retries=0,
                    lease_duration=LEASE_SECONDS,
                    strict=False,
                    raise_on_lease_renewal_failure=False,
                )
            )
        except ConcurrencySlotAcquisitionError as error:
            if not _is_taken(error):
                run_logger().warning("Training without a GPU slot, since none could be asked for (%s).", error)
                return
            if not waiting:
                run_logger().info("Waiting for the GPU: %s is taken by other trainings.", GPU_LIMIT)
            waiting = True
            time.sleep(poll_seconds)
        else:
            return


def _is_taken(error: ConcurrencySlotAcquisitionError) -> bool:
    cause = error.__cause__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.LOCKED


def _is_limited() -> bool:
    """Whether the server has the limit. Without this check, Prefect would log a warning if it does not."""
    try:
        with get_client(sync_client=True) as client:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except (ObjectNotFound, PrefectHTTPStatusError, httpx.TransportError):
        return False
    return True


Computing = Literal["cpu", "cuda"]
OTHER: dict[Computing, Computing] = {"cpu": "cuda", "cuda": "cpu"}


def computing_backend(stage: str, asked: Literal["auto", "cpu", "cuda"], context: RunContext) -> Computing:
    """Return the backend that `asked` resolves to on the machine where the stage runs.

    For a stage that runs elsewhere, SPACEPORT_MACHINES decides, or else this machine's hardware. That may be wrong, so
    `run_stage` also looks for an output of the other backend. Raises OptionsError.
    """
    if asked != "auto":
        return asked
    if runs_elsewhere(stage, context):
        machine = settings_in_use().machines.get(stage_of(stage))
        if machine is not None:
            return "cuda" if machine.gpu else "cpu"
    return "cuda" if has_usable_gpu() else "cpu"
