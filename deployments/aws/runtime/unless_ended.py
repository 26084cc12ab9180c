"""Start a run's process, unless the run has already ended.

    python -m deployments.aws.runtime.unless_ended prefect flow-run execute

runs the module with these arguments. A task that waited long for a machine may start after its run was given up, and
Prefect lets a crashed run continue: it would then compute at the same time as the attempt that replaced it.
"""

import runpy
import sys
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run


def ended(client: SyncPrefectClient) -> str | None:
    """Return the name of the final state of this process's run; None if it has not ended.

    Also None while the server does not answer, because the process itself waits for it.
    """
    run_id = flow_run.get_id()
    if run_id is None:
        return None
    try:
        state = client.read_flow_run(UUID(run_id)).state
    except (httpx.TransportError, PrefectHTTPStatusError):
        return None
    return state.name if state is not None and state.is_final() else None


def main(arguments: list[str]) -> int:
    """Run the module that the arguments name, or print why not. Returns 0 in both cases, since nothing is wrong."""
    with get_client(sync_client=True) as client:
        name = ended(client)
    if name is not None:
        print(f"This run has ended already ({name}); its process ends without doing anything.")
        return 0
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
