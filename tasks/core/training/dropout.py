"""Leaving Gaussians out of a step at random, so that none may rely on the others.

Where a place is seen by few photos, Gaussians learn to work together in a way that suits just these. Without a random
part of them in every step, each one has to be plausible by itself, and views between and beyond the photos gain: the
idea of DropGaussian (Park, Ryu and Kim 2025, arXiv:2504.00773).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tasks.core.training.population import Population
from tasks.core.training.schedule import FULL_DROPOUT_UNTIL, NO_DROPOUT_FROM

HIDDEN_RAW_OPACITY = -20.0  # an opacity of 2e-9, which no rasterizer draws


@contextmanager
def some_left_out(population: Population, most: float, generator: torch.Generator) -> Iterator[None]:
    """Hide Gaussians at random while inside; their opacities are as before afterwards.

    `most` (0..1) is the share of those that one photo shows; of others it is less, see `share_for`. Nothing
    is drawn from the generator when it is 0.
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
    """The part of the greatest dropout [N] that Gaussians get whose places so many photos [N] show."""
    return ((NO_DROPOUT_FROM - shown_by) / (NO_DROPOUT_FROM - FULL_DROPOUT_UNTIL)).clamp(0, 1)
