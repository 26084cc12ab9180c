"""The place that a flight photographs, ready for the ray caster."""

from functools import lru_cache

from tasks.core.demo.hamlet import ground_height, hamlet
from tasks.core.demo.scenery import World
from tasks.core.demo.town import town_world

__all__ = ["World", "build_world", "ground_height"]


@lru_cache(maxsize=2)
def build_world(extent_m: int = 0, seed: int = 0) -> World:
    """The hamlet, or with an extent in metres a town of that size; the seed changes the town, not the hamlet."""
    return town_world(extent_m, seed) if extent_m else hamlet()
