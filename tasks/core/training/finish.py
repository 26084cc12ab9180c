"""What is done once at the end, so that others can rely on the file."""

import numpy as np

from tasks.core.errors import TrainingDivergedError
from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import MIN_ALPHA


def finished_gaussians(gaussians: Gaussians) -> Gaussians:
    """The Gaussians that can be seen, with unit quaternions.

    Those whose opacity is below MIN_ALPHA are never drawn, so leaving them out changes no picture. Raises
    TrainingDivergedError when a parameter is not finite.
    """
    for name, array in vars(gaussians).items():
        broken = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        if broken:
            raise TrainingDivergedError(
                f"{broken} of {len(gaussians)} Gaussians have {name} that are not finite; "
                "try again with another train.random_seed."
            )
    drawn = gaussians.raw_opacities >= np.log(MIN_ALPHA / (1 - MIN_ALPHA))
    kept = gaussians.take(drawn)
    unit = kept.quats / np.linalg.norm(kept.quats, axis=1, keepdims=True)
    return Gaussians(**{**vars(kept), "quats": unit.astype(np.float32)})
