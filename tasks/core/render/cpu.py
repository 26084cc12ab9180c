"""The CPU rasterizer: numba kernels called in sequence, with buffers that are reused from image to image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.kernel_cache import ensure_compiled
from tasks.core.progress import ProgressCallback, ignore_progress
from tasks.core.render.interface import Gradients, Image
from tasks.core.render.kernels import binning, blending, projection, projection_backward
from tasks.core.render.kernels.constants import GRADIENT_FIELDS, SPLAT_FIELDS, TILE
from tasks.core.scene import Camera


@dataclass(frozen=True)
class View:
    """A camera in the form that the kernels take, float32."""

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
    """Named arrays that grow when needed and are never freed, so their pages are touched once, not every step."""

    def __init__(self) -> None:
        self._floats: dict[str, NDArray[np.float32]] = {}
        self._ints: dict[str, NDArray[np.int64]] = {}

    def floats(self, name: str, length: int, *rest: int) -> NDArray[np.float32]:
        """A float32 array [at least length, *rest]; it keeps its contents from call to call."""
        array = self._floats.get(name)
        if array is None or len(array) < length or array.shape[1:] != rest:
            array = self._floats[name] = np.zeros((length + length // 4 + 1, *rest), np.float32)
        return array

    def ints(self, name: str, length: int) -> NDArray[np.int64]:
        """An int64 array [at least length]; it keeps its contents from call to call."""
        array = self._ints.get(name)
        if array is None or len(array) < length:
            array = self._ints[name] = np.zeros(length + length // 4 + 1, np.int64)
        return array


@dataclass(frozen=True)
class Pass:
    """The part of the last forward pass that `backward` needs."""

    gaussians: Gaussians
    view: View
    width: int
    height: int
    sh_degree: int
    tiles_x: int
    tiles_y: int
    total: int  # visible Gaussians
    pairs: int  # pairs of a tile and a visible Gaussian
    visible: NDArray[np.int64]  # [total, or longer] indices of the visible Gaussians, ascending
    ranks: NDArray[np.int64]  # [N, or longer] a visible Gaussian's place in order of depth
    splats: NDArray[np.float32]  # [N, SPLAT_FIELDS], valid in the rows of visible Gaussians
    tile_splats: NDArray[np.int64]  # [pairs, or longer]
    tile_starts: NDArray[np.int64]  # [tiles + 1]
    pair_starts: NDArray[np.int64]  # [total + 1]
    pair_slots: NDArray[np.int64]  # [pairs, or longer]
    image: Image


@dataclass(frozen=True)
class SparseGradients:
    """Gradients whose rows are valid for the visible Gaussians only. The next call overwrites these buffers."""

    visible: NDArray[np.int64]  # [V] ascending indices
    rows: Gradients  # arrays [N or longer, ...]
    pulls: NDArray[np.float32]  # [N or longer, 2] see `projection_backward`


def plain(gaussians: Gaussians) -> Gaussians:
    """The same Gaussians in contiguous, writeable arrays, copied only where needed: numba recompiles for others."""
    return Gaussians(**{name: np.require(array, requirements=["C", "W"]) for name, array in vars(gaussians).items()})


class CpuRasterizer:
    """The rasterizer for machines without a GPU. Its numbers equal those of `reference.py` to float32 precision."""

    name = "cpu"

    def __init__(self, on_progress: ProgressCallback = ignore_progress) -> None:
        """`on_progress` is called while kernels are compiled, if they have not been compiled before."""
        ensure_compiled("tasks.core.render.warmup", on_progress)
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
        """As `render`, but the image is a buffer that the next call overwrites."""
        buffers, n, workers = self._buffers, len(gaussians), numba.get_num_threads()
        degree = gaussians.sh_degree if sh_degree is None else min(sh_degree, gaussians.sh_degree)
        tiles_x, tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
        view = View.of(camera)
        gaussians = plain(gaussians)

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
        ranks = buffers.ints("ranks", n)
        binning.count_tiles(splats, order, total, tiles_x, tiles_y, workers, histograms, tiles_touched, ranks)
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
            gaussians, view, camera.width, camera.height, degree, tiles_x, tiles_y, total, pairs, visible, ranks,
            splats, tile_splats, tile_starts, pair_starts, pair_slots, image,
        )  # fmt: skip
        return image

    def backward(self, d_image: Image) -> Gradients:
        """Gradients for the last forward's image; see `Rasterizer.backward`."""
        sparse = self.backward_sparse(d_image)
        n = len(self._last.gaussians) if self._last else 0
        dense = {name: np.zeros((n, *array.shape[1:]), np.float32) for name, array in vars(sparse.rows).items()}
        for name, array in dense.items():
            array[sparse.visible] = getattr(sparse.rows, name)[sparse.visible]
        return Gradients(**dense)

    def backward_sparse(self, d_image: Image) -> SparseGradients:
        """As `backward`, without touching the memory of Gaussians that the camera does not see.

        In `shN` only the coefficients up to the rendered degree are valid.
        """
        last, buffers, workers = self._last, self._buffers, numba.get_num_threads()
        if last is None:
            raise ValueError("backward needs a forward pass before it")
        pair_gradients = buffers.floats("pair gradients", last.pairs, GRADIENT_FIELDS)
        blending.blend_backward(
            last.splats, last.tile_splats, last.tile_starts, last.tiles_x, last.tiles_y, last.image,
            np.ascontiguousarray(d_image, np.float32), workers, pair_gradients,
        )  # fmt: skip
        gaussians, view, n = last.gaussians, last.view, len(last.gaussians)
        rows = Gradients(
            means=buffers.floats("d means", n, 3),
            quats=buffers.floats("d quats", n, 4),
            log_scales=buffers.floats("d log_scales", n, 3),
            raw_opacities=buffers.floats("d raw_opacities", n),
            sh0=buffers.floats("d sh0", n, 1, 3),
            shN=buffers.floats("d shN", n, gaussians.shN.shape[1], 3),
        )
        pulls = buffers.floats("pulls", n, 2)
        projection_backward.project_backward(
            gaussians.means, gaussians.quats, gaussians.log_scales, gaussians.shN, view.pose, view.intrinsics,
            view.center, np.float32(last.width), np.float32(last.height), last.sh_degree, last.visible, last.total,
            last.ranks, last.splats, last.pair_starts, last.pair_slots, pair_gradients, workers, rows.means, rows.quats,
            rows.log_scales, rows.raw_opacities, rows.sh0, rows.shN, pulls,
        )  # fmt: skip
        return SparseGradients(last.visible[: last.total], rows, pulls)
