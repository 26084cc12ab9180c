"""Access to this machine's Prefect server and pages, limited to the owner by secrets that only the owner can read.

    <home>/up/secrets.json     readable by its owner alone

The server's secret is used with Prefect's own basic authentication. Each `spaceport up` that starts the server makes a
new one. The pages have no login: their addresses begin with a secret instead
(https://www.w3.org/TR/capability-urls/). It stays the same, so that links in earlier runs' artifacts still work.
"""

import secrets
from collections.abc import MutableMapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.local.state import LocalServer, folder_of
from tasks.core.errors import ServerError
from tasks.core.paths import private_folder, write_private

USER = "spaceport"
SIGN_IN = "/sign-in"  # deployments/local/own_origin.py answers there


class Secrets(BaseModel):
    """Secrets of one server and its pages."""

    model_config = ConfigDict(frozen=True)

    api: str  # "user:password", as Prefect has it
    pages: str  # the first part of every page's path


def new_api_secret() -> str:
    """Make a secret for one start of the server."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def read_secrets(home: Path) -> Secrets | None:
    """Read the secrets; None before the first `spaceport up`. Raises ServerError if the file is damaged."""
    file = _file(home)
    try:
        return Secrets.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise ServerError(
            f"{file} cannot be read, and without it the server lets no command in: `spaceport down --now`, remove the "
            "file, and `spaceport up` makes a new one."
        ) from error


def make_secrets(home: Path, *, keep: bool) -> Secrets:
    """Make new secrets for the server, or with `keep` return those that its processes have. Raises ServerError."""
    before = read_secrets(home)
    if before is not None and keep:
        return before
    made = Secrets(api=new_api_secret(), pages=secrets.token_urlsafe(16) if before is None else before.pages)
    private_folder(folder_of(home))
    write_private(_file(home), made.model_dump_json(indent=1).encode())
    return made


def sign_in_url(server: LocalServer, secret: str) -> str:
    """Return a link that logs a browser in. Browsers do not send the part after the `#`, so no log contains it."""
    return f"{server.ui_url}{SIGN_IN}#{secret}"


def use_local_server(server: LocalServer, home: Path, environment: MutableMapping[str, str]) -> None:
    """Make this process a client of the server. Call it before Prefect is imported. Raises ServerError."""
    found = read_secrets(home)
    environment["PREFECT_API_URL"] = server.api_url
    environment.pop("PREFECT_API_KEY", None)  # of Prefect Cloud, which must not be sent to this server
    environment.pop("PREFECT_API_AUTH_STRING", None)  # of another server
    if found is not None:
        environment["PREFECT_API_AUTH_STRING"] = found.api


def _file(home: Path) -> Path:
    return folder_of(home) / "secrets.json"
