"""Prepare the workspace and the destination of a round, and find leftovers in them afterwards."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.places.result_files import CONTENTS_FILE
from tests.faults.rounds.results import Result, in_folder, is_of_transfer, keys, on_s3
from tests.support.s3_server import S3Server

# Outputs by stage; sfm stores cameras too, and publish pictures.
STORED = ("photos", "sfm", "cameras", "train", "compress", "publish", "pictures")
Output = tuple[str, str]  # stage and cache key


class Place(ABC):
    """A workspace, and a destination beside it."""

    workspace: str
    out: str
    variables: Mapping[str, str] = {}

    @abstractmethod
    def outputs(self) -> set[Output]:
        """What the workspace holds."""

    @abstractmethod
    def forget(self, outputs: set[Output]) -> None:
        """Remove outputs, so that their stages have work to do."""

    @abstractmethod
    def take_outputs(self, other: "Place") -> None:
        """Copy all outputs of another workspace on the same storage, in which nothing is at work."""

    @abstractmethod
    def take_result(self, other: "Place") -> None:
        """Copy the result of another place."""

    @abstractmethod
    def result(self) -> Result:
        """What a reader finds at the destination."""

    @abstractmethod
    def published(self, run: str) -> Result:
        """The result of a server's run with this tag, which is in the workspace."""

    @abstractmethod
    def left_over(self) -> list[str]:
        """Names of what no run needs any more, when none is at work."""

    def prepare(self, reference: "Place", stage: str) -> None:
        """Put in what a run finds that has nothing to do before a stage."""
        self.take_outputs(reference)
        self.forget({(name, key) for name, key in self.outputs() if name in after(stage)})


def after(stage: str) -> set[str]:
    """Stages whose outputs do not exist when a stage begins."""
    return set(STORED[STORED.index(stage) :])


def other_outputs(found: set[Output], reference: set[Output]) -> list[Output]:
    """Outputs that only one of two workspaces has, or several published ones.

    The key of a published output depends on the destination, so that keys of two places differ.
    """
    published = [output for output in sorted(found) if output[0] == "publish"]
    differ = {output for output in found ^ reference if output[0] != "publish"}
    return sorted(differ) + (published if len(published) > 1 else [])


class FolderPlace(Place):
    """Below a folder."""

    def __init__(self, folder: Path, seen_as: Path | None = None) -> None:
        """`seen_as`: the folder's name for those who work in it, if that is another one."""
        self.folder = folder
        self.workspace, self.out = str((seen_as or folder) / "workspace"), str((seen_as or folder) / "out")

    @property
    def _stages(self) -> Path:
        return self.folder / "workspace" / "stages"

    def outputs(self) -> set[Output]:
        return {(path.parent.parent.name, path.parent.name) for path in self._stages.glob("*/*/manifest.json")}

    def forget(self, outputs: set[Output]) -> None:
        for stage, key in outputs:
            shutil.rmtree(self._stages / stage / key)

    def take_outputs(self, other: Place) -> None:
        assert isinstance(other, FolderPlace)
        shutil.copytree(other._stages, self._stages, dirs_exist_ok=True)

    def take_result(self, other: Place) -> None:
        assert isinstance(other, FolderPlace)
        shutil.copytree(other.folder / "out", self.folder / "out")

    def result(self) -> Result:
        return in_folder(self.folder / "out")

    def published(self, run: str) -> Result:
        [folder] = (self.folder / "workspace" / "runs").glob(f"*-{run}/splat")
        return in_folder(folder)

    def left_over(self) -> list[str]:
        hidden = [path for path in self.folder.rglob("*") if path.name.startswith(".") or "partial" in path.name]
        exchanged = [path for path in self.folder.rglob("spaceport-*") if path.name != CONTENTS_FILE]
        checkpoints = [path for path in (self.folder / "workspace" / "checkpoints").rglob("*") if path.is_file()]
        return sorted({path.relative_to(self.folder).as_posix() for path in (*hidden, *exchanged, *checkpoints)})


class S3Place(Place):
    """In a bucket of its own."""

    def __init__(self, server: S3Server, endpoint: str | None = None) -> None:
        """`endpoint`: what commands take for the server's address."""
        self.bucket = server.new_bucket()
        self._client: Any = server.client()
        self.workspace, self.out = f"s3://{self.bucket}/workspace", f"s3://{self.bucket}/out"
        self.variables = {**server.environment, "AWS_ENDPOINT_URL": endpoint or server.endpoint}

    def outputs(self) -> set[Output]:
        names = (key.split("/") for key in keys(self._client, self.bucket, "workspace/stages/"))
        return {(parts[2], parts[3]) for parts in names if parts[4:] == ["manifest.json"]}

    def forget(self, outputs: set[Output]) -> None:
        for stage, key in outputs:
            for name in keys(self._client, self.bucket, f"workspace/stages/{stage}/{key}/"):
                self._client.delete_object(Bucket=self.bucket, Key=name)

    def take_outputs(self, other: Place) -> None:
        self._copy(other, "workspace/stages/")

    def take_result(self, other: Place) -> None:
        self._copy(other, "out/")

    def result(self) -> Result:
        return on_s3(self._client, self.bucket, "out/")

    def published(self, run: str) -> Result:
        prefixes = {
            "/".join(key.split("/")[:4]) + "/"
            for key in keys(self._client, self.bucket, "workspace/runs/")
            if key.split("/")[2].endswith(f"-{run}") and key.split("/")[3] == "splat"
        }
        [prefix] = prefixes
        return on_s3(self._client, self.bucket, prefix)

    def left_over(self) -> list[str]:
        names = keys(self._client, self.bucket)
        transfers = [name for name in names if _is_of_exchange(name)]
        checkpoints = [name for name in names if name.startswith("workspace/checkpoints/")]
        uploads = self._client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return sorted({*transfers, *checkpoints, *self._unnamed_parts(names), *(each["Key"] for each in uploads)})

    def _unnamed_parts(self, names: list[str]) -> list[str]:
        """Uploads of outputs that no manifest leads to."""
        stored = [name.split("/") for name in names if name.startswith("workspace/stages/")]
        parts = {(*parts[2:4], parts[4]) for parts in stored if parts[4] != "manifest.json"}
        found: dict[tuple[str, ...], list[str]] = {}
        for stage, key, part in parts:
            found.setdefault((stage, key), []).append(part)
        whole = self.outputs()
        unnamed = [output for output, its in found.items() if len(its) > 1 or output not in whole]
        return ["/".join(("workspace/stages", *output, "…")) for output in unnamed]

    def _copy(self, other: Place, prefix: str) -> None:
        assert isinstance(other, S3Place)
        for name in keys(self._client, other.bucket, prefix):
            self._client.copy_object(Bucket=self.bucket, Key=name, CopySource={"Bucket": other.bucket, "Key": name})


def _is_of_exchange(name: str) -> bool:
    return any(is_of_transfer(part) and part != CONTENTS_FILE for part in name.split("/"))
