"""Folders with models in the shapes that other programs leave, and what the report says was chosen of them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.errors import FormatError, InputError
from tasks.core.model_frame import ModelFrame
from tasks.core.scene import Scene
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.given_places import is_given_model, model_among, unused_model
from tasks.core.sfm.model_outline import CAMERA_MODELS, read_outline
from tasks.core.sfm.undistort import read_plan
from tasks.core.sfm.worker import PLAN_FILE, WORK_FOLDER
from tests.core.sfm.given_model import (
    HEIGHT,
    POINTS,
    WIDTH,
    rewritten,
    scene_of,
    small_model,
    write_given,
    write_images,
)

COUNT = 8
NAMES = [f"{number}.jpg" for number in range(1, COUNT + 1)]


def write_small(home: Path, kept: int) -> None:
    """A model of the first cameras alone."""
    home.mkdir(parents=True)
    small_model(count=kept).write_binary(home)


def test_the_largest_of_several_models_is_taken_and_said_so(tmp_path: Path) -> None:
    """COLMAP numbers its models in the order in which it made them. Four of 36 cameras were taken without a word."""
    write_given(tmp_path / "given", count=COUNT, home="sparse/1")
    write_small(tmp_path / "given/sparse/0", 4)
    write_small(tmp_path / "given/sparse/10", 3)
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert section.registered == len(scene.cameras) == COUNT
    assert section.degradations == ("sparse/1 with 8 images was taken; sparse/0 has 4, sparse/10 has 3.",)
    assert section.model_frame is not None
    assert section.model_frame.model == "sparse/1"


def test_the_model_whose_images_are_there_counts_and_not_the_larger_one(tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT, home="sparse/1")
    model = small_model(count=COUNT)
    for image in model.images.values():
        image.name = f"elsewhere/{image.name}.png"
    (tmp_path / "given/sparse/0").mkdir()
    model.write_binary(tmp_path / "given/sparse/0")
    assert read_given(tmp_path / "given").label == "sparse/1"


def test_a_damaged_model_beside_a_good_one(tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT, home="sparse/1")
    write_small(tmp_path / "given/sparse/0", 4)
    (tmp_path / "given/sparse/0/images.bin").write_bytes(b"damaged")
    assert read_given(tmp_path / "given").notes == ("sparse/1 with 8 images was taken; sparse/0 cannot be read.",)


@pytest.mark.parametrize(
    ("home", "images"),
    [
        ("sparse/0", "images"),
        ("sparse/1", "images"),
        ("sparse/aligned", "images"),
        ("sparse", "images"),
        ("colmap/sparse/0", "images"),
        ("colmap/sparse/0", "colmap/images"),
        ("distorted/sparse/0", "input"),
        ("dense/sparse", "dense/images"),
        ("dense/0/sparse", "dense/0/images"),
        ("colmap_text", "images"),
        ("colmap", "colmap"),
        (".", "images"),
        (".", "."),
        ("sparse/0", "photos of June"),
        ("sparse/0", "Images"),
        ("sparse/0", "."),
    ],
)
@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_usual_shapes(home: str, images: str, text: bool, tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_given(given, count=COUNT, home=home, text=text)
    if images != "images":
        (given / images).mkdir(parents=True, exist_ok=True)
        for photo in (given / "images").iterdir():
            photo.rename(given / images / photo.name)
        (given / "images").rmdir()
    assert is_given_model(given)
    found = read_given(given)
    assert [image.name for image in found.images] == NAMES
    assert [image.file for image in found.images] == [given / images / name for name in NAMES]
    assert found.notes == ()
    assert found.points == POINTS
    assert set(found.files) >= {found.home / f"cameras.{'txt' if text else 'bin'}", given / images / "1.jpg"}


def test_a_folder_around_the_folder(tmp_path: Path) -> None:
    """Unpacking makes it. Its images were reconstructed anew, with their smaller copies, and no word of the model."""
    given = tmp_path / "unpacked/garden"
    write_given(given, count=COUNT)
    assert is_given_model(tmp_path / "unpacked")
    assert unused_model(tmp_path / "unpacked") is None
    found = read_given(tmp_path / "unpacked")
    assert (found.folder, found.label) == (given, "sparse/0")
    assert scene_of(tmp_path / "unpacked", tmp_path / "out")[0].registered == COUNT
    write_images(tmp_path / "unpacked/more", 1)
    assert not is_given_model(tmp_path / "unpacked")
    assert (unused_model(tmp_path / "unpacked") or "").startswith("garden contains a model with cameras, which was not")


@pytest.mark.parametrize(
    ("names", "model"),
    [
        (
            ["a/images/1.jpg", "a/sparse/0/cameras.bin", "a/sparse/0/images.bin", "a/sparse/0/points3D.bin"],
            "a/sparse/0",
        ),
        (["a\\cameras.txt", "a\\images.txt", "a\\points3D.txt"], "a"),
        (["keyframes/corrected_cameras/1.json", "keyframes/images/1.jpg"], "keyframes/corrected_cameras"),
        (["ns/transforms.json", "ns/sparse_pc.ply"], "ns/transforms.json"),
        (["fox/transforms.json", "fox/images/1.jpg"], None),
        (["cameras.bin", "1.jpg"], None),
    ],
)
def test_a_model_in_an_archive_is_known_by_names(names: list[str], model: str | None) -> None:
    assert model_among(names) == model


def test_a_distorted_model_takes_the_photos_from_before(tmp_path: Path) -> None:
    """3DGS's convert.py leaves the photos in `input`, and undistorted ones with their own model in `images`."""
    given = tmp_path / "given"
    write_given(given, count=COUNT, camera_model="SIMPLE_RADIAL", home="distorted/sparse/0")
    (given / "images").rename(given / "input")
    assert read_given(given).images[0].file == given / "input/1.jpg"
    write_given(given, count=COUNT)
    found = read_given(given)
    assert (found.label, found.images[0].file) == ("sparse/0", given / "images/1.jpg")
    assert found.notes == ("sparse/0 with 8 images was taken; distorted/sparse/0 has 8.",)


