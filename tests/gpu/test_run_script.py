"""run.sh and prepare.sh as far as a machine without a GPU can run them: refusals, and the order of steps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import report

SCRIPT = Path(__file__).parent / "run.sh"
PREPARE = Path(__file__).parent / "prepare.sh"


def run(*arguments: str, cwd: Path, script: Path = SCRIPT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        check=False,
    )


@pytest.mark.parametrize("script", [SCRIPT, PREPARE])
def test_the_shell_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SCRIPT, ("--scene", "--quick", "--dry-run", "--kit", "MAX_JOBS", "Exit status")),
        (PREPARE, ("--python", "--without", "--arch", "--no-scene", "CUDA_PYTHON")),
    ],
)
def test_help(script: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path, script=script)
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--fast"], {}, "unknown argument --fast"),
        (["--out"], {}, "--out needs a folder"),
        (["--scene", "nowhere"], {}, "holds no scene.json"),
        ([], {"PYTHON": "no-such-python"}, "no no-such-python"),
        (["--kit", "no-such-folder"], {}, "no-such-folder is no folder"),
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
    assert "finds no GPU" in done.stderr
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
    imported = script.split('for name in """')[1].split('"""')[0].split()
    names = {"PIL": "pillow", "pynvml": "nvidia-ml-py"}  # of the packages, where modules are called otherwise
    assert {names.get(module, module) for module in imported} <= set(listed)


def test_the_cuda_tests_are_found_where_there_is_a_gpu(tmp_path: Path) -> None:
    """As run.sh asks for them: without tests/conftest.py, whose servers and plug-ins a GPU machine may lack."""
    script = SCRIPT.read_text(encoding="utf-8")
    files = re.findall(r"tests/core/\S+?\.py", script)
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
# In place of an interpreter with torch and a GPU; notes what it is asked for.
echo "$TORCH_CUDA_ARCH_LIST|$MAX_JOBS|${*//$'\n'/ }" >>"$CALLS"
case "$*" in
*get_device_capability*) echo "$GPU" ;;
*why_cuda_is_unavailable*) exit 0 ;;
-) [[ -z $MISSING ]] || { echo "missing: $MISSING"; exit 1; } ;;
*"import prefect"*) exit 1 ;;
*"-m tests.gpu.kernels"*) exit "${UNFIT:-0}" ;;
*"-m pytest"*) [[ -n $COLLECTS ]] || exit 1 ;;
*"-m tests.gpu.report"*) exit 1 ;;
esac
"""


