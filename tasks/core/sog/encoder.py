"""Encode the parts of a SOG v2 file, each as an entry of meta.json and its pictures."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.sog import (
    attributes,
    layout,
    quick_start,  # noqa: F401 - before any kernel runs
)
from tasks.core.sog.attributes import encode_positions
from tasks.core.sog.codebook import fill_nearest, make_codebook, nearest_entries
from tasks.core.sog.options import EFFORT_BY_PICTURE, CompressOptions, Precision
from tasks.core.sog.ordering import spatial_order
from tasks.core.sog.palette import make_palette
from tasks.core.sog.pictures import encode_webp
from tasks.core.transforms import Float64

_SMALLEST_PALETTE = 1024
_STEP_OF_ERROR = 0.5  # of the palette's own error: this rounding adds 1 % and saves a fifth of the palette's bytes
_LEAST_WEIGHT = 1e-3  # so that invisible Gaussians still count a little

# The effort (of `EFFORTS`) for each picture, and the number of Gaussians up to which it applies. More effort does not
# make noise smaller. It helps where neighbours look alike, but takes longer the more there are. The figures are in
# docs/sog.md; the option `webp_effort` sets all of them.
_EFFORTS = (
    (200_000, {"sh0.webp": 4, "means_u.webp": 2, "shN_centroids.webp": 2}),
    (700_000, {"sh0.webp": 3, "means_u.webp": 2, "shN_centroids.webp": 2}),
    (layout.MAX_WEBP_SIDE**2, {"sh0.webp": 3, "means_u.webp": 0, "shN_centroids.webp": 2}),
)
_LEAST_EFFORT = 1
# A log scale of minus infinity is stored this far below the shortest finite one, as by splat-transform: the axis is
# 5e8 times as short.
_FLATTER = 20.0

Pictures = dict[str, bytes]
Encoded = tuple[dict[str, Any], Pictures]  # a part of meta.json, and pictures by file name


class Encoder:
    """Each method returns a part of meta.json and its pictures; they can run at the same time."""

    def __init__(
        self, gaussians: Gaussians, precision: Precision, options: CompressOptions, pool: ThreadPoolExecutor
    ) -> None:
        self._gaussians, self._precision, self._options = gaussians, precision, options
        self._n, self._size = len(gaussians), layout.picture_size(len(gaussians))
        # The pool's first job, so that jobs that wait for it can never keep it from running.
        self._placed = pool.submit(self._place)

    def _place(self) -> tuple[attributes.UInt16, Float64, Float64, attributes.Order]:
        """Quantised positions with their bounds, and the order of the pixels."""
        quantised, mins, maxs = encode_positions(self._gaussians, self._precision.position_share)
        return quantised, mins, maxs, spatial_order(quantised)

    @property
    def _order(self) -> attributes.Order:
        return self._placed.result()[3]

    def positions(self) -> Encoded:
        """Pictures means_l and means_u, and their bounds."""
        quantised, mins, maxs, order = self._placed.result()
        low, high = self._blank(), self._blank()
        attributes.split_positions(quantised, order, low, high)
        files = ["means_l.webp", "means_u.webp"]
        part = {"means": {"mins": mins.tolist(), "maxs": maxs.tolist(), "files": files}}
        return part, {files[0]: self._webp(files[0], low), files[1]: self._webp(files[1], high)}

    def rotations(self) -> Encoded:
        """Picture quats."""
        pixels = self._blank()
        attributes.encode_quats(self._gaussians.quats, self._order, self._precision.byte_step, pixels)
        return {"quats": {"files": ["quats.webp"]}}, {"quats.webp": self._webp("quats.webp", pixels)}

    def scales(self) -> Encoded:
        """Picture scales and its codebook."""
        log_scales, step = self._gaussians.log_scales, self._precision.scale_step
        if np.isfinite(log_scales.min()):
            codebook, pixels = self._indexed(log_scales, step)
        else:
            codebook, pixels = self._indexed_with_flat(log_scales, step)
        part = {"scales": {"codebook": _shortest(codebook), "files": ["scales.webp"]}}
        return part, {"scales.webp": self._webp("scales.webp", pixels)}

    def colors(self) -> Encoded:
        """Picture sh0: colours with their codebook, and opacities."""
        codebook, pixels = self._indexed(self._gaussians.sh0[:, 0], self._precision.color_step)
        attributes.encode_opacities(self._gaussians.raw_opacities, self._order, self._precision.byte_step, pixels)
        part = {"sh0": {"codebook": _shortest(codebook), "files": ["sh0.webp"]}}
        return part, {"sh0.webp": self._webp("sh0.webp", pixels)}

    def view_dependence(self, degree: int, on_share: Callable[[float], None]) -> Encoded:
        """Pictures of shN: the palette with its codebook, and labels."""
        coefficients = SH_COEFFICIENTS[degree] - 1
        rest = np.ascontiguousarray(self._gaussians.shN[:, :coefficients]).reshape(self._n, -1)
        entries = palette_entries(self._n, self._precision.gaussians_per_entry, self._options.max_palette)
        weights = _visibility(self._gaussians) if self._precision.by_appearance else np.ones(self._n, np.float32)
        palette = make_palette(rest, weights, entries, on_share)
        uses = np.bincount(palette.labels, minlength=len(palette.entries)).astype(np.float64)
        step = self._precision.sh_step or _STEP_OF_ERROR * palette.rms or None
        codebook = make_codebook(palette.entries.ravel(), np.repeat(uses, palette.entries.shape[1]), step)
        # 64 entries side by side in a row, the coefficients of an entry one after another
        width, height = layout.palette_size(len(palette.entries), coefficients)
        centroids = np.full((height, width, 4), 255, np.uint8)
        flat = centroids.reshape(-1, 4)[: len(palette.entries) * coefficients]
        flat[:, :3] = nearest_entries(palette.entries.ravel(), codebook).reshape(-1, 3)
        centroids.reshape(-1, 4)[len(flat) :] = flat[-1]
        ordered, labels = palette.labels[self._order], self._blank()
        labels[: self._n, 0], labels[: self._n, 1], labels[:, 2] = ordered & 255, ordered >> 8, 0
        files = ["shN_centroids.webp", "shN_labels.webp"]
        part = {
            "shN": {"count": len(palette.entries), "bands": degree, "codebook": _shortest(codebook), "files": files}
        }
        return part, {files[0]: self._webp(files[0], centroids), files[1]: self._webp(files[1], labels)}

    def _indexed(self, values: Float32, step: float | None) -> tuple[Float32, NDArray[np.uint8]]:
        """A codebook of values [N, 3] and their pixels."""
        codebook, pixels = make_codebook(values.ravel(), step=step), self._blank()
        fill_nearest(values, self._order, codebook, pixels)
        return codebook, pixels

    def _indexed_with_flat(self, log_scales: Float32, step: float | None) -> tuple[Float32, NDArray[np.uint8]]:
        """As `_indexed`, for log scales some of which are minus infinity; these get the first entry."""
        finite = log_scales[np.isfinite(log_scales)]
        shortest = finite.min() if len(finite) else np.float32(0)
        flat = np.float32(shortest - _FLATTER)
        rest = make_codebook(finite, step=step, count=layout.CODEBOOK_ENTRIES - 1) if len(finite) else None
        codebook = np.full(layout.CODEBOOK_ENTRIES, flat, np.float32)
        if rest is not None:
            codebook[1:] = rest
        pixels = self._blank()
        fill_nearest(np.where(np.isneginf(log_scales), flat, log_scales), self._order, codebook, pixels)
        return codebook, pixels

    def _blank(self) -> NDArray[np.uint8]:
        """Opaque pixels [M, 4], M >= N."""
        return np.full((self._size[0] * self._size[1], 4), 255, np.uint8)

    def _webp(self, name: str, pixels: NDArray[np.uint8]) -> bytes:
        """A picture. Pixels beyond the last Gaussian repeat its pixel, which costs least."""
        if pixels.ndim == 2:
            pixels[self._n :] = pixels[self._n - 1]
            pixels = pixels.reshape(self._size[1], self._size[0], 4)
        effort = self._options.webp_effort
        if effort == EFFORT_BY_PICTURE:
            efforts = next(efforts for most, efforts in _EFFORTS if self._n <= most)
            effort = efforts.get(name, _LEAST_EFFORT)
        return encode_webp(pixels, effort)


def _visibility(gaussians: Gaussians) -> Float32:
    """The approximate share of pictures that each Gaussian makes up [N]: its opacity times its width, 1 on average."""
    axes = np.sort(gaussians.log_scales, axis=1)
    seen = (1 / (1 + np.exp(-gaussians.raw_opacities.astype(np.float64)))) * np.exp((axes[:, 1] + axes[:, 2]) / 2)
    return (seen / max(float(seen.mean()), 1e-30) + _LEAST_WEIGHT).astype(np.float32)


def _shortest(values: Float32) -> list[float]:
    """The shortest decimals that still name the same float32 numbers."""
    return [float(str(value)) for value in values]


def palette_entries(count: int, gaussians_per_entry: float, max_palette: int) -> int:
    """The number of palette entries for `count` Gaussians: their share within 1,024 and `max_palette`."""
    return min(max_palette, max(_SMALLEST_PALETTE, int(count / gaussians_per_entry)))
