"""Density control moves Gaussians to where the image needs more; dropout hides some of them in every step.

Density control is one operation. A Gaussian that the images pull at strongly is split along its longest axis; the
second half replaces a Gaussian that has become transparent, or takes a new row while the number may grow. So opacities
need no reset, and no visible Gaussian is ever removed. Relocating dead Gaussians is an idea of 3DGS-MCMC (Kheradmand
et al. 2024, arXiv:2404.09591). Splitting by rank instead of by a threshold keeps the number on its schedule at any
resolution.

Dropout: where few photos see a place, Gaussians learn to work together in a way that fits only these photos. Hiding a
random part of them in every step forces each one to be plausible by itself, and views between and beyond the photos
improve. This is the idea of DropGaussian (Park, Ryu and Kim 2025, arXiv:2504.00773).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import FULL_DROPOUT_UNTIL, GROWTH_BY_PHOTOS, MOST_ELONGATED, NO_DROPOUT_FROM

DEAD_OPACITY = 0.01
MAX_GROWTH = 0.5  # share of the living that one refinement may split
SPLIT_OFFSET = 0.5  # halves move this many standard deviations away from the middle, along the longest axis
SPLIT_LENGTH = 0.6  # length, width and opacity of a half, relative to the whole
SPLIT_WIDTH = 0.9
SPLIT_OPACITY = 0.7

HIDDEN_RAW_OPACITY = -20.0  # an opacity of 2e-9, which no rasterizer draws


def refine(population: Population, wanted_count: int, generator: torch.Generator) -> int:
    """Relocate dead Gaussians, grow towards `wanted_count`, and clear the notes; returns the number of splits."""
    n = population.count
    opacities = torch.sigmoid(population.parameters["raw_opacities"][:n])
    dead = opacities < DEAD_OPACITY
    scores = population.scores[:n] / population.seen[:n].clamp_min(1)
    scores = torch.where(dead, 0.0, scores * growth_for(population.shown_by[:n]))
    growth = max(min(wanted_count, population.capacity) - n, 0)
    candidates = int((scores > 0).sum())
    splits = min(growth + int(dead.sum()), candidates, int(MAX_GROWTH * (n - int(dead.sum()))) + 1)
    if splits > 0:
        parents = torch.multinomial(scores, splits, replacement=False, generator=generator)
        new_rows = torch.arange(n, population.capacity, device=parents.device)
        free_rows = torch.cat([dead.nonzero()[:, 0], new_rows])[:splits]
        split(population, parents, free_rows)
        population.count = max(n, int(free_rows.max()) + 1)
    bound_shapes(population)
    population.scores.zero_()
    population.seen.zero_()
    return splits


def bound_shapes(population: Population) -> None:
    """Shorten Gaussians to MOST_ELONGATED times their second axis where few photos show a place; widen thin ones."""
    n = population.count
    few = population.shown_by[:n] < len(GROWTH_BY_PHOTOS)
    log_scales = population.parameters["log_scales"][:n]
    longest = log_scales.sort(dim=1).values[:, 1:2] + math.log(MOST_ELONGATED)
    rounded = torch.where(few[:, None], log_scales.minimum(longest), log_scales)
    log_scales.copy_(rounded.maximum(population.least_log_scale[:n, None]))


def growth_for(shown_by: Tensor) -> Tensor:
    """The factor for the probability of a split [N], from the number of photos that show the place [N]."""
    shares = torch.tensor([*GROWTH_BY_PHOTOS, 1.0], device=shown_by.device)
    return shares[shown_by.long().clamp(0, len(GROWTH_BY_PHOTOS))]


def split(population: Population, parents: Tensor, free_rows: Tensor) -> None:
    """Replace every parent [M] by two halves, one in its own row and one in the given free row [M]."""
    parameters = population.parameters
    scales = torch.exp(parameters["log_scales"][parents])  # [M, 3]
    longest = scales.argmax(dim=1)  # [M]
    each = torch.arange(len(parents), device=parents.device)
    axes = rotmats(parameters["quats"][parents])[each, :, longest]  # [M, 3] direction of the longest axis
    offsets = SPLIT_OFFSET * scales[each, longest][:, None] * axes
    shrink = torch.full_like(scales, SPLIT_WIDTH)
    shrink[each, longest] = SPLIT_LENGTH
    opacities = SPLIT_OPACITY * torch.sigmoid(parameters["raw_opacities"][parents])

    parameters["log_scales"][parents] += torch.log(shrink)
    parameters["raw_opacities"][parents] = torch.logit(opacities)
    for name in PARAMETERS:
        parameters[name][free_rows] = parameters[name][parents]
    population.shown_by[free_rows] = population.shown_by[parents]
    population.least_log_scale[free_rows] = population.least_log_scale[parents]
    parameters["means"][parents] -= offsets
    parameters["means"][free_rows] += offsets
    population.forget_history(torch.cat([parents, free_rows]))


def rotmats(quats: Tensor) -> Tensor:
    """Rotation matrices [M, 3, 3] of quaternions wxyz [M, 4] of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
    ]
    return torch.stack(rows, 1)


@contextmanager
def some_left_out(population: Population, most: float, generator: torch.Generator) -> Iterator[None]:
    """Hide random Gaussians inside the block, and restore their opacities at its end.

    `most` (0..1) is the share that is hidden of Gaussians that one photo shows; less of the others, see `share_for`.
    With 0 the generator is not used.
    """
    if most <= 0:
        yield
        return
    raw = population.parameters["raw_opacities"][: population.count]
    share = share_for(population.shown_by[: population.count])
    hidden = torch.rand(len(raw), generator=generator, device=raw.device) < most * share
    before = raw.clone()
    raw.masked_fill_(hidden, HIDDEN_RAW_OPACITY)
    try:
        yield
    finally:
        torch.where(hidden, before, raw, out=raw)


def share_for(shown_by: Tensor) -> Tensor:
    """The share of the greatest dropout [N], from the number of photos that show the place [N]."""
    return ((NO_DROPOUT_FROM - shown_by) / (NO_DROPOUT_FROM - FULL_DROPOUT_UNTIL)).clamp(0, 1)
