"""The demo's place: positions of all objects in metres, x East, y North, and its position on Earth.

All scenery is defined here and nowhere else.

Materials and shapes are numbers because compiled kernels read them.

Metres East-North-Up around an origin are converted to WGS84 latitude, longitude and ellipsoidal altitude, and back
(https://en.wikipedia.org/wiki/Geographic_coordinate_conversion). The few lines are our own because pyproj or pymap3d
would be a dependency for the demo alone.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tasks.core.transforms import Float64

SEMI_MAJOR_M = 6378137.0
FLATTENING = 1 / 298.257223563
ECCENTRICITY2 = FLATTENING * (2 - FLATTENING)


@dataclass(frozen=True)
class Position:
    """A place on Earth, WGS84."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float


def _earth_centred(place: Position) -> Float64:
    latitude, longitude = math.radians(place.latitude_deg), math.radians(place.longitude_deg)
    normal = SEMI_MAJOR_M / math.sqrt(1 - ECCENTRICITY2 * math.sin(latitude) ** 2)
    return np.array(
        [
            (normal + place.altitude_m) * math.cos(latitude) * math.cos(longitude),
            (normal + place.altitude_m) * math.cos(latitude) * math.sin(longitude),
            (normal * (1 - ECCENTRICITY2) + place.altitude_m) * math.sin(latitude),
        ]
    )


def _enu_from_earth(origin: Position) -> Float64:
    latitude, longitude = math.radians(origin.latitude_deg), math.radians(origin.longitude_deg)
    sin_lat, cos_lat, sin_lon, cos_lon = (
        math.sin(latitude),
        math.cos(latitude),
        math.sin(longitude),
        math.cos(longitude),
    )
    return np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )


def enu_from_position(place: Position, origin: Position) -> Float64:
    """Metres East, North, Up [3] of a place as seen from the origin."""
    return np.asarray(_enu_from_earth(origin) @ (_earth_centred(place) - _earth_centred(origin)))


def position_from_enu(enu: Float64, origin: Position) -> Position:
    """The position on Earth of a point [3], in metres East-North-Up of the origin; exact to below a millimetre."""
    x, y, z = _earth_centred(origin) + _enu_from_earth(origin).T @ enu
    horizontal = math.hypot(x, y)
    latitude = math.atan2(z, horizontal * (1 - ECCENTRICITY2))
    altitude = 0.0
    for _ in range(6):  # each round is about two digits more exact
        normal = SEMI_MAJOR_M / math.sqrt(1 - ECCENTRICITY2 * math.sin(latitude) ** 2)
        altitude = horizontal / math.cos(latitude) - normal
        latitude = math.atan2(z, horizontal * (1 - ECCENTRICITY2 * normal / (normal + altitude)))
    return Position(math.degrees(latitude), math.degrees(math.atan2(y, x)), altitude)


ORIGIN = Position(latitude_deg=47.2012, longitude_deg=8.6043, altitude_m=552.0)  # rolling farmland; a fictitious farm

SUN = (-0.50, -0.42, 0.76)  # direction to the sun: mid-afternoon, in the south-west

# shapes
BOX, GABLE, ELLIPSOID, CYLINDER, CROWN, CONIFER = range(6)

# materials of objects
PLASTER, PLANKS, STONE, CLAY_TILES, SLATE, METAL, BRICK, LEAVES, NEEDLES, BARK, FENCE_WOOD, ROCK, STRAW, CAR_PAINT = (
    range(14)
)
GLASS, RUBBER, SOIL_BED, CONCRETE, ROAD_PAINT, HEDGE = range(14, 20)


class House(NamedTuple):
    """A gabled house; `style` shifts the wall's colour, 0..1."""

    x: float
    y: float
    yaw_deg: float
    length: float
    width: float
    wall_height: float
    roof_height: float
    wall: int
    roof: int
    style: float
    chimney: bool = True


HOUSES = (
    House(-8, 9, 8, 13, 8, 5.0, 3.4, PLASTER, CLAY_TILES, 0.10),
    House(-12.3, 14.5, 98, 9, 6.4, 4.2, 2.8, PLASTER, CLAY_TILES, 0.10, chimney=False),
    House(12, 14, -12, 16, 9.5, 4.6, 3.8, PLANKS, METAL, 0.95, chimney=False),
    House(17.5, -13, 35, 9.5, 7, 3.4, 3.2, PLASTER, SLATE, 0.0),
    House(-20, -14, -20, 10, 7.4, 3.6, 3.2, PLASTER, CLAY_TILES, 0.75),
    House(1.5, 23, 20, 5.5, 4.2, 2.6, 1.6, PLANKS, SLATE, 0.35, chimney=False),
    House(27.5, 26, -30, 8, 5, 2.8, 1.8, PLANKS, CLAY_TILES, 0.2, chimney=False),
)

