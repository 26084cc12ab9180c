"""The CPU rasterizer: numba kernels in a row, with buffers that are kept from one image to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Image
from tasks.core.render.kernels import binning, blending, projection
from tasks.core.render.kernels.constants import SPLAT_FIELDS, TILE
from tasks.core.scene import Camera


@dataclass(frozen=True)
class View:
    """A camera as the kernels take it, float32."""

    pose: NDArray[np.float32]  # [3, 4] cam_from_world
    intrinsics: NDArray[np.float32]  # [4] fx, fy, cx, cy in px
    center: NDArray[np.float32]  # [3] in the world

    @classmethod
    def of(cls, camera: Camera) -> "View":
        """Convert once for all kernels of an image."""
        return cls(
            pose=np.ascontiguousarray(camera.cam_from_world[:3], np.float32),
            intrinsics=np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32),
            center=np.ascontiguousarray(camera.center, np.float32),
        )


class Buffers:
    """Named arrays that grow when needed and are never given back: their pages are touched once, not every step."""

    def __init__(self) -> None:
        self._floats: dict[str, NDArray[np.float32]] = {}
        self._ints: dict[str, NDArray[np.int64]] = {}

    def floats(self, name: str, length: int, *rest: int) -> NDArray[np.float32]:
        """A float32 array [at least length, *rest] with whatever it held before."""
        array = self._floats.get(name)
        if array is None or len(array) < length or array.shape[1:] != rest:
            array = self._floats[name] = np.zeros((length + length // 4 + 1, *rest), np.float32)
        return array

    def ints(self, name: str, length: int) -> NDArray[np.int64]:
        """An int64 array [at least length] with whatever it held before."""
        array = self._ints.get(name)
        if array is None or len(array) < length:
            array = self._ints[name] = np.zeros(length + length // 4 + 1, np.int64)
        return array


@dataclass(frozen=True)
class Pass:
    """What `backward` needs of the last forward pass."""

    gaussians: Gaussians
    view: View
    width: int
    height: int
    sh_degree: int
    tiles_x: int
    tiles_y: int
    total: int  # visible Gaussians
    pairs: int  # of tile and visible Gaussian
    order: NDArray[np.int64]  # [total, or longer] indices of the visible Gaussians, nearest first
    splats: NDArray[np.float32]  # [N, SPLAT_FIELDS], valid in the rows of visible Gaussians
    tile_splats: NDArray[np.int64]  # [pairs, or longer]
    tile_starts: NDArray[np.int64]  # [tiles + 1]
    pair_starts: NDArray[np.int64]  # [total + 1]
    pair_slots: NDArray[np.int64]  # [pairs, or longer]
    image: Image


class CpuRasterizer:
    """The rasterizer for machines without a GPU. Numbers as `reference.py`, within float32."""

    name = "cpu"

    def __init__(self) -> None:
        self._buffers = Buffers()
        self._last: Pass | None = None

    def render(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """The image that the camera sees; see `Rasterizer.render`."""
        return self.forward(gaussians, camera, sh_degree, background).copy()

    def forward(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """As `render`; the image is a buffer that the next call overwrites."""
        buffers, n, workers = self._buffers, len(gaussians), numba.get_num_threads()
        degree = gaussians.sh_degree if sh_degree is None else min(sh_degree, gaussians.sh_degree)
        tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
        view = View.of(camera)

        splats = buffers.floats("splats", n, SPLAT_FIELDS)
        visible = buffers.ints("visible", n)
        counts = np.zeros(workers, np.int64)
        projection.project(
            gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.raw_opacities, gaussians.sh0,
            gaussians.shN, view.pose, view.intrinsics, view.center, np.float32(camera.width), np.float32(camera.height),
            degree, workers, splats, visible, counts,
        )  # fmt: skip
        total = projection.compact(visible, counts, n)

        keys, spare_keys = np.empty((2, total), np.uint32)
        order = binning.sort_by_depth(
            splats, visible, total, keys, buffers.ints("order", n), spare_keys, buffers.ints("spare order", n)
        )
        histograms = buffers.ints("histograms", workers * tiles_x * tiles_y)[: workers * tiles_x * tiles_y]
        histograms = histograms.reshape(workers, tiles_x * tiles_y)
        tiles_touched = buffers.ints("tiles touched", total)
        binning.count_tiles(splats, order, total, tiles_x, tiles_y, workers, histograms, tiles_touched)
        tile_starts = buffers.ints("tile starts", tiles_x * tiles_y + 1)
        pair_starts = buffers.ints("pair starts", total + 1)
        pairs = binning.prefix_sums(histograms, tiles_touched, total, tile_starts, pair_starts)
        tile_splats, pair_slots = buffers.ints("tile splats", pairs), buffers.ints("pair slots", pairs)
        binning.fill_tiles(
            splats, order, total, tiles_x, tiles_y, workers, histograms, pair_starts, tile_splats, pair_slots
        )

        image = buffers.floats("image", camera.height * camera.width * 3)[: camera.height * camera.width * 3]
        image = image.reshape(camera.height, camera.width, 3)
        blending.blend(
            splats, tile_splats, tile_starts, tiles_x, tiles_y, np.asarray(background, np.float32), workers, image
        )
        self._last = Pass(
            gaussians, view, camera.width, camera.height, degree, tiles_x, tiles_y, total, pairs, order, splats,
            tile_splats, tile_starts, pair_starts, pair_slots, image,
        )  # fmt: skip
        return image
