"""The things that stand in a town: houses of a few repeated types, flats, a church, trees, hedges, cars and bridges.

Houses of one block are alike on purpose: repetition is hard for matching, as it is in a real suburb.
"""

import math
from collections.abc import Iterable

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.place import Block, House, Tree
from tasks.core.demo.shapes import Ground, Primitive, block_part, house_parts, tree_parts
from tasks.core.demo.town_ground import RIVER_LEVEL_M, Crops, GroundWorks
from tasks.core.demo.town_plan import MAIN_HALF_WIDTH_M, SIDE_HALF_WIDTH_M, TownPlan, Use

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


class TownBuilder:
    """Collects the primitives of a town and what they add to the ground, block by block."""

    def __init__(self, town: TownPlan, crops: Crops, ground: Ground) -> None:
        """Take the plan; `ground` tells the height of the land."""
        self.town, self.crops, self.ground = town, crops, ground
        self.random = np.random.default_rng((town.seed, 23))
        self.primitives: list[Primitive] = []
        self.works = GroundWorks()

    def build(self) -> None:
        """Build everything."""
        by_use = {
            Use.HOUSES: self._houses, Use.FLATS: self._flats, Use.CHURCH: self._church, Use.PARK: self._park,
            Use.FIELD: self._field, Use.ORCHARD: self._orchard, Use.WOOD: self._wood, Use.MEADOW: self._meadow,
        }  # fmt: skip
        for r in range(len(self.town.rows) - 1):
            for c in range(len(self.town.columns) - 1):
                by_use[Use(int(self.town.uses[r, c]))](r, c)
        self._streets()
        self._river_banks()

    def _add(self, parts: Iterable[Primitive]) -> None:
        self.primitives.extend(parts)

    def _seed(self) -> int:
        return int(self.random.integers(1, 1_000_000))

    def _tree(self, x: float, y: float, kind: int | None = None, size: float | None = None) -> None:
        """A tree, unless it would stand in the river."""
        if not self.town.is_dry(x, y, -5.0):
            return
        kinds = self.random.choice([0, 0, 1, 3, 2]) if kind is None else kind
        size = float(self.random.uniform(0.7, 1.15)) if size is None else size
        height, radius = ((8.5, 3.4), (11.0, 2.6), (11.0, 1.4), (4.6, 2.0), (1.6, 1.2))[kinds]
        tint = float(self.random.uniform(0.1, 0.9))
        self._add(tree_parts(Tree(x, y, height * size, radius * size, int(kinds), tint), self.ground, self._seed()))

    def _box(self, x: float, y: float, yaw: float, bottom: float, sizes: tuple[float, float, float], material: int,
             style: float = 0.5, seed: int = 1) -> None:  # fmt: skip
        """A box of half length, half width and height."""
        self.primitives.append(block_part(Block(x, y, bottom, *sizes, yaw, material, style), self.ground, seed))

    def _hedge(self, x: float, y: float, yaw: float, length: float, height: float = 1.3) -> None:
        """A clipped hedge in pieces that follow the land."""
        pieces = max(1, round(length / 4))
        for piece in range(pieces):
            along = ((piece + 0.5) / pieces - 0.5) * length
            px, py = _moved(x, y, yaw, along, 0.0)
            if self.town.is_dry(px, py, -4.0):
                self._box(
                    px, py, yaw, -0.4, (length / pieces / 2 + 0.05, 0.5, height + 0.4), place.HEDGE, seed=self._seed()
                )

    def _car(self, x: float, y: float, yaw: float) -> None:
        style = float(self.random.choice([0.05, 0.6, 0.95, 0.78]))
        for part in place.car(x, y, yaw, style):
            self.primitives.append(block_part(part, self.ground, 5))

    def _spots(self, r: int, c: int, step: float, jitter: float, inset: float) -> Iterable[tuple[float, float]]:
        """Places in a block about `step` apart, in a grid that is shaken by `jitter`."""
        town = self.town
        for u in np.arange(town.columns[c] + inset, town.columns[c + 1] - inset + 0.1, step):
            for v in np.arange(town.rows[r] + inset, town.rows[r + 1] - inset + 0.1, step):
                du, dv = self.random.uniform(-jitter, jitter, 2)
                yield town.point(float(u + du), float(v + dv))

    def _houses(self, r: int, c: int) -> None:
        """Rows of houses along two opposite streets, gardens between them."""
        town = self.town
        own_type = int(self.random.integers(len(TYPES)))
        along_rows = bool(self.random.uniform() < 0.5)
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
            kind = TYPES[own_type if self.random.uniform() < 0.85 else int(self.random.integers(len(TYPES)))]
            room = ends[1] - ends[0] - 13.0
            count = max(1, int(room // (kind.length + 5.5)))
            for number in range(count):
                along = ends[0] + 6.5 + (number + 0.5) * room / count
                across = street + inward * (13.5 + float(self.random.choice([0.0, 0.0, 1.5])))
                self._plot(kind, along, across, street, inward, along_rows, room / count, bool(paved))

    def _plot(self, kind: House, along: float, across: float, street: float, inward: float, along_rows: bool,
              width: float, paved: bool) -> None:  # fmt: skip
        """A house with its drive, car, hedges, shed and trees."""
        town = self.town
        x, y = town.point(along, across) if along_rows else town.point(across, along)
        if not town.is_dry(x, y, 6.0):
            return
        yaw = town.yaw_of_row_deg(x) if along_rows else town.yaw_of_column_deg(y)
        facing = inward if along_rows else -inward  # the garden's side in the house's frame
        self._add(house_parts(kind._replace(x=x, y=y, yaw_deg=yaw), self.ground, 1))
        if paved:
            gate = _moved(x, y, yaw, kind.length / 2 + 1.9, -facing * 10.5)
            door = _moved(x, y, yaw, kind.length / 2 + 1.9, facing * 2.0)
            self.works.drives.append((*gate, *door, 1.35))
            if self.random.uniform() < 0.5:
                self._car(
                    *_moved(x, y, yaw, kind.length / 2 + 1.9, -facing * float(self.random.uniform(1, 4))), yaw + 90
                )
        if self.random.uniform() < 0.7:
            hx, hy = _moved(x, y, yaw, -width / 2 + 0.2, facing * 5.5)
            self._hedge(hx, hy, yaw + 90, 17.0)
        if self.random.uniform() < 0.55:
            hx, hy = _moved(x, y, yaw, -1.6, -facing * 8.3)
            self._hedge(hx, hy, yaw, width - 6.5, 0.9)
        if self.random.uniform() < 0.45:
            sx, sy = _moved(x, y, yaw, float(self.random.uniform(-3, 3)), facing * 11.5)
            self._add(house_parts(SHED._replace(x=sx, y=sy, yaw_deg=yaw), self.ground, 2))
        if self.random.uniform() < 0.4:
            for bed in range(3):
                bx, by = _moved(x, y, yaw, -width / 2 + 2.2 + 1.3 * bed, facing * 9.5)
                self._box(bx, by, yaw, 0.0, (0.45, 1.8, 0.35), place.SOIL_BED)
        for _ in range(int(self.random.integers(1, 4))):
            dx, dy = float(self.random.uniform(-width / 2 + 2, width / 2 - 2)), float(self.random.uniform(7.5, 14.0))
            self._tree(*_moved(x, y, yaw, dx, facing * dy), kind=int(self.random.choice([0, 3, 3, 4, 1])),
                       size=float(self.random.uniform(0.55, 0.9)))  # fmt: skip

    def _flats(self, r: int, c: int) -> None:
        """Two or three equal long blocks with flat roofs, and a car park between them."""
        town = self.town
        u0, u1, v0, v1 = town.columns[c], town.columns[c + 1], town.rows[r], town.rows[r + 1]
        height = float(self.random.choice([8.4, 11.0]))
        for v in (v0 + 14.0, v1 - 14.0):
            x, y = town.point(float((u0 + u1) / 2), float(v))
            if not town.is_dry(x, y, 12.0):
                continue
            yaw = town.yaw_of_row_deg(x)
            half = float(u1 - u0) / 2 - 10.0
            self._box(x, y, yaw, -1.2, (half, 5.6, height + 1.2), place.PLASTER, 0.35)
            self._box(x, y, yaw, height, (half + 0.3, 5.9, 0.5), place.CONCRETE, seed=self._seed())
            for along in (-half * 0.55, half * 0.1, half * 0.6):
                px, py = _moved(x, y, yaw, along, 1.5)
                self._box(px, py, yaw, height, (1.6, 1.3, 2.2), place.BRICK)
        x, y = town.point(float((u0 + u1) / 2), float((v0 + v1) / 2))
        yaw = town.yaw_of_row_deg(x)
        if town.is_dry(x, y, 18.0):
            self.works.squares.append((x, y, yaw, 17.0, 6.5))
            for number in range(11):
                for side in (-1, 1):
                    if self.random.uniform() < 0.6:
                        self._car(*_moved(x, y, yaw, -14.5 + 2.9 * number, side * 3.9), yaw + 90)
        for px, py in self._spots(r, c, 24.0, 2.0, 8.5):
            self._tree(px, py, kind=0, size=0.7)

    def _church(self, r: int, c: int) -> None:
        """A church with a tower on a paved square, with trees and benches around it."""
        town = self.town
        u, v = float(town.columns[c] + town.columns[c + 1]) / 2, float(town.rows[r] + town.rows[r + 1]) / 2
        x, y = town.point(u, v)
        yaw = town.yaw_of_row_deg(x)
        nave = House(x + 2, y, yaw, 22.0, 11.0, 7.0, 5.5, place.PLASTER, place.SLATE, 0.0, chimney=False)
        self._add(house_parts(nave, self.ground, 1))
        tx, ty = _moved(x, y, yaw, -11.5, 0.0)
        tower = House(tx, ty, yaw + 90, 6.0, 6.0, 14.5, 4.0, place.PLASTER, place.CLAY_TILES, 0.0, chimney=False)
        self._add(house_parts(tower, self.ground, 1))
        self.works.squares.append((*_moved(x, y, yaw, -3.0, -11.0), yaw, 17.0, 4.5))
        self.works.drives.append((*_moved(x, y, yaw, -17, 9), *_moved(x, y, yaw, 18, 9), 1.5))
        wx, wy = _moved(x, y, yaw, -14.0, -11.0)
        self._box(wx, wy, yaw, -0.3, (1.3, 1.3, 1.0), place.STONE)
        for number in range(6):
            self._car(*_moved(x, y, yaw, -2 + 3.0 * number, -13.0), yaw + 90)
        for number in range(5):
            for side in (-17.5, 15.0):
                self._tree(*_moved(x, y, yaw, -18.0 + 9.0 * number, side), kind=0, size=0.75)

    def _park(self, r: int, c: int) -> None:
        """Groups of trees, bushes and crossing gravel paths."""
        town = self.town
        west, east = float(town.columns[c]) + 6, float(town.columns[c + 1]) - 6
        south, north = float(town.rows[r]) + 6, float(town.rows[r + 1]) - 6
        self.works.drives.append((*town.point(west, south), *town.point(east, north), 1.1))
        self.works.drives.append((*town.point(west, north), *town.point(east, south), 1.1))
        x, y = town.point((west + east) / 2, (south + north) / 2)
        self.works.drives.append((x - 0.5, y, x + 0.5, y, 4.5))
        for x, y in self._spots(r, c, 10.5, 3.5, 9.0):
            if self.random.uniform() < 0.6:
                self._tree(x, y, kind=int(self.random.choice([0, 0, 2, 4, 4, 1])))

    def _field(self, r: int, c: int) -> None:
        """Bales on stubble, now and then a barn at the edge, trees and hedges on the borders."""
        town = self.town
        first = int(self.crops.first[r, c])
        if all(int(self.crops.fields[first + n, 3]) == 2 for n in range(int(self.crops.strips[r, c]))):
            for x, y in self._spots(r, c, 13.0, 3.0, 9.0):
                if town.is_dry(x, y, 2.0):
                    bale = Block(x, y, 0.0, 0.85, 0.85, 1.25, 0.0, place.STRAW)
                    self.primitives.append(block_part(bale, self.ground, 3, place.CYLINDER))
        if self.random.uniform() < 0.12:
            x, y = town.point(float(town.columns[c]) + 16.0, float(town.rows[r]) + 10.0)
            if town.is_dry(x, y, 12.0):
                self._add(house_parts(BARN._replace(x=x, y=y, yaw_deg=town.yaw_of_row_deg(x)), self.ground, 1))
        self._border(r, c)

    def _border(self, r: int, c: int) -> None:
        """A hedgerow with trees along the southern or western border, where no street or track is."""
        town = self.town
        if not (town.paved_rows[r, c] or town.track_rows[r, c]) and self.random.uniform() < 0.6:
            for u in np.arange(town.columns[c] + 4, town.columns[c + 1] - 3, 5.5):
                x, y = town.point(float(u), float(town.rows[r]))
                self._tree(x, y, kind=int(self.random.choice([4, 4, 3, 0])), size=float(self.random.uniform(0.7, 1.3)))
        if not (town.paved_columns[r, c] or town.track_columns[r, c]) and self.random.uniform() < 0.4:
            x, y = town.point(float(town.columns[c]), float(town.rows[r] + town.rows[r + 1]) / 2)
            self._hedge(x, y, town.yaw_of_column_deg(y), float(town.rows[r + 1] - town.rows[r]) - 9.0, 1.6)

    def _orchard(self, r: int, c: int) -> None:
        for x, y in self._spots(r, c, 7.0, 0.5, 7.0):
            self._tree(x, y, kind=3, size=0.95)

    def _wood(self, r: int, c: int) -> None:
        conifers = self.random.uniform() < 0.5
        for x, y in self._spots(r, c, 6.2, 1.8, 5.5):
            kind = int(self.random.choice([1, 1, 1, 3] if conifers else [0, 3, 3, 1]))
            self._tree(
                x,
                y,
                kind=kind,
                size=float(self.random.uniform(1.4, 2.0) if kind == 3 else self.random.uniform(0.75, 1.2)),
            )

    def _meadow(self, r: int, c: int) -> None:
        for x, y in self._spots(r, c, 15.0, 6.0, 8.0):
            if self.random.uniform() < 0.45:
                self._tree(x, y)
        self._border(r, c)

    def _streets(self) -> None:
        """Centre lines and trees of the main streets, parked cars, and bridges."""
        town = self.town
        for is_column, paved, is_main in (
            (True, town.paved_columns, town.main_columns),
            (False, town.paved_rows, town.main_rows),
        ):
            for r, c in np.argwhere(paved):
                self._street_piece(int(r), int(c), is_column, bool(is_main[c if is_column else r]))

    def _street_piece(self, r: int, c: int, is_column: bool, main: bool) -> None:
        town = self.town
        lines, at = (town.rows, float(town.columns[c])) if is_column else (town.columns, float(town.rows[r]))
        first = r if is_column else c
        low, high = float(lines[first]), float(lines[first + 1])
        half = MAIN_HALF_WIDTH_M if main else SIDE_HALF_WIDTH_M
        wet = []
        for along in np.arange(low + 7.0, high - 6.0, 2.0):
            x, y = town.point(at, float(along)) if is_column else town.point(float(along), at)
            yaw = town.yaw_of_column_deg(y) if is_column else town.yaw_of_row_deg(x)
            if not town.is_dry(x, y, -6.0):
                wet.append((x, y, yaw))
                continue
            step = round((along - low - 7.0) / 2.0)
            if main and step % 3 == 0:
                self._box(x, y, yaw, -0.25, (0.9, 0.09, 0.28), place.ROAD_PAINT)
            if main and step % 6 == 1:
                for side in (-1, 1):
                    self._tree(*_moved(x, y, yaw, 0.0, side * (half + 2.6)), kind=3, size=1.15)
            if step % 4 == 2 and self.random.uniform() < 0.16:
                lane = float(self.random.choice([-1, 1]))
                self._car(*_moved(x, y, yaw, 0.0, lane * (half - 1.0)), yaw)
        if wet:
            self._bridge(wet, half)

    def _bridge(self, wet: list[tuple[float, float, float]], half: float) -> None:
        """A level deck with parapets over the river."""
        (ax, ay, _), (bx, by, _) = wet[0], wet[-1]
        x, y, yaw = (
            (ax + bx) / 2,
            (ay + by) / 2,
            math.degrees(math.atan2(by - ay, bx - ax)) if len(wet) > 1 else wet[0][2],
        )
        length = math.hypot(bx - ax, by - ay) / 2 + 3.0
        surface = self.ground(x, y)
        deck = max(self.ground(ax, ay), self.ground(bx, by), RIVER_LEVEL_M + 0.8) + 0.1 - surface
        self._box(x, y, yaw, deck - 0.7, (length, half + 1.6, 0.7), place.CONCRETE, seed=3)
        for side in (-1.0, 1.0):
            px, py = _moved(x, y, yaw, 0.0, side * (half + 1.4))
            self._box(px, py, yaw, deck - 0.7 + surface - self.ground(px, py), (length, 0.25, 1.6), place.STONE)

    def _river_banks(self) -> None:
        """Willows and bushes along the water."""
        town, river = self.town, self.town.river
        cos, sin = math.cos(river.heading), math.sin(river.heading)
        for along in np.arange(-town.size_m, town.size_m, 8.0):
            swing = river.offset_m + sum(s * math.sin(along / length + phase) for s, length, phase in river.swings)
            for side in (-1, 1):
                across = swing + side * (river.half_width_m + float(self.random.uniform(3.0, 7.0)))
                x, y = cos * along - sin * across, sin * along + cos * across
                inside = max(abs(x), abs(y)) < town.size_m / 2 - 8
                if inside and not self._is_near_street(x, y) and self.random.uniform() < 0.45:
                    self._tree(x, y, kind=int(self.random.choice([0, 4, 4, 3])))

    def _is_near_street(self, x: float, y: float) -> bool:
        u, v = self.town.bent(np.array(x), np.array(y))
        near_column = np.abs(self.town.columns[self.town.main_columns] - u) < 8
        near_row = np.abs(self.town.rows[self.town.main_rows] - v) < 8
        return bool(near_column.any() or near_row.any())


def _moved(x: float, y: float, yaw_deg: float, along: float, across: float) -> tuple[float, float]:
    """A place `along` and `across` metres from another, in a frame that is turned by a yaw."""
    cos, sin = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    return x + cos * along - sin * across, y + sin * along + cos * across
