"""`spaceport validate`: run a small capture through the production path, check the result, remove it all."""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployments.aws.runtime.infrastructure import VARIABLE, Infrastructure, infrastructure_named
from deployments.findings import Finding
from deployments.settings import DeploymentSettings
from flows.cli.checks import print_findings
from flows.cli.connection import ServerOfRun, answers, server_address, use_prefect
from flows.cli.terminal import saying
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.errors import MissingPartError, OptionsError, ServerError, SpaceportError
from tasks.core.options import parse_options
from tasks.core.progress import ignore_progress
from tasks.running.settings import Settings, absolute_workspace

if TYPE_CHECKING:  # they import Prefect, which reads its settings when it is imported
    from deployments.validation.ways import Published, Way

# Small, but real: every photo can be registered, and its PSNR is far above that of an untrained splat.
FLIGHT = DemoOptions(photos=14, width=640, height=480)
OPTIONS = ("train.steps=500", "train.max_gaussians=15000", "train.max_image_size=320")
POLL_SECONDS = 2.0
NOT_DONE = (
    "`spaceport doctor --aws` or `spaceport status` shows what works on it; a cold GPU instance takes some "
    "minutes: raise --timeout."
)


def validate(workspace: str | None, timeout_seconds: float, keep: bool, console: Console) -> None:
    """Print a line for each check. Exits with status 1 if one fails; raises SpaceportError if it cannot start."""
    chosen = DeploymentSettings()
    settings = use_prefect(chosen)
    account = infrastructure_named(chosen.infrastructure)
    here = account is None and server_address() is None
    with saying(console) as say, ServerOfRun(settings).running(say) if here else nullcontext():
        way = _way(workspace, f"validation-{secrets.token_hex(4)}", settings, account, here=here)
        print_findings(Validation(way, timeout_seconds, keep, say).findings(), console)


class Validation:
    """One validation capture, from upload to removal."""

    def __init__(self, way: "Way", timeout_seconds: float, keep: bool, say: Callable[[str], None]) -> None:
        self._way, self._timeout_seconds, self._keep, self._say = way, timeout_seconds, keep, say
        self._may_go_on = False  # a run that could not be stopped may write more after the removal

    def findings(self) -> Iterator[Finding]:
        """Run every check, then remove what was made, also after an error or Ctrl-C."""
        yield Finding("way", True, self._way.describes)
        try:
            yield from self._look()
        finally:
            removal = self._remove()
        yield removal

    def _look(self) -> Iterator[Finding]:
        from deployments.validation.checks import RUN_AGAIN, check_result
        from deployments.validation.ways import RunFailedError
        from tasks.core.demo.flight import fly

        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "photos"
            self._say("taking photos")
            # New photos each time, so that no output of this run is already in the workspace.
            fly(photos, FLIGHT.model_copy(update={"seed": secrets.randbelow(2**31)}), ignore_progress)
            start = time.monotonic()
            self._say("starting the run")
            self._way.start(photos, parse_options("draft", OPTIONS))
            self._may_go_on = True
            try:
                published = self._wait(start)
            except RunFailedError as error:
                self._may_go_on = False
                yield Finding("run", False, str(error), RUN_AGAIN)
                return
        if published is None:
            says = f"not done after {self._timeout_seconds:.0f} s, waited for {self._way.waits_for()}"
            yield Finding("run", False, says, NOT_DONE)
            return
        self._may_go_on = False
        yield Finding("run", True, f"{FLIGHT.photos} photos, done in {time.monotonic() - start:.0f} s")
        yield from check_result(published, FLIGHT.photos)

    def _wait(self, start: float) -> "Published | None":
        """Wait for the result; None if it takes too long. Raises RunFailedError."""
        while (published := self._way.ended()) is None:
            waited = time.monotonic() - start
            if waited > self._timeout_seconds:
                return None
            self._say(f"{waited:.0f} s, waiting for {self._way.waits_for()}")
            time.sleep(POLL_SECONDS)
        return published

    def _remove(self) -> Finding:
        capture = self._way.capture
        if self._keep:
            return Finding("removed", True, f"nothing; it is all called {capture}")
        self._say("removing what was made")
        try:
            may_go_on = self._may_go_on and not self._way.stop()
            outputs = self._way.clean_up()
        except SpaceportError as error:
            return Finding("removed", False, str(error), f"Remove what is called {capture} by hand.")
        if may_go_on:
            return Finding(
                "removed", False, "what there was by now", f"Remove what is called {capture} when it has ended."
            )
        return Finding("removed", True, f"photos, result, and {outputs} stage outputs")


def _way(
    workspace: str | None, capture: str, settings: Settings, account: Infrastructure | None, *, here: bool
) -> "Way":
    """Choose the way that this workspace's users start runs: uploads, a Prefect server, or this process (`here`).

    Raises OptionsError if `workspace` is not the workspace of that way, ServerError, MissingPartError.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from deployments.validation.in_this_process import InThisProcess
    from deployments.validation.through_prefect import ThroughDeployment, ThroughListener

    if account is not None:
        if workspace not in (None, account.workspace):
            raise OptionsError(f"{VARIABLE} names an account whose workspace is {account.workspace}, not {workspace}.")
        return ThroughListener(account, capture)
    named = None if workspace is None else absolute_workspace(workspace)
    url = server_address() or ""
    if here:
        from flows.reconstruct import reconstruct

        return InThisProcess(named or settings.absolute_workspace, capture, reconstruct)
    if not answers(url):
        raise ServerError(f"The Prefect server at {url} does not answer; without PREFECT_API_URL the run is made here.")
    try:
        return ThroughDeployment(get_client(sync_client=True), named, capture)
    except ObjectNotFound as error:
        raise MissingPartError(
            f"There is no deployment reconstruct on the Prefect server at {url}: `spaceport up` or "
            "`python -m deployments.apply` makes it."
        ) from error
