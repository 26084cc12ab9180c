"""Leaving out at the end what the photos would not miss: the file shrinks, and so does what a viewer has to draw."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.interface import Float, Rasterizer
from tasks.core.training.evaluate import evaluate
from tasks.core.training.views import View, evenly_chosen

JUDGED_VIEWS = 12  # photos, at most, on which the loss is measured
CONTRIBUTING_VIEWS = 60  # photos, at most, whose pixels count as a contribution
HALVINGS = 7  # of the interval in which the number to leave out is sought: to 1 %
MOST_PRUNED = 0.9  # share of the Gaussians


def rows_worth_keeping(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, max_loss_db: float
) -> NDArray[np.int64]:
    """Ascending rows of all but those that contribute least, as many as `max_loss_db` of PSNR on training photos allow.

    Held-out photos have no say in it, so that they go on measuring.
    """
    kept = np.arange(len(gaussians))
    if max_loss_db <= 0 or not views or len(gaussians) == 0:
        return kept
    order = np.argsort(contributions(gaussians, evenly_chosen(views, CONTRIBUTING_VIEWS), rasterizer), kind="stable")
    judged = evenly_chosen(views, JUDGED_VIEWS)
    enough = evaluate(gaussians, judged, rasterizer).mean_psnr_db - max_loss_db
    low, high = 0.0, MOST_PRUNED
    for _ in range(HALVINGS):
        share = (low + high) / 2
        candidate = np.sort(order[int(share * len(order)) :])
        if evaluate(gaussians.take(candidate), judged, rasterizer).mean_psnr_db >= enough:
            kept, low = candidate, share
        else:
            high = share
    return kept


def contributions(gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer) -> Float:
    """For each Gaussian [N], in px: the sum over views and pixels of its share of the pixel.

    A pixel is a sum of colours times shares, so the derivative of a picture's sum with respect to a colour is the sum
    of shares. All colours are set to the middle, where none is cut off at black.
    """
    plain = replace(gaussians, sh0=np.zeros_like(gaussians.sh0), shN=gaussians.shN[:, :0])
    total = np.zeros(len(gaussians))
    for view in views:
        image = rasterizer.forward(plain, view.cameras[0])
        total += rasterizer.backward(np.ones_like(image)).sh0[:, 0, 0] / SH_C0
    return total
