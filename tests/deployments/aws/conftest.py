"""Templates of the stacks, synthesized once, without a network."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.support.patience import finished


@dataclass(frozen=True)
class Templates:
    """The stacks of one way to deploy."""

    folder: Path

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.template.json"))

    def stack(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / f"Spaceport-{name}.template.json").read_text())
        return content

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Of all stacks: `stack/logical id` -> resource."""
        return {
            f"{path.name.split('.')[0]}/{name}": resource
            for path in self.paths()
            for name, resource in json.loads(path.read_text())["Resources"].items()
            if kind in ("", resource["Type"])
        }

    def properties(self, kind: str) -> list[dict[str, Any]]:
        return [resource["Properties"] for resource in self.resources(kind).values()]


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cdk")
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.deployments.aws.synthesize"]
    environment = {**os.environ, "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"}
    done = finished([*command, str(folder)], cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="session")
def templates(synthesized: Path) -> Templates:
    """What an account gets that chooses nothing."""
    return Templates(synthesized / "default")


@pytest.fixture(scope="session")
def other_templates(synthesized: Path) -> Templates:
    """Private subnets, public results, no spot, somebody else's Prefect server."""
    return Templates(synthesized / "other")
