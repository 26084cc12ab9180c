"""Seams: where a photo shows the border between two cells, and how good the splat is there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Rasterizer
from tasks.core.render.metrics import psnr
from tasks.core.scene import Camera
from tasks.core.training.cells.regions import Owners
from tasks.core.training.evaluate import mean_of_defined
from tasks.core.training.views import Mask, View

SEAM_PX = 16  # a pixel this near to one of another owner belongs to a seam


@dataclass(frozen=True)
class SeamQuality:
    """PSNR in dB, means over views; None where no view has such pixels."""

    seam_psnr_db: float | None
    interior_psnr_db: float | None
    seam_share: float | None  # of the views' pixels


def seam_pixels(owners: Owners, camera: Camera) -> Mask:
    """The pixels [H, W] of seams in a photo whose squares have these owners [rows, columns]."""
    rows, columns = owners.shape
    side = max(camera.width / columns, camera.height / rows)
    at = [
        np.minimum(((np.arange(length) + 0.5) / side).astype(int), count - 1)
        for length, count in zip((camera.height, camera.width), (rows, columns), strict=True)
    ]
    pixels = owners[at[0][:, None], at[1]]
    changes = np.zeros(pixels.shape, bool)
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = pixels[one] != pixels[other]
        changes[one] |= differs
        changes[other] |= differs
    if not changes.any():
        return changes
    return np.asarray(distance_transform_edt(~changes) <= SEAM_PX)


def seam_quality(
    gaussians: Gaussians, views: Sequence[View], seams: Sequence[Mask], rasterizer: Rasterizer
) -> SeamQuality:
    """Compare the splat with photos, apart for the pixels of seams [H, W] and for all others that show the place."""
    at_seam: list[float] = []
    inside: list[float] = []
    shares: list[float] = []
    for view, seam in zip(views, seams, strict=True):
        image, photo = rasterizer.render(gaussians, view.cameras[0]), view.photos[0] / np.float32(255)
        shown = np.ones(seam.shape, bool) if view.shown is None else view.shown
        for values, mask in ((at_seam, seam & shown), (inside, ~seam & shown)):
            if mask.any():
                values.append(psnr(image, photo, mask))
        shares.append(float((seam & shown).sum() / max(shown.sum(), 1)))
    return SeamQuality(mean_of_defined(at_seam), mean_of_defined(inside), mean_of_defined(shares))
