"""Build the blocks of a town: houses of a few repeated types, flats, a church, trees and hedges.

Houses of one block are alike on purpose: repetition is hard for matching, as it is in a real suburb.
"""

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.place import Block, House
from tasks.core.demo.shapes import block_part, house_parts
from tasks.core.demo.town_ground import Crops
from tasks.core.demo.town_parts import TownParts, moved
from tasks.core.demo.town_plan import Use

# The repeated types of houses, at the origin: x, y and yaw are replaced.
TYPES = (
    House(0, 0, 0, 11.0, 8.0, 3.4, 3.3, place.PLASTER, place.CLAY_TILES, 0.1),
    House(0, 0, 0, 12.0, 8.5, 5.2, 3.2, place.PLASTER, place.SLATE, 0.0),
    House(0, 0, 0, 10.0, 7.5, 3.6, 3.0, place.PLANKS, place.CLAY_TILES, 0.3),
    House(0, 0, 0, 15.0, 8.5, 5.2, 3.0, place.PLASTER, place.CLAY_TILES, 0.75),
    House(0, 0, 0, 10.5, 9.0, 4.0, 3.6, place.PLANKS, place.METAL, 0.95, chimney=False),
)
BARN = House(0, 0, 0, 19.0, 10.0, 5.0, 4.0, place.PLANKS, place.METAL, 0.95, chimney=False)
SHED = House(0, 0, 0, 4.6, 3.4, 2.3, 1.2, place.PLANKS, place.SLATE, 0.35, chimney=False)


def build_blocks(parts: TownParts, crops: Crops) -> None:
    """Build every block according to its use."""
    build = {
        Use.HOUSES: _houses, Use.FLATS: _flats, Use.CHURCH: _church, Use.PARK: _park, Use.ORCHARD: _orchard,
        Use.WOOD: _wood, Use.MEADOW: _meadow,
    }  # fmt: skip
    for r in range(len(parts.town.rows) - 1):
        for c in range(len(parts.town.columns) - 1):
            use = Use(int(parts.town.uses[r, c]))
            if use == Use.FIELD:
                _field(parts, crops, r, c)
            else:
                build[use](parts, r, c)