# The lane runs east through the hamlet: y = LANE_Y + LANE_SWING sin(x / LANE_LENGTH). Half width of the gravel below.
LANE_Y, LANE_SWING, LANE_LENGTH, LANE_HALF_WIDTH = -3.2, 3.4, 17.0, 1.75

# Gravel drives, from (x, y) to (x, y), half width; and gravel yards: x, y, radius.
DRIVES = (
    (1.5, -3.0, 2.5, 9.0, 1.4),
    (2.5, 9.0, 1.0, 20.5, 1.1),
    (14.0, -0.5, 15.0, -8.5, 1.2),
    (-19.5, -6.0, -19.5, -9.5, 1.2),
)
YARDS = ((3.4, 9.0, 4.2), (5.0, 6.5, 3.4), (15.6, -8.0, 2.4))


class Field(NamedTuple):
    """A rectangle of rows; `crop` 0 lavender, 1 vegetables, 2 straw stubble, 3 grain, 4 ploughed soil."""

    x: float
    y: float
    yaw_deg: float
    length: float
    width: float
    row_spacing: float
    crop: int


FIELDS = (
    Field(-27.5, 13.5, 12, 20, 17, 1.5, 0),
    Field(31.5, 9.5, -14, 19, 14, 0.9, 2),
    Field(-3.5, 34.0, 4, 26, 11, 1.3, 1),
)

POND = (-2.5, -20.5, 8.5, 6.0)  # x, y, semi-axes
POND_LEVEL_BELOW = 0.35  # metres below the meadow around it


class Tree(NamedTuple):
    """`kind` 0 round, 1 conifer, 2 poplar, 3 fruit, 4 bush; `tint` 0 dark green … 1 yellow-green, above 1 blossom."""

    x: float
    y: float
    height: float
    radius: float
    kind: int
    tint: float


TREES = (
    Tree(7.5, -7.8, 9.5, 4.0, 0, 0.30),
    Tree(-19.0, 3.6, 8.5, 3.6, 0, 0.55),
    Tree(-13.0, -21.5, 8.0, 2.7, 0, 0.85),
    Tree(-10.2, -26.0, 7.0, 2.3, 0, 0.95),
    Tree(7.2, -25.0, 7.5, 3.4, 0, 0.75),
    Tree(24.5, -5.6, 7.5, 3.0, 0, 0.45),
    Tree(-30.0, -6.0, 8.5, 3.4, 0, 0.35),
    Tree(22.5, 20.5, 8.0, 3.1, 0, 0.60),
    Tree(-1.6, 15.2, 5.0, 2.0, 0, 1.30),
    Tree(12.0, -18.5, 4.6, 1.9, 0, 1.25),
    Tree(10.5, 27.5, 11.0, 2.5, 1, 0.2),
    Tree(14.0, 30.5, 12.5, 2.8, 1, 0.1),
    Tree(17.5, 26.8, 9.5, 2.3, 1, 0.3),
    Tree(-27.0, -20.5, 11.0, 2.6, 1, 0.15),
    Tree(-30.0, -16.5, 9.0, 2.2, 1, 0.25),
    Tree(-24.5, -24.5, 8.0, 2.0, 1, 0.35),
    Tree(-15.8, 26.5, 10.0, 2.4, 1, 0.2),
    *(Tree(26.0 + 4.4 * i, -3.2 + 3.4 * s, 10.5 + (i % 2), 1.35, 2, 0.5) for i, s in enumerate((1.9, 1.95, 1.75, 1.4))),
    *(
        Tree(27.0 + 4.2 * i + 1.4 * j, -24.0 + 4.3 * j - 0.8 * i, 3.7, 1.6, 3, 0.6 + 0.05 * ((i * 7 + j * 3) % 5))
        for i in range(3)
        for j in range(4)
    ),
    *(
        Tree(x, y, h, r, 4, t)
        for x, y, h, r, t in (
            (-14.6, 5.6, 1.5, 1.0, 0.4),
            (-0.6, 11.9, 1.3, 0.9, 0.7),
            (3.0, 17.5, 1.4, 1.1, 0.3),
            (22.4, -12.0, 1.4, 1.0, 0.5),
            (13.4, -14.5, 1.3, 0.9, 1.4),
            (-25.6, -12.4, 1.5, 1.1, 0.4),
            (-14.4, -16.6, 1.2, 0.9, 1.35),
            (-11.8, -17.6, 1.3, 1.0, 0.8),
            (6.6, -18.4, 1.1, 0.8, 0.8),
            (7.3, -20.6, 1.4, 0.9, 0.7),
            (-4.5, -27.4, 1.3, 1.0, 0.9),
            (0.2, -27.6, 1.1, 0.8, 0.7),
            (20.8, 8.4, 1.5, 1.2, 0.3),
            (4.6, 20.6, 1.3, 0.9, 0.5),
            (-31.0, 2.5, 1.6, 1.3, 0.4),
            (19.5, 1.2, 1.3, 1.0, 0.6),
        )
    ),
)

