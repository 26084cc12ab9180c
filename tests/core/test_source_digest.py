"""The digest changes with what runs, and with nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core import source_digest

MODULE = '''"""What it does."""
from typing import TYPE_CHECKING

from pydantic import Field

from tasks.core.constants import RATE

if TYPE_CHECKING:
    from tasks.core.names import Name


def step(x: float) -> float:
    """Go on."""
    # by the rate
    return RATE * x


def later() -> float:
    from tasks.core.late import LATE

    return LATE


limit: int = Field(3, title="Limit", description="At most.")
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of a few modules; the digest of `tasks.core.module` is looked at."""
    core = tmp_path / "tasks" / "core"
    core.mkdir(parents=True)
    (tmp_path / "tasks" / "__init__.py").write_text("")
    (core / "__init__.py").write_text('"""The core."""\n')
    (core / "constants.py").write_text("RATE = 2.0\n")
    (core / "late.py").write_text("LATE = 3\n")
    (core / "names.py").write_text("class Name: ...\n")
    (core / "unrelated.py").write_text("OTHER = 1\n")
    (core / "module.py").write_text(MODULE)
    monkeypatch.setattr(source_digest, "ROOT", tmp_path)
    forget()
    yield core
    forget()


def forget() -> None:
    """Have files read again."""
    for name in ("source_modules", "_tree", "_normalised", "_imported"):
        getattr(source_digest, name).cache_clear()


def copy_sources(folder: Path) -> None:
    """The sources of `tasks`, to be changed."""
    shutil.copytree(source_digest.ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("npm", "__pycache__"))


def digest_after(path: Path, old: str, new: str) -> str:
    """The digest when a text in a file is another one, just for once."""
    kept = path.read_text()
    assert old in kept
    path.write_text(kept.replace(old, new))
    forget()
    digest = source_digest.source_digest("tasks.core.module")
    path.write_text(kept)
    forget()
    return digest


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("module.py", "# by the rate", "# by what the schedule says"),
        ("module.py", '"""Go on."""', '"""Take a step."""'),
        ("module.py", '"""What it does."""', '"""Steps."""'),
        ("module.py", "    return RATE * x", "    return (\n        RATE * x\n    )"),
        ("module.py", 'title="Limit", description="At most."', 'title="Most", description="No more than."'),
        ("names.py", "class Name: ...", "class Name:\n    size = 1"),  # for type checkers only
        ("unrelated.py", "OTHER = 1", "OTHER = 2"),
        ("__init__.py", '"""The core."""', ""),
    ],
)
def test_prose_layout_and_strangers_change_nothing(project: Path, file: str, old: str, new: str) -> None:
    assert digest_after(project / file, old, new) == source_digest.source_digest("tasks.core.module")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("module.py", "RATE * x", "RATE + x"),
        ("module.py", "Field(3", "Field(4"),
        ("constants.py", "2.0", "2.5"),
        ("late.py", "3", "4"),  # imported within a function
        ("__init__.py", '"""The core."""', "SWITCH = 1"),  # runs before the module
    ],
)
def test_what_runs_changes_it(project: Path, file: str, old: str, new: str) -> None:
    assert digest_after(project / file, old, new) != source_digest.source_digest("tasks.core.module")


def test_a_module_that_is_not_there_is_an_error(project: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"tasks\.core\.gone"):
        source_digest.source_digest("tasks.core.gone")


def test_a_copy_elsewhere_has_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = source_digest.source_digest("tasks.core.scene")
    copy_sources(tmp_path)
    monkeypatch.setattr(source_digest, "ROOT", tmp_path)
    forget()
    try:
        assert source_digest.source_digest("tasks.core.scene") == here
    finally:
        forget()
