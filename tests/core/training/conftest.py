from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.scene import Scene
from tests.core.training.scenes import made_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return made_scene(tmp_path_factory.mktemp("made"))


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Scene]:
    return lambda **sizes: made_scene(tmp_path / "made", **sizes)