def _houses(parts: TownParts, r: int, c: int) -> None:
    """Rows of houses along two opposite streets, gardens between them."""
    town = parts.town
    own_type = int(parts.random.integers(len(TYPES)))
    along_rows = bool(parts.random.uniform() < 0.5)
    if along_rows:
        sides = [
            (float(town.rows[r]), 1.0, town.paved_rows[r, c]),
            (float(town.rows[r + 1]), -1.0, town.paved_rows[r + 1, c]),
        ]
        ends = float(town.columns[c]), float(town.columns[c + 1])
    else:
        sides = [
            (float(town.columns[c]), 1.0, town.paved_columns[r, c]),
            (float(town.columns[c + 1]), -1.0, town.paved_columns[r, c + 1]),
        ]
        ends = float(town.rows[r]), float(town.rows[r + 1])
    for street, inward, paved in sides:
        kind = TYPES[own_type if parts.random.uniform() < 0.85 else int(parts.random.integers(len(TYPES)))]
        room = ends[1] - ends[0] - 13.0
        count = max(1, int(room // (kind.length + 5.5)))
        for number in range(count):
            along = ends[0] + 6.5 + (number + 0.5) * room / count
            across = street + inward * (13.5 + float(parts.random.choice([0.0, 0.0, 1.5])))
            _plot(parts, kind, along, across, inward, along_rows, room / count, bool(paved))


def _plot(parts: TownParts, kind: House, along: float, across: float, inward: float, along_rows: bool,
          width: float, paved: bool) -> None:  # fmt: skip
    """A house with its drive, car, hedges, shed and trees."""
    town = parts.town
    x, y = town.point(along, across) if along_rows else town.point(across, along)
    if not town.is_dry(x, y, 6.0):
        return
    yaw = town.yaw_of_row_deg(x) if along_rows else town.yaw_of_column_deg(y)
    facing = inward if along_rows else -inward  # the garden's side in the house's frame
    parts.add(house_parts(kind._replace(x=x, y=y, yaw_deg=yaw), parts.ground, 1))
    if paved:
        gate = moved(x, y, yaw, kind.length / 2 + 1.9, -facing * 10.5)
        door = moved(x, y, yaw, kind.length / 2 + 1.9, facing * 2.0)
        parts.works.drives.append((*gate, *door, 1.35))
        if parts.random.uniform() < 0.5:
            parts.car(*moved(x, y, yaw, kind.length / 2 + 1.9, -facing * float(parts.random.uniform(1, 4))), yaw + 90)
    if parts.random.uniform() < 0.7:
        hx, hy = moved(x, y, yaw, -width / 2 + 0.2, facing * 5.5)
        parts.hedge(hx, hy, yaw + 90, 17.0)
    if parts.random.uniform() < 0.55:
        hx, hy = moved(x, y, yaw, -1.6, -facing * 8.3)
        parts.hedge(hx, hy, yaw, width - 6.5, 0.9)
    if parts.random.uniform() < 0.45:
        sx, sy = moved(x, y, yaw, float(parts.random.uniform(-3, 3)), facing * 11.5)
        parts.add(house_parts(SHED._replace(x=sx, y=sy, yaw_deg=yaw), parts.ground, 2))
    if parts.random.uniform() < 0.4:
        for bed in range(3):
            bx, by = moved(x, y, yaw, -width / 2 + 2.2 + 1.3 * bed, facing * 9.5)
            parts.box(bx, by, yaw, 0.0, (0.45, 1.8, 0.35), place.SOIL_BED)
    for _ in range(int(parts.random.integers(1, 4))):
        dx, dy = float(parts.random.uniform(-width / 2 + 2, width / 2 - 2)), float(parts.random.uniform(7.5, 14.0))
        parts.tree(*moved(x, y, yaw, dx, facing * dy), kind=int(parts.random.choice([0, 3, 3, 4, 1])),
                   size=float(parts.random.uniform(0.55, 0.9)))  # fmt: skip


def _flats(parts: TownParts, r: int, c: int) -> None:
    """Two or three equal long blocks with flat roofs, and a car park between them."""
    town = parts.town
    u0, u1, v0, v1 = town.columns[c], town.columns[c + 1], town.rows[r], town.rows[r + 1]
    height = float(parts.random.choice([8.4, 11.0]))
    for v in (v0 + 14.0, v1 - 14.0):
        x, y = town.point(float((u0 + u1) / 2), float(v))
        if not town.is_dry(x, y, 12.0):
            continue
        yaw = town.yaw_of_row_deg(x)
        half = float(u1 - u0) / 2 - 10.0
        parts.box(x, y, yaw, -1.2, (half, 5.6, height + 1.2), place.PLASTER, 0.35)
        parts.box(x, y, yaw, height, (half + 0.3, 5.9, 0.5), place.CONCRETE, seed=parts.seed())
        for along in (-half * 0.55, half * 0.1, half * 0.6):
            px, py = moved(x, y, yaw, along, 1.5)
            parts.box(px, py, yaw, height, (1.6, 1.3, 2.2), place.BRICK)
    x, y = town.point(float((u0 + u1) / 2), float((v0 + v1) / 2))
    yaw = town.yaw_of_row_deg(x)
    if town.is_dry(x, y, 18.0):
        parts.works.squares.append((x, y, yaw, 17.0, 6.5))
        for number in range(11):
            for side in (-1, 1):
                if parts.random.uniform() < 0.6:
                    parts.car(*moved(x, y, yaw, -14.5 + 2.9 * number, side * 3.9), yaw + 90)
    for px, py in parts.spots(r, c, 24.0, 2.0, 8.5):
        parts.tree(px, py, kind=0, size=0.7)


def _church(parts: TownParts, r: int, c: int) -> None:
    """A church with a tower on a paved square, with trees and benches around it."""
    town = parts.town
    u, v = float(town.columns[c] + town.columns[c + 1]) / 2, float(town.rows[r] + town.rows[r + 1]) / 2
    x, y = town.point(u, v)
    yaw = town.yaw_of_row_deg(x)
    nave = House(x + 2, y, yaw, 22.0, 11.0, 7.0, 5.5, place.PLASTER, place.SLATE, 0.0, chimney=False)
    parts.add(house_parts(nave, parts.ground, 1))
    tx, ty = moved(x, y, yaw, -11.5, 0.0)
    tower = House(tx, ty, yaw + 90, 6.0, 6.0, 14.5, 4.0, place.PLASTER, place.CLAY_TILES, 0.0, chimney=False)
    parts.add(house_parts(tower, parts.ground, 1))
    parts.works.squares.append((*moved(x, y, yaw, -3.0, -11.0), yaw, 17.0, 4.5))
    parts.works.drives.append((*moved(x, y, yaw, -17, 9), *moved(x, y, yaw, 18, 9), 1.5))
    wx, wy = moved(x, y, yaw, -14.0, -11.0)
    parts.box(wx, wy, yaw, -0.3, (1.3, 1.3, 1.0), place.STONE)
    for number in range(6):
        parts.car(*moved(x, y, yaw, -2 + 3.0 * number, -13.0), yaw + 90)
    for number in range(5):
        for side in (-17.5, 15.0):
            parts.tree(*moved(x, y, yaw, -18.0 + 9.0 * number, side), kind=0, size=0.75)


def _park(parts: TownParts, r: int, c: int) -> None:
    """Groups of trees, bushes and crossing gravel paths."""
    town = parts.town
    west, east = float(town.columns[c]) + 6, float(town.columns[c + 1]) - 6
    south, north = float(town.rows[r]) + 6, float(town.rows[r + 1]) - 6
    parts.works.drives.append((*town.point(west, south), *town.point(east, north), 1.1))
    parts.works.drives.append((*town.point(west, north), *town.point(east, south), 1.1))
    x, y = town.point((west + east) / 2, (south + north) / 2)
    parts.works.drives.append((x - 0.5, y, x + 0.5, y, 4.5))
    for x, y in parts.spots(r, c, 10.5, 3.5, 9.0):
        if parts.random.uniform() < 0.6:
            parts.tree(x, y, kind=int(parts.random.choice([0, 0, 2, 4, 4, 1])))


def _field(parts: TownParts, crops: Crops, r: int, c: int) -> None:
    """Bales on stubble, now and then a barn at the edge, trees and hedges on the borders."""
    town = parts.town
    first = int(crops.first[r, c])
    if all(int(crops.fields[first + n, 3]) == 2 for n in range(int(crops.strips[r, c]))):
        for x, y in parts.spots(r, c, 13.0, 3.0, 9.0):
            if town.is_dry(x, y, 2.0):
                bale = Block(x, y, 0.0, 0.85, 0.85, 1.25, 0.0, place.STRAW)
                parts.primitives.append(block_part(bale, parts.ground, 3, place.CYLINDER))
    if parts.random.uniform() < 0.12:
        x, y = town.point(float(town.columns[c]) + 16.0, float(town.rows[r]) + 10.0)
        if town.is_dry(x, y, 12.0):
            parts.add(house_parts(BARN._replace(x=x, y=y, yaw_deg=town.yaw_of_row_deg(x)), parts.ground, 1))
    _border(parts, r, c)


def _border(parts: TownParts, r: int, c: int) -> None:
    """A hedgerow with trees along the southern or western border, where no street or track is."""
    town = parts.town
    if not (town.paved_rows[r, c] or town.track_rows[r, c]) and parts.random.uniform() < 0.6:
        for u in np.arange(town.columns[c] + 4, town.columns[c + 1] - 3, 5.5):
            x, y = town.point(float(u), float(town.rows[r]))
            parts.tree(x, y, kind=int(parts.random.choice([4, 4, 3, 0])), size=float(parts.random.uniform(0.7, 1.3)))
    if not (town.paved_columns[r, c] or town.track_columns[r, c]) and parts.random.uniform() < 0.4:
        x, y = town.point(float(town.columns[c]), float(town.rows[r] + town.rows[r + 1]) / 2)
        parts.hedge(x, y, town.yaw_of_column_deg(y), float(town.rows[r + 1] - town.rows[r]) - 9.0, 1.6)


def _orchard(parts: TownParts, r: int, c: int) -> None:
    for x, y in parts.spots(r, c, 7.0, 0.5, 7.0):
        parts.tree(x, y, kind=3, size=0.95)


def _wood(parts: TownParts, r: int, c: int) -> None:
    conifers = parts.random.uniform() < 0.5
    for x, y in parts.spots(r, c, 6.2, 1.8, 5.5):
        kind = int(parts.random.choice([1, 1, 1, 3] if conifers else [0, 3, 3, 1]))
        parts.tree(
            x,
            y,
            kind=kind,
            size=float(parts.random.uniform(1.4, 2.0) if kind == 3 else parts.random.uniform(0.75, 1.2)),
        )


def _meadow(parts: TownParts, r: int, c: int) -> None:
    for x, y in parts.spots(r, c, 15.0, 6.0, 8.0):
        if parts.random.uniform() < 0.45:
            parts.tree(x, y)
    _border(parts, r, c)
