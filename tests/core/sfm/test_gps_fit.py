"""Up, heading and scale of the demo's flight, and of other flights, when GPS is as cameras write it.

Models have the true cameras in another frame, with points of the ground, so what is measured is the frame alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tasks.core.demo.flight_plan import DemoOptions, look_at, plan
from tasks.core.photoset import Gps, Photo
from tasks.core.sfm.frame import Placement, Views, place_in_frame

Array = NDArray[np.float64]
TURN = Rotation.from_rotvec([0.7, -1.2, 0.4]).as_matrix()  # of the model's axes against east, north and up
SHIFT, SCALE = np.array([3.0, 4.0, 5.0]), 0.1
ORIGIN = (46.5, 7.25, 400.0)


@dataclass(frozen=True)
class Flight:
    centers: Array  # [N, 3] metres east, north and up
    rotations: Array  # [N, 3, 3] camera from world
    gps_m: Array  # [N, 3]
    wall: bool = False
    skies: Array | None = None  # [N, 3] what the gimbal says, in the cameras' axes; None for the truth

    def model(self) -> pycolmap.Reconstruction:
        made = pycolmap.Reconstruction()
        camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])
        made.add_camera_with_trivial_rig(camera)
        for i, (center, rotation) in enumerate(zip(self.centers, self.rotations, strict=True)):
            turned = rotation @ TURN.T
            pose = pycolmap.Rigid3d(np.column_stack([turned, -turned @ (SCALE * TURN @ center + SHIFT)]))
            image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i + 1)
            made.add_image_with_trivial_frame(image, pose)
        rng = np.random.default_rng(5)
        for across, along in rng.uniform(-40, 40, (300, 2)):
            high = max(rng.uniform(-10, 5), 0.0)
            point = np.array([across, high, along] if self.wall else [across, along, high])
            made.add_point3D(SCALE * TURN @ point + SHIFT, pycolmap.Track(), np.zeros(3, np.uint8))
        return made

    def placed(self, *, gimbal: bool = False, camera: str | None = None) -> "Placed":
        wgs84 = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
        degrees = np.asarray(wgs84.enu_to_ellipsoid(np.nan_to_num(self.gps_m), *ORIGIN))
        skies = self.rotations[:, :, 2] if self.skies is None else self.skies
        photos = []
        for i, (position, (latitude, longitude, altitude)) in enumerate(zip(self.gps_m, degrees, strict=True)):
            known = None if np.isnan(position[2]) else float(altitude)
            gps = (
                None if np.isnan(position[0]) else Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=known)
            )
            sky = tuple(skies[i].tolist()) if gimbal else None
            photos.append(
                Photo(name=f"{i}.jpg", width=640, height=480, sha256="", gps=gps, up_in_camera=sky, camera=camera)
            )
        model = self.model()
        placement = place_in_frame(model, photos, random_seed=0)
        return Placed(self, Views.of(model), placement)

    def at(self, gps_m: Array) -> "Flight":
        return Flight(self.centers, self.rotations, gps_m, self.wall)


@dataclass(frozen=True)
class Placed:
    flight: Flight
    views: Views
    placement: Placement

    @property
    def turn(self) -> Array:
        """Rotation [3, 3] from the true axes to the scene's."""
        found = np.concatenate([self.views.forwards, self.views.ups])
        true = np.concatenate([self.flight.rotations[:, 2], -self.flight.rotations[:, 1]])
        return np.asarray(Rotation.align_vectors(found, true)[0].as_matrix())

    @property
    def up_deg(self) -> float:
        return float(np.degrees(np.arccos(min(self.turn[2, 2], 1.0))))

    @property
    def heading_deg(self) -> float:
        return float(abs(np.degrees(np.arctan2(self.turn[1, 0], self.turn[0, 0]))))

    @property
    def scale_error(self) -> float:
        found, true = (np.linalg.norm(c - c.mean(axis=0)) for c in (self.views.centers, self.flight.centers))
        return float(abs(found / true - 1))

    def require_right(self) -> None:
        """The bars: up within 1°, heading within 2°, scale within 2 %."""
        assert self.placement.georeference is not None, self.placement
        assert self.up_deg < 1
        assert self.heading_deg < 2
        assert self.scale_error < 0.02


def demo(seed: int = 0) -> Flight:
    cameras, gps_m = plan(DemoOptions(seed=seed))
    poses = np.stack([camera.cam_from_world[:3, :3] for camera in cameras])
    return Flight(np.stack([camera.center for camera in cameras]), poses, gps_m)


def line(count: int = 12, *, ahead: bool = True) -> Flight:
    """One line of photos straight down, whose up is where the drone flies, or square to it."""
    rng = np.random.default_rng(1)
    centers = np.stack([np.linspace(-40, 40, count), np.zeros(count), np.full(count, 44.0)], axis=1)
    centers += rng.normal(0, [0.7, 0.7, 0.4], (count, 3))
    poses = []
    for _ in centers:
        heading = (np.pi / 2 if ahead else 0.0) + rng.normal(0, 0.02)
        forward = np.append(rng.normal(0, 0.02, 2), -1.0)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [np.sin(heading), np.cos(heading), 0.0])
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(forward, right), forward]))
    return Flight(centers, np.stack(poses), centers + rng.normal(0, 0.3, centers.shape))


