"""Pictures of a SOG to Gaussians, for both versions of the format."""

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.sog import attributes, layout
from tasks.core.sog.pixels import Pixels


def decode(meta: layout.Meta, pixels: Pixels, bundle: str) -> Gaussians:
    """Gaussians of version 2."""
    base = pixels.of_gaussians(meta.sh0.files[0])
    return Gaussians(
        means=_positions(meta.means, pixels),
        quats=attributes.decode_quats(pixels.of_gaussians(meta.quats.files[0])),
        log_scales=_look_up(meta.scales.codebook, pixels.of_gaussians(meta.scales.files[0])[:, :3]),
        raw_opacities=attributes.decode_opacities(base[:, 3]),
        sh0=_look_up(meta.sh0.codebook, base[:, None, :3]),
        shN=_view_dependence(meta, pixels, bundle),
    )


def decode_version_1(meta: layout.Meta1, pixels: Pixels, bundle: str) -> Gaussians:
    """Gaussians of version 1, where bytes stand for even steps between bounds instead of entries of codebooks."""
    base = _between(meta.sh0.mins, meta.sh0.maxs, pixels.of_gaussians(meta.sh0.files[0]))
    rest = np.zeros((meta.count, 0, 3), np.float32)
    if meta.shN is not None:
        centroids, coefficients = pixels.of_palette(meta.shN.files[0])
        palette = _between(meta.shN.mins, meta.shN.maxs, centroids[:, :3]).reshape(-1, coefficients, 3)
        rest = _chosen(palette, len(palette), meta.shN.files[1], pixels, bundle)
    return Gaussians(
        means=_positions(meta.means, pixels),
        quats=attributes.decode_quats(pixels.of_gaussians(meta.quats.files[0])),
        log_scales=_between(meta.scales.mins, meta.scales.maxs, pixels.of_gaussians(meta.scales.files[0])[:, :3]),
        raw_opacities=np.ascontiguousarray(base[:, 3]),
        sh0=np.ascontiguousarray(base[:, None, :3]),
        shN=rest,
    )


def _positions(means: layout.MeansPart, pixels: Pixels) -> Float32:
    low, high = (pixels.of_gaussians(name)[:, :3].astype(np.uint16) for name in means.files)
    return attributes.decode_positions((low | high << 8).astype(np.uint16), np.array(means.mins), np.array(means.maxs))


def _look_up(codebook: tuple[float, ...], indices: NDArray[np.uint8]) -> Float32:
    looked_up: Float32 = np.array(codebook, np.float32)[indices]
    return looked_up


def _between(mins: float | tuple[float, ...], maxs: float | tuple[float, ...], values: NDArray[np.uint8]) -> Float32:
    """Bytes [N, C] as shares of the way from mins to maxs, [C] each or one number for all."""
    low, high = np.asarray(mins, np.float32), np.asarray(maxs, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # bounds near the end of float32: the writers refuse infinities
        return (low + (high - low) * (values / np.float32(255))).astype(np.float32)


def _view_dependence(meta: layout.Meta, pixels: Pixels, bundle: str) -> Float32:
    if meta.shN is None:
        return np.zeros((meta.count, 0, 3), np.float32)
    coefficients = SH_COEFFICIENTS[meta.shN.bands] - 1
    centroids = pixels.of_size(meta.shN.files[0], layout.palette_size(meta.shN.count, coefficients))
    palette = _look_up(meta.shN.codebook, centroids[:, :3]).reshape(-1, coefficients, 3)
    return _chosen(palette, meta.shN.count, meta.shN.files[1], pixels, bundle)


def _chosen(palette: Float32, count: int, labels_file: str, pixels: Pixels, bundle: str) -> Float32:
    label_pixels = pixels.of_gaussians(labels_file)
    labels = label_pixels[:, 0].astype(np.int32) | label_pixels[:, 1].astype(np.int32) << 8
    if labels.max() >= count:
        raise FormatError(f"{bundle}: {labels_file} points to entry {labels.max()}; shN.count is {count}.")
    chosen: Float32 = palette[labels]
    return chosen
