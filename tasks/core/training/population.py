"""The Gaussians in training: parameters, the optimiser's moments, and the notes of density control.

All arrays have room for the greatest allowed number from the start. So the number can never exceed it, and growing
writes rows instead of moving arrays. The arrays are tensors, so that they can be on a GPU; on the CPU numpy sees the
same memory.

Rows are sorted so that neighbours in space are neighbours in memory: a tile of a photo reads the splats that touch it,
and the rows of neighbours share cache lines and pages. At 960x640 a step takes 0.7 of the CPU time of unsorted rows
with 200k random Gaussians, and 0.6 of it with 500k.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.gaussians import Gaussians

MANY_PHOTOS = 1e6  # more than any capture has; used while the number of photos that show a place is unknown
PARAMETERS = tuple(field.name for field in fields(Gaussians))

LEVELS = 1 << 10  # cells along the longest side, ten bits for each axis
WITHOUT_OUTLIERS = (0.01, 0.99)  # places beyond these quantiles of an axis are put into the outermost cells
SAMPLE = 100_000  # places, about, for the quantiles
# (factor, mask): the bits of a number below 1024 move apart until two zeros follow each, three steps after the first
SPREADING = ((1 << 16 | 1, 0x030000FF), (1 << 8 | 1, 0x0300F00F), (1 << 4 | 1, 0x030C30C3), (1 << 2 | 1, 0x09249249))


@dataclass
class Population:
    """`count` rows of every array are in use."""

    count: int
    parameters: dict[str, Tensor]  # name of a field of Gaussians -> [capacity, ...]
    first_moments: dict[str, Tensor]
    second_moments: dict[str, Tensor]
    updates: Tensor  # [capacity] int64, optimiser updates of each Gaussian since it came to be
    scores: Tensor  # [capacity] sum over images of |dL/dmean2d|, since the last refinement
    seen: Tensor  # [capacity] number of images in that sum
    least_log_scale: Tensor  # [capacity] lower bound for each axis
    shown_by: Tensor  # [capacity] number of training photos that show the place where it, or its ancestor, started

    @classmethod
    def of(
        cls,
        gaussians: Gaussians,
        capacity: int,
        device: str,
        shown_by: NDArray[np.integer] | NDArray[np.floating] | None = None,
        least_log_scale: NDArray[np.floating] | None = None,
    ) -> "Population":
        """A population of the given Gaussians with room for `capacity`.

        shown_by: [N] number of training photos that show the Gaussian's place.
        least_log_scale: [N] no axis of the Gaussian may become shorter.
        """

        def empty_like_rows(name: str) -> Tensor:
            return torch.zeros((capacity, *getattr(gaussians, name).shape[1:]), device=device)

        population = cls(
            count=len(gaussians),
            parameters={name: empty_like_rows(name) for name in PARAMETERS},
            first_moments={name: empty_like_rows(name) for name in PARAMETERS},
            second_moments={name: empty_like_rows(name) for name in PARAMETERS},
            updates=torch.zeros(capacity, dtype=torch.int64, device=device),
            scores=torch.zeros(capacity, device=device),
            seen=torch.zeros(capacity, device=device),
            least_log_scale=torch.full((capacity,), -torch.inf, device=device),
            shown_by=torch.full((capacity,), MANY_PHOTOS, device=device),
        )
        if shown_by is not None:
            population.shown_by[: len(gaussians)] = torch.as_tensor(shown_by, device=device)
        if least_log_scale is not None:
            population.least_log_scale[: len(gaussians)] = torch.as_tensor(least_log_scale, device=device)
        for name in PARAMETERS:
            population.parameters[name][: len(gaussians)] = torch.as_tensor(getattr(gaussians, name), device=device)
        return population

    @classmethod
    def of_rows(cls, rows: dict[str, NDArray[np.generic]], capacity: int, device: str) -> "Population":
        """A population with room for `capacity` Gaussians, made from another population's `rows_in_use`."""
        gaussians = Gaussians(**{name: rows[f"parameters.{name}"].astype(np.float32) for name in PARAMETERS})
        population = cls.of(gaussians, capacity, device)
        for name, array in population._arrays().items():
            array[: len(gaussians)] = torch.as_tensor(rows[name], device=device)
        return population

    def rows_in_use(self) -> dict[str, NDArray[np.generic]]:
        """All rows that the next step depends on, by name. On the CPU the arrays share this population's memory."""
        return {name: array[: self.count].cpu().numpy() for name, array in self._arrays().items()}

    def _arrays(self) -> dict[str, Tensor]:
        """All arrays. Rows that are not in use are never read."""
        groups = {
            "parameters": self.parameters,
            "first_moments": self.first_moments,
            "second_moments": self.second_moments,
        }
        return {
            **{f"{group}.{name}": arrays[name] for group, arrays in groups.items() for name in PARAMETERS},
            "updates": self.updates,
            "scores": self.scores,
            "seen": self.seen,
            "least_log_scale": self.least_log_scale,
            "shown_by": self.shown_by,
        }

    @property
    def capacity(self) -> int:
        """The greatest possible number of Gaussians."""
        return len(self.updates)

    def active(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """The rows in use of `parameters` or of moments, as views."""
        return {name: array[: self.count] for name, array in arrays.items()}

    def shared_gaussians(self) -> Gaussians:
        """The rows in use as numpy arrays that share this population's memory. CPU only."""
        return Gaussians(**{name: array.numpy() for name, array in self.active(self.parameters).items()})

    def snapshot(self) -> Gaussians:
        """A copy of the present Gaussians."""
        return Gaussians(**{name: array.cpu().numpy().copy() for name, array in self.active(self.parameters).items()})

    def keep(self, rows: NDArray[np.integer]) -> None:
        """Keep only these rows [M], ascending."""
        index = torch.as_tensor(rows, device=self.updates.device)
        for array in self._arrays().values():
            array[: len(rows)] = array[index]
        self.count = len(rows)

    def sort(self) -> None:
        """Sort the rows in use by `morton_order`."""
        order = morton_order(self.parameters["means"][: self.count])
        for array in self._arrays().values():
            array[: self.count] = array[order]

    def forget_history(self, rows: Tensor) -> None:
        """Reset the optimiser's moments and updates of rows [M] whose parameters were replaced."""
        for name in PARAMETERS:
            self.first_moments[name][rows] = 0
            self.second_moments[name][rows] = 0
        self.updates[rows] = 0

    def trim(self) -> int:
        """Free the rows that are not in use, so that the population can no longer grow; returns their number."""
        spare = self.capacity - self.count
        for arrays in (self.parameters, self.first_moments, self.second_moments):
            for name in PARAMETERS:
                arrays[name] = arrays[name][: self.count].clone()
        for name in ("updates", "scores", "seen", "least_log_scale", "shown_by"):
            setattr(self, name, getattr(self, name)[: self.count].clone())
        return spare


def morton_order(means: Tensor) -> Tensor:
    """The order [N] of places [N, 3] along a Z-order curve (Morton 1966); equal places keep their order."""
    some = means[:: len(means) // SAMPLE + 1]
    low, high = torch.quantile(some, torch.tensor(WITHOUT_OUTLIERS, device=means.device), dim=0)
    side = (high - low).max().clamp_min(1e-12)  # the same for all axes: a flat scene has few layers
    cells = ((means - low) / side * LEVELS).long().clamp(0, LEVELS - 1)
    for factor, mask in SPREADING:
        cells = cells * factor & mask
    codes = cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
    return torch.argsort(codes, stable=True)
