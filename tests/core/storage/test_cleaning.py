"""Files that `spaceport clean` removes, and files that it never removes."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.core.storage.cleaning import LEAST_AGE_SECONDS, down_to, items, removable, remove, unfinished

NOW = 2_000_000_000.0
DAY = 24 * 3600.0


def key(word: str) -> str:
    """A cache key for each word."""
    return hashlib.sha256(word.encode()).hexdigest()[:32]


def real(name: str) -> str:
    """`runs/old/…` and the like, with a word in place of a key or a run's number, as a workspace has it."""
    parts = name.split("/")
    place = {"stages": 2, "checkpoints": 1, "runs": 1}[parts[0]]
    parts[place] = f"{parts[place]}-0123abcd" if parts[0] == "runs" else key(parts[place])
    return "/".join(parts)


class Made:
    """A workspace with files of chosen ages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, days_old: float, size: int = 1000) -> None:
        self.put_exactly(real(name), days_old, size)

    def put_exactly(self, name: str, days_old: float, size: int = 1000) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        for each in (path, *path.parents):
            if each == self.root:
                break
            os.utime(each, (NOW - days_old * DAY,) * 2)

    def run(self, name: str, days_old: float, *outputs: str, result: bool = True) -> None:
        for output in outputs:
            stored = real(f"stages/{output}")
            note = self.root / real(f"runs/{name}") / "outputs" / f"{output.replace('/', '-')}.json"
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f'{{"uri": "/as/it/was/{stored}", "cached": false}}', encoding="utf-8")
            os.utime(note, (NOW - days_old * DAY,) * 2)
        self.put(f"runs/{name}/splat/index.html" if result else f"runs/{name}/logs/train.log", days_old)
        os.utime(self.root / real(f"runs/{name}"), (NOW - days_old * DAY,) * 2)
        if outputs:
            os.utime(self.root / real(f"runs/{name}") / "outputs", (NOW - days_old * DAY,) * 2)

    def names(self, days: float, *, results: bool = False) -> set[str]:
        chosen = removable(items(self.root), days * DAY, results=results, now=NOW)
        return {item.path.relative_to(self.root).as_posix() for item in chosen}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two old runs and a young one, which share an old output; one old run failed."""
    made = Made(tmp_path)
    for output, days_old in (("sfm/shared", 90), ("train/old", 80), ("train/failed", 60), ("train/young", 2)):
        made.put(f"stages/{output}/scene.ply", days_old)
    made.put("stages/train/orphan/scene.ply", 70)
    made.put("checkpoints/failed/300.npz", 60)
    made.put("checkpoints/young/300.npz", 40)
    made.run("old", 80, "sfm/shared", "train/old")
    made.run("failed", 60, "sfm/shared", "train/failed", result=False)
    made.run("young", 2, "sfm/shared", "train/young")
    return made


def test_results_and_what_they_are_made_of_are_kept(made: Made) -> None:
    gone = ("runs/failed", "stages/train/failed", "checkpoints/failed", "stages/train/orphan")
    assert made.names(30) == set(map(real, gone))


def test_a_result_goes_when_it_is_asked_for_and_shared_outputs_stay(made: Made) -> None:
    assert made.names(30, results=True) - made.names(30) == {real("runs/old"), real("stages/train/old")}
    assert real("stages/sfm/shared") in made.names(1, results=True), "once the young run goes too"


def test_nothing_of_a_run_that_may_be_at_work_is_removed(made: Made) -> None:
    made.run("now", LEAST_AGE_SECONDS / DAY / 2, "train/orphan", result=False)
    made.put("stages/train/new/scene.ply", 0.5)
    young = ("runs/now", "stages/train/orphan", "stages/train/new")
    assert not set(map(real, young)) & made.names(0, results=True)


def test_the_oldest_go_until_the_rest_is_small_enough(made: Made) -> None:
    found = items(made.root)
    total = sum(item.size_bytes for item in found)
    assert down_to(found, total, results=False, now=NOW) == []
    [first] = down_to(found, total - 1, results=False, now=NOW)
    assert first.path.name == key("orphan")
    most = down_to(found, 0, results=False, now=NOW)
    assert {item.path for item in most} == {item.path for item in removable(found, 0, results=False, now=NOW)}


def test_what_others_put_there_and_links_are_none_of_it(made: Made, tmp_path: Path) -> None:
    before = items(made.root)
    theirs = (
        *("notes.txt", "stages/train/.other.partial/file", "stages/first/act/play.txt", "runs/morning/heart.csv"),
        *("runs/morning-0123abcd/heart.csv", "checkpoints/resnet50/300.npz", "runs/.mine.removed/a.txt"),
    )
    for name in theirs:
        made.put_exactly(name, 90)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (made.root / real("runs/link")).symlink_to(outside)
    assert items(made.root) == before
    assert not unfinished(made.root)


def test_a_removed_one_is_gone_at_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    item = next(each for each in items(made.root) if each.path.name == key("orphan"))
    rmtree, seen = shutil.rmtree, []
    monkeypatch.setattr(shutil, "rmtree", lambda path: (seen.append(item.path.exists()), rmtree(path)))
    remove(item.path)
    assert seen == [False]
    assert not unfinished(made.root)
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)  # as if it were killed here
    remove(made.root / real("stages/train/failed"))
    monkeypatch.undo()
    [left] = unfinished(made.root)
    remove(left)
    assert not unfinished(made.root)


def test_the_command_touches_nothing_without_yes(made: Made) -> None:
    before = sorted(made.root.rglob("*"))
    told = CliRunner().invoke(app, ["clean", "--workspace", str(made.root), "--older-than", "30"])
    assert told.exit_code == 0, told.output
    assert "would be removed" in told.output
    assert sorted(made.root.rglob("*")) == before
    done = CliRunner().invoke(app, ["clean", "--workspace", str(made.root), "--keep-gb", "0", "--yes"])
    assert done.exit_code == 0, done.output
    assert (made.root / real("runs/old") / "splat" / "index.html").is_file()


def test_a_bucket_has_rules_of_its_own() -> None:
    told = CliRunner().invoke(app, ["clean", "--workspace", "s3://bucket/workspace"])
    assert told.exit_code != 0
    assert "lifecycle rule" in str(told.exception)
