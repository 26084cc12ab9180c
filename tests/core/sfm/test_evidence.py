"""Photos without depth are told by their homographies, and a model that is a coincidence by its numbers."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from tasks.core.errors import RegistrationError
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.evidence import Evidence, Pairs, is_flat, no_depth, without_impossible_cameras
from tasks.core.sfm.options import SfmOptions
from tests.core.sfm.flight import faces, render

SIZE = (1200, 900)
CENTRE = np.array(SIZE) / 2


def pairs_of(homographies: list[np.ndarray], planar: bool = True) -> tuple[Pairs, dict[int, tuple[int, int]]]:
    """Photos 1, 2, … and the homography from each to the next."""
    count = len(homographies)
    images = tuple((i, i + 1) for i in range(1, count + 1))
    scaled = np.array([h * s for h, s in zip(homographies, np.linspace(-2, 3, count), strict=True)])
    return Pairs(images, np.full(count, planar), scaled), dict.fromkeys(range(1, count + 2), SIZE)


def intrinsics(focal_ratio: float) -> np.ndarray:
    focal = focal_ratio * max(SIZE)
    return np.array([[focal, 0, CENTRE[0]], [0, focal, CENTRE[1]], [0, 0, 1]])


def turns(focal_ratio: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    k = intrinsics(focal_ratio)
    noise = [np.eye(3) + np.diag(rng.normal(0, 5e-4, 2), 1) for _ in range(20)]  # half a pixel in a thousand
    angles = np.column_stack([rng.uniform(-6, 6, 20), rng.choice([-1, 1], 20) * rng.uniform(3, 14, 20), np.zeros(20)])
    rotations = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return [k @ n @ r @ np.linalg.inv(k) for n, r in zip(noise, rotations, strict=True)]


def moves(focal_ratio: float, heading: bool) -> list[np.ndarray]:
    """A flight straight over a plane, each strip in the direction opposite to the last one's if `heading`."""
    rng = np.random.default_rng(0)
    k = intrinsics(focal_ratio)
    found = []
    for i in range(20):
        yaw = 180.0 * (i % 5 == 0) if heading else rng.normal(0, 2)
        tilt = Rotation.from_euler("xyz", [*rng.normal(0, 0.5, 2), yaw], degrees=True).as_matrix()
        step = np.array([rng.uniform(0.1, 0.4), rng.normal(0, 0.05), 0])
        found.append(k @ (tilt + np.outer(step, [0, 0, 1])) @ np.linalg.inv(k))
    return found


@pytest.mark.parametrize("focal_ratio", [0.5, 0.85, 1.8, 4.0])
def test_a_camera_that_only_turns_is_told_at_any_focal_length(focal_ratio: float) -> None:
    assert no_depth(*pairs_of(turns(focal_ratio))) == "was only turned"
    assert no_depth(*pairs_of(turns(focal_ratio), planar=False)) == ""


@pytest.mark.parametrize("heading", [False, True])
@pytest.mark.parametrize("focal_ratio", [0.5, 0.85, 1.8])
def test_a_flight_over_a_plane_has_depth(focal_ratio: float, heading: bool) -> None:
    assert no_depth(*pairs_of(moves(focal_ratio, heading))) == ""


def test_one_pair_in_ten_that_moves_is_depth() -> None:
    assert no_depth(*pairs_of([*turns(1.0), *moves(1.0, False)[:2]])) == ""


def test_the_same_photo_again_and_again_is_told() -> None:
    jitter = np.random.default_rng(1).normal(0, 1e-4, (10, 3, 3)) * [[1, 1, 1000], [1, 1, 1000], [1e-4, 1e-4, 1]]
    assert no_depth(*pairs_of(list(np.eye(3) + jitter))) == "did not move"
    assert no_depth(*pairs_of([])) == ""


