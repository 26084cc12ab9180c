"""Remove old parts of a local workspace, by age or size, except those that a kept run needs."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from tasks.core.storage.workspace import CHECKPOINTS_FOLDER, RUNS_FOLDER, STAGES_FOLDER

Kind = Literal["run", "result", "output", "checkpoints"]
LEAST_AGE_SECONDS = 24 * 3600.0  # younger items may belong to a run in progress
RESULT_PAGE = "splat/index.html"  # in the folder of a run whose result is in the workspace
NOTES = "outputs/*.json"  # in the folder of a run: the stage outputs that it uses
LOGS = "logs/*.log"  # in the folder of a run
_REMOVED = ".removed"
# Other programs have folders called runs and checkpoints too, and a workspace may be among their files.
_KEY = re.compile("[0-9a-f]{32}")  # as `cache_key` makes them
_RUN = re.compile("[A-Za-z0-9._-]+-[0-9a-f]{8}")  # as tasks/running/run_folder.py makes them
_ASIDE = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(_REMOVED)}")


@dataclass(frozen=True)
class Item:
    """A part of the workspace that can be removed separately."""

    kind: Kind  # `result` is the folder of a run with its published result, `run` that of one without
    path: Path
    size_bytes: int
    used_at: float  # seconds since the epoch of its newest file
    needs: frozenset[Path] = frozenset()  # outputs and checkpoints that a run uses


class _Note(BaseModel):
    uri: str


def items(root: Path) -> list[Item]:
    """Return everything in the workspace that runs have made, the oldest first. Other files are not included."""
    found = [*_runs(root), *_outputs(root), *_folders(root / CHECKPOINTS_FOLDER, "checkpoints", _KEY)]
    return sorted(found, key=lambda item: (item.used_at, item.path))


def removable(
    found: Iterable[Item], older_than_seconds: float, *, results: bool, now: float | None = None
) -> list[Item]:
    """Return the items of that age that no younger run needs.

    Args:
        found: as `items` returns them.
        older_than_seconds: nothing younger than LEAST_AGE_SECONDS is removed, whatever this says.
        results: whether published results are removed as well; otherwise all of them are kept with what they need.
        now: seconds since the epoch.
    """
    before = (time.time() if now is None else now) - max(older_than_seconds, LEAST_AGE_SECONDS)
    old = [item for item in found if item.used_at < before and (results or item.kind != "result")]
    gone = {item.path for item in old if item.kind in ("run", "result")}
    needed = {need for item in found if item.path not in gone for need in item.needs}
    return [item for item in old if item.path in gone or item.path not in needed]


def down_to(found: list[Item], size_bytes: int, *, results: bool, now: float | None = None) -> list[Item]:
    """Return the oldest removable items whose removal leaves at most `size_bytes`, or all of them."""
    left = sum(item.size_bytes for item in found)
    most = removable(found, 0, results=results, now=now)
    ages = sorted({item.used_at for item in most})
    moment = time.time() if now is None else now
    chosen: list[Item] = []
    for used_at in ages:  # a removed run frees the items that only it needed, so each age is handled as a whole
        if left - sum(item.size_bytes for item in chosen) <= size_bytes:
            break
        chosen = removable(found, moment - used_at - 1e-3, results=results, now=moment)
    return chosen


def remove(folder: Path) -> None:
    """Remove a folder. A run that looks for it meanwhile finds nothing, never a part of it. Raises OSError."""
    aside = folder.with_name(f".{folder.name.strip('.')}.{uuid.uuid4().hex[:8]}{_REMOVED}")
    folder.rename(aside)
    shutil.rmtree(aside)


def unfinished(root: Path) -> list[Path]:
    """Folders that `remove` was removing when its process ended."""
    parents = (RUNS_FOLDER, f"{STAGES_FOLDER}/*", CHECKPOINTS_FOLDER)
    found = (path for parent in parents for path in root.glob(f"{parent}/.*{_REMOVED}"))
    return sorted(path for path in found if _ASIDE.fullmatch(path.name))


def _runs(root: Path) -> Iterator[Item]:
    for item in _folders(root / RUNS_FOLDER, "run", _RUN):
        if not any(next(item.path.glob(part), None) for part in (NOTES, LOGS, RESULT_PAGE)):
            continue
        needs = frozenset(need for note in item.path.glob(NOTES) for need in _needs(root, note))
        kind: Kind = "result" if (item.path / RESULT_PAGE).is_file() else "run"
        yield Item(kind, item.path, item.size_bytes, item.used_at, needs)


def _needs(root: Path, note: Path) -> Iterator[Path]:
    """Yield the needs in a note, whose path may name a workspace that was moved since."""
    try:
        stage, key = Path(_Note.model_validate_json(note.read_bytes()).uri).parts[-2:]
    except (ValidationError, ValueError, OSError):
        return
    yield root / STAGES_FOLDER / stage / key
    yield root / CHECKPOINTS_FOLDER / key


def _outputs(root: Path) -> Iterator[Item]:
    stages = root / STAGES_FOLDER
    for stage in sorted(stages.iterdir()) if stages.is_dir() else ():
        yield from _folders(stage, "output", _KEY)


def _folders(parent: Path, kind: Kind, name: re.Pattern[str]) -> Iterator[Item]:
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if name.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            sizes = [(found.st_size, found.st_mtime) for found in _stats(folder)]
            yield Item(kind, folder, sum(size for size, _ in sizes), max(moment for _, moment in sizes))


def _stats(folder: Path) -> Iterator[os.stat_result]:
    yield folder.lstat()
    for path in folder.rglob("*"):
        try:
            yield path.lstat()
        except FileNotFoundError:  # a run in progress has moved it
            continue
