"""A step in torch, for rasterizers that are differentiable by autograd: gsplat on CUDA, the specification in tests.

On a GPU, memory is planned before training, and a guard reduces its use if it runs out nevertheless. This part has not
been run on a GPU; its decisions and their order are tested on the CPU.
"""

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.machine_memory import available_memory_bytes
from tasks.core.render.cuda import Gsplat
from tasks.core.render.kernels.adam import BETA1, BETA2, EPSILON
from tasks.core.scene import Camera
from tasks.core.training.depth import DepthTargets
from tasks.core.training.engine import SAMPLED_EVERY, StepResult
from tasks.core.training.memory import GpuBudget, gpu_budget
from tasks.core.training.options import TrainOptions
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import FLAT_COLORS_UNTIL, HARMONICS_DECAY, StepSettings
from tasks.core.training.torch_loss import PhotoStore, colored_by_depth, depth_loss, l1_ssim
from tasks.core.training.views import View

# (parameters, camera, sh_degree, background [3]) -> image [H, W, 3]; an object whose `absgrad`, after the backward
# pass, is how strongly the image pulls at the projected means, in px; the visible Gaussians. The last two are pulls
# [..., N, 2] and a mask [N], or packed: pulls [M, 2] and their indices int64 [M].
DifferentiableRasterizer = Callable[[dict[str, Tensor], Camera, int, Tensor], tuple[Tensor, Any, Tensor]]

MOST_MASKS = 32  # kept on the device: of each size of what all photos of a camera hide there is one
LOSS_EVERY = 20  # steps between two readings of the loss; at a few ms a step, the delay is too short to notice


