"""The parts of a town while it is built: primitives, and what they add to the ground."""

import math
from collections.abc import Iterable

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.place import Block, Tree
from tasks.core.demo.shapes import Ground, Primitive, block_part, tree_parts
from tasks.core.demo.town_ground import GroundWorks
from tasks.core.demo.town_plan import TownPlan


class TownParts:
    """Collects parts. Random choices come from one generator, in the order in which things are built."""

    def __init__(self, town: TownPlan, ground: Ground) -> None:
        """Take the plan; `ground` tells the height of the land."""
        self.town, self.ground = town, ground
        self.random = np.random.default_rng((town.seed, 23))
        self.primitives: list[Primitive] = []
        self.works = GroundWorks()

    def add(self, parts: Iterable[Primitive]) -> None:
        """Add primitives."""
        self.primitives.extend(parts)

    def seed(self) -> int:
        """A seed for a texture or a tree."""
        return int(self.random.integers(1, 1_000_000))

    def tree(self, x: float, y: float, kind: int | None = None, size: float | None = None) -> None:
        """A tree, unless it would stand in the river."""
        if not self.town.is_dry(x, y, -5.0):
            return
        kinds = self.random.choice([0, 0, 1, 3, 2]) if kind is None else kind
        size = float(self.random.uniform(0.7, 1.15)) if size is None else size
        height, radius = ((8.5, 3.4), (11.0, 2.6), (11.0, 1.4), (4.6, 2.0), (1.6, 1.2))[kinds]
        tint = float(self.random.uniform(0.1, 0.9))
        self.add(tree_parts(Tree(x, y, height * size, radius * size, int(kinds), tint), self.ground, self.seed()))

    def box(self, x: float, y: float, yaw: float, bottom: float, sizes: tuple[float, float, float], material: int,
             style: float = 0.5, seed: int = 1) -> None:  # fmt: skip
        """A box of half length, half width and height."""
        self.primitives.append(block_part(Block(x, y, bottom, *sizes, yaw, material, style), self.ground, seed))

    def hedge(self, x: float, y: float, yaw: float, length: float, height: float = 1.3) -> None:
        """A clipped hedge in pieces that follow the land."""
        pieces = max(1, round(length / 4))
        for piece in range(pieces):
            along = ((piece + 0.5) / pieces - 0.5) * length
            px, py = moved(x, y, yaw, along, 0.0)
            if self.town.is_dry(px, py, -4.0):
                self.box(
                    px, py, yaw, -0.4, (length / pieces / 2 + 0.05, 0.5, height + 0.4), place.HEDGE, seed=self.seed()
                )

    def car(self, x: float, y: float, yaw: float) -> None:
        """A car of one of four colours."""
        style = float(self.random.choice([0.05, 0.6, 0.95, 0.78]))
        for part in place.car(x, y, yaw, style):
            self.primitives.append(block_part(part, self.ground, 5))

    def spots(self, r: int, c: int, step: float, jitter: float, inset: float) -> Iterable[tuple[float, float]]:
        """Places in a block about `step` apart, in a grid that is shaken by `jitter`."""
        town = self.town
        for u in np.arange(town.columns[c] + inset, town.columns[c + 1] - inset + 0.1, step):
            for v in np.arange(town.rows[r] + inset, town.rows[r + 1] - inset + 0.1, step):
                du, dv = self.random.uniform(-jitter, jitter, 2)
                yield town.point(float(u + du), float(v + dv))


def moved(x: float, y: float, yaw_deg: float, along: float, across: float) -> tuple[float, float]:
    """A place `along` and `across` metres from another, in a frame that is turned by a yaw."""
    cos, sin = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    return x + cos * along - sin * across, y + sin * along + cos * across
