"""A user's own COLMAP model. The flight's scene serves as one: it is a COLMAP folder."""

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.errors import FormatError, InputError
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.given_places import is_given_model
from tasks.core.sfm.import_model import import_model
from tasks.core.storage import hash_files
from tasks.core.transforms import similarity_from_points
from tests.core.sfm.conftest import COUNT, Flight


@pytest.fixture
def given(flight: Flight, tmp_path: Path) -> Path:
    shutil.copytree(flight.out / "images", tmp_path / "given/images")
    shutil.copytree(flight.out / "sparse", tmp_path / "given/sparse")
    return tmp_path / "given"


def assert_same_shape(scene: Scene, reference: Scene) -> None:
    """Equal camera centres up to the similarity by which an imported model is normalised."""
    ours = {camera.name.replace("_", " "): camera.center for camera in scene.cameras}
    source = np.stack([camera.center for camera in reference.cameras])
    target = np.stack([ours[camera.name] for camera in reference.cameras])
    scale, rotation, translation = similarity_from_points(source, target)
    np.testing.assert_allclose(scale * source @ rotation.T + translation, target, atol=1e-9)
    assert scene.up.tolist() == [0, 0, 1]
    assert np.median(np.linalg.norm(target - target.mean(axis=0), axis=1)) == pytest.approx(1)
    assert all(scene.image(camera).shape == (camera.height, camera.width, 3) for camera in scene.cameras)


def test_pinhole_model_of_the_right_size_keeps_its_images(given: Path, flight: Flight, tmp_path: Path) -> None:
    section = import_model(given, tmp_path / "out", 320, ignore_progress)
    scene = Scene.load(tmp_path / "out")
    assert (section.registered, section.matcher, section.mapper) == (COUNT, "given", "given")
    assert section.points == len(flight.scene.points.xyz)
    assert_same_shape(scene, flight.scene)
    for camera in scene.cameras:
        assert scene.image_path(camera).read_bytes() == (given / "images" / camera.name).read_bytes()


def test_distorted_text_model_is_undistorted_and_scaled(given: Path, flight: Flight, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction(given / "sparse/0")
    for camera in model.cameras.values():
        focal, cx, cy = camera.focal_length_x, camera.principal_point_x, camera.principal_point_y
        camera.model = pycolmap.CameraModelId.SIMPLE_RADIAL
        camera.params = [focal, cx, cy, 0.05]
    for image in model.images.values():  # COLMAP's text format ends a name at its first space
        spaceless = image.name.replace(" ", "_")
        (given / "images" / spaceless).parent.mkdir(exist_ok=True)
        (given / "images" / image.name).rename(given / "images" / spaceless)
        image.name = spaceless
    shutil.rmtree(given / "sparse/0")
    model.write_text(given / "sparse")
    assert is_given_model(given)
    import_model(given, tmp_path / "out", 200, ignore_progress)
    scene = Scene.load(tmp_path / "out")
    assert_same_shape(scene, flight.scene)
    assert {max(camera.width, camera.height) for camera in scene.cameras} == {200}
    written = pycolmap.Reconstruction(tmp_path / "out/sparse/0")
    assert {camera.model for camera in written.cameras.values()} == {pycolmap.CameraModelId.PINHOLE}


def test_what_is_a_colmap_model(given: Path, tmp_path: Path) -> None:
    assert is_given_model(given)
    assert not is_given_model(given / "images")
    assert not is_given_model(tmp_path / "missing")


def test_a_model_half_binary_half_text_is_refused_and_not_left_out(given: Path, tmp_path: Path) -> None:
    model = given / "sparse/0"
    pycolmap.Reconstruction(model).write_text(model)
    for name in ("cameras.bin", "images.txt", "points3D.txt"):
        (model / name).unlink()
    assert is_given_model(given)
    with pytest.raises(FormatError, match=r"needs cameras, images and points3D, all \.bin or all \.txt"):
        import_model(given, tmp_path / "out", 320, ignore_progress)


@pytest.mark.parametrize("place", ["sparse", "sparse/0"])
def test_the_models_folder_may_be_a_link(place: str, given: Path, tmp_path: Path) -> None:
    (given / place).rename(tmp_path / "model")
    (given / place).symlink_to(tmp_path / "model")
    before = hash_files(given, read_given(given).files)
    import_model(given, tmp_path / "out", 320, ignore_progress)
    points = tmp_path / "model" / ("0/points3D.bin" if place == "sparse" else "points3D.bin")
    points.write_bytes(points.read_bytes() + b"more")
    assert hash_files(given, read_given(given).files) != before


@pytest.mark.parametrize("lens", [False, True], ids=["ready", "lens"])
def test_points_are_triangulated_for_a_model_without_any(
    lens: bool, given: Path, flight: Flight, tmp_path: Path
) -> None:
    """Half a minute into the run it advised to take more photos."""
    model = pycolmap.Reconstruction(given / "sparse/0")
    for number in list(model.points3D):
        model.delete_point3D(number)
    if lens:
        for camera in model.cameras.values():
            parameters = [*camera.params, 1e-4, 0, 0, 0]
            camera.model = pycolmap.CameraModelId.OPENCV
            camera.params = parameters
    model.write_binary(given / "sparse/0")
    section = import_model(given, tmp_path / "out", 320, ignore_progress)
    scene = Scene.load(tmp_path / "out")
    assert_same_shape(scene, flight.scene)
    assert section.degradations == (
        f"The model has no points: {section.points:,} were triangulated from the images, with the model's cameras as "
        "they are.",
    )
    assert section.points == len(scene.points.xyz) > 200  # the model had 1,099 of photos that are half as large again
    assert section.mean_reprojection_error_px is not None
    assert section.mean_reprojection_error_px < 1  # px; its poses were found from these photos
    assert len(scene.observations.points) > 2 * section.points
    assert scene.points.rgb.std() > 10, "points have the photos' colours"


def test_missing_parts_are_named(given: Path, tmp_path: Path) -> None:
    for number in range(2, 8):
        (given / f"images/strip a/view {number}.jpg").rename(tmp_path / f"view {number}.jpg")
    with pytest.raises(FormatError, match=r"6 of the model's 9 images are not in .*: strip a/view 2.jpg"):
        import_model(given, tmp_path / "a", 320, ignore_progress)
    for number in range(3, 8):
        (tmp_path / f"view {number}.jpg").rename(given / f"images/strip a/view {number}.jpg")
    Image.new("RGB", (50, 40)).save(given / "images/strip a/view 2.jpg")
    with pytest.raises(FormatError, match=r"view 2.jpg has 50x40 px, but the model's camera has 320x"):
        import_model(given, tmp_path / "b", 320, ignore_progress)
    shutil.rmtree(given / "images")
    with pytest.raises(InputError, match="has no folder 'images'"):
        import_model(given, tmp_path / "c", 320, ignore_progress)
    (given / "sparse/0/points3D.bin").unlink()
    with pytest.raises(FormatError, match="no complete COLMAP model"):
        import_model(given, tmp_path / "d", 320, ignore_progress)


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin", "points3D.bin"])
def test_cut_off_model_is_a_format_error(part: str, given: Path, tmp_path: Path) -> None:
    file = given / "sparse/0" / part
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(FormatError, match=f"{part} is not complete"):
        import_model(given, tmp_path / "out", 320, ignore_progress)
