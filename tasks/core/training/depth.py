"""A loss on depth at the points that structure from motion observed in a photo.

Photos alone do not determine how far away plain ground or water is: Gaussians that float in front of it can look right
in all of them. Structure from motion has measured some places of each photo, so training compares the render's depth at
these places, as DS-NeRF does (Deng et al. 2022, arXiv:2107.02791).

A rasterizer draws depth like colours: one channel is each Gaussian's inverse depth, another one is 1. Their ratio in a
pixel is the mean inverse depth of the Gaussians seen there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.interface import Image
from tasks.core.scene import Camera, Scene
from tasks.core.training.coverage import FEWEST_POINTS, project
from tasks.core.training.views import View

FEWEST_PHOTOS = 3  # that observe the point: two photos agree more easily on a wrong match
NEAREST = 0.05  # of the typical depth: nearer Gaussians count as being at this depth
LEAST_COVERAGE = 0.3  # of a pixel: with less its depth is meaningless
SMALL_ERROR = 0.01  # a share of the depth: below it the loss is quadratic, as points are not exact either
LEAST_HALVINGS = 1  # of the photo: half its size is enough for depth, and takes a quarter of the time


@dataclass(frozen=True)
class DepthTargets:
    """Depths that structure from motion measured in one photo."""

    camera: Camera  # of the image that the pixels belong to
    rows: NDArray[np.int64]  # [M] of pixels; several points may share one
    columns: NDArray[np.int64]  # [M]
    depths: NDArray[np.float32]  # [M] along the viewing direction

    @property
    def unit(self) -> float:
        """The typical depth, used as unit for the others: their median."""
        return float(np.median(self.depths))


class SparseDepths:
    """The targets of all photos. The targets of a photo are found when they are first needed.

    Only points that structure from motion observed in a photo are targets there. Taking all points in the photo's frame
    instead makes some of the depths wrong, and costs quality: docs/training.md has the figures.
    """

    def __init__(self, scene: Scene, views: Sequence[View]) -> None:
        """`views`: photos of the scene."""
        told = np.isfinite(scene.points.xyz).all(axis=1) & (scene.points.track_lengths >= FEWEST_PHOTOS)
        places = {camera.name: index for index, camera in enumerate(scene.cameras)}
        observed = scene.observations
        kept = told[observed.points]
        self._views = views
        self._xyz = scene.points.xyz
        by_camera = np.argsort(observed.cameras[kept], kind="stable")
        self._points = observed.points[kept][by_camera]
        starts = np.searchsorted(observed.cameras[kept][by_camera], np.arange(len(scene.cameras) + 1))
        self._rows = [slice(*starts[places[view.cameras[0].name] :][:2]) for view in views]
        self._found: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    @property
    def known(self) -> bool:
        """Whether the scene contains observations of points in photos."""
        return len(self._points) > 0

    def of(self, index: int, level: int) -> DepthTargets | None:
        """The targets in a view whose photo is halved `level` times; None if too few points are observed."""
        view = self._views[index]
        if index not in self._found:
            camera = view.cameras[0]
            seen = project(self._xyz[self._points[self._rows[index]]], camera)
            within = seen.pixels[seen.inside] / [camera.width, camera.height]
            self._found[index] = within.astype(np.float32), seen.depths[seen.inside].astype(np.float32)
        shares, depths = self._found[index]
        if len(depths) < FEWEST_POINTS:
            return None
        camera = view.cameras[max(level, LEAST_HALVINGS)]
        size = np.array([camera.width, camera.height])
        columns, rows = np.minimum((shares * size).astype(np.int64), size - 1).T
        return DepthTargets(camera, np.ascontiguousarray(rows), np.ascontiguousarray(columns), depths)


def colored_by_depth(gaussians: Gaussians, targets: DepthTargets) -> tuple[Gaussians, NDArray[np.float32]]:
    """The same Gaussians with their inverse depth as red and 1 as green and blue; and the inverse depths [N].

    Inverse depths are in units of 1 / `targets.unit`, and at most 1 / NEAREST.
    """
    axis = targets.camera.cam_from_world[2].astype(np.float32)
    unit = np.float32(targets.unit)
    # Not a product of matrices: BLAS's threads busy-wait for the next one, and the kernels that follow take twice as
    # long
    x, y, z = gaussians.means.T
    depths = x * axis[0] + y * axis[1] + z * axis[2] + axis[3]
    inverse = unit / np.maximum(depths, unit * np.float32(NEAREST))
    colors = np.ones((len(gaussians), 1, 3), np.float32)
    colors[:, 0, 0] = inverse
    drawn = Gaussians(
        means=gaussians.means,
        quats=gaussians.quats,
        log_scales=gaussians.log_scales,
        raw_opacities=gaussians.raw_opacities,
        sh0=(colors - np.float32(0.5)) / np.float32(SH_C0),
        shN=np.zeros((len(gaussians), 0, 3), np.float32),
    )
    return drawn, inverse


def depth_loss(image: Image, targets: DepthTargets, weight: float) -> tuple[float, Image]:
    """The loss of an image [H, W, 3] that shows `colored_by_depth`, and its derivative by that image.

    The loss is `weight` times the mean over targets of Huber's function of the relative error of inverse depth, divided
    by SMALL_ERROR. For large errors that is |error|.
    """
    at = targets.rows, targets.columns
    drawn, coverage = image[at].T[:2]
    told = coverage > np.float32(LEAST_COVERAGE)
    coverage = np.where(told, coverage, np.float32(1))
    wanted = np.float32(targets.unit) / targets.depths
    found = drawn / coverage
    error = np.where(told, found / wanted - 1, np.float32(0))
    slope = np.clip(error / np.float32(SMALL_ERROR), -1, 1)
    share = np.float32(weight / len(wanted))
    loss = float(share * (slope * (error - slope * np.float32(SMALL_ERROR / 2))).sum())
    d_image = np.zeros_like(image)
    d_drawn = share * slope / (coverage * wanted)
    np.add.at(d_image[..., 0], at, d_drawn)
    np.add.at(d_image[..., 1], at, -d_drawn * found)
    return loss, d_image