class TorchEngine:
    """See `Engine`."""

    max_gaussians: int | None = None
    decisions: tuple[str, ...] = ()
    degradations: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        device: str,
        rasterize: DifferentiableRasterizer,
        photos: PhotoStore | None = None,
        loss_every: int = 1,
    ) -> None:
        """With `loss_every` above 1, `step` returns the mean loss of the last complete group of that many steps.

        The loss is known only when the GPU has finished. A host that asks for it after every step leaves the GPU
        without work while it prepares the next.
        """
        self.name = name
        self.device = device
        self._rasterize = rasterize
        self.photos = photos or PhotoStore(device, math.inf, math.inf)
        self.photos_stay = True  # whether a photo's array is the same one in every step
        self._background = torch.zeros(3, device=device)
        # the array is kept, so that no other one can get its id
        self._masks: dict[int, tuple[NDArray[np.bool_], Tensor]] = {}
        self._loss_every = loss_every
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._losses = 0
        self._loss: float | None = None

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
        depth: DepthTargets | None = None,
        hidden: NDArray[np.bool_] | None = None,
    ) -> StepResult:
        """Forward, loss, autograd, Adam; see `Engine.step`."""
        leaves = {
            name: tensor.detach().requires_grad_() for name, tensor in population.active(population.parameters).items()
        }
        image, means2d, visible = self._rasterize(leaves, camera, settings.sh_degree, self._background)
        # Copies to the host are requested before the long half of the step, so that it only waits for the short half
        sample = self._sampled(image.detach())
        rows = visible.nonzero()[:, 0] if visible.dtype == torch.bool else visible
        name = None if self.photos_stay else (camera.name, camera.width, camera.height)
        exposed = image * torch.from_numpy(gain).to(self.device, non_blocking=True)
        if hidden is None:
            target, moments = self.photos.get(photo, settings.ssim_weight > 0, name)
        else:  # the target depends on the render, and its moments do as well
            pixels, moments = self.photos.get(photo, False, name)
            here = self._mask(hidden)
            rendered = exposed.detach()
            target, exposed = torch.where(here, rendered, pixels), torch.where(here, rendered, exposed)
        loss = l1_ssim(exposed, target, settings.ssim_weight, moments)
        if loss.requires_grad:
            loss.backward()
            if depth is not None and settings.depth_weight > 0:
                drawn = self._rasterize(colored_by_depth(leaves, depth), depth.camera, 0, self._background)[0]
                of_depth = depth_loss(drawn, depth, settings.depth_weight)
                if of_depth.requires_grad:
                    of_depth.backward()
        pulls = getattr(means2d, "absgrad", None)
        if pulls is not None:  # something is visible
            pulls = pulls.reshape(-1, 2)
            pulls = (pulls[rows] if visible.dtype == torch.bool else pulls).norm(dim=1)
            update(population, {name: leaf.grad for name, leaf in leaves.items()}, pulls, rows, settings)
        return StepResult(self._noted(loss.detach()), sample())

    def _mask(self, hidden: NDArray[np.bool_]) -> Tensor:
        """The mask [H, W, 1] on the device. Views of whole photos share a few; those of parts make new ones."""
        if id(hidden) not in self._masks:
            if len(self._masks) >= MOST_MASKS:
                self._masks.clear()
            self._masks[id(hidden)] = hidden, torch.from_numpy(hidden)[..., None].to(self.device)
        return self._masks[id(hidden)][1]

    def _sampled(self, image: Tensor) -> Callable[[], NDArray[np.float32]]:
        """Start copying every SAMPLED_EVERY-th pixel to the host; the returned function waits for the copy."""
        pixels = image[::SAMPLED_EVERY, ::SAMPLED_EVERY].float()
        if not pixels.is_cuda:
            return pixels.numpy
        host = torch.empty(pixels.shape, pin_memory=True)
        host.copy_(pixels, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()

        def wait() -> NDArray[np.float32]:
            arrived.synchronize()
            return host.numpy()

        return wait

    def _noted(self, loss: Tensor) -> float:
        """Add up losses on the device. If one is not finite, neither is the sum, and the next reading finds that."""
        self._loss_sum += loss
        self._losses += 1
        if self._loss is None or self._losses >= self._loss_every:
            self._loss = float(self._loss_sum) / self._losses
            self._loss_sum.zero_()
            self._losses = 0
        return self._loss


@torch.no_grad()
def update(
    population: Population,
    gradients: dict[str, Tensor | None],
    pulls: Tensor,
    rows: Tensor,
    settings: StepSettings,
) -> None:
    """Adam on the visible Gaussians, rows [M], and notes for density control: pulls are lengths of `absgrad` [M]."""
    population.updates[rows] += 1
    population.seen[rows] += 1
    population.scores[rows] += pulls
    # 1 - beta^t without cancellation in float32: a T4 computes in float64 at a thirtieth of the speed
    t = population.updates[rows].float()
    corrections = torch.sqrt(-torch.expm1(t * math.log(BETA2))) / -torch.expm1(t * math.log(BETA1))  # [M]
    for name in PARAMETERS:
        gradient = gradients[name]
        if gradient is None:
            continue
        # Coefficients above the current degree have no gradient yet
        columns = (settings.sh_degree + 1) ** 2 - 1 if name == "shN" else None
        arrays = (
            population.parameters[name],
            gradient,
            population.first_moments[name],
            population.second_moments[name],
        )
        parameter, gradient, first, second = (array if columns is None else array[:, :columns] for array in arrays)
        rates = settings.rates[name] * corrections
        if name == "shN":
            told = population.shown_by[rows] > FLAT_COLORS_UNTIL
            rates = rates * told
            shrunk = settings.rates[name] * HARMONICS_DECAY * told  # AdamW, as in render/kernels/adam.py
            parameter[rows] *= (1 - shrunk)[:, None, None]
        adam(parameter, gradient, first, second, rows, rates)


def adam(parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rows: Tensor, rates: Tensor) -> None:
    """Adam on rows [M] of [N, ...], with a rate for each, bias correction included."""
    beta1, beta2 = float(BETA1), float(BETA2)
    g = gradient[rows]
    m = first[rows].lerp_(g, 1 - beta1)
    v = second[rows].mul_(beta2).addcmul_(g, g, value=1 - beta2)
    first[rows] = m
    second[rows] = v
    step = m.div_(v.sqrt_().add_(float(EPSILON)))
    step *= rates.reshape(-1, *[1] * (step.dim() - 1))
    parameter.index_add_(0, rows, step, alpha=-1)


def cuda_engine(options: TrainOptions, views: Sequence[View], photos_on_disk: bool = False) -> "MemoryGuard":
    """The engine for these options and photos, planned for the memory that is free on the GPU now.

    With photos on the disk, the host's memory keeps none of them.
    """
    # SSIM subtracts moments from one another; the ten bits of TF32's mantissa are too few for that.
    torch.backends.cudnn.allow_tf32 = False
    budget = gpu_budget(
        free_bytes(),
        available_memory_bytes(),
        [view.cameras[0].width * view.cameras[0].height for view in views],
        options.max_gaussians,
        options.sh_degree,
        photos_on_disk,
    )
    rasterize = Gsplat()
    rasterize.packed = budget.packed
    photos = PhotoStore("cuda", budget.pixel_bytes, budget.moment_bytes, budget.pinned_bytes)
    engine = TorchEngine("cuda", "cuda", rasterize, photos, LOSS_EVERY)
    engine.photos_stay = not photos_on_disk
    return MemoryGuard(engine, rasterize, budget)


def free_bytes() -> float:
    """Bytes that this process may still allocate on the GPU: all free memory, or the rest of a share set for it."""
    free, total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    allowed = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_allocated()
    return min(free + cached, allowed)


class MemoryGuard:
    """An engine that continues after running out of memory, as long as it can use less.

    It saves memory in the same ways as the plan, cheapest first, and records each. Training continues where it was, and
    the failed step is repeated. When nothing is left to save, the error is raised, and the stage starts again with
    fewer Gaussians (`memory.budgets`).
    """

    def __init__(self, engine: TorchEngine, rasterize: Gsplat, budget: GpuBudget) -> None:
        self.name = engine.name
        self.device = engine.device
        self.max_gaussians: int | None = budget.max_gaussians
        self.decisions = budget.decisions
        self.degradations = budget.degradations
        self._engine = engine
        self._rasterize = rasterize

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
        depth: DepthTargets | None = None,
        hidden: NDArray[np.bool_] | None = None,
    ) -> StepResult:
        """See `Engine.step`."""
        while True:
            try:
                return self._engine.step(population, camera, photo, gain, settings, depth, hidden)
            except torch.OutOfMemoryError as error:
                # As long as the traceback exists, its frames hold the tensors of the failed step
                out_of_memory = error.with_traceback(None)
            if not self._give_up_something(population):
                raise out_of_memory
            gc.collect()
            torch.cuda.empty_cache()

    def _give_up_something(self, population: Population) -> bool:
        if self._engine.photos.forget_moments():
            given_up = "SSIM moments are computed at each step"
        elif self._engine.photos.move_to_host():
            given_up = "photos stay in the host's memory"
        elif not self._rasterize.packed:
            self._rasterize.packed = True
            given_up = "projection is packed"
        elif population.count < population.capacity:
            population.trim()
            text = f"GPU memory ran out in training: no growth beyond {population.count:,} Gaussians."
            self.degradations = (*self.degradations, text)
            return True
        else:
            return False
        self.decisions = (*self.decisions, f"GPU memory ran out at {population.count:,} Gaussians: {given_up}.")
        return True
