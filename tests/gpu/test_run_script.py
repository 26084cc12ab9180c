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


STUB = """#!/bin/bash
# Stands where an interpreter with torch and a GPU stands, and notes what it is asked for.
echo "$TORCH_CUDA_ARCH_LIST|$MAX_JOBS|$*" >>"$CALLS"
case "$*" in
*"machine --arch"*) echo 7.5 ;;
*"import prefect"*) exit 1 ;;
*find_spec*"'rich'"*) exit "${NO_RICH:-0}" ;;
*"-m pytest"*) exit 1 ;;
*"-m tests.gpu.report"*) exit 1 ;;
esac
"""


def with_stub(
    tmp_path: Path, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    # From within the test's own environment: none of it may leak into what the script decides
    clean = {"PYTHON": str(stub), "CALLS": str(calls), "TORCH_CUDA_ARCH_LIST": "", "MAX_JOBS": ""}
    done = run("--out", str(tmp_path / "out"), *arguments, cwd=tmp_path, **{**clean, **environment})
    return done, calls.read_text(encoding="utf-8").splitlines()


def test_every_part_runs_although_the_first_failed_and_the_status_says_so(tmp_path: Path) -> None:
    scene = tmp_path / "a scene"
    scene.mkdir()
    (scene / "scene.json").touch()
    done, calls = with_stub(tmp_path, "--scene", str(scene), "--quick", "--", "--memory-gb", "16")
    assert done.returncode == 1, done.stderr
    parity, contest, demo, report = calls[-4:]
    assert "-m pytest" in parity
    assert "-m cuda" in parity
    assert f"--scene {scene} --steps 600" in contest
    assert contest.endswith("--memory-gb 16")
    assert f"tests.gpu.demo --out {tmp_path}/out/demo --scene {scene} --steps 300" in demo
    assert report.endswith(f"-m tests.gpu.report {tmp_path}/out")
    architecture, jobs, _ = contest.split("|", 2)
    assert architecture == "7.5"
    assert 1 <= int(jobs) <= (os.cpu_count() or 1)
    statuses = (tmp_path / "out" / "exit_status.json").read_text(encoding="utf-8")
    assert statuses == '{"parity": 1, "side_by_side": 0, "demo": 0}\n'


def test_missing_packages_come_from_the_carried_wheels_or_are_named(tmp_path: Path) -> None:
    done, calls = with_stub(tmp_path, NO_RICH="1")
    assert done.returncode == 2
    assert "missing packages: rich;" in done.stderr
    assert not any("pip install" in call for call in calls)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    _, calls = with_stub(tmp_path, NO_RICH="1", WHEELS=str(wheels))
    [install] = [call for call in calls if "-m pip install" in call]
    assert f"--no-index --find-links {wheels} rich torch==" in install
