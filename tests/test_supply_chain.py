"""Other people's code that this project runs is pinned to exact bytes, and audited."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
DIGEST = r"@sha256:[0-9a-f]{64}$"


def loaded(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_commit(path: Path) -> None:
    named = re.findall(r"uses: (\S+)(.*)", path.read_text(encoding="utf-8"))
    assert named
    for action, comment in named:
        if action.startswith("./"):
            continue
        assert re.search(r"@[0-9a-f]{40}$", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: which version is that?"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_and_a_job_with_a_role_nothing_more_than_that(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}).keys() <= {"contents", "id-token"}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_are_made_from_digests(kind: str) -> None:
    text = (REPOSITORY / f"docker/{kind}.Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    for base in bases:
        assert re.search(DIGEST, arguments[base.strip("${}")]), base
    for source in re.findall(r"git\+https://\S+?@([^\s\"]+)", text):
        assert re.fullmatch(r"[0-9a-f]{40}", arguments[source.strip("${}")]), source


def test_services_of_others_are_run_by_digest() -> None:
    services = loaded(REPOSITORY / "docker/compose.yaml")["services"].values()
    others = [each["image"] for each in services if not each["image"].startswith("spaceport:")]
    assert len(others) == 2
    for image in others:
        assert re.search(DIGEST, image), image


def test_images_come_with_a_bill_of_materials_and_after_an_audit() -> None:
    workflow = loaded(REPOSITORY / ".github/workflows/images.yml")
    [build] = [step for step in steps(workflow) if "build-push-action" in step.get("uses", "")]
    assert build["with"]["sbom"] is True
    assert build["with"]["provenance"] == "mode=max"
    assert workflow["jobs"]["image"]["needs"] == "audit"
    assert workflow["jobs"]["audit"]["uses"] == "./.github/workflows/audit.yml"


def test_packages_of_both_kinds_are_looked_up() -> None:
    commands = [step.get("run", "") for step in steps(loaded(REPOSITORY / ".github/workflows/audit.yml"))]
    assert any("pip-audit" in each and "constraints.txt" in each for each in commands)
    assert any("npm audit" in each and "tasks/core/viewer/npm" in each for each in commands)
    assert "schedule" in loaded(REPOSITORY / ".github/workflows/ci.yml")[True], "YAML reads `on` as true"


def test_github_does_what_the_local_ci_does() -> None:
    """Each `make …` of .ci/run, in whatever step."""
    local = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    wanted = {command.split("#")[0].strip() for command in re.findall(r"^make .*$", local, re.MULTILINE)}
    there = {step.get("run", "") for step in steps(loaded(REPOSITORY / ".github/workflows/ci.yml"))}
    assert wanted <= there


def pins(name: str) -> dict[str, str]:
    """Packages and versions that a file of requirements names, by normalized name."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


@pytest.mark.parametrize("name", ["requirements", "requirements-gpu", "requirements-node"])
def test_every_package_of_the_images_has_hashes(name: str) -> None:
    text = (REPOSITORY / f"docker/{name}.txt").read_text(encoding="utf-8")
    packages = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(packages) == len(pins(f"docker/{name}.txt"))
    for package in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", package), package.split()[0]


def test_images_have_the_versions_that_everybody_tests_with() -> None:
    constrained = pins("constraints.txt")
    for name in ("docker/requirements.txt", "docker/requirements-node.txt"):
        for package, version in pins(name).items():
            assert constrained.get(package, version) == version, f"{name}: {package}; run make image-hashes"
    assert pins("docker/requirements-gpu.txt")["pycolmap-cuda12"] == constrained["pycolmap"]


def test_images_have_everything_that_the_project_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=~\[ ]", each)[0].lower() for each in project["dependencies"]}
    assert asked <= set(pins("docker/requirements.txt")), "run make image-hashes"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_install_by_hash_unless_told_otherwise(kind: str) -> None:
    text = (REPOSITORY / f"docker/{kind}.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"bin/pip install (.*?)(?:;|&&|$)", text, re.MULTILINE):
        from_the_project = "--editable ." in command and "--no-deps" in command
        from_a_commit = "gsplat @ git+https" in command
        if not (from_the_project or from_a_commit or "${PIP_OPTIONS}" in command):
            assert "--require-hashes" in command, command
    assert kind == "gpu" or "ARG HASHED=yes" in text
