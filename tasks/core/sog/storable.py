"""Numbers of Gaussians that can be stored: finite ones, with the exceptions that renderers draw as they are meant.

An infinite logit is an opacity of exactly 0 or 1. A log scale of minus infinity is an axis without length, as in 2DGS.
A zero quaternion turns nothing: the 3DGS paper's code draws such a Gaussian unrotated. splat-transform stores all of
these too, and its --filter-nan drops rows without rotation, as `without_invalid` does.
"""

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import FormatError
from tasks.core.gaussians import Gaussians

_IDENTITY = np.array([1, 0, 0, 0], np.float32)


def _invalid(gaussians: Gaussians, field: str) -> NDArray[np.bool_] | None:
    """Rows [N] of a field that hold a number that cannot be stored; None if there are none."""
    array = getattr(gaussians, field)
    if array.size == 0 or (np.isfinite(array.min()) and np.isfinite(array.max())):  # a NaN would be both of them
        return None
    rows = array.reshape(len(gaussians), -1)
    if field == "raw_opacities":
        bad = np.isnan(rows)
    elif field == "log_scales":
        bad = ~np.isfinite(rows) & ~np.isneginf(rows)
    else:
        bad = ~np.isfinite(rows)
    found = bad.any(axis=1)
    return found if found.any() else None


def require_numbers(gaussians: Gaussians) -> None:
    """Raise FormatError that counts the Gaussians whose numbers cannot be stored, and says how to leave them out."""
    for field in fields(gaussians):
        bad = _invalid(gaussians, field.name)
        if bad is not None:
            raise FormatError(
                f"{field.name} of {int(bad.sum()):,} of {len(gaussians):,} Gaussians are not finite numbers (the first "
                f"is number {int(bad.argmax())}); `spaceport convert --drop-invalid` leaves those Gaussians out."
            )


def without_rotation(gaussians: Gaussians) -> NDArray[np.bool_]:
    """Which Gaussians [N] have a zero quaternion."""
    return np.asarray(~gaussians.quats.any(axis=1))


def without_invalid(gaussians: Gaussians) -> Gaussians:
    """The Gaussians whose numbers can be stored and that have a rotation."""
    bad = without_rotation(gaussians)
    for field in fields(gaussians):
        found = _invalid(gaussians, field.name)
        if found is not None:
            bad |= found
    return gaussians.take(~bad) if bad.any() else gaussians


def with_rotations(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians, with the identity in place of zero quaternions."""
    zero = without_rotation(gaussians)
    if not zero.any():
        return gaussians
    quats = gaussians.quats.copy()
    quats[zero] = _IDENTITY
    return replace(gaussians, quats=quats)
