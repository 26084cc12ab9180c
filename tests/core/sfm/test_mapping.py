"""The choice between two models."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from tasks.core.photoset import Photo
from tasks.core.sfm import mapping
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.mapping import Mapped, agree, comparable, leave_out_strangers, map_photos, reasons
from tasks.core.sfm.mapping_parts import PartsMapped
from tasks.core.sfm.options import SfmOptions

FEATURES = (900, 900, 900, 40, 900, 900, 900, 900)
SHARED = {(0, 1): 300, (0, 2): 200, (0, 5): 20, (2, 5): 31, (6, 7): 80, (0, 6): 9}
EXPECTED = {
    "dark.jpg": "only 40 features",
    "elsewhere.jpg": "shares no points with any other photo",
    "weak.jpg": "shares points with 2 photos of the scene, at most 31 with one",
    "apart.jpg": "shares points with 1 photos, none of which is in the scene",
    "apart too.jpg": "shares points with 1 photos, none of which is in the scene",
}


def mapped(turns: Rotation, world: Rotation) -> Mapped:
    """A model whose cameras have the given orientations, in a world turned by `world`."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    for i, rotation in enumerate((turns * world.inv()).as_matrix(), start=1):
        image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.column_stack([rotation, np.zeros(3)])))
    return Mapped("any", model, 1)


def test_models_agree_whatever_frame_they_stand_in() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    small = Rotation.from_rotvec(np.random.default_rng(2).normal(0, np.radians(0.5), (30, 3)))
    assert agree(mapped(turns, Rotation.identity()), mapped(small * turns, world))


def test_wrong_global_solution_is_told_by_its_rotations() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    large = Rotation.from_rotvec(np.random.default_rng(2).normal(0, np.radians(12), (30, 3)))
    assert not agree(mapped(turns, Rotation.identity()), mapped(large * turns, world))


def test_a_few_turned_cameras_do_not_matter() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    few = np.zeros((30, 3))
    few[:4] = [0, 0, 2]
    assert agree(mapped(turns, Rotation.identity()), mapped(Rotation.from_rotvec(few) * turns, world))


def test_models_with_too_few_photos_in_common_tell_nothing() -> None:
    turns = Rotation.random(30, random_state=0)
    whole, few = mapped(turns, Rotation.identity()), mapped(turns[:8], Rotation.identity())
    assert comparable(whole, few)
    assert not comparable(whole, Mapped("incremental", None, 0))
    assert few.model is not None
    for i, image in enumerate(few.model.images.values()):
        image.name = image.name if i < 3 else f"other {i}.jpg"
    assert not comparable(whole, few)


def test_photos_of_a_rescue_that_nothing_supports_are_taken_out() -> None:
    """Two photos of 18 ended 69 degrees off, which the median of the common ones does not show."""
    turns = Rotation.random(20, random_state=0)
    twisted = Rotation.from_rotvec(np.array([[0, 0, 1.2 * (i == 4)] for i in range(20)])) * turns
    rescue, incremental = mapped(twisted, Rotation.random(random_state=1)), mapped(turns[:18], Rotation.identity())
    assert agree(incremental, rescue)
    leave_out_strangers(rescue, incremental)
    assert rescue.model is not None
    left = {rescue.model.image(i).name for i in rescue.model.reg_image_ids()}
    assert left == {f"{i}.jpg" for i in range(1, 19) if i != 5}  # 19 and 20 show no point


def test_the_better_of_two_models_has_more_photos_or_clearer_evidence() -> None:
    turns = Rotation.random(10, random_state=0)
    ten, nine = mapped(turns, Rotation.identity()), mapped(turns[:9], Rotation.identity())
    assert ten.is_better_than(nine)
    assert not nine.is_better_than(ten)
    assert nine.is_better_than(replace(ten, doubt="no depth"))
    assert replace(ten, mapper="incremental").is_better_than(replace(ten, mapper="global"))
    assert not replace(ten, mapper="global").is_better_than(replace(ten, mapper="incremental"))
    assert not ten.is_better_than(ten)


