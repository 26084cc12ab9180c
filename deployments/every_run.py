"""Flow runs of any number, of which the server returns no more than PAGE at once."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

PAGE = 200


def every_run(client: SyncPrefectClient, sort: FlowRunSort, **filters: Any) -> list[FlowRun]:
    """All runs that `SyncPrefectClient.read_flow_runs` finds with these filters."""
    found: list[FlowRun] = []
    while page := client.read_flow_runs(**filters, sort=sort, limit=PAGE, offset=len(found)):
        found += page
    return found
