"""The graph of photos that agree, and what it leads to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from tasks.core.sfm import similar
from tasks.core.sfm.pairs import Pair, PairChoice
from tasks.core.sfm.similar import MORE_NEIGHBOURS, join_parts, match_similar
from tasks.core.sfm.view_graph import ViewGraph, bridges, neighbours_of_neighbours, read_view_graph

CHAIN = ViewGraph(6, {(0, 1): 90, (1, 2): 60, (2, 3): 40, (4, 5): 80})


def test_a_graph_is_read_by_the_photos_places(tmp_path: Path) -> None:
    pycolmap.Database.open(tmp_path / "found.db").close()
    with pycolmap.Database.open(tmp_path / "found.db") as database:
        camera = database.write_camera(pycolmap.Camera(model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24]))
        numbers = [database.write_image(pycolmap.Image(name=name, camera_id=camera)) for name in ("c", "a", "b")]
        for first, second, count in ((0, 1, 40), (1, 2, 14)):  # 14 are too few
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = np.zeros((count, 2), np.uint32)
            database.write_two_view_geometry(numbers[first], numbers[second], geometry)
    assert read_view_graph(tmp_path / "found.db", ("a", "b", "c")).shared == {(0, 2): 40}


def test_parts_are_numbered_by_size() -> None:
    assert CHAIN.parts().tolist() == [0, 0, 0, 0, 1, 1]
    assert ViewGraph(4, {(1, 2): 20}).parts().tolist() == [1, 0, 0, 2]


def test_neighbours_of_neighbours_by_hand() -> None:
    assert neighbours_of_neighbours(CHAIN, CHAIN.shared, 5) == [(0, 2), (1, 3)]
    assert neighbours_of_neighbours(CHAIN, [*CHAIN.shared, (0, 2)], 5) == [(1, 3)]
    star = ViewGraph(4, {(0, 1): 50, (0, 2): 90, (0, 3): 30})
    assert neighbours_of_neighbours(star, star.shared, 1) == [(1, 2), (1, 3)], "the most points in common first"


def test_bridges_lead_out_of_a_part() -> None:
    turn = np.radians([0, 5, 10, 15, 12, 40])
    vectors = np.column_stack([np.cos(turn), np.sin(turn)]).astype(np.float32)
    assert bridges(CHAIN.parts(), vectors, {(3, 4)}, 1) == [(2, 4), (3, 5)]


class Place:
    """A strip of photos in place of a database: near ones agree once they are compared."""

    def __init__(self, photos: int, reach: int) -> None:
        self.photos, self.reach = photos, reach
        self.rounds: list[set[Pair]] = []

    def compare(self, pairs: Sequence[Pair]) -> None:
        self.rounds.append(set(pairs))

    def graph(self, *_: object) -> ViewGraph:
        compared = sorted({pair for some in self.rounds for pair in some})
        return ViewGraph(self.photos, {(a, b): 100 for a, b in compared if abs(a - b) <= self.reach})


def vectors_of_a_strip(photos: int) -> np.ndarray:
    turn = np.linspace(0, 1.5, photos)
    return np.column_stack([np.cos(turn), np.sin(turn)]).astype(np.float32)


def test_alike_photos_then_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(30, reach=4)
    monkeypatch.setattr(similar, "read_view_graph", place.graph)
    choice = PairChoice("appearance", (), 4)
    compared = match_similar(Path(), (), choice, place.compare, vectors_of_a_strip(30))
    first, second = place.rounds
    assert set(compared) == first | second
    assert not first & second
    assert first >= {(i, i + 1) for i in range(29)}
    assert {b - a for a, b in second} <= set(range(3, 9))  # twice the reach
    assert len(second) <= MORE_NEIGHBOURS * 30


def test_order_counts_where_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(30, reach=4)
    monkeypatch.setattr(similar, "read_view_graph", place.graph)
    in_order = tuple((i, i + 12) for i in range(18))
    choice = PairChoice("appearance", in_order, 4)
    assert set(in_order) <= set(match_similar(Path(), (), choice, place.compare, vectors_of_a_strip(30)))
    shuffled = vectors_of_a_strip(30)[np.random.default_rng(0).permutation(30)]
    assert not set(in_order) <= set(match_similar(Path(), (), choice, place.compare, shuffled))


def test_parts_are_joined_by_what_looks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(20, reach=4)
    monkeypatch.setattr(similar, "read_view_graph", place.graph)
    apart = tuple((i, i + 1) for i in range(19) if i != 9)
    place.compare(apart)
    compared = join_parts(Path(), (), apart, place.compare, lambda: vectors_of_a_strip(20))
    assert (9, 10) in compared
    assert not place.graph().parts().any()


def test_photos_that_hang_together_are_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(5, reach=4)
    monkeypatch.setattr(similar, "read_view_graph", place.graph)
    whole = tuple((i, i + 1) for i in range(4))
    place.compare(whole)

    def never() -> np.ndarray:
        raise AssertionError

    assert join_parts(Path(), (), whole, place.compare, never) == whole
