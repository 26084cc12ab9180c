"""A cell: the part of a scene that is trained by itself, and the files in which the plan keeps it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import StorageError
from tasks.core.scene import Camera, Observations, Scene
from tasks.core.training.cells.regions import Regions, as_lists, from_lists
from tasks.core.training.coverage import SURFACE_CELLS
from tasks.core.training.views import Mask, Squares

PLAN_FILE = "cells.json"
OWNERS_FILE = "owners.npz"  # the cell of each sparse point, and log gains of all photos


@dataclass(frozen=True)
class CellView:
    """A photo that shows some of a cell."""

    name: str
    trained: Mask  # [rows, columns], the squares of the photo that show the cell or its margin
    owned_share: float  # of the photo that shows the cell itself
    is_ring: bool  # another cell owns more of it

    @property
    def squares(self) -> Squares:
        """The part of the photo that counts."""
        return Squares(self.trained, SURFACE_CELLS)


@dataclass(frozen=True)
class Cell:
    """A cell with all that decides its training, beside the options."""

    number: int
    views: tuple[CellView, ...]  # to train on, in name order
    held_out: tuple[CellView, ...]  # that measure the cell, in name order
    seeds: NDArray[np.int32]  # [S] numbers of the sparse points inside and just outside
    log_gains: NDArray[np.float32]  # [views + held_out, 3]
    steps: int
    max_gaussians: int
    far: float  # depth of the sky

    @property
    def parts(self) -> dict[str, Squares]:
        """The parts of the photos that count, by name."""
        return {view.name: view.squares for view in (*self.views, *self.held_out)}

    def scene(self, whole: Scene) -> Scene:
        """The scene with this cell's cameras and sparse points alone."""
        names = {view.name for view in (*self.views, *self.held_out)}
        cameras = np.array([camera.name in names for camera in whole.cameras])
        points = np.zeros(len(whole.points.xyz), bool)
        points[self.seeds] = True
        observed = whole.observations
        kept = cameras[observed.cameras] & points[observed.points]
        camera_numbers, point_numbers = cameras.cumsum() - 1, points.cumsum() - 1
        return replace(
            whole,
            cameras=tuple(camera for camera in whole.cameras if camera.name in names),
            points=whole.points.of(points),
            observations=Observations(
                camera_numbers[observed.cameras[kept]].astype(np.int32),
                point_numbers[observed.points[kept]].astype(np.int32),
            ),
        )

    def digest(self, whole: Scene, photo_digests: Mapping[str, str]) -> str:
        """sha256 of all that decides this cell's training, beside the options. Places in the whole do not count.

        photo_digests: by name, of the bytes of the photos.
        """
        digest = hashlib.sha256()
        own = self.scene(whole)
        for view in (*self.views, *self.held_out):
            digest.update(f"{view.name} {photo_digests[view.name]} {view.trained.shape}".encode())
            digest.update(np.packbits(view.trained).tobytes())
            if (hidden := whole.hidden.get(view.name)) is not None:
                digest.update(np.packbits(hidden).tobytes())
        for camera in own.cameras:
            digest.update(_camera_bytes(camera))
        for array in (*vars(own.points).values(), *vars(own.observations).values(), self.log_gains, whole.up):
            digest.update(np.ascontiguousarray(array).tobytes())
        numbers = (len(self.views), self.steps, self.max_gaussians, self.far)
        digest.update(repr(numbers).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the cell's arrays; the rest is in the plan."""
        views = (*self.views, *self.held_out)
        with (folder / _arrays_file(self.number)).open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                trained=np.concatenate([np.packbits(view.trained) for view in views] or [np.zeros(0, np.uint8)]),
                seeds=self.seeds,
                log_gains=self.log_gains,
            )

    def described(self) -> dict[str, Any]:
        """The part of the plan's JSON."""
        return {
            "number": self.number,
            "views": [_view_in_json(view) for view in self.views],
            "ring_views": [view.name for view in self.views if view.is_ring],
            "held_out": [_view_in_json(view) for view in self.held_out],
            "steps": self.steps,
            "max_gaussians": self.max_gaussians,
            "far": self.far,
        }


@dataclass(frozen=True)
class Plan:
    """How a scene is divided."""

    regions: Regions
    owners: NDArray[np.int16]  # [P] cell of each sparse point
    log_gains: NDArray[np.float32]  # [C, 3] of all photos, in the order of the scene's cameras
    seam_steps: int  # for the seams, after the cells are put together
    joined_steps: int  # with the held-out photos, after quality has been measured
    cells: tuple[Cell, ...]

    def save(self, folder: Path) -> None:
        """Write the plan and its cells."""
        described = {
            "planes": as_lists(self.regions),
            "seam_steps": self.seam_steps,
            "joined_steps": self.joined_steps,
            "cells": [cell.described() for cell in self.cells],
        }
        (folder / PLAN_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
        with (folder / OWNERS_FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, owners=self.owners, log_gains=self.log_gains)
        for cell in self.cells:
            cell.save(folder)

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read what `save` wrote. Raises StorageError for anything else."""
        try:
            described = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
            with np.load(folder / OWNERS_FILE, allow_pickle=False) as arrays:
                owners, log_gains = arrays["owners"], arrays["log_gains"]
            return cls(
                regions=from_lists(described["planes"]),
                owners=owners,
                log_gains=log_gains,
                seam_steps=described["seam_steps"],
                joined_steps=described["joined_steps"],
                cells=tuple(_loaded(cell, folder) for cell in described["cells"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{folder} does not hold a plan of cells ({error}).") from error


def _arrays_file(number: int) -> str:
    return f"cell-{number:03d}.npz"


def _view_in_json(view: CellView) -> dict[str, Any]:
    return {"name": view.name, "shape": view.trained.shape, "owned_share": view.owned_share, "is_ring": view.is_ring}


def _loaded(described: dict[str, Any], folder: Path) -> Cell:
    with np.load(folder / _arrays_file(described["number"]), allow_pickle=False) as arrays:
        packed, seeds, log_gains = arrays["trained"], arrays["seeds"], arrays["log_gains"]
    views: list[CellView] = []
    begin = 0
    for view in (*described["views"], *described["held_out"]):
        rows, columns = view["shape"]
        end = begin + -(-rows * columns // 8)
        trained = np.unpackbits(packed[begin:end], count=rows * columns).reshape(rows, columns).astype(bool)
        views.append(CellView(view["name"], trained, view["owned_share"], view["is_ring"]))
        begin = end
    count = len(described["views"])
    return Cell(
        number=described["number"],
        views=tuple(views[:count]),
        held_out=tuple(views[count:]),
        seeds=seeds,
        log_gains=log_gains,
        steps=described["steps"],
        max_gaussians=described["max_gaussians"],
        far=described["far"],
    )


def _camera_bytes(camera: Camera) -> bytes:
    *numbers, cam_from_world = astuple(camera)
    return repr(numbers).encode() + np.asarray(cam_from_world, np.float64).tobytes()
