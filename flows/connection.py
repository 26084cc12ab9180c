"""Which Prefect server a command talks to: PREFECT_API_URL's, else this machine's, else one inside the command."""

import os

import httpx

from deployments.local_state import running_server
from tasks.core.errors import ServerError
from tasks.core.settings import Settings, configure_prefect


def use_prefect(settings: Settings) -> None:
    """Choose the server of this process; to be called before Prefect is imported."""
    server = running_server(settings.home)
    if server is not None and "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_API_URL"] = server.api_url
        if settings.absolute_workspace == server.plan.workspace and server.plan.pages_url is not None:
            os.environ.setdefault("SPACEPORT_PAGES_URL", server.plan.pages_url)
    configure_prefect(settings)


def use_server(settings: Settings) -> Settings:
    """Choose a server that runs by itself, and give the settings of its runs.

    Raises ServerError when there is none or it does not answer.
    """
    use_prefect(settings)
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        raise ServerError("No Prefect server runs here: start one with `spaceport up`, or name one in PREFECT_API_URL.")
    if not answers(url):
        raise ServerError(
            f"The Prefect server at {url} does not answer; `spaceport status` shows this machine's, `spaceport up` "
            "starts what has died."
        )
    local = running_server(settings.home)
    if local is None or local.api_url != url:
        return settings
    return settings.model_copy(update={"workspace": local.plan.workspace, "pages_url": local.plan.pages_url})


def answers(api_url: str) -> bool:
    """Whether a server answers at this address."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=10).status_code == 200
    except httpx.TransportError:
        return False
