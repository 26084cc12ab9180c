"""run.sh as far as a machine without a GPU goes: help, and refusals before anything is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "run.sh"


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        check=False,
    )


def test_the_shell_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_help(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("--scene", "--quick", "WHEELS", "MAX_JOBS", "Exit status"):
        assert word in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--fast"], {}, "unknown argument --fast"),
        (["--out"], {}, "--out needs a folder"),
        (["--scene", "nowhere"], {}, "holds no scene.json"),
        ([], {"PYTHON": "no-such-python"}, "no no-such-python"),
        ([], {"WHEELS": "no-such-folder"}, "no-such-folder is no folder"),
    ],
)
def test_refusals(arguments: list[str], environment: dict[str, str], says: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run("--out", "report", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_packages_to_carry_are_those_that_are_pinned() -> None:
    """A package that constraints.txt does not know would be carried in any version."""
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (SCRIPT.parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    listed = [
        line.lower().replace("_", "-")
        for line in (SCRIPT.parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert "torch" not in listed
    assert set(listed) <= pinned
    script = SCRIPT.read_text(encoding="utf-8")
    wanted = script[script.index("numpy numpy") :].split("\nTEXT")[0].splitlines()
    assert {line.split()[1] for line in wanted} <= set(listed)


def test_the_cuda_tests_are_found_where_there_is_a_gpu(tmp_path: Path) -> None:
    """As run.sh asks for them: without tests/conftest.py, whose servers and plug-ins a GPU machine may lack."""
    script = SCRIPT.read_text(encoding="utf-8")
    files = [word for word in script.split() if word.startswith("tests/core/") and word.endswith(".py")]
    assert len(files) == 3
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "tests/gpu/pytest.ini", "--rootdir", ".", "--noconftest", "-p",
         "no:cacheprovider", "-q", "-m", "cuda", "--collect-only", *files],
        capture_output=True, text=True, cwd=SCRIPT.parents[2], check=True,
    )  # fmt: skip
    for name in ("test_image_and_gradients_agree", "test_engines_make_the_same_steps", "test_a_bad_start"):
        assert name in done.stdout
    collected = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(collected) >= 20
    if not torch.cuda.is_available():
        assert all("cuda" in line for line in collected)
