"""The demo flight: photos whose every camera is known."""

import hashlib
import itertools
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from tasks.core.demo import place
from tasks.core.demo.camera_film import expose
from tasks.core.demo.flight import fly, ground_truth_path, load_ground_truth
from tasks.core.demo.flight_plan import GPS_NOISE_M, DemoOptions, look_at, plan
from tasks.core.demo.place import Position, enu_from_position, position_from_enu
from tasks.core.demo.rays import FAR, GROUND
from tasks.core.demo.world import build_world, ground_height
from tasks.core.errors import DestinationError, FormatError
from tasks.core.progress import Progress, ignore_progress
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

OPTIONS = DemoOptions(photos=8, width=240, height=180)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flight") / "photos"
    fly(out, OPTIONS, ignore_progress)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_options_same_bytes_and_progress_is_told(photos: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    fly(tmp_path / "again", OPTIONS, told.append)
    assert digests(tmp_path / "again") == digests(photos)
    assert list(digests(photos)) == [f"DEMO_{number:04d}.JPG" for number in range(1, 9)]
    assert [(p.done, p.total) for p in told] == [(number, 8) for number in range(1, 9)]
    truth = ground_truth_path(photos)
    assert truth.parent == photos.parent
    assert truth.read_bytes() == ground_truth_path(tmp_path / "again").read_bytes()


def test_seed_moves_the_drone() -> None:
    one, other = plan(OPTIONS)[0][0], plan(OPTIONS.model_copy(update={"seed": 1}))[0][0]
    assert 0.05 < np.linalg.norm(one.center - other.center) < 6  # metres: wind, not another flight


def test_exif_round_trip(photos: Path) -> None:
    truth = load_ground_truth(ground_truth_path(photos))
    cameras, reported = plan(OPTIONS)
    times, errors = [], []
    for camera, planned, enu in zip(truth, cameras, reported, strict=True):
        assert np.array_equal(camera.cam_from_world, planned.cam_from_world)  # JSON keeps every bit of a float64
        with Image.open(photos / camera.name) as image:
            assert image.size == (camera.width, camera.height)
            exif = image.getexif()
        assert (exif[Base.Make], exif[Base.Model]) == ("Spaceport", "Simulated Drone")
        details, gps = exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)
        times.append(datetime.strptime(details[Base.DateTimeOriginal], "%Y:%m:%d %H:%M:%S"))  # noqa: DTZ007
        # 36 mm of film are as wide as the photo; exact, for 24 mm is the plan's own number.
        assert details[Base.FocalLengthIn35mmFilm] / 36 * camera.width == pytest.approx(camera.fx)
        assert float(details[Base.FocalLength]) / 13.2 * camera.width == pytest.approx(camera.fx, rel=1e-3)
        assert (gps[GPS.GPSLatitudeRef], gps[GPS.GPSLongitudeRef], gps[GPS.GPSAltitudeRef]) == ("N", "E", b"\x00")
        latitude, longitude = (
            sum(float(part) / 60**n for n, part in enumerate(gps[tag])) for tag in (GPS.GPSLatitude, GPS.GPSLongitude)
        )
        told = enu_from_position(Position(latitude, longitude, float(gps[GPS.GPSAltitude])), place.ORIGIN)
        assert np.abs(told - enu).max() < 0.01  # metres: what EXIF's fractions can hold, and far below the noise
        errors.append(told - camera.center)
    assert {(later - sooner).seconds for sooner, later in itertools.pairwise(times)} == {4}
    # 24 normal deviates: their rms leaves [0.5, 1.6] sigma with a probability below 1e-4.
    assert 0.5 * GPS_NOISE_M < np.sqrt(np.mean(np.square(errors))) < 1.6 * GPS_NOISE_M


def test_geodesy_against_the_metre_by_meridian_and_parallel() -> None:
    # https://en.wikipedia.org/wiki/Geographic_coordinate_system: at 45° a degree of latitude is 111 132 m long, one of
    # longitude 78 847 m.
    origin = Position(45.0, 7.0, 0.0)
    assert enu_from_position(Position(45.001, 7.0, 0.0), origin)[1] == pytest.approx(111.132, abs=0.01)
    assert enu_from_position(Position(45.0, 7.001, 0.0), origin)[0] == pytest.approx(78.847, abs=0.01)
    enu = np.array([310.0, -205.0, 48.0])
    assert np.abs(enu_from_position(position_from_enu(enu, origin), origin) - enu).max() < 1e-6  # metres: float64


def project(camera: Camera, point: Float64) -> tuple[float, float]:
    x, y, z = camera.cam_from_world[:3, :3] @ point + camera.cam_from_world[:3, 3]
    return camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy


