"""One server for the faults that it survives, and one small flight."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tasks.core.stages import STAGES
from tests.support.local_server import Served, serving


@pytest.fixture(scope="session")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen small photos."""
    folder = tmp_path_factory.mktemp("faults") / "flight"
    fly(folder, DemoOptions(photos=14, width=640, height=480), ignore_progress)
    return folder


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every stage in a run of its own."""
    folder = tmp_path_factory.mktemp("faults-server")
    with serving(folder / "home", folder / "workspace", dispatch=",".join(STAGES)) as served:
        yield served
