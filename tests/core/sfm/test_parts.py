"""Many photos in parts: the cut, the laying together, and the model of all."""

import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from tasks.core.photoset import Gps, Photo
from tasks.core.sfm import mapping_parts
from tasks.core.sfm.division import RING, divide
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.gps_adjustment import adjust_to_gps
from tasks.core.sfm.mapping_parts import map_in_parts
from tasks.core.sfm.merging import Posed, merge
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.view_graph import ViewGraph
from tasks.core.sfm.worker import KEPT_PARTS_FOLDER, PART_ENDING
from tasks.core.transforms import similarity_from_points
from tests.core.sfm.simulated_flight import SimulatedFlight, write_simulated_flight

PHOTOS, MOST = 24, 12
ORIGIN = (46.5, 7.25, 400.0)


def grid(rows: int, columns: int) -> ViewGraph:
    """Photos in a grid, each of which shares points with its eight neighbours."""
    places = [(row, column) for row in range(rows) for column in range(columns)]
    shared = {
        (a, b): 200
        for a, (row, column) in enumerate(places)
        for b, (other_row, other_column) in enumerate(places)
        if a < b and max(abs(row - other_row), abs(column - other_column)) == 1
    }
    return ViewGraph(len(places), shared)


def test_a_long_flight_is_cut_across() -> None:
    parts = divide(grid(5, 40), 100)
    assert [len(part.own) for part in parts] == [100, 100]
    columns = [{photo % 40 for photo in part.own} for part in parts]
    assert all(max(some) - min(some) <= 20 for some in columns), "cut where five photos border five, not forty forty"
    for part, other in (parts, parts[::-1]):
        ring = set(part.photos) - set(part.own)
        assert 5 <= len(ring) <= RING
        assert ring <= set(other.own)


def test_parts_hold_each_photo_once_and_are_small_enough() -> None:
    parts = divide(grid(20, 20), 60)
    assert sorted(photo for part in parts for photo in part.own) == list(range(400))
    assert max(len(part.own) for part in parts) <= 60
    assert parts == divide(grid(20, 20), 60)


def test_photos_that_agree_with_none_are_in_no_part() -> None:
    graph = ViewGraph(8, {(0, 1): 90, (1, 2): 90, (2, 3): 90, (5, 6): 90})
    assert [part.own for part in divide(graph, 10)] == [(0, 1, 2, 3)]


def posed(names: range, turns: Rotation, centers: np.ndarray) -> Posed:
    rows = list(names)
    return Posed(tuple(f"{i}.jpg" for i in rows), turns[rows].as_matrix(), centers[rows])


def seen_from_another_world(model: Posed) -> Posed:
    return model.moved(0.2, Rotation.from_rotvec([0.4, -1.0, 0.7]).as_matrix(), np.array([5.0, -2.0, 11.0]))


@pytest.fixture
def world() -> tuple[Rotation, np.ndarray]:
    generator = np.random.default_rng(0)
    return Rotation.random(30, random_state=0), generator.normal(0, 40, (30, 3))


def test_models_are_laid_together_by_common_photos(world: tuple[Rotation, np.ndarray]) -> None:
    turns, centers = world
    first, second = posed(range(20), turns, centers), seen_from_another_world(posed(range(14, 30), turns, centers))
    own = [frozenset(first.names[:17]), frozenset(second.names[3:])]
    merged = merge([first, second], own)
    assert merged.taken == (0, 1)
    assert not merged.left_out
    for i in range(30):
        rotation, center = merged.poses[f"{i}.jpg"]
        np.testing.assert_allclose(rotation, turns[i].as_matrix(), atol=1e-9)
        np.testing.assert_allclose(center, centers[i], atol=1e-7)  # m


def test_a_common_photo_that_one_model_has_wrong_moves_nothing(world: tuple[Rotation, np.ndarray]) -> None:
    turns, centers = world
    first = posed(range(20), turns, centers)
    astray = centers.copy()
    astray[15] += 300.0
    second = seen_from_another_world(posed(range(12, 30), turns, astray))
    poses = merge([first, second], [frozenset(first.names), frozenset(second.names[8:])]).poses
    moved = max(float(np.linalg.norm(poses[f"{i}.jpg"][1] - centers[i])) for i in range(30))
    assert moved < 0.05  # m of a flight 300 m wide: seven of eight common photos are right to the last digit


def test_what_does_not_fit_is_left_out_with_a_reason(world: tuple[Rotation, np.ndarray]) -> None:
    turns, centers = world
    first = posed(range(18), turns, centers)
    alone = posed(range(17, 22), turns, centers)
    bent = posed(range(10, 30), turns, np.random.default_rng(1).normal(0, 40, (30, 3)))
    merged = merge([first, alone, bent], [frozenset(model.names) for model in (first, alone, bent)])
    assert merged.taken == (2,), "the largest is where merging begins"
    reasons = " / ".join(merged.left_out)
    assert "a part of 18 photos has 8 common photos" in reasons
    assert "of their extent away" in reasons
    assert "a part of 5 photos" in reasons


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> SimulatedFlight:
    return write_simulated_flight(tmp_path_factory.mktemp("flight"), PHOTOS, features=250)


