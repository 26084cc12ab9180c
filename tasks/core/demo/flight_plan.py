"""The flight, flown with a real drone's drift: orbits and a small nadir grid over the hamlet, or a survey of a town."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.core.demo.survey import Aim, plan_survey, survey_aims
from tasks.core.demo.town_ground import land_height
from tasks.core.demo.town_plan import plan_town
from tasks.core.option_model import OptionModel
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid

FOCAL_35MM_EQUIVALENT = 24  # of the usual drone; 36 mm of film are as wide as the image: 73.7° across
TOWN_SIZE = (640, 480)  # pixels
SMALLEST_TOWN_M = 100
GPS_NOISE_M = 0.3  # standard deviation per axis


class DemoOptions(OptionModel):
    """The demo flight."""

    photos: int = Field(36, ge=8, le=5000, title="Photos", description="How many photos the drone takes.")
    extent_m: int = Field(
        0,
        ge=0,
        le=1000,
        title="Extent",
        description="Width in metres of a town to survey, 100 at least; 0 flies around the hamlet.",
    )
    width: int = Field(
        1152, ge=240, le=4000, title="Width", description="Width of a photo in pixels; with an extent 640 if not given."
    )
    height: int = Field(
        864,
        ge=180,
        le=3000,
        title="Height",
        description="Height of a photo in pixels; with an extent 480 if not given.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        title="Seed",
        description="Changes the drone's drift and the error of its GPS; also the town, but not the hamlet.",
    )

    @model_validator(mode="before")
    @classmethod
    def _smaller_photos_of_a_town(cls, given: Any) -> Any:
        """A survey has many photos, so they are smaller unless someone chose their size."""
        if isinstance(given, dict) and given.get("extent_m"):
            return {"width": TOWN_SIZE[0], "height": TOWN_SIZE[1], **given}
        return given

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if 0 < self.extent_m < SMALLEST_TOWN_M:
            raise ValueError(
                f"an extent of {self.extent_m} m is too small for a town; take {SMALLEST_TOWN_M} m or more"
            )
        return self


@dataclass(frozen=True)
class Leg:
    """Photos on a circle (or, with radius 0, on a grid) at one height, looking at one spot or straight down."""

    photos: int
    radius_m: float
    height_m: float
    first_angle_deg: float


def legs(photos: int) -> tuple[Leg, ...]:
    """Share the photos among the legs.

    Neighbours on an orbit stay within 30° of one another, because SIFT cannot match beyond that. The low orbit needs 12
    photos. So a short flight has only the grid and the high orbit, whose views differ less.
    """
    low = round(0.42 * photos) if photos >= 28 else 0
    high = round(0.33 * photos) if low else round(0.67 * photos)
    return Leg(low, 31.0, 29.0, 0.0), Leg(high, 22.0, 38.0, 11.0), Leg(photos - low - high, 0.0, 44.0, 0.0)


def look_at(center: Float64, target: Float64, roll_deg: float) -> Float64:
    """cam_from_world [4, 4] of a camera at `center` that looks at `target`; up is +z, or North for a view down."""
    forward = (target - center) / np.linalg.norm(target - center)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.98 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg))
    rotation = np.stack([cos * right + sin * down, cos * down - sin * right, forward])
    return rigid(rotation, -rotation @ center)


def _grid(photos: int) -> list[tuple[float, float]]:
    """Positions of a lawnmower flight: rows of about equal length, every second one backwards."""
    if photos == 0:
        return []
    rows = max(1, round(math.sqrt(photos / 1.6)))
    counts = [photos // rows + (row < photos % rows) for row in range(rows)]
    spots = []
    for row, count in enumerate(counts):
        xs = (np.arange(count) - (count - 1) / 2) * min(13.0, 40.0 / count)
        spots += [(float(x), (row - (rows - 1) / 2) * 15.0) for x in (xs if row % 2 == 0 else xs[::-1])]
    return spots


def _hamlet_aims(photos: int) -> list[Aim]:
    aims: list[Aim] = []
    for leg in legs(photos):
        for number, (x, y) in enumerate(_grid(leg.photos) if leg.radius_m == 0 else [(0.0, 0.0)] * leg.photos):
            if leg.radius_m:
                angle = math.radians(leg.first_angle_deg + 360 * number / leg.photos)
                center = np.array([leg.radius_m * math.cos(angle), leg.radius_m * math.sin(angle), leg.height_m])
                target = np.array([0.13 * center[0], 0.13 * center[1], 1.0])
            else:
                center = np.array([x, y, leg.height_m])
                target = np.array([x, y, 0.0])
            aims.append((center, target, 0.0))
    return aims


def _town_aims(options: DemoOptions) -> list[Aim]:
    town = plan_town(options.extent_m, options.seed)
    longer = max(options.width, options.height)
    per_m = 36 / FOCAL_35MM_EQUIVALENT / longer  # metres a pixel, from a height of one metre
    survey = plan_survey(options.photos, options.extent_m, options.width * per_m, options.height * per_m)
    return survey_aims(survey, options.extent_m, lambda x, y: float(land_height(town, np.array(x), np.array(y))[0]))


def plan(options: DemoOptions) -> tuple[tuple[Camera, ...], Float64]:
    """Cameras in flight order, in ENU metres around the origin, and the positions that GPS reports [photos, 3]."""
    generator = np.random.default_rng(options.seed)
    poses = []
    for center, target, roll_deg in _town_aims(options) if options.extent_m else _hamlet_aims(options.photos):
        blown = center + generator.normal(0, [0.7, 0.7, 0.4])  # wind
        turned = target + generator.normal(0, [0.9, 0.9, 0.3])  # the gimbal
        poses.append(look_at(blown, turned, roll_deg + generator.normal(0, 0.4)))
    focal = FOCAL_35MM_EQUIVALENT / 36 * max(options.width, options.height)
    cameras = tuple(
        Camera(
            f"DEMO_{number:04d}.JPG",
            options.width,
            options.height,
            focal,
            focal,
            options.width / 2,
            options.height / 2,
            pose,
        )
        for number, pose in enumerate(poses, start=1)
    )
    centers = np.stack([camera.center for camera in cameras])
    return cameras, centers + generator.normal(0, GPS_NOISE_M, centers.shape)