def test_nothing_to_compare_with() -> None:
    model = mapped(Rotation.random(5, random_state=0), Rotation.identity())
    assert agree(Mapped("incremental", None, 0), model)
    assert not Mapped("incremental", None, 0).is_good(5)
    assert model.is_good(5)
    assert not model.is_good(6)
    assert not Mapped("incremental", model.model, 2).is_good(5)


@pytest.mark.parametrize(
    ("in_parts", "whole", "mapped_whole", "registered"),
    [(20, 0, False, 20), (19, 0, False, 19), (15, 20, True, 20), (15, 12, True, 15), (0, 12, True, 12)],
    ids=["all", "enough", "the whole places more", "the parts do", "no part fits"],
)
def test_many_photos_are_mapped_in_parts_and_as_a_whole_where_these_leave_many_out(
    in_parts: int, whole: int, mapped_whole: bool, registered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, asked = Rotation.random(20, random_state=0), []

    def model(count: int) -> pycolmap.Reconstruction | None:
        return mapped(turns[:count], Rotation.identity()).model if count else None

    def map_whole(*_: object) -> Mapped:
        asked.append("whole")
        return Mapped("incremental", model(whole), 1)

    monkeypatch.setattr(mapping, "WHOLE_AT_MOST", 19)
    monkeypatch.setattr(mapping, "map_in_parts", lambda *_: PartsMapped(model(in_parts), 4, ("a part is lost",)))
    monkeypatch.setattr(mapping, "map_incrementally", map_whole)
    monkeypatch.setattr(mapping, "_judged", lambda found, _: found)
    names = tuple(f"{i}.jpg" for i in range(20))
    many = SimpleNamespace(names=names, has_crops=False)
    found = map_photos(many, Path(), SfmOptions(mapper="incremental"))
    assert found.registered == registered
    assert bool(asked) == mapped_whole
    assert found.problems == (("a part is lost",) if registered == in_parts else ())
    few = SimpleNamespace(names=names[:19], has_crops=False)
    assert map_photos(few, Path(), SfmOptions(mapper="incremental")).registered == whole


# photo: its features; pairs: points in common. Photos 0 to 2 make the scene.
@pytest.fixture
def database(tmp_path: Path) -> FeatureDatabase:
    names = ["0.jpg", "1.jpg", "2.jpg", *EXPECTED]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("L", (64, 48)).save(tmp_path / "images" / name)
    photos = tuple(Photo(name=name, width=64, height=48, sha256="") for name in names)
    made = FeatureDatabase(tmp_path / "work", tmp_path, photos, SfmOptions())
    made.add_cameras()
    with pycolmap.Database.open(made.path) as known:
        ids = [{image.name: image.image_id for image in known.read_all_images()}[name] for name in made.names]
        for i, count in zip(ids, FEATURES, strict=True):
            known.write_keypoints(i, np.zeros((count, 6), dtype=np.float32))
        for (a, b), count in SHARED.items():
            matches = np.tile(np.arange(count, dtype=np.uint32)[:, None], 2)
            known.write_two_view_geometry(ids[a], ids[b], pycolmap.TwoViewGeometry(inlier_matches=matches))
    return made


def test_every_photo_that_is_left_out_has_its_reason(database: FeatureDatabase) -> None:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    with pycolmap.Database.open(database.path) as known:
        ids = {image.name: image.image_id for image in known.read_all_images()}
    for name in database.names[:3]:
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=name, camera_id=1, image_id=ids[name]), pycolmap.Rigid3d()
        )
    found = reasons(database, Mapped("incremental", model, 2))
    assert found.keys() == EXPECTED.keys()
    for name, begins in EXPECTED.items():
        assert found[name].startswith(begins)


def test_where_nothing_was_placed_every_photo_has_a_reason(database: FeatureDatabase) -> None:
    assert len(reasons(database, Mapped("incremental", None, 0))) == len(FEATURES)
