"""The secrets of this machine's server: the owner alone reads them, and they change when they should."""

import stat
from pathlib import Path

import pytest

from deployments.local.access import make_secrets, read_secrets, sign_in_url, use_local_server
from deployments.local.state import LocalServer, folder_of, process_environment, server_environment
from deployments.plan import Plan
from tasks.core.errors import ServerError
from tasks.core.paths import private_folder, write_private

SERVER = LocalServer(port=4200, pages_port=4201, plan=Plan(workspace="/w"))


def test_each_server_has_a_new_one_and_the_pages_keep_theirs(tmp_path: Path) -> None:
    assert read_secrets(tmp_path) is None
    first = make_secrets(tmp_path, keep=False)
    assert read_secrets(tmp_path) == first
    assert make_secrets(tmp_path, keep=True) == first
    second = make_secrets(tmp_path, keep=False)
    assert second.api != first.api
    assert second.pages == first.pages


def test_others_cannot_read_them(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir(mode=0o755)  # as an earlier version made it
    make_secrets(tmp_path, keep=False)
    for place in (folder_of(tmp_path), folder_of(tmp_path) / "secrets.json"):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0, place


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    make_secrets(tmp_path, keep=False)
    (folder_of(tmp_path) / "secrets.json").write_text('{"api":', encoding="utf-8")
    with pytest.raises(ServerError, match=r"secrets\.json cannot be read.*spaceport up"):
        make_secrets(tmp_path, keep=True)


def test_the_credentials_of_other_servers_go_nowhere(tmp_path: Path) -> None:
    secrets = make_secrets(tmp_path, keep=False)
    theirs = {"PREFECT_API_KEY": "pnu_cloud", "PREFECT_API_AUTH_STRING": "a:b", "PREFECT_SERVER_API_AUTH_STRING": "c:d"}
    environment = {**theirs, "HOME": "/home/me"}
    use_local_server(SERVER, tmp_path, environment)
    assert environment["PREFECT_API_AUTH_STRING"] == secrets.api
    assert "PREFECT_API_KEY" not in environment

    workers = process_environment(SERVER, tmp_path, {**theirs, "HOME": "/home/me"}, secrets.api)
    assert not set(theirs.values()) & set(workers.values())
    assert "PREFECT_SERVER_API_AUTH_STRING" not in workers
    server = server_environment(SERVER, workers)
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == secrets.api
    assert "*" not in server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]


def test_the_link_keeps_the_secret_from_every_server() -> None:
    assert sign_in_url(SERVER, "user:secret") == "http://127.0.0.1:4200/sign-in#user:secret"


def test_a_private_file_is_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment: it is made with its mode."""
    folder = tmp_path / "deep" / "folder"
    private_folder(folder)
    modes = []
    replace = Path.replace

    def noting(self: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(self.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noting)
    (folder / "file").write_text("old", encoding="utf-8")
    (folder / "file").chmod(0o644)
    write_private(folder / "file", b"new")
    assert modes == [0o600]
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600
    assert (folder / "file").read_bytes() == b"new"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
