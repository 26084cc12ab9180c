"""nerfstudio's and instant-ngp's transforms.json, NeRF's synthetic sets, and Polycam's raw export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from tasks.core.errors import FormatError
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.given_places import is_given_model, unused_model
from tasks.core.sfm.transforms_json import read_transforms
from tests.core.sfm.given_model import HEIGHT, WIDTH, scene_of, small_model, write_given, write_images
from tests.core.sfm.test_given_model import assert_same_cameras

COUNT = 6
SHARED: dict[str, Any] = {"w": WIDTH, "h": HEIGHT, "fl_x": 60.0, "fl_y": 58.0, "cx": 31.0, "cy": 25.0}
CENTERS = {f"{number}.jpg": np.array([0.3 * number, 0.1 * (number == 2), number / 7]) for number in range(1, COUNT + 1)}
TURN = pycolmap.Rotation3d(np.array([0.3, -0.2, 0.5])).matrix()  # world from camera, OpenCV axes


def matrix(name: str) -> list[list[float]]:
    """Camera-to-world with OpenGL's axes."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = TURN @ np.diag([1, -1, -1]), CENTERS[name]
    return [[float(value) for value in row] for row in pose]


def frames(path: str = "images/{}") -> list[dict[str, Any]]:
    return [{"file_path": path.format(name), "transform_matrix": matrix(name)} for name in CENTERS]


def write_points(file: Path, count: int = 50) -> None:
    rows = "".join(f"{i % 5} {i // 5} 7 {i} 20 30\n" for i in range(count))
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    colors = "".join(f"property uchar {color}\n" for color in ("red", "green", "blue"))
    file.write_text(f"ply\nformat ascii 1.0\nelement vertex {count}\n{axes}{colors}end_header\n{rows}")


def write_set(folder: Path, content: dict[str, Any], *, name: str = "transforms.json", points: bool = True) -> Path:
    write_images(folder / "images", COUNT)
    if points:
        write_points(folder / "sparse_pc.ply")
    (folder / name).write_text(json.dumps(content))
    return folder


def test_cameras_points_and_frame_are_the_files_own(tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {**SHARED, "frames": frames(), "ply_file_path": "sparse_pc.ply"})
    assert is_given_model(given)
    section, scene = scene_of(given, tmp_path / "out")
    assert section.degradations == ()
    assert section.points == 50
    assert scene.points.rgb[7].tolist() == [7, 20, 30]
    assert section.model_frame is not None
    assert section.model_frame.model == "transforms.json"
    assert_same_cameras(scene, CENTERS)
    camera = scene.cameras[0]
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (60, 58, 31, 25)
    turned = np.array(section.model_frame.rotation) @ camera.cam_from_world[:3, :3].T
    np.testing.assert_allclose(turned, TURN, atol=1e-9)
    back = np.array(section.model_frame.model_from_scene)
    np.testing.assert_allclose(scene.points.xyz[13] @ back[:3, :3].T + back[:3, 3], [3, 2, 7], atol=1e-9)


