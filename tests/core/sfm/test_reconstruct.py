"""The sfm stage as a whole, against cameras that are known and against real photos."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.errors import PhotosError, RegistrationError
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pipeline import write_model
from tasks.core.transforms import rotation_angle_deg
from tests.core.sfm.conftest import COUNT, IMAGE_SIZE, Flight
from tests.core.sfm.flight import ORIGIN, geodetic, true_cameras
from tests.core.sfm.whole_stage import cameras_of, reconstruct

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared/data"


def test_all_photos_are_placed(flight: Flight) -> None:
    section = flight.section
    assert (section.registered, section.unregistered, section.models) == (COUNT, (), 1)
    assert (section.matcher, section.mapper) == ("exhaustive", "incremental")
    assert section.points == len(flight.scene.points.xyz) > 200
    assert section.mean_reprojection_error_px is not None
    assert 0.05 < section.mean_reprojection_error_px < 1.5


def test_cameras_stand_where_they_stood_in_metres(flight: Flight) -> None:
    """Against the renderer's own cameras, about the median of their positions, which is where the origin must lie."""
    georeference = flight.scene.georeference
    assert georeference is not None
    # the true path fits itself, so what is left is the error of the cameras: centimetres at 24 m distance and 430 px
    assert georeference.residual_rms_m < 0.2
    assert flight.section.gps_residual_rms_m == georeference.residual_rms_m
    assert flight.section.georeference == georeference
    assert georeference.enu_from_scene == tuple(tuple(row) for row in np.eye(4).tolist())
    assert [residual.name for residual in georeference.residuals] == [
        f"strip a/view {i}.jpg" for i in range(1, COUNT + 1)
    ]
    squares = [r.east_m**2 + r.north_m**2 + r.up_m**2 for r in georeference.residuals]
    assert np.sqrt(np.mean(squares)) == pytest.approx(georeference.residual_rms_m)
    centers, rotations = true_cameras(COUNT)
    assert geodetic(*np.median(centers, axis=0)) == pytest.approx(
        (georeference.latitude_deg, georeference.longitude_deg, georeference.altitude_m), abs=1e-6
    )
    found = np.stack([camera.center for camera in flight.scene.cameras])
    assert np.linalg.norm(found + np.median(centers, axis=0) - centers, axis=1).max() < 0.4  # m, of a 40 m arc
    turned = np.stack([camera.cam_from_world[:3, :3] for camera in flight.scene.cameras])
    assert rotation_angle_deg(turned @ rotations.transpose(0, 2, 1)).max() < 1.0
    assert georeference.altitude_m == pytest.approx(ORIGIN[2] + np.median(centers[:, 2]), abs=1e-3)


def test_scene_folder_keeps_its_contract(flight: Flight) -> None:
    scene = flight.scene
    assert [camera.name for camera in scene.cameras] == [f"strip a/view {i}.jpg" for i in range(1, COUNT + 1)]
    assert scene.up.tolist() == [0, 0, 1]
    for camera in scene.cameras:
        assert scene.image(camera).shape == (camera.height, camera.width, 3)
        assert max(camera.width, camera.height) == IMAGE_SIZE
        assert camera.fx / camera.width == pytest.approx(430 / 480, rel=0.05)
    assert sorted(path.name for path in flight.out.iterdir()) == [
        "georeference.json",
        "images",
        "points.npz",
        "scene.json",
        "sfm.log",
        "sparse",
    ]


def test_colmap_model_is_the_same_scene(flight: Flight) -> None:
    model = pycolmap.Reconstruction(flight.out / "sparse/0")
    images = {image.name: image for image in model.images.values()}
    assert sorted(images) == sorted(camera.name for camera in flight.scene.cameras)
    for camera in flight.scene.cameras:
        image = images[camera.name]
        assert image.camera.model == pycolmap.CameraModelId.PINHOLE
        assert image.camera.params.tolist() == [camera.fx, camera.fy, camera.cx, camera.cy]
        np.testing.assert_allclose(image.cam_from_world().matrix(), camera.cam_from_world[:3], atol=1e-12)


