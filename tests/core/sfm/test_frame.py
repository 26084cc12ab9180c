"""The direction of up, and the conditions under which GPS is trusted."""

from collections.abc import Mapping

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray

from tasks.core.georeference import Georeference
from tasks.core.photoset import Gps, Photo
from tasks.core.sfm.frame import Views, place_in_frame
from tasks.core.transforms import rotation_between
from tests.core.sfm.flight import geodetic

Array = NDArray[np.float64]
TILT = rotation_between(np.array([0.0, 0, 1]), np.array([0.6, 0.48, 0.64]))  # a frame in which nothing is upright


def looking(centers: Array, targets: Array, up: Array) -> Array:
    """World-to-camera rotations [N, 3, 3]."""
    forward = targets - centers
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def orbit(n: int = 24) -> tuple[Array, Array]:
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    centers = np.stack([10 * np.cos(turn), 10 * np.sin(turn), np.full(n, 4.0)], axis=1)
    return centers, looking(centers, np.zeros((n, 3)), np.array([0, 0, 1.0]))


def nadir(n: int = 24) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    centers = np.stack([10.0 * (np.arange(n) % 6), 10.0 * (np.arange(n) // 6), 50 + rng.normal(0, 0.5, n)], axis=1)
    targets = centers * [1, 1, 0] + np.append(rng.normal(0, 1, (n, 2)), np.zeros((n, 1)), axis=1)
    return centers, looking(centers, targets, np.array([1.0, 0, 0]))  # one heading: the images' own up is level


def views(centers: Array, rotations: Array) -> Views:
    names = tuple(f"{i}.jpg" for i in range(len(centers)))
    return Views(names, centers @ TILT.T, (rotations @ TILT.T)[:, 2], -(rotations @ TILT.T)[:, 1])


def model(centers: Array, rotations: Array) -> pycolmap.Reconstruction:
    """A reconstruction without points, in the tilted frame, at a tenth of the scale."""
    made = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])
    made.add_camera_with_trivial_rig(camera)
    for i, (center, rotation) in enumerate(zip(centers @ TILT.T * 0.1, rotations @ TILT.T, strict=True)):
        pose = pycolmap.Rigid3d(np.column_stack([rotation, -rotation @ center]))
        image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i + 1)
        made.add_image_with_trivial_frame(image, pose)
    return made


def gps_of(centers: Array, noise_m: float = 0.0) -> dict[str, Gps]:
    noisy = centers + np.random.default_rng(1).normal(0, 1, centers.shape) * noise_m
    places = (geodetic(*center) for center in noisy)
    return {
        f"{i}.jpg": Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude)
        for i, (latitude, longitude, altitude) in enumerate(places)
    }


def photos_of(gps: Mapping[str, Gps]) -> list[Photo]:
    return [Photo(name=name, width=640, height=480, sha256="", gps=place) for name, place in gps.items()]


def georeference_model(placed: pycolmap.Reconstruction, gps: Mapping[str, Gps]) -> Georeference | None:
    return place_in_frame(placed, photos_of(gps), random_seed=0).georeference


def estimate_up(seen: Views, points: Array | None = None) -> Array:
    found, _ = seen.uprights({}, np.zeros((0, 3)) if points is None else points)
    return found[0].up


def angle_deg(a: Array, b: Array) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def test_up_of_an_orbit() -> None:
    assert angle_deg(estimate_up(views(*orbit())), TILT[:, 2]) < 0.1


def test_up_survives_photos_on_their_side() -> None:
    centers, rotations = orbit()
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rotations[::6] = quarter_turn @ rotations[::6]
    rotations[1] = quarter_turn @ rotations[1]
    plain_mean = -(rotations @ TILT.T)[:, 1].mean(axis=0)
    robust = estimate_up(views(centers, rotations))
    assert angle_deg(robust, TILT[:, 2]) < 5 < angle_deg(plain_mean / np.linalg.norm(plain_mean), TILT[:, 2]) + 5
    assert angle_deg(robust, TILT[:, 2]) <= angle_deg(plain_mean, TILT[:, 2])


def test_up_of_photos_straight_down_along_which_the_camera_flew() -> None:
    ground = np.random.default_rng(3).uniform(-30, 80, (200, 3)) * [1, 1, 0]
    assert angle_deg(estimate_up(views(*nadir()), ground @ TILT.T), TILT[:, 2]) < 0.5


def test_a_grid_of_cameras_before_a_wall_is_no_flight() -> None:
    """It was: the scene lay on its back."""
    x, z = (axis.ravel() for axis in np.meshgrid(np.linspace(-20, 20, 7), [4.0, 9, 14, 19]))
    centers = np.stack([x, np.full(28, -25.0), z], axis=1)
    targets = centers * [1, 0, 1] + np.random.default_rng(0).normal(0, 0.9, (28, 3)) * [1, 0, 1]
    wall = np.random.default_rng(3).uniform(-30, 30, (200, 3)) * [1, 0, 1]
    up = estimate_up(views(centers, looking(centers, targets, np.array([0, 0, 1.0]))), wall @ TILT.T)
    assert angle_deg(up, TILT[:, 2]) < 1


def test_gps_gives_metres_north_and_up() -> None:
    centers, rotations = orbit()
    placed = model(centers, rotations)
    georeference = georeference_model(placed, gps_of(centers))
    assert georeference is not None
    assert georeference.residual_rms_m < 1e-3
    found = Views.of(placed)
    np.testing.assert_allclose(found.centers, centers - np.median(centers, axis=0), atol=5e-3)  # m: 0.1 mm of arc
    np.testing.assert_allclose(found.forwards, rotations[:, 2], atol=1e-3)


