"""What a SOG cannot hold is refused before anything is written."""

from dataclasses import fields

import numpy as np

from tasks.core.errors import FormatError
from tasks.core.gaussians import Gaussians
from tasks.core.sog import layout


def require_storable(gaussians: Gaussians) -> None:
    """Raise FormatError when there are no Gaussians, too many, or ones with numbers that are not finite."""
    n = len(gaussians)
    if n == 0:
        raise FormatError("There are 0 Gaussians; a .sog needs at least 1.")
    if max(layout.picture_size(n)) > layout.MAX_WEBP_SIDE:
        raise FormatError(
            f"{n:,} Gaussians do not fit into one .sog (at most {layout.MAX_WEBP_SIDE**2:,}); prune them."
        )
    for field in fields(gaussians):
        array = getattr(gaussians, field.name)
        # an infinite logit is an opacity of exactly 0 or 1, which 8 bits can hold
        logits = field.name == "raw_opacities"
        if array.size == 0 or (np.isfinite(array.min()) and np.isfinite(array.max())):  # a NaN is both
            continue
        rows = array.reshape(n, -1)
        bad = (np.isnan(rows) if logits else ~np.isfinite(rows)).any(axis=1)
        if bad.any():
            raise FormatError(
                f"{field.name} of {int(bad.sum()):,} of {n:,} Gaussians are not finite numbers (the first is number "
                f"{int(bad.argmax())}); remove those Gaussians."
            )
    zero = int((~gaussians.quats.any(axis=1)).sum())
    if zero:
        raise FormatError(f"quats of {zero:,} of {n:,} Gaussians are zero, so they have no rotation; remove them.")