def test_cameras_are_stored_in_the_order_of_the_mapper(flight: Flight, tmp_path: Path) -> None:
    """Else the scene's model would have its images in another order than the mapper's own."""
    stored = cameras_of(flight.out) / "sparse/0"
    model = pycolmap.Reconstruction(stored)
    assert list(model.reg_frame_ids()) != sorted(model.reg_frame_ids()), "it begins with the best pair, not the first"
    write_model(model, tmp_path / "again")
    for path in stored.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_points_lie_on_what_the_images_show(flight: Flight) -> None:
    """Each sparse point, projected by scene.json's cameras, meets its own colour: frame, cameras and pixels agree."""
    scene = flight.scene
    model = pycolmap.Reconstruction(flight.out / "sparse/0")
    names = {camera.name: camera for camera in scene.cameras}
    pixels = {camera.name: scene.image(camera).astype(float) for camera in scene.cameras}
    errors_px, differences = [], []
    for point in model.points3D.values():
        for element in point.track.elements:
            image = model.image(element.image_id)
            camera = names[image.name]
            x, y, z = camera.cam_from_world[:3, :3] @ point.xyz + camera.cam_from_world[:3, 3]
            at = np.array([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])
            errors_px.append(np.linalg.norm(at - image.point2D(element.point2D_idx).xy))
            column, row = np.clip(at.astype(int), 0, [camera.width - 1, camera.height - 1])
            differences.append(np.abs(pixels[image.name][row, column] - point.color).mean())
    assert np.median(errors_px) < 0.5  # px, at 320 px
    # neighbouring pixels of this texture differ by some 20 of 255 levels, pixels chosen at random by 60
    assert np.median(differences) < 25


def test_observations_are_the_tracks_of_the_model(flight: Flight) -> None:
    scene = Scene.load(flight.out)
    model = pycolmap.Reconstruction(flight.out / "sparse/0")
    points = [point for _, point in sorted(model.points3D.items())]
    expected = {
        (model.image(element.image_id).name, index)
        for index, point in enumerate(points)
        for element in point.track.elements
    }
    observed = scene.observations
    told = [(scene.cameras[c].name, int(p)) for c, p in zip(observed.cameras, observed.points, strict=True)]
    assert len(told) == len(set(told))
    assert set(told) == expected
    assert len(told) > 3 * len(points)
    np.testing.assert_allclose(scene.points.xyz, [point.xyz for point in points], atol=1e-12)


def test_progress_rises_to_the_end(flight: Flight) -> None:
    done = [progress.done for progress in flight.progress]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (pytest.approx(0, abs=40), 100)
    assert {progress.total for progress in flight.progress} == {100}


def test_same_photos_and_seed_give_the_same_scene(flight: Flight, tmp_path: Path) -> None:
    reconstruct(flight.photos, tmp_path / "again", SfmOptions(), IMAGE_SIZE, ignore_progress)
    assert (tmp_path / "again/scene.json").read_bytes() == (flight.out / "scene.json").read_bytes()


def test_unrelated_photos_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC).save(tmp_path / f"in/{i}.png")
    ingest(tmp_path / "in", tmp_path / "photos", PhotosOptions(), ignore_progress)
    with pytest.raises(RegistrationError, match=r"^0 of 4 photos .* need 60%.*Not placed: 0.png, 1.png, 2.png, 3.png"):
        find_cameras(tmp_path / "photos", tmp_path / "scene", SfmOptions(), ignore_progress)
    assert sorted(path.name for path in (tmp_path / "scene").iterdir()) == ["sfm.log"]


def test_global_mapper_places_the_same_cameras(flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    section = reconstruct(flight.photos, tmp_path / "scene", SfmOptions(mapper="global"), IMAGE_SIZE, ignore_progress)
    assert (section.mapper, section.registered) == ("global", COUNT)
    assert list(temporary.iterdir()) == [], "COLMAP's logs, which contain the photos' names"
    assert "Processed file" in (cameras_of(tmp_path / "scene") / "sfm.log").read_text()
    centers, _ = true_cameras(COUNT)
    found = np.stack([camera.center for camera in Scene.load(tmp_path / "scene").cameras])
    assert np.linalg.norm(found + np.median(centers, axis=0) - centers, axis=1).max() < 0.6  # m


def test_folder_without_photo_set(tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match="not a photo set"):
        find_cameras(tmp_path, tmp_path / "out", SfmOptions(), ignore_progress)


@pytest.mark.data
def test_sceaux_castle(tmp_path: Path) -> None:
    ingest(SHARED_DATA / "sceaux_castle", tmp_path / "photos", PhotosOptions(), ignore_progress)
    options = SfmOptions(max_features_image_size=1000)  # half the CPU time of 1600 px, and still all photos
    section = reconstruct(tmp_path / "photos", tmp_path / "scene", options, 480, ignore_progress)
    scene = Scene.load(tmp_path / "scene")
    assert (section.registered, section.models) == (11, 1)
    assert section.mean_reprojection_error_px is not None
    assert section.mean_reprojection_error_px < 1.0
    assert not section.georeferenced
    centers = np.stack([camera.center for camera in scene.cameras])
    np.testing.assert_allclose(centers.mean(axis=0), 0, atol=1e-9)
    assert np.median(np.linalg.norm(centers, axis=1)) == pytest.approx(1)
    # handheld photos of a façade: level, so that up is up within a few degrees, and the castle stands before them
    assert np.mean([camera.up[2] for camera in scene.cameras]) > 0.98
    assert all(scene.image(camera).shape == (camera.height, camera.width, 3) for camera in scene.cameras)
