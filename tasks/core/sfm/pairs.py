"""Pairs of photos that are worth comparing.

Comparing all is safe but grows with the square of their number; order, GPS and what photos look like avoid that.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import OptionsError
from tasks.core.georeference import EARTH_RADIUS_M, nvectors
from tasks.core.photoset import Photo
from tasks.core.sfm.options import SfmOptions

FEW_PHOTOS = 20  # 190 pairs cost no more than half the feature extraction
FEWEST_GUIDED = 12  # photos: below, GPS would save nothing
FEWEST_NEIGHBORS = 6  # by GPS, in small sets, where twelve would be nearly all
EXHAUSTIVE_AT_MOST = 200  # photos without GPS and order: 20,000 pairs
ESCALATED_AT_MOST = 300  # photos that are compared exhaustively after a poor first try; more are joined by likeness
GPS_SHARE = 0.9
MIN_GPS_SPREAD_M = 10.0  # rms; consumer GPS errs by 2 to 5 m, below this its neighbours are chance
VIDEO_GAP_SECONDS = 3.0
SPATIAL_OVERLAP = 2  # neighbours in order that are added to the neighbours by GPS
WIDER = 3
SIMILAR_NEIGHBORS = 8  # most alike, by appearance; their own neighbours follow, see similar.py
SIMILAR_PAIRS_PER_PHOTO = 8  # compared in the end, measured: for estimates, before there are features
PLACES_AT_ONCE = 256  # whose distances from all others are in memory

Pair = tuple[int, int]


@dataclass(frozen=True)
class PairChoice:
    """Pairs of photo numbers, each (smaller, greater), sorted; `matcher` says how they were chosen.

    `similar` asks for more pairs, which only features tell: each photo with so many that look most like it. `pairs` are
    then those of neighbours in order, which count if order proves to tell neighbours.
    """

    matcher: str
    pairs: tuple[Pair, ...]
    similar: int = 0

    def expected_pairs(self, photos: int) -> int:
        """How many pairs will be compared, about, where features are still to tell."""
        return len(self.pairs) + min(
            SIMILAR_PAIRS_PER_PHOTO * photos if self.similar else 0, photos * (photos - 1) // 2
        )


def choose_pairs(photos: tuple[Photo, ...], options: SfmOptions) -> PairChoice:
    """Return the pairs to compare first.

    Raises:
        OptionsError: neighbours by GPS are asked for, and the photos have no GPS.
    """
    matcher = _auto(photos) if options.matcher == "auto" else options.matcher
    n = len(photos)
    if matcher == "exhaustive":
        return PairChoice("exhaustive", tuple(combinations(range(n), 2)))
    if matcher == "sequential":
        return PairChoice("sequential", _sorted(sequential_pairs(n, options.sequential_overlap)))
    if matcher == "appearance":
        order = sequential_pairs(n, options.sequential_overlap) if _is_sequence(photos) else []
        return PairChoice("appearance", _sorted(order), min(SIMILAR_NEIGHBORS, n - 1))
    near = spatial_pairs(photos, min(options.spatial_neighbors, max(FEWEST_NEIGHBORS, n // 3)))
    if not near:
        raise OptionsError(
            f"sfm.matcher=spatial needs photos with GPS, and none of these {n} has it: use sfm.matcher=auto."
        )
    without_gps = {i for i, photo in enumerate(photos) if photo.gps is None}
    in_order = sequential_pairs(n, SPATIAL_OVERLAP, powers=False)
    lost = [pair for pair in sequential_pairs(n, options.sequential_overlap) if without_gps & set(pair)]
    return PairChoice("spatial+sequential", _sorted([*near, *in_order, *lost]))


def wider_pairs(photos: tuple[Photo, ...], first: PairChoice, options: SfmOptions) -> tuple[PairChoice, ...]:
    """Return more pairs for further tries, in order: thrice the neighbours, then all pairs.

    Neighbours are left out where they would be more than half of all pairs. Where the photos are too many for all
    pairs, those that look alike take their place. There is none when the first try had all that are worth it.
    """
    n = len(photos)
    everything = n * (n - 1) // 2
    if len(first.pairs) == everything or options.matcher != "auto":
        return ()
    all_pairs = [PairChoice("exhaustive", tuple(combinations(range(n), 2)))] if n <= ESCALATED_AT_MOST else []
    if first.similar:
        return (PairChoice("appearance", first.pairs, min(first.similar * WIDER, n - 1)), *all_pairs)
    wide = options.model_copy(
        update={
            "matcher": "spatial" if first.matcher.startswith("spatial") else "sequential",
            "spatial_neighbors": options.spatial_neighbors * WIDER,
            "sequential_overlap": options.sequential_overlap * WIDER,
        }
    )
    neighbours = choose_pairs(photos, wide)
    choices = [neighbours] if len(first.pairs) < len(neighbours.pairs) <= everything // 2 else []
    widest = choices[-1] if choices else first
    return (*choices, *(all_pairs or [PairChoice(f"{widest.matcher}+appearance", widest.pairs, SIMILAR_NEIGHBORS)]))


def sequential_pairs(n: int, overlap: int, *, powers: bool = True) -> list[Pair]:
    """Pair each of n photos with the `overlap` next ones, and with those 8, 16, 32, … further on, to close loops."""
    steps = set(range(1, overlap + 1))
    if powers:
        steps |= {2**k for k in range(n.bit_length()) if 2**k > overlap}
    return [(i, i + step) for step in sorted(steps) for i in range(n - step)]


def spatial_pairs(photos: tuple[Photo, ...], neighbors: int) -> list[Pair]:
    """Pair each photo that has GPS with its nearest ones, regardless of height."""
    index, places_m = _places(photos)
    if len(index) < 2:
        return []
    pairs = []
    for begin in range(0, len(places_m), PLACES_AT_ONCE):  # a search tree would cost more to import, up to 20,000
        some = places_m[begin : begin + PLACES_AT_ONCE]
        distances = ((places_m - some[:, None]) ** 2).sum(axis=2)
        for i, from_it in enumerate(distances, start=begin):
            from_it[i] = -1.0  # the photo itself
            least = min(neighbors, len(places_m) - 1)
            near = np.flatnonzero(from_it <= np.partition(from_it, least)[least])
            for j in near[np.argsort(from_it[near], kind="stable")][1 : neighbors + 1]:
                a, b = sorted((int(index[i]), int(index[j])))
                pairs.append((a, b))
    return pairs


def _auto(photos: tuple[Photo, ...]) -> str:
    if len(photos) >= FEWEST_GUIDED and _gps_tells_neighbors(photos):
        return "spatial"
    if len(photos) <= FEW_PHOTOS:
        return "exhaustive"
    if len(photos) > EXHAUSTIVE_AT_MOST:
        return "appearance"
    if _is_sequence(photos):
        return "sequential"
    return "exhaustive"


def _gps_tells_neighbors(photos: tuple[Photo, ...]) -> bool:
    index, places_m = _places(photos)
    if len(index) < GPS_SHARE * len(photos):
        return False
    spread = places_m - places_m.mean(axis=0)
    return float(np.sqrt((spread**2).sum(axis=1).mean())) >= MIN_GPS_SPREAD_M


def _places(photos: tuple[Photo, ...]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return numbers of the photos that have GPS, and their places on a sphere [N, 3] in metres."""
    index = [i for i, photo in enumerate(photos) if photo.gps is not None]
    degrees = np.array([(g.latitude_deg, g.longitude_deg) for p in photos if (g := p.gps) is not None]).reshape(-1, 2)
    return np.array(index, dtype=np.intp), EARTH_RADIUS_M * nvectors(degrees[:, 0], degrees[:, 1])


def _is_sequence(photos: tuple[Photo, ...]) -> bool:
    """Return whether neighbours in order were taken in quick succession: by time, or as numbered frames of a video."""
    times = [photo.taken_at for photo in photos]
    if all(times):
        moments = np.array([datetime.fromisoformat(time or "").timestamp() for time in times])
        return float(np.median(np.diff(moments))) <= VIDEO_GAP_SECONDS
    if any(times):
        return False
    skeletons = {re.sub(r"\d+(?=\D*$)", "#", photo.name) for photo in photos}  # all but the last number
    return len(skeletons) == 1 and "#" in skeletons.pop()


def _sorted(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(sorted(set(pairs)))
