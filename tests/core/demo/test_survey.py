"""The survey of a town: as many photos as asked for, with the promised overlap, all of them with something to see."""

import itertools

import numpy as np
import pytest

from tasks.core.demo.flight_plan import GPS_NOISE_M, DemoOptions, plan
from tasks.core.demo.survey import HIGHEST_M, LOWEST_M, SurveyPlan, plan_survey
from tasks.core.demo.town_ground import land_height
from tasks.core.demo.town_plan import plan_town
from tasks.core.errors import OptionsError
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

PER_M = (1.5, 1.125)  # metres that a photo of 4:3 shows from a height of one metre, at 24 mm


def overlaps(survey: SurveyPlan) -> tuple[float, float]:
    """Overlap of neighbours on the line with the fewest photos, and of neighbouring lines."""
    step = survey.along_m / (min(survey.line_counts) - 1)
    spacing = survey.across_m / (len(survey.line_counts) - 1)
    return 1 - step / (PER_M[1] * survey.height_m), 1 - spacing / (PER_M[0] * survey.height_m)


@pytest.mark.parametrize(("photos", "extent_m"), [(8, 100), (19, 100), (24, 120), (97, 150), (800, 300), (5000, 1000)])
def test_every_photo_is_taken_and_overlap_is_as_promised(photos: int, extent_m: int) -> None:
    survey = plan_survey(photos, extent_m, *PER_M)
    assert sum(survey.line_counts) + sum(survey.oblique_counts) == photos
    assert LOWEST_M <= survey.height_m <= HIGHEST_M
    forward, side = overlaps(survey)
    assert forward >= 0.78 - 1e-9
    assert side >= 0.66 - 1e-9
    if photos >= 100:  # with fewer, whole lines do not come out so evenly
        assert forward < 0.81
        assert side < 0.70


def test_more_photos_than_the_lowest_flight_needs_lie_closer_together() -> None:
    survey = plan_survey(2000, 150, *PER_M)
    assert survey.height_m == LOWEST_M
    assert overlaps(survey)[0] > 0.9


def test_too_few_photos_are_refused_with_a_way_out() -> None:
    with pytest.raises(OptionsError, match=r"^100 photos cannot cover 1000 m .* take 754 photos, or an extent of 364"):
        plan_survey(100, 1000, *PER_M)
    with pytest.raises(OptionsError):
        plan_survey(753, 1000, *PER_M)
    assert plan_survey(754, 1000, *PER_M).height_m <= HIGHEST_M
    assert plan_survey(100, 364, *PER_M).height_m <= HIGHEST_M


def seen_of(one: Camera, other: Camera, height_m: float) -> float:
    """Share of a photo's pixels whose places, on level land, another photo shows too."""
    u, v = np.meshgrid((np.arange(16) + 0.5) / 16 * one.width, (np.arange(12) + 0.5) / 12 * one.height)
    rays = np.stack([(u - one.cx) / one.fx, (v - one.cy) / one.fy, np.ones_like(u)], axis=-1)
    rays = rays @ rigid_inverse(one.cam_from_world)[:3, :3].T
    points = one.center + rays * ((height_m - one.center[2]) / rays[..., 2])[..., None]
    x, y, z = np.moveaxis(points @ other.cam_from_world[:3, :3].T + other.cam_from_world[:3, 3], -1, 0)
    column, row = other.fx * x / z + other.cx, other.fy * y / z + other.cy
    inside = (z > 0) & (column >= 0) & (column < other.width) & (row >= 0) & (row < other.height)
    return float(inside.mean())


def test_cameras_overlap_as_planned_in_spite_of_wind_and_relief() -> None:
    options = DemoOptions(photos=200, extent_m=140)
    cameras, gps = plan(options)
    assert (len(cameras), gps.shape, cameras[0].width, cameras[0].height) == (200, (200, 3), 640, 480)
    survey = plan_survey(200, 140, *PER_M)
    town = plan_town(140, 0)

    def land(camera: Camera) -> float:
        return float(land_height(town, camera.center[:1], camera.center[1:2])[0][0])

    down = cameras[: sum(survey.line_counts)]
    starts = np.cumsum((0, *survey.line_counts))
    lines = [down[first:last] for first, last in itertools.pairwise(starts)]
    forward = [seen_of(a, b, land(a)) for line in lines for a, b in itertools.pairwise(line)]
    # 1.5 m of drift between neighbours, at a height of 32 m, is 4 % of a photo.
    assert 0.75 < np.median(forward) < 0.82
    assert min(forward) > 0.60
    side = []
    for line, following in itertools.pairwise(lines):
        for camera in line:
            beside = min(following, key=lambda each: abs(each.center[1] - camera.center[1]))
            side.append(seen_of(camera, beside, land(camera)))
    assert 0.55 < np.median(side) < 0.66  # less than 66 %: the neighbour is up to half a step ahead
    heights = [camera.center[2] - land(camera) for camera in down]
    assert np.abs(np.array(heights) - survey.height_m).max() < 3.0  # metres: wind of 0.4 m standard deviation
    # 600 normal deviates: their rms is within a tenth of sigma.
    assert np.sqrt(np.mean((gps - [c.center for c in cameras]) ** 2)) == pytest.approx(GPS_NOISE_M, rel=0.15)
    oblique = np.array([camera.forward for camera in cameras[len(down) :]])
    assert np.rad2deg(np.arcsin(-oblique[:, 2])) == pytest.approx(55, abs=6)  # degrees: gimbal and relief
    assert (oblique[:, 0] > 0).any()
    assert (oblique[:, 0] < 0).any()


def test_the_seed_draws_another_town_and_the_size_of_photos_can_be_chosen() -> None:
    assert not np.array_equal(plan_town(140, 0).columns, plan_town(140, 1).columns)
    chosen = DemoOptions(photos=30, extent_m=100, width=800)
    assert (chosen.width, chosen.height) == (800, 480)
    assert (DemoOptions().width, DemoOptions().height) == (1152, 864)
    with pytest.raises(ValueError, match="an extent of 60 m is too small for a town; take 100 m or more"):
        DemoOptions(extent_m=60)


def slopes(town_width_m: int, seed: int) -> Float64:
    town = plan_town(town_width_m, seed)
    axis = np.arange(-town.size_m / 2, town.size_m / 2, 1.0)
    height, _ = land_height(town, *np.meshgrid(axis, axis))
    assert -5 < height.min() < height.max() < 12  # metres: the ray caster starts there
    return np.hypot(*np.gradient(height, 1.0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_land_is_no_steeper_than_the_ray_caster_can_follow(seed: int) -> None:
    assert slopes(300, seed).max() < 0.22
