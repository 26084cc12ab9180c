"""The plan of a training in cells, as far as pictures show it."""

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import FormatError


@dataclass(frozen=True)
class DividedScene:
    """The cells that points and cameras belong to."""

    count: int  # of cells
    owners: NDArray[np.int16]  # [P] cell of each sparse point
    cell_of_camera: dict[str, int]  # by name, for cameras that are trained on

    @classmethod
    def read(cls, plan: bytes, owners: bytes) -> "DividedScene":
        """Read the contents of a plan's `cells.json` and `owners.npz`. Raises FormatError."""
        try:
            cells = json.loads(plan)["cells"]
            homes = {
                view["name"]: cell["number"]
                for cell in cells
                for view in cell["views"]
                if view["name"] not in cell["ring_views"]
            }
            with np.load(io.BytesIO(owners), allow_pickle=False) as arrays:
                return cls(len(cells), arrays["owners"], homes)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise FormatError(f"The plan of a training in cells cannot be read ({error}).") from error
