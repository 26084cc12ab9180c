"""Match photos that look alike, then what the matches themselves lead to, until all photos hang together.

Those most alike are almost copies of one another, so they leave a set in pieces. Photos that agree with the same others
are therefore compared next, and then each piece with what looks most like it elsewhere.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.core.sfm.appearance import Float32, order_tells, similar_pairs
from tasks.core.sfm.pairs import Pair, PairChoice
from tasks.core.sfm.view_graph import bridges, neighbours_of_neighbours, read_view_graph

logger = logging.getLogger(__name__)

MORE_NEIGHBOURS = 6  # for a photo, that agree with the same photos
BRIDGES = 8  # from a photo outside of the largest part to others
BRIDGE_ROUNDS = 2

Compare = Callable[[Sequence[Pair]], None]  # matches pairs of photos, given by their place in the list of names


def match_similar(
    database: Path, names: Sequence[str], choice: PairChoice, compare: Compare, vectors: Float32
) -> tuple[Pair, ...]:
    """Compare each photo with those most alike, and with neighbours in order if order tells; then join all.

    `vectors` describes the photos. Returns all pairs that were compared.
    """
    in_order = choice.pairs if choice.matcher != "appearance" or order_tells(vectors) else ()
    if len(in_order) < len(choice.pairs):
        logger.info("photos do not look like their next one in order, so order is not used")
    pairs = {*in_order, *similar_pairs(vectors, choice.similar)}
    compare(sorted(pairs))
    if not in_order:
        graph = read_view_graph(database, names)
        more = neighbours_of_neighbours(graph, pairs, MORE_NEIGHBOURS)
        compare(more)
        pairs.update(more)
    return join_parts(database, names, tuple(sorted(pairs)), compare, lambda: vectors)


def join_parts(
    database: Path, names: Sequence[str], compared: tuple[Pair, ...], compare: Compare, vectors: Callable[[], Float32]
) -> tuple[Pair, ...]:
    """Where photos fall into parts that share nothing, compare each part with what looks like it in the others.

    `vectors` describes the photos; it is called only if there are parts. Returns all pairs that were compared.
    """
    pairs = set(compared)
    for _ in range(BRIDGE_ROUNDS):
        parts = read_view_graph(database, names).parts()
        if not parts.any():
            break
        more = bridges(parts, vectors(), pairs, BRIDGES)
        if not more:
            break
        logger.info("%d parts share nothing: comparing %d pairs that look alike", parts.max() + 1, len(more))
        compare(more)
        pairs.update(more)
    return tuple(sorted(pairs))
