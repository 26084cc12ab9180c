"""Code that is declared compatible with older code computes the same: both compute a small scene."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tasks.core.source_digest import ROOT
from tasks.core.stage_code import COMPATIBLE
from tests.core.compared_code import outputs_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest flight that becomes a scene."""
    folder = tmp_path_factory.mktemp("flight") / "photos"
    fly(folder, DemoOptions(photos=8, width=320, height=240), ignore_progress)
    return folder


@pytest.fixture(scope="module")
def present(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the code makes of them now."""
    return outputs_of(ROOT, photos, tmp_path_factory.mktemp("now"))


def changed_copy(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the sources with their compiled kernels, and one change."""
    shutil.copytree(ROOT / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("npm", "*.pyc"))
    path = folder / "tasks" / "core" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def committed(commit: str, folder: Path) -> Path:
    """The sources of a commit of this repository's history."""
    archive = subprocess.run(["git", "archive", commit, "tasks"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_refactorings_give_the_same(photos: Path, present: dict[str, str], tmp_path: Path) -> None:
    """One that is made here, and those that the table names."""
    codes = {"renamed": changed_copy(tmp_path / "renamed", "training/refine.py", "candidates", "splittable")}
    for commit in {commit for _, commit in COMPATIBLE.values()}:
        codes[commit] = committed(commit, tmp_path / commit)
    for name, code in codes.items():
        assert outputs_of(code, photos, tmp_path / f"out of {name}") == present, name


def test_what_is_no_refactoring_is_found(photos: Path, present: dict[str, str], tmp_path: Path) -> None:
    code = changed_copy(tmp_path / "code", "training/schedule.py", '"sh0": 3e-2', '"sh0": 4e-2')
    found = outputs_of(code, photos, tmp_path / "out")
    assert {stage for stage in present if found[stage] != present[stage]} == {"train", "compress"}