def test_a_camera_on_a_tripod_ends_with_a_reason_after_the_first_matches(tmp_path: Path) -> None:
    """Before, it became a flat picture at some distance, without a warning."""
    scene, center = faces(), np.array([2.0, -24, 16])
    (tmp_path / "in").mkdir()
    for i, (yaw, pitch) in enumerate((y, p) for p in (-28, -36) for y in (-18, -9, 0, 9, 18)):
        level = [0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))]
        forward = Rotation.from_euler("z", yaw, degrees=True).apply(level)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        turned = np.stack([right, np.cross(forward, right), forward])
        render(center, turned, scene).save(tmp_path / f"in/{i}.jpg", quality=95)
    ingest(tmp_path / "in", tmp_path / "photos", PhotosOptions(), ignore_progress)
    with pytest.raises(RegistrationError, match="The camera was only turned: all of the 10 photos"):
        find_cameras(tmp_path / "photos", tmp_path / "out", SfmOptions(), ignore_progress)


@pytest.mark.parametrize(
    ("evidence", "models", "says"),
    [
        (Evidence(angle_deg=20, points=300, error_px=0.8), 1, ""),
        (Evidence(angle_deg=20, points=300, error_px=0.7), 2, ""),
        (Evidence(angle_deg=1.9, points=300, error_px=0.3), 1, "hardly moved sideways"),
        (Evidence(angle_deg=20, points=12, error_px=0.3), 1, "12 of the scene's points"),
        (Evidence(angle_deg=20, points=300, error_px=1.0), 2, "fell into 2 parts"),
        (Evidence(angle_deg=20, points=300, error_px=1.9), 1, "1.9 px off"),
        (Evidence(np.nan, np.nan, np.nan), 1, ""),
    ],
)
def test_what_speaks_against_a_model_is_said_in_words(evidence: Evidence, models: int, says: str) -> None:
    doubt = evidence.doubt(models)
    assert says in doubt
    assert bool(doubt) == bool(says)


def test_cameras_that_no_lens_makes_leave_the_model() -> None:
    model = pycolmap.Reconstruction()
    for i, (focal, distortion) in enumerate([(90, 0.0), (18900, 0.0), (2, 0.0), (90, 3.0), (95, -0.1)], start=1):
        camera = pycolmap.Camera(
            camera_id=i, model="SIMPLE_RADIAL", width=100, height=80, params=[focal, 50, 40, distortion]
        )
        model.add_camera_with_trivial_rig(camera)
        model.add_image_with_trivial_frame(pycolmap.Image(name=f"{i}.jpg", camera_id=i, image_id=i), pycolmap.Rigid3d())
    assert without_impossible_cameras(model) == 3
    assert sorted(int(i) for i in model.reg_image_ids()) == [1, 5]


def test_pairs_of_a_wall_that_is_passed_are_not_still() -> None:
    """By half a percent at each step, ten steps in a row: still pairs do not outweigh the others."""
    steps = [
        np.array([[1, 0, 0.004 * SIZE[0] * abs(a - b)], [0, 1, 0], [0, 0, 1]]) for a, b in combinations(range(8), 2)
    ]
    assert no_depth(*pairs_of(steps)) == ""


@pytest.mark.parametrize(("thick", "slant_deg", "flat"), [(0.002, 0, True), (0.002, 30, False), (0.1, 0, False)])
def test_a_plane_seen_straight_on_is_told(thick: float, slant_deg: float, flat: bool) -> None:
    rng = np.random.default_rng(0)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    turned = Rotation.random(random_state=1)
    for i in range(1, 7):
        view = Rotation.from_euler("x", 180 + slant_deg * (i == 6), degrees=True) * turned.inv()
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i),
            pycolmap.Rigid3d(np.column_stack([view.as_matrix(), np.zeros(3)])),
        )
    for xyz in turned.apply(rng.uniform(-1, 1, (400, 3)) * [10, 7, 7 * thick]):
        model.add_point3D(xyz, pycolmap.Track())
    assert is_flat(model) == flat
