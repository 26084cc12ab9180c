"""The ladder of efforts: which tries are made, and which is kept. test_reconstruct tries them in earnest."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pycolmap
import pytest

from tasks.core.photoset import Photo, PhotoSet
from tasks.core.sfm import pipeline
from tasks.core.sfm.mapping import Mapped
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import Pair, PairChoice
from tasks.core.sfm.worker import CamerasJob

COUNT = 30


def mapped(registered: int) -> Mapped:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    for i in range(1, registered + 1):
        image = pycolmap.Image(name=f"{i:06d}.jpg", camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    return Mapped("incremental", model, 1)


@dataclass
class Ladder:
    """Replaces database and mapper: records the requests, and registers as many photos as the test asks."""

    registered: list[int]
    low_contrast: bool = False
    still_points_count: bool = True
    asked: list[str] = field(default_factory=list)

    def __call__(self, *_: object) -> "Ladder":
        return self

    def restore(self, _: Path) -> bool:
        return False

    def add_cameras(self) -> None:
        pass

    def extract(self, *, doubled: bool = False, equalised: bool = False, kept: Path | None = None) -> None:
        self.asked.append(("doubled" if doubled else "features") + (", raised" if equalised else ""))

    def no_depth(self) -> str:
        return ""

    def is_fooled(self) -> bool:
        return False

    def with_zoomed_apart(self, _: Path) -> None:
        return None

    def has_low_contrast(self) -> bool:
        return self.low_contrast

    def overlay_of(self, _: Photo) -> None:
        return None

    def match(self, choice: PairChoice, kept: Path | None) -> tuple[Pair, ...]:
        assert (kept is None) == (len(self.asked) > 1)  # of the first only
        self.asked.append(choice.matcher)
        return choice.pairs

    def user_name(self, name: str) -> str:
        return f"user/{name}"

    def map_photos(self, *_: object) -> Mapped:
        return mapped(self.registered.pop(0))


CASES = {
    "all at once": ([30], ["features", "sequential"], 30, "sequential"),
    "a few left out": ([27], ["features", "sequential"], 27, "sequential"),
    "more pairs help": ([20, 29], ["features", "sequential", "exhaustive"], 29, "exhaustive"),
    "more pairs do not help": ([20, 19], ["features", "sequential", "exhaustive"], 20, "sequential"),
    "finer features help": (
        [3, 5, 25],
        ["features", "sequential", "exhaustive", "doubled", "exhaustive"],
        25,
        "exhaustive",
    ),
    "nothing helps": (
        [0, 5, 2],
        ["features", "sequential", "exhaustive", "doubled", "exhaustive"],
        5,
        "exhaustive",
    ),
}


def climb(count: int, ladder: Ladder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pipeline.Ladder:
    """The efforts made for `count` frames of a video."""
    monkeypatch.setattr(pipeline, "FeatureDatabase", ladder)
    monkeypatch.setattr(pipeline, "map_photos", ladder.map_photos)
    monkeypatch.setattr(pipeline, "reasons", lambda *_: {})
    photos = PhotoSet(photos=tuple(Photo(name=f"{i:03}.jpg", width=64, height=48, sha256="") for i in range(count)))
    job = CamerasJob(source=tmp_path, out=tmp_path, options=SfmOptions())
    return pipeline.map_with_escalation(job, photos)


@pytest.mark.parametrize("case", CASES)
def test_efforts_grow_until_enough_photos_register(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered, asked, best, matcher = CASES[case]
    ladder = Ladder(list(registered))
    found = climb(COUNT, ladder, tmp_path, monkeypatch)
    assert ladder.asked == asked
    assert not ladder.registered
    assert (found.best.registered, found.chosen.matcher) == (best, matcher)
    assert [made.registered for made in found.tries] == registered
    assert [made.rung for made in found.tries] == ["first try", "all pairs", "finer features"][: len(registered)]
    assert found.best.model is not None
    assert {image.name.split("/")[0] for image in found.best.model.images.values()} == {"user"}


@pytest.mark.parametrize(
    ("registered", "rungs"),
    [
        ([95], ["first try"]),
        ([60, 95], ["first try", "more neighbours"]),
        ([60, 80, 95], ["first try", "more neighbours", "all pairs"]),
        ([50, 55, 58, 90], ["first try", "more neighbours", "all pairs", "finer features"]),
    ],
)
def test_many_photos_are_compared_with_more_neighbours_first(
    registered: list[int], rungs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = climb(100, Ladder(list(registered)), tmp_path, monkeypatch).tries
    assert [(made.rung, made.registered) for made in tries] == list(zip(rungs, registered, strict=True))
    assert all(less.pairs <= more.pairs for less, more in pairwise(tries))


@pytest.mark.parametrize(
    ("registered", "rungs", "asked"),
    [
        ([3, 5, 25], ["raised contrast"], ["features, raised"]),
        ([3, 5, 9, 25], ["raised contrast", "finer features"], ["features, raised", "doubled, raised"]),
        ([9, 9, 5, 25], ["raised contrast", "finer features"], ["features, raised", "doubled"]),
    ],
)
def test_contrast_is_raised_in_pale_photos_before_finer_features(
    registered: list[int], rungs: list[str], asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = Ladder(list(registered), low_contrast=True)
    tries = climb(COUNT, ladder, tmp_path, monkeypatch).tries
    assert [made.rung for made in tries][2:] == rungs
    assert [what for what in ladder.asked[1:] if what.startswith(("features", "doubled"))] == asked
