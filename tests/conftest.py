"""Fixtures of all tests, and the choice of tests that this machine can run."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from flows.cli.prefect_variables import configure_prefect
from tasks.running import settings
from tasks.running.settings import ProcessSettings, Settings
from tests.support.own_home import leave_the_users_home
from tests.support.patience import STALL_SECONDS
from tests.support.s3_server import S3Server, s3_server

# Before anything imports Prefect: what the command line does too.
leave_the_users_home()
configure_prefect(Settings())


class SettingsOfTests(ProcessSettings):
    """A test is many processes in one: what it sets in the environment counts at once, unless a command has chosen."""

    def read_for_run(self) -> Settings:
        return self.in_use()

    def in_use(self) -> Settings:
        return self.of_command or Settings()


settings.PROCESS = SettingsOfTests()

# An example that takes long is no fault: the machine may have other things to do.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

REPOSITORY = Path(__file__).parents[1]
FAULTS = "tests/faults/"
# What takes longest, in this order. Begun last, it would keep one process busy while the others have nothing to do.
LONGEST = (
    FAULTS,
    "tests/deployments/test_down_and_up.py",
    "tests/flows/test_reconstruct.py",
    "tests/deployments/test_local_server.py",
    "tests/core/test_compatible_code.py",
    "tests/core/test_kernel_cache.py",
    "tests/deployments/",
)
PHOTO_SETS = REPOSITORY.parent / "shared" / "data"


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here. CI sets SPACEPORT_REQUIRE_DATA, and then missing photo sets are an error."""
    if not PHOTO_SETS.is_dir():
        if os.environ.get("SPACEPORT_REQUIRE_DATA"):
            raise pytest.UsageError(f"the photo sets are not at {PHOTO_SETS}, and SPACEPORT_REQUIRE_DATA demands them")
        _leave_out(config, items, "data")
    if not has_cuda():
        _leave_out(config, items, "cuda")
    items.sort(key=_place_in_line)


def _place_in_line(item: pytest.Item) -> int:
    places = [place for place, prefix in enumerate(LONGEST) if item.nodeid.startswith(prefix)]
    return min(places, default=len(LONGEST))


class WholeFiles(LoadScopeScheduling):
    """Files stay whole; the faults, which share a server and wait more than they compute, stay in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return FAULTS if nodeid.startswith(FAULTS) else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WholeFiles:
    return WholeFiles(config, log)


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str) -> None:
    left_out = [item for item in items if item.get_closest_marker(marker)]
    items[:] = [item for item in items if not item.get_closest_marker(marker)]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def photo_sets() -> Path:
    """The folder with brighton_beach, fox and sceaux_castle; for tests marked `data`."""
    return PHOTO_SETS


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server with an empty database for all tests that run flows, and for which a run waits at its end."""
    from prefect.testing.utilities import prefect_test_harness

    from tasks.reporting.recording import BackgroundWriter

    # The default of 30 s is too short for the database's first migration on two busy cores. Prefect has no other way
    # to wait for its server than a number of seconds.
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=int(2 * STALL_SECONDS)):
        # A run gives its last words up after some seconds, which a busy server may need.
        patch.setattr(BackgroundWriter.close, "__defaults__", (STALL_SECONDS,))
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests that only need one to be there."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_settings_of_an_earlier_command() -> None:
    settings.PROCESS.of_command = None


@pytest.fixture
def s3_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, which boto3's default chain finds while the test runs."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the test's own."""
    workspace = tmp_path / "workspace"
    monkeypatch.setenv("SPACEPORT_WORKSPACE", str(workspace))
    return workspace
