"""A stand-in for the computations of a training in cells: it divides by capture order and draws Gaussians by lot.

Its digests count what those of the real ones count, so that keys, retries and dispatch can be tested in a second.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.gaussians import Gaussians
from tasks.core.measurements import CellPlan, CellsSection, TrainSection
from tasks.core.ply import read_ply, write_ply
from tasks.core.progress import Progress
from tasks.core.scene import Scene
from tasks.core.training.cells import divide, merge, train_cell
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import TrainingStats

GAUSSIANS = 20  # of a cell


class StandIns:
    """The three computations, and what was asked of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.divided = self.merged = 0
        self.trained: list[int] = []
        self.options: list[TrainOptions] = []
        self.before_training: Callable[[int, TrainOptions], None] = lambda number, options: None
        self.before_merging: Callable[[TrainOptions], None] = lambda options: None
        patch.setattr(divide, "divide", self._divide)
        patch.setattr(train_cell, "train_cell", self._train_cell)
        patch.setattr(merge, "merge_cells", self._merge)

    def forget(self) -> None:
        """Count from nothing."""
        self.divided = self.merged = 0
        self.trained.clear()
        self.options.clear()

    def _divide(
        self, scene: Scene, out: Path, options: TrainOptions, count: int, on_progress: Callable[[Progress], None]
    ) -> CellsSection:
        self.divided += 1
        names = [camera.name for camera in scene.cameras]
        parts = [part.tolist() for part in np.array_split(names, count)]
        described, plans = [], []
        for number, views in enumerate(parts):
            ring = [views[-1] for views in parts[:number]][-1:]
            content = b"".join((scene.folder / "images" / name).read_bytes() for name in [*views, *ring])
            described.append(
                {"number": number, "views": [{"name": name} for name in [*views, *ring]], "ring_views": ring}
            )
            plans.append(
                CellPlan(
                    number=number,
                    digest=hashlib.sha256(content).hexdigest(),
                    views=len(views) + len(ring),
                    ring_views=len(ring),
                    share=len(views) / len(names),
                    steps=max(10, options.steps // count),
                    max_gaussians=options.max_gaussians // count,
                )
            )
        (out / "cells.json").write_text(json.dumps({"cells": described}))
        owners = np.arange(len(scene.points.xyz)) * count // len(scene.points.xyz)
        np.savez(out / "owners.npz", owners=owners.astype(np.int16))
        on_progress(Progress(1, 1, f"{count} cells"))
        return CellsSection(cells=tuple(plans), decisions=(f"{count} cells.",))

    def _train_cell(
        self, scene: Scene, cells: Path, number: int, out: Path, options: TrainOptions, *callbacks: Any
    ) -> TrainSection:
        self.trained.append(number)
        self.options.append(options)
        self.before_training(number, options)
        views = json.loads((cells / "cells.json").read_text())["cells"][number]["views"]
        photos = [(scene.folder / "images" / view["name"]).read_bytes() for view in views]
        seed = zlib.crc32(b"".join(photos))
        write_ply(by_lot(seed), out / "scene.ply")
        callbacks[0](stats(options.steps))
        return section(options.steps, GAUSSIANS, psnr_db=20.0 + number)

    def _merge(
        self,
        scene: Scene,
        cells: Path,
        trained: Sequence[Path],
        out: Path,
        options: TrainOptions,
        *callbacks: Any,
    ) -> TrainSection:
        self.merged += 1
        self.before_merging(options)
        splats = [read_ply(folder / "scene.ply") for folder in trained]
        whole = {name: np.concatenate([getattr(splat, name) for splat in splats]) for name in vars(splats[0])}
        write_ply(Gaussians(**whole), out / "scene.ply")
        callbacks[0](stats(options.steps))
        return section(options.steps, len(whole["means"]), psnr_db=25.0).model_copy(
            update={"seam_psnr_db": 24.8, "interior_psnr_db": 25.1, "seam_share": 0.03}
        )


def by_lot(seed: int) -> Gaussians:
    """Gaussians of degree 0 that the seed decides."""
    rng = np.random.default_rng(seed)
    return Gaussians(
        means=rng.normal(size=(GAUSSIANS, 3)).astype(np.float32),
        quats=rng.normal(size=(GAUSSIANS, 4)).astype(np.float32),
        log_scales=np.full((GAUSSIANS, 3), -3, np.float32),
        raw_opacities=rng.normal(size=GAUSSIANS).astype(np.float32),
        sh0=rng.normal(size=(GAUSSIANS, 1, 3)).astype(np.float32),
        shN=np.zeros((GAUSSIANS, 0, 3), np.float32),
    )


def stats(steps: int) -> TrainingStats:
    """The last step's."""
    return TrainingStats(
        step=steps,
        steps=steps,
        loss=0.1,
        num_gaussians=GAUSSIANS,
        seconds=1.0,
        psnr_db=None,
        detail=None,
        eta_seconds=0.0,
        stopped_by="schedule",
    )


def section(steps: int, gaussians: int, psnr_db: float) -> TrainSection:
    """Measurements of a training that there was not."""
    return TrainSection(
        backend="cpu",
        steps=steps,
        num_gaussians=gaussians,
        image_width=96,
        image_height=72,
        psnr_db=psnr_db,
        eval_views=("000.png",),
        eval_psnr_db=(psnr_db,),
        stopped_by="schedule",
    )