def test_smaller_copies_of_the_images_are_left_out(tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_given(given, count=COUNT)
    for factor in (2, 4):
        write_images(given / f"images_{factor}", COUNT, (WIDTH // factor, HEIGHT // factor))
    found = read_given(given)
    assert found.images[0].file == given / "images/1.jpg"
    assert found.notes == ("images_2 and images_4 were left out: the same images in other sizes as in images.",)
    shutil.rmtree(given / "images")
    assert read_given(given).images[0].file == given / "images_2/1.jpg"


def test_images_that_the_model_lacks_are_counted(tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT)
    shutil.copy(tmp_path / "given/images/1.jpg", tmp_path / "given/images/extra.jpg")
    assert read_given(tmp_path / "given").notes == (
        "1 of the 9 images in images is not in the model: without a camera it was left out.",
    )


@pytest.mark.parametrize("size", [(127, 97), (128, 96), (640, 480), (33, 25)])
@pytest.mark.parametrize("camera_model", ["PINHOLE", "SIMPLE_RADIAL"])
def test_intrinsics_are_scaled_to_the_images(camera_model: str, size: tuple[int, int], tmp_path: Path) -> None:
    """The best-known sets have cameras of 1957x1091 px and images of 979x546."""
    home = write_given(tmp_path / "given", count=COUNT, camera_model=camera_model)
    before, fitting = scene_of(tmp_path / "given", tmp_path / "fitting")

    def enlarge(model: pycolmap.Reconstruction) -> None:
        factor = np.divide(size, (WIDTH, HEIGHT))
        model.camera(1).rescale(*size)
        for image in model.images.values():
            for point in image.points2D:
                point.xy = point.xy * factor

    rewritten(home, enlarge)
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert section.degradations == (
        f"8 images of 64x48 px for cameras of {size[0]}x{size[1]} px: focal lengths and principal points were scaled "
        "to the images.",
    )
    camera, same = scene.cameras[0], fitting.cameras[0]
    assert (camera.width, camera.height) == (same.width, same.height)
    tolerance = 1e-9 if camera_model == "PINHOLE" else 0.01  # the lens has one focal length, the mean of two
    assert (camera.fx, camera.fy) == pytest.approx((same.fx, same.fy), rel=tolerance)
    assert (camera.cx, camera.cy) == pytest.approx((same.cx, same.cy), rel=tolerance)
    assert (read_plan(tmp_path / "out" / WORK_FOLDER / PLAN_FILE) == {}) == (camera_model == "PINHOLE")
    error_px = pytest.approx(before.mean_reprojection_error_px, abs=0.02)  # px
    assert section.mean_reprojection_error_px == error_px


def test_images_of_one_camera_in_two_sizes(tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT)
    write_images(tmp_path / "given/images", 2, (WIDTH // 2, HEIGHT // 2))
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert section.degradations == (
        "2 images of 32x24 px for cameras of 64x48 px: focal lengths and principal points were scaled to the images.",
    )
    assert {camera.width for camera in scene.cameras} == {WIDTH}
    plan = read_plan(tmp_path / "out" / WORK_FOLDER / PLAN_FILE)
    assert set(plan) == set(NAMES), "all are written at the size of their cameras"


@pytest.mark.parametrize(
    ("size", "turned", "says"),
    [
        ((64, 44), False, "3.jpg has 64x44 px, but the model's camera has 64x48: give the images that the model was"),
        ((48, 64), False, "3.jpg has 48x64 px, but the model's camera has 64x48: give the images"),
        ((48, 64), True, "3.jpg has 48x64 px, but the model's camera has 64x48: EXIF turns it"),
    ],
)
def test_images_of_another_shape_are_refused(size: tuple[int, int], turned: bool, says: str, tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.new("RGB", size).save(tmp_path / "given/images/3.jpg", exif=exif)
    with pytest.raises(FormatError, match=says):
        read_given(tmp_path / "given")


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_missing_images_are_skipped_and_counted(text: bool, tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT, text=text)
    for number in (5, 7):
        (tmp_path / f"given/images/{number}.jpg").unlink()
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert section.degradations == ("2 of the model's 8 images are not in images and were left out: 5.jpg, 7.jpg.",)
    assert section.unregistered == ("5.jpg", "7.jpg")
    assert section.registered == len(scene.cameras) == 6
    assert section.points == POINTS
    written = pycolmap.Reconstruction(tmp_path / "out/sparse/0")
    assert {image.name for image in written.images.values()} == {camera.name for camera in scene.cameras}
    assert written.point3D(1).track.length() == 6


@pytest.mark.parametrize(("count", "there"), [(COUNT, 3), (4, 2)])
def test_most_images_missing_is_refused(count: int, there: int, tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=count)
    for number in range(there + 1, count + 1):
        (tmp_path / f"given/images/{number}.jpg").unlink()
    says = (
        f"{count - there} of the model's {count} images are not in .*images: .*At least 3 and half of them are needed"
    )
    with pytest.raises(FormatError, match=says):
        read_given(tmp_path / "given")


def test_no_images_at_all(tmp_path: Path) -> None:
    write_given(tmp_path / "given", count=COUNT)
    shutil.rmtree(tmp_path / "given/images")
    with pytest.raises(InputError, match="has no folder 'images'"):
        read_given(tmp_path / "given")


def test_of_a_rig_that_lost_an_image_the_others_stay(tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    rig = pycolmap.Rig(rig_id=1)
    for number in (1, 2):
        camera = pycolmap.Camera(camera_id=number, model="PINHOLE", width=WIDTH, height=HEIGHT, params=[60, 60, 32, 24])
        model.add_camera(camera)
    rig.add_ref_sensor(model.camera(1).sensor_id)
    rig.add_sensor(model.camera(2).sensor_id, pycolmap.Rigid3d(np.column_stack([np.eye(3), [0.1, 0, 0]])))
    model.add_rig(rig)
    pixels = np.column_stack([20.0 + np.arange(POINTS), np.full(POINTS, 20.0)])
    for number in range(1, 5):
        frame = pycolmap.Frame(frame_id=number, rig_id=1)
        images = [pycolmap.Image(f"{side}/{number}.jpg", pixels, side, 10 * number + side) for side in (1, 2)]
        for image in images:
            frame.add_data_id(image.data_id)
            image.frame_id = number
        frame.rig_from_world = pycolmap.Rigid3d(np.column_stack([np.eye(3), [0.3 * number, 0.1 * (number == 2), 0]]))
        model.add_frame(frame)
        for image in images:
            model.add_image(image)
        model.register_frame(number)
    for place in range(POINTS):
        track = pycolmap.Track()
        for image in model.images.values():
            track.add_element(image.image_id, place)
        model.add_point3D(np.array([place / 60, 0, 5]), track, np.array([1, 2, 3], np.uint8))
    centers = {image.name: image.projection_center() for image in model.images.values()}
    given = tmp_path / "given"
    (given / "sparse/0").mkdir(parents=True)
    model.write_binary(given / "sparse/0")
    for side in (1, 2):
        write_images(given / f"images/{side}", 4)
    (given / "images/2/3.jpg").unlink()
    section, scene = scene_of(given, tmp_path / "out")
    assert section.registered == 7
    assert section.unregistered == ("2/3.jpg",)
    assert_same_cameras(scene, {name: place for name, place in centers.items() if name != "2/3.jpg"})
    assert scene.points.track_lengths.tolist() == [7] * POINTS


def assert_same_cameras(scene: Scene, centers: dict[str, np.ndarray]) -> None:
    """The scene's cameras are at these places of the model, once they are moved by its `model_frame.json`."""
    frame = ModelFrame.load(scene.folder)
    assert frame is not None
    assert {camera.name for camera in scene.cameras} == set(centers)
    back = np.array(frame.model_from_scene)
    ours = np.stack([camera.center for camera in scene.cameras]) @ back[:3, :3].T + back[:3, 3]
    theirs = np.stack([centers[camera.name] for camera in scene.cameras])
    extent = float(np.linalg.norm(theirs - theirs.mean(axis=0), axis=1).max())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * extent)
    np.testing.assert_allclose(back, np.linalg.inv(np.array(frame.scene_from_model)), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(np.array(frame.rotation) @ np.array(frame.rotation).T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(back[:3, :3], frame.scale * np.array(frame.rotation), atol=1e-12 * frame.scale)


@pytest.mark.parametrize("offset", [(0.0, 0, 0), (512345.0, 5401234.0, 431.0)], ids=["local", "UTM"])
@pytest.mark.parametrize("camera_model", ["PINHOLE", "SIMPLE_RADIAL"])
def test_the_way_back_to_the_models_frame_is_beside_the_scene(
    camera_model: str, offset: tuple[float, float, float], tmp_path: Path
) -> None:
    """A splat of a model in metres had another scale, turn and place, and nothing said which."""
    home = write_given(tmp_path / "given", count=COUNT, camera_model=camera_model)
    turn = pycolmap.Rotation3d(np.array([0.3, -0.2, 0.5])).matrix()
    rewritten(home, lambda model: model.transform(pycolmap.Sim3d(np.column_stack([20 * turn, offset]))))
    model = pycolmap.Reconstruction(home)
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert_same_cameras(scene, {image.name: image.projection_center() for image in model.images.values()})
    assert section.model_frame == ModelFrame.load(tmp_path / "out")
    assert scene.up.tolist() == [0, 0, 1]
    assert np.abs(scene.points.xyz).max() < 1000, "small numbers, which a float32 holds"
    assert section.model_frame is not None
    back = np.array(section.model_frame.model_from_scene)
    points = scene.points.xyz @ back[:3, :3].T + back[:3, 3]
    np.testing.assert_allclose(points, [point.xyz for _, point in sorted(model.points3D.items())], atol=1e-5)


def test_the_outline_knows_all_of_colmaps_cameras(tmp_path: Path) -> None:
    known = {
        int(kind): (name, len(pycolmap.Camera.create_from_model_id(1, kind, 1.0, 1, 1).params))
        for name, kind in pycolmap.CameraModelId.__members__.items()
        if name != "INVALID"
    }
    assert dict(enumerate(CAMERA_MODELS)) == known
    model = pycolmap.Reconstruction()
    for number, kind in enumerate(known, start=1):
        camera = pycolmap.Camera.create_from_model_id(number, pycolmap.CameraModelId(kind), 50.0, 64, 48)
        model.add_camera_with_trivial_rig(camera)
    model.write_binary(tmp_path)
    binary = read_outline(tmp_path)
    for file in tmp_path.glob("*.bin"):
        file.unlink()
    model.write_text(tmp_path)
    assert binary == read_outline(tmp_path)
    assert [camera.model for _, camera in sorted(binary.cameras.items())] == [name for name, _ in known.values()]


def test_points_that_are_announced_only_are_noticed_before_a_run(tmp_path: Path) -> None:
    home = write_given(tmp_path / "given", count=COUNT)
    os.truncate(home / "points3D.bin", 8)
    with pytest.raises(FormatError, match=r"points3D\.bin is not complete"):
        read_given(tmp_path / "given")
