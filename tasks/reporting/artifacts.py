"""Prefect artifacts that change during a run: each is created once and updated in place.

Their pictures are files in the run's folder, with links that a browser can open.
"""

import json
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from pydantic import JsonValue

from tasks.core.refs import RunContext
from tasks.core.report.markdown import plain_markdown
from tasks.places.workspace import open_workspace

PREVIEW_PICTURE = "pictures/preview.jpg"

ArtifactKind = Literal["progress", "table", "image", "markdown"]


@dataclass(frozen=True)
class Shown:
    """The content of an artifact at one moment.

    `data` is a percentage for "progress", a list of rows for "table", a URL for "image" and text for "markdown".
    `description` is plain text: Markdown in it is not interpreted.
    """

    kind: ArtifactKind
    data: JsonValue
    description: str | None = None


class RunArtifacts:
    """The artifacts of one task run, or of a flow run where there is no task.

    A stage that runs as its own deployment shows them in two runs: its own, and the run that started it.
    """

    def __init__(
        self, flow_run: FlowRun | None, flow_run_id: UUID, task_run: TaskRun | None, *, continued: bool = False
    ) -> None:
        """`continued`: an earlier process of the same run may already have created the artifacts."""
        self._continued = continued
        self.flow_run_id = flow_run_id
        self._flow_run = flow_run
        self._task_run = task_run
        self._pages: list[tuple[UUID, UUID | None]] | None = None  # (flow run, task run)
        self._created: dict[str, list[UUID]] = {}
        self._newest: dict[str, Shown] = {}

    @classmethod
    def of_this_run(cls) -> "RunArtifacts | None":
        """Return the artifacts of the current run; None outside of a run."""
        flow_context, task_context = FlowRunContext.get(), TaskRunContext.get()
        flow_run = flow_context.flow_run if flow_context else None
        task_run = task_context.task_run if task_context else None
        flow_run_id = flow_run.id if flow_run else (task_run.flow_run_id if task_run else None)
        return None if flow_run_id is None else cls(flow_run, flow_run_id, task_run)

    @property
    def task_run_id(self) -> UUID | None:
        """The task run, if it is not of a whole flow run."""
        return self._task_run.id if self._task_run else None

    def show(self, key: str, shown: Shown) -> None:
        """Create or update the artifact, unless its content is unchanged.

        Raises the exceptions of Prefect's client if the server does not answer.
        """
        if self._newest.get(key) == shown:
            return
        # a table is stored as JSON text
        data = json.dumps(shown.data) if shown.kind == "table" else shown.data
        client = get_client(sync_client=True)  # within a run this is the run's own client, which is already open
        if key not in self._created:
            self._created[key] = [self._create(client, key, shown, data, *page) for page in self._all_pages(client)]
        else:
            for artifact_id in self._created[key]:
                client.update_artifact(artifact_id, _update(shown, data))
        self._newest[key] = shown

    def _create(
        self,
        client: SyncPrefectClient,
        key: str,
        shown: Shown,
        data: JsonValue,
        flow_run_id: UUID,
        task_run_id: UUID | None,
    ) -> UUID:
        if self._is_another_attempt():  # an earlier attempt has created it
            existing = client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id])
                ),
                limit=1,
            )
            if existing:
                client.update_artifact(existing[0].id, _update(shown, data))
                return existing[0].id
        artifact = ArtifactCreate(
            key=key,
            type=shown.kind,
            description=_described(shown),
            data=data,
            flow_run_id=flow_run_id,
            task_run_id=task_run_id,
        )
        return client.create_artifact(artifact).id

    def _is_another_attempt(self) -> bool:
        runs = [run for run in (self._flow_run, self._task_run) if run is not None]
        # each attempt has a new child run, but all of them show artifacts in the same parent
        return self._continued or any(run.run_count > 1 for run in runs) or self._parent_task_run_id() is not None

    def _parent_task_run_id(self) -> UUID | None:
        return self._flow_run.parent_task_run_id if self._flow_run else None

    def _all_pages(self, client: SyncPrefectClient) -> list[tuple[UUID, UUID | None]]:
        if self._pages is None:
            pages: list[tuple[UUID, UUID | None]] = [(self.flow_run_id, self._task_run.id if self._task_run else None)]
            if (asked_by := self._parent_task_run_id()) is not None:
                parent = client.read_task_run(asked_by)
                if parent.flow_run_id is not None:
                    pages.append((parent.flow_run_id, parent.id))
            self._pages = pages
        return self._pages


def _update(shown: Shown, data: JsonValue) -> ArtifactUpdate:
    return ArtifactUpdate(data=data, description=_described(shown))


def _described(shown: Shown) -> str | None:
    return None if shown.description is None else plain_markdown(shown.description)


def show_picture(name: str, content: bytes, description: str, context: RunContext) -> Shown | None:
    """Write a picture into the run's folder and return it as an artifact; None if no web server shows the folder.

    Browsers cache pictures by address, so a new picture needs a new name. Raises StorageError.
    """
    store = open_workspace(context.workspace)
    store.write_run_file(context.run, name, content)
    url = store.run_file_url(context.run, name)
    return None if url is None else Shown("image", url, description)
