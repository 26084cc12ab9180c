"""The start of GPU instances: scripts of the templates, with stand-ins for everything they call."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deployments.aws.conftest import Templates
from tests.deployments.aws.test_stacks import joined

# Each writes down how it was called, and fails if it is to.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0")" in lsblk) echo "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage";; esac
[ "$(basename "$0")" != "$FAILS" ]
"""
END = "shutdown"
CALLED = ("lsblk", "mkdir", "mkfs.ext4", "mount", "install", "systemctl", "dnf", "aws", "docker", "systemd-run", END)
REAL = ("awk", "basename", "bash", "cat", "cut", "sh", "timeout")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """All that the scripts find."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in CALLED:
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    for name in REAL:
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def scripts(templates: Templates, word: str) -> list[str]:
    """User data of the launch templates that hold a word."""
    data = [each["LaunchTemplateData"]["UserData"] for each in templates.properties("AWS::EC2::LaunchTemplate")]
    found = [script for script in (joined(each["Fn::Base64"]) for each in data) if word in script]
    assert len(found) == 2
    return found


def calls_of(script: str, programs: Path, fails: str) -> tuple[int, list[str]]:
    """Status of the script, and what it called in a world in which a program fails."""
    calls = programs.parent / "calls"
    environment = {"PATH": str(programs), "CALLS": str(calls), "FAILS": fails}
    done = subprocess.run(["bash"], input=script, text=True, env=environment, check=False)
    return done.returncode, calls.read_text().splitlines()


def ends(calls: list[str]) -> bool:
    return f"{END} -h now" in calls


def test_an_instance_of_workers_starts_one_and_ends_with_it(templates: Templates, programs: Path) -> None:
    for script in scripts(templates, "gpu_host"):
        (programs.parent / "calls").unlink(missing_ok=True)
        status, calls = calls_of(script, programs, "nothing")
        assert status == 0
        assert not ends(calls)
        assert "mount -o noatime /dev/nvme1n1 /scratch" in calls
        assert calls[-2].startswith("docker run --name worker")
        assert calls[-1].endswith("bash -c docker wait worker; shutdown -h now")


@pytest.mark.parametrize("fails", ["lsblk", "mkfs.ext4", "mount", "install", "systemctl", "dnf", "aws", "docker"])
def test_an_instance_of_workers_that_fails_at_boot_ends_itself(
    templates: Templates, programs: Path, fails: str
) -> None:
    status, calls = calls_of(scripts(templates, "gpu_host")[0], programs, fails)
    assert status != 0
    assert ends(calls)


@pytest.mark.parametrize("fails", ["nothing", "mount"])
def test_an_instance_of_ecs_that_fails_at_boot_ends_itself(templates: Templates, programs: Path, fails: str) -> None:
    configuration = programs.parent / "ecs.config"
    script = scripts(templates, "ECS_CLUSTER=")[0].replace("/etc/ecs/ecs.config", str(configuration))
    status, calls = calls_of(script, programs, fails)
    assert (status == 0, ends(calls)) == ((True, False) if fails == "nothing" else (False, True))
    assert configuration.exists() == (fails == "nothing")
