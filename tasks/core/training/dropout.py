"""Leaving Gaussians out of a step at random, so that none may rely on the others.

Where a place is seen by few photos, Gaussians learn to work together in a way that suits just these. Without a random
part of them in every step, each one has to be plausible by itself, and views between and beyond the photos gain: the
idea of DropGaussian (Park, Ryu and Kim 2025, arXiv:2504.00773).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.core.training.population import Population

HIDDEN_RAW_OPACITY = -20.0  # an opacity of 2e-9, which no rasterizer draws


@contextmanager
def some_left_out(population: Population, share: float, generator: torch.Generator) -> Iterator[None]:
    """Hide a random `share` (0..1) of the Gaussians while inside; their opacities are as before afterwards.

    Nothing is drawn from the generator when the share is 0.
    """
    if share <= 0:
        yield
        return
    raw = population.parameters["raw_opacities"][: population.count]
    hidden = torch.rand(len(raw), generator=generator, device=raw.device) < share
    before = raw.clone()
    raw.masked_fill_(hidden, HIDDEN_RAW_OPACITY)
    try:
        yield
    finally:
        torch.where(hidden, before, raw, out=raw)
