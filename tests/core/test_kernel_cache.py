"""Compiled code is used as long as the sources it was made of are the same, and rounds the same in every process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core import kernel_cache
from tasks.core.errors import MissingPartError
from tasks.core.source_digest import ROOT

KERNEL = """
from tasks.core.constants import FACTOR
from tasks.core.kernel_cache import njit


@njit(cache=True)
def scaled(x):
    return FACTOR * x
"""
USE = """
from tasks.core.kernel import scaled
print(scaled(1.0), sum(scaled.stats.cache_hits.values()), sum(scaled.stats.cache_misses.values()))
"""
# Trains on a made scene, and prints a digest of the result and the kernels that this process had to compile itself.
TRAIN = """
import hashlib, json, pkgutil, sys
from importlib import import_module
from pathlib import Path
from tasks.core.render import kernels
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import train
from tests.core.training.scenes import made_scene

folder = Path(sys.argv[1])
scene = made_scene(folder / "scene", cameras=9)
train(scene, folder, TrainOptions(steps=40, max_gaussians=600, max_image_size=96), lambda stats: None)
modules = [import_module(f"{kernels.__name__}.{found.name}") for found in pkgutil.iter_modules(kernels.__path__)]
found = {name: value for module in modules for name, value in vars(module).items() if hasattr(value, "stats")}
compiled = [name for name, kernel in found.items() if kernel.stats.cache_misses]
print(json.dumps([hashlib.sha256((folder / "scene.ply").read_bytes()).hexdigest(), compiled]))
"""


def run(program: str, folder: Path, *arguments: str, cache: str = "") -> str:
    """What a process of its own prints that works in a folder."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one kernel, whose constant is in another file."""
    core = tmp_path / "tasks" / "core"
    core.mkdir(parents=True)
    (tmp_path / "tasks" / "__init__.py").touch()
    (core / "__init__.py").touch()
    for name in ("kernel_cache", "source_digest", "errors", "progress"):
        shutil.copy(ROOT / "tasks" / "core" / f"{name}.py", core)
    (core / "constants.py").write_text("FACTOR = 2.0\n")
    (core / "kernel.py").write_text(KERNEL)
    return tmp_path


def test_a_constant_that_changed_in_another_file_is_compiled_in(project: Path) -> None:
    assert run(USE, project) == "2.0 0 1"
    assert run(USE, project) == "2.0 1 0"
    (project / "tasks/core/constants.py").write_text("FACTOR = 3.0\n")
    assert run(USE, project) == "3.0 0 1"
    (project / "tasks/core/constants.py").write_text("FACTOR = 2.0\n")
    assert run(USE, project) == "2.0 1 0", "the code of before is still there"


def test_a_comment_compiles_nothing(project: Path) -> None:
    assert run(USE, project) == "2.0 0 1"
    (project / "tasks/core/kernel.py").write_text(f"# Lines above the kernel,\n# and a reason.\n{KERNEL}")
    (project / "tasks/core/constants.py").write_text("FACTOR = 2.0  # as before\n")
    assert run(USE, project) == "2.0 1 0"


def test_kernels_of_others_are_cached_as_ever(project: Path) -> None:
    (project / "theirs.py").write_text("from numba import njit\n\n@njit(cache=True)\ndef same(x):\n    return x\n")
    program = (
        "import tasks.core.kernel_cache\nfrom theirs import same\nprint(same(1.0), sum(same.stats.cache_hits.values()))"
    )
    assert [run(program, project) for _ in range(2)] == ["1.0 0", "1.0 1"]


def test_a_cold_cache_gives_the_bytes_of_a_warm_one(tmp_path: Path) -> None:
    """Compiles all kernels anew. In the process that compiles them, parallel loops would round otherwise."""
    answers = []
    for name in ("cold", "warm"):
        (tmp_path / name).mkdir()
        answers.append(json.loads(run(TRAIN, ROOT, str(tmp_path / name), cache=str(tmp_path / "cache"))))
    assert answers[0] == answers[1]
    assert answers[0][1] == [], "the compiling process has not met these kernels with these types"


def test_kernels_that_cannot_be_compiled_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_cache, "_mark", lambda warm_up: tmp_path / "missing")
    with pytest.raises(MissingPartError, match="cannot be compiled on this machine: ModuleNotFoundError"):
        kernel_cache.ensure_compiled("tasks.core.no_such_room")
    assert not (tmp_path / "missing").exists()
