"""Runs for tests of what a run shows and keeps, and how to read that back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from tasks.core.refs import RunContext

PAGES = "http://pages.test"


def run_in_flow(body: Callable[[], Any]) -> UUID:
    """Run the body as a flow; the id of the run."""
    ids = []

    @flow(name="dashboard-test")
    def whole() -> None:
        ids.append(UUID(str(flow_run.id)))
        body()

    whole()
    return ids[0]


def artifacts_of(run: UUID) -> dict[str, Artifact]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=100
        )
    keys = [str(artifact.key) for artifact in found]
    assert len(keys) == len(set(keys)), f"an artifact was made twice: {keys}"
    return dict(zip(keys, found, strict=True))


def run_file(context: RunContext, name: str) -> bytes:
    return (Path(context.workspace) / "runs" / context.run / name).read_bytes()
