"""Photos that look alike, found by their own features: neighbours where neither GPS nor order tells them.

A photo is described by a vector of locally aggregated descriptors (VLAD, Jegou et al., CVPR 2010): for each of some
typical features, the mean direction in which the photo's own ones differ from it. What is typical is learned from a
sample of the same photos, so nothing is downloaded. Vectors take 12 kB a photo; the time to compare them grows with
the square of their number, but is 2 CPU-s for 5,000.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.sfm.pairs import Pair

Float32 = NDArray[np.float32]

WORDS = 64  # typical features
DIMENSIONS = 48  # of a feature, by principal components of its 128
SAMPLE = 60_000  # features that are learned from, at most
ROUNDS = 10  # of k-means
BLOCK = 512  # photos that are compared with all others at a time
# A photo's next one in order is among so many most similar ones, for so many photos, if order tells neighbours.
NEXT_AMONG, NEXT_SHARE = 10, 0.5


def photo_vectors(database: Path, names: Sequence[str], seed: int) -> Float32:
    """Describe photos by their features in a database that no process has open.

    Args:
        database: with descriptors, as COLMAP writes them.
        names: of the photos in the database.
        seed: of the sample and of k-means.

    Returns:
        Vectors of length 1 [N, D], whose products tell how alike two photos are; 0 for a photo without features.
    """
    generator = np.random.default_rng(seed)
    each = max(1, SAMPLE // max(1, len(names)))
    with closing(sqlite3.connect(database)) as connection:
        some = [rows[np.sort(generator.permutation(len(rows))[:each])] for rows in _descriptors(connection, names)]
        sample = np.concatenate(some) if some else np.zeros((0, 128), np.float32)
        if len(sample) <= WORDS:
            return np.zeros((len(names), 1), np.float32)
        mean = sample.mean(axis=0)
        axes = np.linalg.eigh(np.cov((sample - mean).T))[1][:, ::-1][:, :DIMENSIONS].astype(np.float32)
        words = _k_means((sample - mean) @ axes, generator)
        vectors = [_aggregated((rows - mean) @ axes, words) for rows in _descriptors(connection, names)]
    return np.stack(vectors)


def similar_pairs(vectors: Float32, neighbours: int) -> list[Pair]:
    """Pair each photo with those most alike."""
    pairs = []
    for i, others in enumerate(most_similar(vectors, neighbours)):
        pairs += [(min(i, j), max(i, j)) for j in others]
    return sorted(set(pairs))


def most_similar(vectors: Float32, count: int) -> Iterator[list[int]]:
    """For each photo the others most alike, the most similar first; none for a photo without features."""
    blind = np.logical_not(vectors.any(axis=1))
    for begin in range(0, len(vectors), BLOCK):
        likeness = vectors[begin : begin + BLOCK] @ vectors.T
        likeness[:, blind] = -np.inf
        for i, row in enumerate(likeness, start=begin):
            row[i] = -np.inf
            yield [] if blind[i] else top(row, count)


def top(likeness: Float32, count: int) -> list[int]:
    """Positions of the greatest values, the greatest first; of equal ones the first. Those at -inf are never taken."""
    count = min(count, len(likeness))
    least = np.partition(likeness, len(likeness) - count)[len(likeness) - count]
    enough = np.flatnonzero((likeness >= least) & (likeness > -np.inf))
    chosen: list[int] = enough[np.argsort(-likeness[enough], kind="stable")][:count].tolist()
    return chosen


def order_tells(vectors: Float32) -> bool:
    """Whether most photos are similar to the next one in order, as frames of a video and photos of a flight are."""
    if len(vectors) < 2:
        return False
    found = [i + 1 in others for i, others in enumerate(most_similar(vectors, NEXT_AMONG))][:-1]
    return float(np.mean(found)) >= NEXT_SHARE


def _descriptors(connection: sqlite3.Connection, names: Sequence[str]) -> Iterator[Float32]:
    """Features of each photo [K, 128], of length 1; COLMAP has taken the root of their values already."""
    numbers = dict(connection.execute("select name, image_id from images"))
    for name in names:
        find = "select rows, cols, data from descriptors where image_id = ?"
        rows, columns, data = connection.execute(find, (numbers[name],)).fetchone() or (0, 128, b"")
        values = np.frombuffer(data or b"", np.uint8).reshape(rows, columns).astype(np.float32)
        yield values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1)


def _k_means(sample: Float32, generator: np.random.Generator) -> Float32:
    words = sample[np.sort(generator.choice(len(sample), WORDS, replace=False))]
    for _ in range(ROUNDS):
        sums, counts = _summed(sample, words)
        words = np.where(counts > 0, sums / np.maximum(counts, 1), words)
    return words


def _summed(rows: Float32, words: Float32) -> tuple[Float32, Float32]:
    """Sums [W, D] and counts [W, 1] of the rows that are nearest to each word."""
    nearest = np.argmax(rows @ words.T - (words**2).sum(axis=1) / 2, axis=1)
    belongs = (nearest == np.arange(len(words))[:, None]).astype(np.float32)
    return belongs @ rows, belongs.sum(axis=1, keepdims=True)


def _aggregated(rows: Float32, words: Float32) -> Float32:
    """The photo's vector [W * D]. Roots keep one repeated texture from outweighing the rest."""
    sums, counts = _summed(rows, words)
    differences = sums - counts * words
    differences /= np.maximum(np.linalg.norm(differences, axis=1, keepdims=True), 1e-9)
    vector = (np.sign(differences) * np.sqrt(np.abs(differences))).ravel()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)