def with_stub(
    tmp_path: Path, *arguments: str, script: Path = SCRIPT, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    # From within the test's own environment: none of it may leak into what the script decides
    clean = {"PYTHON": str(stub), "CALLS": str(calls), "GPU": "7.5", "TORCH_CUDA_ARCH_LIST": "", "MAX_JOBS": ""}
    done = run("--out", str(tmp_path / "out"), *arguments, cwd=tmp_path, script=script, **{**clean, **environment})
    return done, calls.read_text(encoding="utf-8").splitlines()


def made_kit(folder: Path) -> Path:
    (folder / "scene").mkdir(parents=True)
    for name in ("some-1.0-py3-none-any.whl", "kernels.json", "scene/scene.json"):
        (folder / name).touch()
    return folder


def test_a_quick_run_takes_everything_from_the_kit_and_goes_by_importance(tmp_path: Path) -> None:
    kit, work = made_kit(tmp_path / "a kit"), tmp_path / "work"
    done, calls = with_stub(tmp_path, "--kit", str(kit), "--work", str(work), "--quick", "--", "--seed", "1")
    assert done.returncode == 1, done.stderr  # parity failed, and kept nothing from running
    order = [
        "get_device_capability", f"--target {work}/site {kit}/some-1.0", "|-", f"kernels bind {kit} --arch 7.5",
        "tests.gpu.machine", "why_cuda_is_unavailable", "-m pytest", "tests.gpu.report", "tests.gpu.side_by_side",
        "tests.gpu.report", "tests.gpu.demo", "tests.gpu.report", "tests.gpu.report",
    ]  # fmt: skip
    assert len(calls) == len(order), calls
    assert all(part in call for part, call in zip(order, calls, strict=True)), calls
    parity, contest, demo = calls[6], calls[8], calls[10]
    assert "-m cuda" in parity
    assert "--steps 2000 7000 --equal-steps --contenders ours default mcmc" in contest
    assert f"--scene {kit}/scene" in contest
    assert f"--scene {kit}/scene" in demo
    architecture, jobs, _ = contest.split("|", 2)
    assert architecture == "7.5"
    assert 1 <= int(jobs) <= (os.cpu_count() or 1)
    # Each part gets the time that is left, and together they end within the 8 minutes
    limits = [int(line.split("at most ")[1].split()[0]) for line in done.stdout.splitlines() if "at most" in line]
    assert len(limits) == 3
    assert 0 < limits[0] < limits[1] < limits[2] <= 480
    assert int(contest.split("--seconds ")[1].split()[0]) < 480
    ended = [json.loads((work / "parts" / f"{name}.json").read_text(encoding="utf-8")) for name in report.PARTS]
    assert [end["status"] for end in ended] == [1, 0, 0]
    # What has to come back is few and flat
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {
        "report.json", "report.txt", "side_by_side.json", "run.log", "view.jpg",
    }  # fmt: skip
    assert (tmp_path / "out" / "run.log").read_text(encoding="utf-8").rstrip().endswith("all parts")


def test_a_full_run_has_no_limits_and_keeps_its_work_beside_the_report(tmp_path: Path) -> None:
    scene = made_kit(tmp_path / "kit") / "scene"
    done, calls = with_stub(tmp_path, "--scene", str(scene), "--", "--memory-gb", "16")
    assert done.returncode == 1
    [contest] = [call for call in calls if "tests.gpu.side_by_side" in call]
    assert contest.endswith(f"--out {tmp_path}/out --scene {scene} --memory-gb 16")
    assert not any("pip install" in call or "tests.gpu.kernels" in call for call in calls)
    assert "at most" not in done.stdout
    assert (tmp_path / "out" / "work" / "parts" / "demo.json").is_file()


def test_kernels_that_do_not_fit_are_compiled_there_and_this_is_said(tmp_path: Path) -> None:
    done, calls = with_stub(tmp_path, "--kit", str(made_kit(tmp_path / "kit")), UNFIT="1")
    assert "THE KIT'S KERNELS CANNOT BE USED" in done.stdout
    assert any("tests.gpu.side_by_side" in call for call in calls)
    done, _ = with_stub(tmp_path, "--kit", str(tmp_path / "kit"), "--dry-run", UNFIT="1", COLLECTS="yes")
    assert done.returncode == 1
    done, _ = with_stub(tmp_path, "--kit", str(tmp_path / "kit"), "--dry-run", COLLECTS="yes")
    assert done.returncode == 0


def test_missing_packages_are_named_before_anything_runs(tmp_path: Path) -> None:
    done, calls = with_stub(tmp_path, MISSING="rich (No module named 'rich')")
    assert done.returncode == 2
    assert "missing: rich" in done.stdout
    assert "prepare.sh" in done.stdout
    assert not any("pip install" in call or "tests.gpu" in call for call in calls)


def test_a_dry_run_asks_the_gpu_for_nothing(tmp_path: Path) -> None:
    kit = made_kit(tmp_path / "kit")
    done, calls = with_stub(tmp_path, "--kit", str(kit), "--quick", "--dry-run", GPU="")
    assert done.returncode == 1  # the stub's pytest fails
    assert any(call.endswith(f"tests.gpu.kernels bind {kit}") for call in calls)
    assert any("--collect-only" in call for call in calls)
    assert any(f"tests.gpu.rehearsal --scene {kit}/scene" in call for call in calls)
    assert not any("-m tests.gpu.side_by_side" in call or "-m tests.gpu.demo" in call for call in calls)
    assert "python -m tests.gpu.side_by_side" in done.stdout


def test_a_kit_holds_wheels_for_the_other_python_and_what_the_machine_has_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old-1.0-py3-none-any.whl").touch()
    done, calls = with_stub(
        tmp_path, "--python", "3.13", "--without", "numpy,scipy", "--arch", "8.9", script=PREPARE,
        CUDA_PYTHON=str(tmp_path / "python"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    download = next(call for call in calls if "-m pip download" in call)
    assert "--python-version 3.13" in download
    assert "--constraint constraints.txt" in download
    wanted = (tmp_path / "out" / "requirements.txt").read_text(encoding="utf-8").split()
    assert {"gsplat", "numba", "pydantic_core"} <= set(wanted)
    assert not {"numpy", "scipy", "#"} & set(wanted)
    assert not (tmp_path / "out" / "old-1.0-py3-none-any.whl").exists()
    assert any(f"tests.gpu.kernels build {tmp_path}/out --arch 8.9" in call for call in calls)
    assert any("flight_scene" in call for call in calls)
    done, calls = with_stub(tmp_path, "--no-scene", script=PREPARE)
    assert not any("kernels build" in call for call in calls[-2:])
