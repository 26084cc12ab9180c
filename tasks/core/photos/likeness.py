"""Recognise two photos of one picture: re-encoded, resized, or with other colours and brightness.

Frames of a video and overlapping photos of a flight look alike as well. They differ in where things are, so two
pictures count as one only if nothing has moved: in blocks of small grey copies, the shift that explains one from the
other (Lucas and Kanade 1981, with a gain and an offset for each block) is below 0.1 % of the picture's width. Copies
made by other programs are within a tenth of that. Pictures without enough texture to tell never count as one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Thumbnail = NDArray[np.uint8]  # [SIDE_PX, SIDE_PX] grey
Float = NDArray[np.float64]

SIDE_PX = 64  # of the small copies, whatever the picture's shape is
RANKED_PX = 16
ROUGH_PX = 4 * SIDE_PX
ALIKE = 0.95  # correlation of the ranks of brightness, below which pictures are not compared further
BLOCK_PX, STEP_PX = 16, 8
LEAST_TEXTURE = 4.0  # squared levels a pixel, of the gradient in the direction where it is least
LEAST_BLOCKS = 8  # with texture
CLIPPED_LEVELS = 8
EXPLAINED, LEAST_EXPLAINED = 0.96, 0.85  # of the variance: the median over blocks, and the worst tenth
# Of SIDE_PX, the median over blocks and the worst tenth: an edited copy, whose colours explain less, seems to move.
# Photos of brighton_beach, sceaux_castle and the fox move by 0.67 or more, copies by 0.01, or 0.08 if they are clipped.
STILL_PX, EDITED_PX, MOST_MOVED_PX = 0.04, 2.0, 0.2
COMPARED_ROWS = 1024


def thumbnail(picture: Image.Image, box: tuple[float, float, float, float] | None = None) -> Thumbnail:
    """Return a small grey copy [SIDE_PX, SIDE_PX] of a decoded picture, or of a part of it in its own pixels."""
    if picture.mode not in ("L", "RGB"):
        rough = (min(picture.width, ROUGH_PX), min(picture.height, ROUGH_PX))
        picture, box = picture.resize(rough, Image.Resampling.NEAREST).convert("L"), None
    small = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, box)
    return np.asarray(small.convert("L"))


def alike(thumbnails: Sequence[Thumbnail]) -> list[list[int]]:
    """Return, for each of the pictures, the numbers of those that may be the same, in ascending order."""
    if not thumbnails:
        return []
    size = SIDE_PX // RANKED_PX
    blocks = np.stack(thumbnails).reshape(-1, RANKED_PX, size, RANKED_PX, size).mean(axis=(2, 4))
    ranks = blocks.reshape(len(blocks), -1).argsort(axis=1, kind="stable").argsort(axis=1).astype(np.float32)
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.linalg.norm(ranks, axis=1, keepdims=True)
    found: list[list[int]] = []
    for begin in range(0, len(ranks), COMPARED_ROWS):
        for row, likeness in enumerate(ranks[begin : begin + COMPARED_ROWS] @ ranks.T, start=begin):
            found.append([int(other) for other in np.flatnonzero(likeness >= ALIKE) if other != row])
    return found


def same_picture(one: Thumbnail, other: Thumbnail) -> bool:
    """Whether two small copies show one picture: nothing has moved in it, and brightness explains the rest."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    if first.std() > second.std():  # the one with less contrast is explained by the other
        first, second = second, first
    moved, explained = _compared(second, first)
    if len(moved) < LEAST_BLOCKS:
        return False
    share = float(np.median(explained))
    return bool(
        share >= EXPLAINED
        and np.median(moved) <= STILL_PX + EDITED_PX * (1 - share)
        and np.quantile(moved, 0.9) <= MOST_MOVED_PX
        and np.quantile(explained, 0.1) >= LEAST_EXPLAINED
    )


def _compared(source: Float, target: Float) -> tuple[Float, Float]:
    """Return, for each block with texture, the shift (px) and the share of the target's variance that is explained."""
    down, across = np.gradient(source)
    own = _blocks(source)
    terms = np.stack([_blocks(np.asarray(across)), _blocks(np.asarray(down)), own, np.ones_like(own)], axis=-1)
    wanted = _blocks(target)  # [B, P]
    known = _blocks(_unclipped(source) & _unclipped(target)).astype(np.float64)
    gradient = terms[..., :2] * known[..., None]
    tensor = np.einsum("bpi,bpj->bij", gradient, gradient) / terms.shape[1]
    textured = np.linalg.eigvalsh(tensor)[:, 0] >= LEAST_TEXTURE
    terms, wanted, known = terms[textured], wanted[textured], known[textured]
    weighted = terms * known[..., None]
    normal = np.einsum("bpi,bpj->bij", weighted, terms) + 1e-6 * np.eye(4)
    solved = np.linalg.solve(normal, np.einsum("bpi,bp->bi", weighted, wanted)[..., None])[..., 0]  # [B, 4]
    share = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
    rest = ((wanted - np.einsum("bpi,bi->bp", terms, solved)) ** 2 * share).sum(axis=1)
    mean = (wanted * share).sum(axis=1, keepdims=True)
    variance = np.maximum(((wanted - mean) ** 2 * share).sum(axis=1), 1e-9)
    gain = np.where(np.abs(solved[:, 2]) > 1e-3, solved[:, 2], 1e-3)
    moved = np.hypot(solved[:, 0], solved[:, 1]) / np.abs(gain)
    return moved, np.where(solved[:, 2] > 0, 1 - rest / variance, 0.0)


def _unclipped(values: Float) -> NDArray[np.bool_]:
    """Where brighter and darker versions of a picture still differ: edited copies are often clipped to white."""
    return (values > CLIPPED_LEVELS) & (values < 255 - CLIPPED_LEVELS)


def _blocks(values: NDArray[Any]) -> NDArray[Any]:
    """Return overlapping blocks [B, BLOCK_PX²] of an image [SIDE_PX, SIDE_PX]."""
    windows = np.lib.stride_tricks.sliding_window_view(values, (BLOCK_PX, BLOCK_PX))[::STEP_PX, ::STEP_PX]
    return np.asarray(windows.reshape(-1, BLOCK_PX * BLOCK_PX))