def database_of(flight: SimulatedFlight, folder: Path) -> FeatureDatabase:
    """The flight as if its photos had been matched, with GPS that errs by 0.3 m."""
    noise = np.random.default_rng(4).normal(0, 0.3, flight.centers.shape)
    degrees = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84).enu_to_ellipsoid(
        flight.centers + noise, *ORIGIN
    )
    photos = tuple(
        Photo(name=name, width=640, height=480, sha256="", gps=Gps(latitude_deg=a, longitude_deg=b, altitude_m=c))
        for name, (a, b, c) in zip(flight.names, degrees.tolist(), strict=True)
    )
    database = FeatureDatabase(folder, flight.database.parent, photos, SfmOptions())
    database.path.write_bytes(flight.database.read_bytes())
    return database


def errors_m(model: pycolmap.Reconstruction, flight: SimulatedFlight) -> np.ndarray:
    found = {model.image(i).name: model.image(i).projection_center() for i in model.reg_image_ids()}
    ours = np.stack([found[name] for name in flight.names])
    scale, rotation, shift = similarity_from_points(ours, flight.centers)
    return np.asarray(np.linalg.norm(scale * ours @ rotation.T + shift - flight.centers, axis=1))


def test_parts_make_one_model_also_when_a_later_run_takes_them(
    flight: SimulatedFlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_parts, "LARGEST_PART", MOST)
    monkeypatch.setattr(pycolmap.Reconstruction, "extract_colors_for_all_images", lambda *_: None)  # no photos exist
    database = database_of(flight, tmp_path / "first")
    found = map_in_parts(database, tmp_path / "parts", tmp_path, SfmOptions())
    assert (found.parts, found.problems) == (2, ())
    assert found.model is not None
    assert found.model.num_reg_images() == PHOTOS
    # Noise of 0.5 px is 0.05 m on the ground 45 m below; some hundred points a photo share it.
    assert np.median(errors_m(found.model, flight)) < 0.1
    size_m = np.ptp(np.stack([found.model.image(i).projection_center() for i in found.model.reg_image_ids()]), axis=0)
    np.testing.assert_allclose(size_m[:2].max(), np.ptp(flight.centers, axis=0).max(), rtol=0.02)  # metres, by GPS

    files = sorted(tmp_path.glob(f"*{PART_ENDING}"))
    assert len(files) == 2
    (tmp_path / KEPT_PARTS_FOLDER).mkdir()
    for file in files:
        file.rename(tmp_path / KEPT_PARTS_FOLDER / file.name)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # no part may be mapped again
    again = map_in_parts(database, tmp_path / "parts-again", tmp_path, SfmOptions())
    assert again.model is not None
    np.testing.assert_array_equal(errors_m(again.model, flight), errors_m(found.model, flight))


def test_a_part_whose_process_dies_is_reported_and_the_others_are_used(
    flight: SimulatedFlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_parts, "LARGEST_PART", MOST)
    monkeypatch.setattr(pycolmap.Reconstruction, "extract_colors_for_all_images", lambda *_: None)
    dying = tmp_path / "dying.sh"
    dying.write_text(f'#!/bin/sh\ncase "$3" in *part-1) kill -9 $$;; esac\nexec {sys.executable} "$@"\n')
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    found = map_in_parts(database_of(flight, tmp_path / "first"), tmp_path / "parts", tmp_path, SfmOptions())
    assert found.problems == ("the process that mapped a part of 12 photos was killed by SIGKILL",)
    assert found.model is not None
    assert found.model.num_reg_images() >= MOST


def test_gps_that_contradicts_the_cameras_changes_nothing(flight: SimulatedFlight, tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    lens = pycolmap.Camera(camera_id=1, model="PINHOLE", width=640, height=480, params=[427, 427, 320, 240])
    model.add_camera_with_trivial_rig(lens)
    for i, (name, rotation, center) in enumerate(zip(flight.names, flight.rotations, flight.centers, strict=True), 1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.column_stack([rotation, -rotation @ center])))
    before = {i: model.image(i).projection_center() for i in model.reg_image_ids()}
    places = np.random.default_rng(0).uniform(-0.01, 0.01, (PHOTOS, 2)) + ORIGIN[:2]
    gps = {
        name: Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=400.0)
        for name, (latitude, longitude) in zip(flight.names, places.tolist(), strict=True)
    }
    assert not adjust_to_gps(model, gps, 0)
    for i, center in before.items():
        np.testing.assert_array_equal(model.image(i).projection_center(), center)