@pytest.mark.parametrize("place", [(46.5, 180.0), (-16.8, -180.0), (90.0, 0.0), (-90.0, 30.0), (89.9999, -179.9999)])
def test_gps_gives_metres_at_the_date_line_and_the_poles(place: tuple[float, float]) -> None:
    centers, rotations = orbit(22)  # as many on either side of 180°
    wgs84 = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    places = wgs84.enu_to_ellipsoid(centers, *place, 400.0).tolist()
    gps = {
        f"{i}.jpg": Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude)
        for i, (latitude, longitude, altitude) in enumerate(places)
    }
    placed = model(centers, rotations)
    georeference = georeference_model(placed, gps)
    assert georeference is not None
    assert georeference.residual_rms_m < 1e-3
    found = Views.of(placed)
    # heights and distances are those of the flight; only where north is depends on the origin, near a pole
    np.testing.assert_allclose(found.centers[:, 2], centers[:, 2] - np.median(centers[:, 2]), atol=5e-3)
    np.testing.assert_allclose(
        np.linalg.norm(found.centers - found.centers[0], axis=1),
        np.linalg.norm(centers - centers[0], axis=1),
        atol=5e-3,
    )
    np.testing.assert_allclose(found.ups @ np.array([0, 0, 1.0]), -rotations[:, 1, 2], atol=1e-3)
    origin_m = wgs84.ellipsoid_to_enu(
        np.array([[georeference.latitude_deg, georeference.longitude_deg, georeference.altitude_m]]), *place, 400.0
    )
    assert np.linalg.norm(origin_m - np.median(centers, axis=0)) < 15  # m: the flight is 20 m wide


def test_residual_is_the_error_of_the_gps() -> None:
    centers, rotations = orbit()
    georeference = georeference_model(model(centers, rotations), gps_of(centers, noise_m=0.5))
    assert georeference is not None
    # 72 draws of 0.5 m, less the 7 that the similarity fits away, give 0.82 m; three sigma of that estimate is 0.21
    assert georeference.residual_rms_m == pytest.approx(0.5 * np.sqrt(3 * (72 - 7) / 72), abs=0.21)


def test_a_part_of_the_photos_with_gps_is_enough() -> None:
    centers, rotations = orbit()
    placed = model(centers, rotations)
    located = dict(list(gps_of(centers).items())[:5])
    georeference = georeference_model(placed, located)
    assert georeference is not None
    assert [residual.name for residual in georeference.residuals] == list(located)
    # metres about the median of the five that have GPS; 5 mm as above
    np.testing.assert_allclose(Views.of(placed).centers, centers - np.median(centers[:5], axis=0), atol=5e-3)


@pytest.mark.parametrize(("case", "reason"), [("two", "2 of the 24 placed photos have GPS"), ("noise", "GPS")])
def test_gps_that_cannot_tell_is_left_alone(case: str, reason: str) -> None:
    centers, rotations = orbit()
    gps = gps_of(centers, noise_m=30.0 if case == "noise" else 0.0)
    if case == "two":
        gps = dict(list(gps.items())[:2])
    placement = place_in_frame(model(centers, rotations), photos_of(gps), random_seed=0)
    assert placement.georeference is None
    assert reason in placement.frame.scale
    assert len(placement.degradations) == 1


def test_without_gps_the_scene_is_upright_centred_and_of_unit_size() -> None:
    placed = model(*orbit())
    assert georeference_model(placed, {}) is None
    found = Views.of(placed)
    np.testing.assert_allclose(found.centers.mean(axis=0), 0, atol=1e-9)
    assert np.median(np.linalg.norm(found.centers, axis=1)) == pytest.approx(1)
    assert angle_deg(found.ups.mean(axis=0), np.array([0, 0, 1.0])) < 0.1


def test_coinciding_cameras_take_their_scale_from_the_points() -> None:
    _, rotations = orbit()
    placed = model(np.zeros((24, 3)), rotations)
    for direction in np.random.default_rng(0).normal(0, 1, (50, 3)):
        placed.add_point3D(7 * direction / np.linalg.norm(direction), pycolmap.Track(), np.zeros(3, np.uint8))
    assert georeference_model(placed, {}) is None
    distances = np.linalg.norm([point.xyz for point in placed.points3D.values()], axis=1)
    assert np.median(distances) == pytest.approx(1)


@pytest.mark.parametrize("target", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.6, 0, -0.8)])
def test_rotation_between(target: tuple[float, float, float]) -> None:
    source, wanted = np.array([0, 0, 1.0]), np.array(target, float)
    rotation = rotation_between(source, wanted)
    np.testing.assert_allclose(rotation @ source, wanted, atol=1e-12)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_a_photo_with_a_wrong_place_is_left_out_of_the_fit_and_of_its_residual() -> None:
    """The report said 3274914.63 m rms of a fit that was good to millimetres."""
    centers, rotations = orbit()
    gps = gps_of(centers)
    elsewhere = {"3.jpg": Gps(latitude_deg=20.0, longitude_deg=-30.0, altitude_m=0.0), "7.jpg": gps["8.jpg"]}
    elsewhere["7.jpg"] = elsewhere["7.jpg"].model_copy(update={"altitude_m": 1400.0})
    georeference = georeference_model(model(centers, rotations), gps | elsewhere)
    assert georeference is not None
    assert georeference.residual_rms_m < 1e-2
    assert georeference.residual_median_m is not None
    assert georeference.residual_median_m < 1e-2
    assert georeference.left_out == ("3.jpg", "7.jpg")
    assert [residual.name for residual in georeference.misplaced] == ["3.jpg", "7.jpg"]
    assert georeference.misplaced[0].length_m > 1e6
    assert len(georeference.residuals) == len(centers)
    assert georeference.latitude_deg == pytest.approx(46.5, abs=1e-3)