Polylines = tuple[tuple[tuple[float, float], ...], ...]  # the corner points of each line

# Fences.
FENCES: Polylines = (
    ((-38.5, 1.5), (-22.5, 0.6), (-16.5, -1.0)),
    ((-16.8, 19.8), (-17.5, 25.0), (-39.0, 24.0)),
    ((22.8, -17.0), (24.0, -28.0), (38.5, -29.5)),
    ((9.2, 3.4), (13.0, 5.2), (21.0, 5.0)),
    ((-26.5, -8.0), (-28.5, -12.0), (-22.0, -20.8), (-15.0, -18.8)),
)

# Dry stone walls.
STONE_WALLS: Polylines = (((-15.0, 1.6), (-6.5, 2.6), (0.0, 3.4)), ((10.2, -11.0), (12.8, -18.6), (19.0, -20.5)))

# Hedges of clipped bushes.
HEDGES: Polylines = (((-2.0, 28.0), (-16.0, 28.0)), ((21.5, -18.5), (25.8, -13.0)), ((22.6, 12.0), (23.6, 3.5)))


class Block(NamedTuple):
    """An upright box (or cylinder): centre x, y, bottom above ground, half length, half width, height."""

    x: float
    y: float
    bottom: float
    half_length: float
    half_width: float
    height: float
    yaw_deg: float
    material: int
    style: float = 0.5


def car(x: float, y: float, yaw_deg: float, style: float) -> tuple[Block, ...]:
    """Parts of a car; `style` is its colour: red, blue, above 0.75 white."""
    return (
        Block(x, y, 0.18, 2.15, 0.78, 0.22, yaw_deg, RUBBER),
        Block(x, y, 0.35, 2.2, 0.88, 0.55, yaw_deg, CAR_PAINT, style),
        Block(x, y, 0.9, 1.15, 0.76, 0.42, yaw_deg, GLASS, 0.4),
        Block(x, y, 1.32, 0.95, 0.7, 0.08, yaw_deg, CAR_PAINT, style),
    )


BLOCKS = (
    *car(4.2, 5.4, 62, 0.05),
    *car(16.4, -6.6, 100, 0.6),
    # farm trailer with planks
    Block(5.6, 2.7, 0.7, 2.2, 1.0, 0.25, 20, FENCE_WOOD, 0.8),
    Block(5.6, 2.7, 0.3, 1.6, 0.8, 0.4, 20, RUBBER),
    Block(5.6, 2.7, 0.95, 1.9, 0.85, 0.8, 20, STRAW, 0.9),
    # jetty and rowing boat
    Block(-2.0, -15.6, -0.3, 0.75, 2.6, 0.5, 4, FENCE_WOOD, 0.6),
    Block(1.0, -17.6, -0.45, 1.4, 0.55, 0.45, 65, PLANKS, 0.95),
    # raised garden beds
    *(Block(-13.6 + 1.2 * i, -8.8 - 0.45 * i, 0.0, 0.42, 1.7, 0.4, -20, SOIL_BED) for i in range(4)),
    # wood pile and well
    Block(6.2, 18.3, 0.0, 1.6, 0.5, 1.2, -12, FENCE_WOOD, 0.9),
    Block(-3.6, 3.9, 0.0, 0.9, 0.9, 0.8, 25, STONE),
    # greenhouse
    Block(-24.6, -9.0, 0.0, 2.0, 1.2, 1.8, -15, GLASS, 0.9),
)

# Round straw bales on the stubble field: x, y.
BALES = ((27.0, 12.5), (31.0, 7.0), (35.5, 10.0), (33.0, 13.5), (38.0, 5.5), (25.6, 7.2))

# Rocks: x, y, radius.
ROCKS = (
    (5.9, -15.8, 0.8), (6.9, -16.9, 0.5), (-10.8, -14.8, 0.7), (-9.6, -14.0, 0.4), (3.4, -26.2, 0.6),
    (-7.0, -26.8, 0.7), (-0.2, -9.0, 0.6), (0.9, -9.7, 0.35), (10.0, 2.3, 0.5), (-21.5, 6.5, 0.6), (20.0, -2.6, 0.55),
    (-17.0, 22.5, 0.7),
)  # fmt: skip

# The surroundings: trees scattered between these radii, so that no photo shows an edge or an empty plain.
STREWN_TREES, STREWN_FROM_RADIUS, STREWN_TO_RADIUS = 260, 44.0, 150.0