def facade() -> Flight:
    rng = np.random.default_rng(2)
    x, z = (axis.ravel() for axis in np.meshgrid(np.linspace(-20, 20, 7), [4.0, 9, 14, 19]))
    centers = np.stack([x, np.full(28, -25.0), z], axis=1) + rng.normal(0, 0.5, (28, 3))
    targets = centers * [1, 0, 1] + rng.normal(0, 0.9, (28, 3)) * [1, 0, 1]
    poses = [look_at(c, t, rng.normal(0, 0.4))[:3, :3] for c, t in zip(centers, targets, strict=True)]
    return Flight(centers, np.stack(poses), centers + rng.normal(0, 0.3, centers.shape), wall=True)


def heights(change: Callable[[Array, int], Array]) -> Callable[[Flight], Array]:
    """GPS of the flight with these errors of the altitudes, from its centres [N, 3] and their number."""

    def changed(flight: Flight) -> Array:
        error_m = change(flight.centers, len(flight.centers))
        return np.column_stack([flight.gps_m[:, :2], flight.gps_m[:, 2] + error_m])

    return changed


NOISE = np.random.default_rng(11)
WRONG_ALTITUDES = {
    "at random": heights(lambda _, n: NOISE.uniform(-15, 15, n)),
    "drifting": heights(lambda _, n: np.linspace(0, 30, n)),
    "swaying": heights(lambda _, n: 15 * np.sin(np.arange(n) / 6)),
    "walking": heights(lambda _, n: np.cumsum(NOISE.normal(0, 5, n))),
    "rising to the east": heights(lambda c, _: c[:, 0] / 2),
    "a step between two flights": heights(lambda _, n: np.where(np.arange(n) < n // 2, 40.0, 0.0)),
    "one of 0": heights(lambda _, n: np.where(np.arange(n) == 5, -400.0, 0.0)),
    "none": heights(lambda _, n: np.full(n, np.nan)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", WRONG_ALTITUDES)
def test_wrong_altitudes_tilt_nothing(case: str, seed: int) -> None:
    """The demo with altitudes that wander by 30 m was not georeferenced, and nothing said why."""
    flight = demo(seed)
    placed = flight.at(WRONG_ALTITUDES[case](flight)).placed()
    placed.require_right()
    if case not in ("walking", "one of 0"):
        assert any("altitude" in said for said in placed.placement.frame.not_believed)


@pytest.mark.parametrize("gimbal", [False, True])
def test_one_straight_line_has_scale_and_heading(gimbal: bool) -> None:
    """It was turned by 90°, so that the ground was a wall."""
    line().placed(gimbal=gimbal).require_right()


def test_a_line_of_a_drone_that_flies_sideways() -> None:
    line(ahead=False).placed(camera="DJI FC6310").require_right()


def test_a_line_that_may_be_along_a_wall_is_doubted() -> None:
    placed = line(ahead=False).placed()
    assert placed.up_deg < 1 or "a ground below or a wall ahead" in placed.placement.degradations[0]


def test_a_facade_stays_upright() -> None:
    facade().placed().require_right()
    without = facade().at(facade().gps_m * [1, 1, np.nan]).placed()
    without.require_right()
    nowhere = facade().at(np.full((28, 3), np.nan)).placed()
    assert nowhere.up_deg < 4  # degrees: nothing says that the photos are level but that photos are, on average


def test_few_places_give_a_place_and_say_how_sure_the_scale_is() -> None:
    flight = demo()
    gps_m = np.full((36, 3), np.nan)
    gps_m[::9] = (flight.centers + np.random.default_rng(3).normal(0, 3, (36, 3)))[::9]
    placed = flight.at(gps_m).placed()
    assert placed.placement.georeference is not None
    assert placed.up_deg < 1
    assert "the scale is right within" in placed.placement.frame.scale
    assert (
        placed.scale_error < 0.16
    )  # two standard deviations of four places that err by 3 m, about 25 m from the middle


def test_mirrored_places_are_refused() -> None:
    """A missing letter turned the scene upside down, with 0.49 m rms."""
    flight = demo()
    grid = np.flatnonzero(flight.centers[:, 2] > 42)
    level = Flight(flight.centers[grid], flight.rotations[grid], flight.gps_m[grid])
    for one in (flight, level):
        placed = one.at(one.gps_m * [-1, 1, 1]).placed(camera="DJI FC6310")
        assert placed.placement.georeference is None
        assert placed.up_deg < 9  # degrees: of the grid's views to the vertical
        assert "mirrored" in placed.placement.degradations[0]


def test_one_place_on_another_continent_is_named() -> None:
    flight = demo()
    gps_m = flight.gps_m.copy()
    gps_m[3] = [1e6, 2e5, 0]
    placed = flight.at(gps_m).placed()
    placed.require_right()
    assert placed.placement.georeference is not None
    assert placed.placement.georeference.left_out == ("3.jpg",)
    assert "3.jpg (1,020 km)" in placed.placement.frame.not_believed[0]


def test_places_that_are_all_the_same_say_so() -> None:
    placed = demo().at(np.ones((36, 3))).placed()
    assert "the same place for 36 of 36 photos" in placed.placement.degradations[0]


def test_gimbal_angles_that_mean_something_else_are_not_believed() -> None:
    flight = demo()
    true = flight.placed(gimbal=True)
    assert "gimbal angles of 36 photos" in true.placement.frame.up
    skies = flight.rotations[::-1, :, 2]
    placed = Flight(flight.centers, flight.rotations, np.full((36, 3), np.nan), skies=skies).placed(gimbal=True)
    assert "gimbal angles of 36 photos are not believed" in placed.placement.frame.not_believed[0]
    assert placed.up_deg < 1