def test_a_roofs_corners_are_seen_where_the_camera_projects_them() -> None:
    """An upright look on the barn: the mask of its roof must end where its four corners project, to the pixel."""
    world = build_world()
    gable = next(i for i in range(len(world.kinds)) if world.materials[i] == place.METAL)
    x, y, z, cos, sin, a, b, c, *_ = world.shapes[gable]
    center = np.array([x, y, z])
    camera = Camera(
        "", 400, 300, 500.0, 500.0, 200.0, 150.0, look_at(center + np.array([6.0, -7.0, 40.0]), center, 3.0)
    )
    rows, columns = np.nonzero(expose(world, camera).objects == gable)
    corners = [(i * a, j * b, -c) for i in (-1, 1) for j in (-1, 1)] + [(-a, 0, c), (a, 0, c)]
    world_from_roof = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    us, vs = np.array([project(camera, center + world_from_roof @ corner) for corner in corners]).T
    # A pixel belongs to the roof if its centre (+0.5) does: the outermost centre lies within 1 px of the corner,
    # 2 px where the corner is sharp. A shift of pixel centres or mirrored axes would exceed it at once on four sides.
    assert columns.min() + 0.5 == pytest.approx(us.min(), abs=2.0)
    assert columns.max() + 0.5 == pytest.approx(us.max(), abs=2.0)
    assert rows.min() + 0.5 == pytest.approx(vs.min(), abs=2.0)
    assert rows.max() + 0.5 == pytest.approx(vs.max(), abs=2.0)
    assert columns.min() + 0.5 >= us.min()
    assert columns.max() + 0.5 <= us.max()


def test_pixel_centres_are_at_a_half_and_distances_are_metres() -> None:
    """Every ground pixel, cast back to the world through `Camera`, lies on the ground."""
    camera = plan(DemoOptions(photos=8, width=240, height=180))[0][0]
    exposure = expose(build_world(), camera)
    world_from_cam = rigid_inverse(camera.cam_from_world)
    rows, columns = np.nonzero(exposure.objects == GROUND)
    assert len(rows) > 10_000
    for row, column in zip(rows[::97], columns[::97], strict=True):
        ray = np.array([(column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy, 1.0])
        point = world_from_cam[:3, :3] @ (ray / np.linalg.norm(ray)) * exposure.distance_m[row, column] + camera.center
        # 3 cm: the ground map is linear between samples 0.5 m apart, the pond's bank is its sharpest bend.
        assert point[2] == pytest.approx(ground_height(point[0], point[1]), abs=0.03)


def test_no_photo_sees_the_end_of_the_world_and_all_are_well_exposed() -> None:
    cameras, _ = plan(DemoOptions(width=240, height=180))
    for camera in cameras[::5]:
        exposure = expose(build_world(), camera)
        assert exposure.distance_m.max() < 150 < FAR  # metres
        luminance = (exposure.rgb / 255) @ [0.2126, 0.7152, 0.0722]
        assert 0.35 < luminance.mean() < 0.55
        assert (exposure.rgb == 255).all(axis=-1).mean() < 0.01  # burnt out


def test_two_views_agree_on_the_colour_of_the_ground() -> None:
    """What training relies on: a spot of meadow has one colour from every direction."""
    target = np.array([9.0, -32.0, ground_height(9.0, -32.0)])
    means = []
    for eye in ([9.0, -32.0, 40.0], [30.0, -45.0, 32.0], [-8.0, -50.0, 30.0]):
        camera = Camera("", 41, 41, 400.0, 400.0, 20.5, 20.5, look_at(np.array(eye), target, 0.0))
        exposure = expose(build_world(), camera)
        world_from_cam = rigid_inverse(camera.cam_from_world)
        u, v = np.meshgrid(np.arange(41) + 0.5 - 20.5, np.arange(41) + 0.5 - 20.5)
        rays = np.stack([u / 400, v / 400, np.ones_like(u)], axis=-1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        points = rays @ world_from_cam[:3, :3].T * exposure.distance_m[..., None] + camera.center
        inside = np.hypot(points[..., 0] - 9.0, points[..., 1] + 32.0) < 1.0
        means.append(exposure.rgb[inside].mean(axis=0))
    assert np.ptp(means, axis=0).max() < 4  # of 255: pixels at the disc's rim differ, the light does not


def test_legs_hold_every_photo_once() -> None:
    for count in (8, 9, 12, 27, 28, 36, 97, 200):
        cameras, gps = plan(DemoOptions(photos=count))
        assert len(cameras) == len({camera.name for camera in cameras}) == len(gps) == count
        assert all(camera.forward[2] < -math.sin(math.radians(40)) for camera in cameras)  # looks 40° down or more


def test_a_folder_with_other_files_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"")
    with pytest.raises(DestinationError, match=r"holds 1 other files \(mine.jpg"):
        fly(tmp_path, OPTIONS, ignore_progress)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def test_broken_ground_truth_is_named(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"cameras": [{"name": "DEMO_0001.JPG"}]}')
    with pytest.raises(FormatError, match=r"truth.json does not describe a demo flight"):
        load_ground_truth(tmp_path / "truth.json")