@pytest.mark.parametrize(
    ("lens", "model", "parameters"),
    [
        ({"k1": 0.1, "k2": 0.02, "p1": 1e-3, "p2": 2e-3}, "OPENCV", [0.1, 0.02, 1e-3, 2e-3]),
        ({"camera_model": "OPENCV", "k1": 0, "k2": 0, "p1": 0, "p2": 0}, "PINHOLE", []),
        ({"camera_model": "SIMPLE_PINHOLE", "k1": 0.5}, "PINHOLE", []),
        (
            {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k2": 0.02, "k3": 3e-3, "k4": 4e-4},
            "OPENCV_FISHEYE",
            [0.1, 0.02, 3e-3, 4e-4],
        ),
        ({"is_fisheye": True}, "OPENCV_FISHEYE", [0, 0, 0, 0]),
        ({"k1": 0.1, "k3": 0.01}, "FULL_OPENCV", [0.1, 0, 0, 0, 0.01, 0, 0, 0]),
    ],
)
def test_lenses(lens: dict[str, Any], model: str, parameters: list[float], tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {**SHARED, **lens, "frames": frames()})
    [camera] = read_transforms(given / "transforms.json").cameras
    assert camera.model == model
    assert camera.parameters(WIDTH, HEIGHT) == [60, 58, 31, 25, *parameters]
    section, scene = scene_of(given, tmp_path / "out")
    assert section.registered == len(scene.cameras) == COUNT


def test_every_frame_may_have_a_camera_of_its_own(tmp_path: Path) -> None:
    listed = [{**frame, "fl_x": 60.0 + i // 2} for i, frame in enumerate(frames())]
    given = write_set(tmp_path / "given", {**SHARED, "frames": listed})
    assert len(read_transforms(given / "transforms.json").cameras) == COUNT / 2
    _, scene = scene_of(given, tmp_path / "out")
    assert [camera.fx for camera in scene.cameras] == [60, 60, 61, 61, 62, 62]


def test_an_angle_of_view_in_place_of_a_focal_length_and_names_without_extensions(tmp_path: Path) -> None:
    """NeRF's synthetic sets, which are of no photos that could be reconstructed otherwise."""
    content = {"camera_angle_x": 2 * np.arctan(32 / 60), "frames": frames("./images/{}")}
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".jpg")
    given = write_set(tmp_path / "given", content, name="transforms_train.json")
    _, scene = scene_of(given, tmp_path / "out")
    camera = scene.cameras[0]
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((60, 60, 32, 24))
    assert_same_cameras(scene, CENTERS)


@pytest.mark.parametrize("path", ["images\\{}", "../given/images/{}", "{}", "./images//{}"])
def test_paths_as_programs_write_them(path: str, tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {**SHARED, "frames": frames(path)})
    assert [image.file for image in read_given(given).images] == [given / "images" / name for name in CENTERS]


def test_a_scaled_file_and_missing_images(tmp_path: Path) -> None:
    doubled = {key: 2 * value for key, value in SHARED.items()}
    listed = [{**frame, "mask_path": "masks/1.png"} for frame in frames()]
    given = write_set(tmp_path / "given", {**doubled, "frames": listed})
    (given / "images/2.jpg").unlink()
    section, scene = scene_of(given, tmp_path / "out")
    assert section.degradations == (
        "1 of the model's 6 images is not in the folder itself and was left out: images/2.jpg.",
        "The masks of 6 images were not used.",
        "5 images of 64x48 px for cameras of 128x96 px: focal lengths and principal points were scaled to the images.",
    )
    assert (scene.cameras[0].fx, scene.cameras[0].cy) == (60, 25)
    assert section.unregistered == ("images/2.jpg",)


def test_colmaps_model_is_taken_before_a_transforms_json(tmp_path: Path) -> None:
    """nerfstudio's folders have both; 12 photos became 36, with copies of those held out."""
    given = write_set(tmp_path / "given", {**SHARED, "camera_model": "OPENCV", "frames": frames()})
    write_given(given, count=COUNT, home="colmap/sparse/0")
    for factor in (2, 4):
        write_images(given / f"images_{factor}", COUNT, (WIDTH // factor, HEIGHT // factor))
    found = read_given(given)
    assert (found.form, found.label, len(found.images)) == ("colmap", "colmap/sparse/0", COUNT)
    assert found.notes == (
        "colmap/sparse/0 was taken and transforms.json was not: COLMAP's model also contains which image shows which "
        "point.",
        "images_2 and images_4 were left out: the same images in other sizes as in images.",
    )
    model = small_model(count=COUNT)
    _, scene = scene_of(given, tmp_path / "out")
    assert_same_cameras(scene, {image.name: image.projection_center() for image in model.images.values()})


def test_photos_beside_a_transforms_json_of_instant_ngp_stay_photos(tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {**SHARED, "aabb_scale": 4, "frames": frames()}, points=False)
    assert not is_given_model(given)
    note = unused_model(given)
    assert note is not None
    assert note.startswith("transforms.json was not used: it contains no points")
    assert is_given_model(given / "transforms.json"), "named itself it is taken"
    found = read_given(given / "transforms.json")
    assert (found.folder, len(found.images), found.lacks_points) == (given, COUNT, True)


@pytest.mark.parametrize("more", [{"camera_model": "OPENCV"}, {"ply_file_path": "gone.ply"}, {"applied_transform": []}])
def test_one_that_was_prepared_for_splats_is_a_model_without_points_too(more: dict[str, Any], tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {**SHARED, **more, "frames": frames()}, points=False)
    assert is_given_model(given)
    assert unused_model(given) is None
    found = read_given(given)
    assert found.lacks_points
    named = "gone.ply, which transforms.json names for its points, is not there."
    assert found.notes == ((named,) if "ply_file_path" in more else ())


def test_points_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    write_points(tmp_path / "private.ply")
    content = {**SHARED, "frames": frames(), "ply_file_path": "../private.ply"}
    assert read_given(write_set(tmp_path / "given", content, points=False)).points_file is None


def broken(change: dict[str, Any], *, frame: dict[str, Any] | None = None) -> dict[str, Any]:
    listed = frames()
    listed[1].update(frame or {})
    return {**SHARED, "camera_model": "OPENCV", "frames": listed, **change}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (broken({"camera_model": "EQUIRECTANGULAR"}), "has a camera of model 'EQUIRECTANGULAR'; only perspective"),
        (broken({"fl_x": None, "fl_y": None}), "has no focal length: need fl_x or camera_angle_x"),
        (broken({"fl_x": "wide"}), "has 'wide' as fl_x: need a number"),
        (broken({"fl_x": 10**400}), "has '10000000000000000000' as fl_x: need a number"),
        (broken({"w": 0}), "has 0 as w: need more than 0"),
        (broken({"camera_angle_x": 4}), "has an angle of view of 4 rad"),
        (
            broken({}, frame={"transform_matrix": [[1e12] * 4] * 4}),
            "Frame 2 of transforms.json has no transform_matrix",
        ),
        (broken({"k1": float("nan")}), "has 'nan' as k1: need a number"),
        (broken({"k1": 0.1, "k4": 0.1}), "has k4 = 0.1, which no camera model of COLMAP has"),
        (broken({}, frame={"transform_matrix": [[1, 2], [3]]}), "Frame 2 of transforms.json has no transform_matrix"),
        (broken({}, frame={"transform_matrix": np.diag([1, 1, -1, 1]).tolist()}), "that is no rotation"),
        (broken({}, frame={"file_path": None}), "Frame 2 of transforms.json has no file_path"),
        (broken({}, frame={"file_path": "/etc/passwd.jpg"}), "is an absolute path. Only images in"),
        (broken({}, frame={"file_path": "/\ud800.jpg"}), "is an absolute path. Only images in"),
        (broken({}, frame={"file_path": "/\0.jpg"}), "is an absolute path. Only images in"),
        (broken({}, frame={"file_path": "../../private.jpg"}), "leads out of its folder"),
        (broken({}, frame={"file_path": "images/1.jpg"}), "names 'images/1.jpg' twice"),
        (broken({"w": 64, "h": 64}), "1.jpg has 64x48 px, but the model's camera has 64x64"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, Any], says: str, tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", content)
    with pytest.raises(FormatError, match=says):
        read_given(given)


def test_no_json_at_all(tmp_path: Path) -> None:
    given = write_set(tmp_path / "given", {})
    (given / "transforms.json").write_text("{")
    assert not is_given_model(given)
    assert "cannot be read as JSON" in (unused_model(given) or "")
    with pytest.raises(FormatError, match="cannot be read as JSON"):
        read_given(given / "transforms.json")


@pytest.mark.parametrize("base", [".", "keyframes"])
def test_polycams_raw_export(base: str, tmp_path: Path) -> None:
    """Its photos are there twice, once undistorted."""
    given = tmp_path / "given"
    for folder in ("images", "corrected_images"):
        write_images(given / base / folder, COUNT)
    (given / base / "corrected_cameras").mkdir()
    for name in CENTERS:
        entries = {f"t_{i}{j}": matrix(name)[i][j] for i in range(3) for j in range(4)}
        camera = {"fx": 60.0, "fy": 58.0, "cx": 31.0, "cy": 25.0, "width": WIDTH, "height": HEIGHT, **entries}
        (given / base / f"corrected_cameras/{Path(name).stem}.json").write_text(json.dumps(camera))
    assert is_given_model(given)
    found = read_given(given)
    assert [image.file for image in found.images] == [given / base / "corrected_images" / name for name in CENTERS]
    assert found.lacks_points
    assert [image.name for image in found.images] == list(CENTERS)


def test_no_points_in_random_pictures_is_said(tmp_path: Path) -> None:
    """With cameras that do not belong to the photos nothing can be triangulated."""
    given = write_set(tmp_path / "given", {**SHARED, "camera_model": "OPENCV", "frames": frames()}, points=False)
    with pytest.raises(
        FormatError, match="The model has too few points, and with its cameras only 0 could be triangulated"
    ):
        scene_of(given, tmp_path / "out")
