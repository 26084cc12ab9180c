"""More runs than the server returns at once."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from deployments import runs as module
from deployments.runs import every_run


@flow(name="counted")
def counted() -> None:
    """Is never run."""


@pytest.mark.usefixtures("prefect_server")
def test_every_run_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    of_this_test = FlowFilter(name=FlowFilterName(any_=["counted"]))
    with get_client(sync_client=True) as client:
        made = {client.create_flow_run(counted).id for _ in range(5)}
        found = [run.id for run in every_run(client, FlowRunSort.ID_DESC, flow_filter=of_this_test)]
    assert len(found) == 5
    assert set(found) == made
