"""The engine on a CUDA GPU: gsplat, a plan for the memory, and what is given up when the plan was too bold.

It has not been run on a GPU; what it decides and in which order is tested on the CPU.
"""

import gc
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.machine_memory import available_memory_bytes
from tasks.core.render.cuda import Gsplat
from tasks.core.scene import Camera
from tasks.core.training.depth import DepthTargets
from tasks.core.training.engine import StepResult
from tasks.core.training.gpu_budget import GpuBudget, gpu_budget
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_store import PhotoStore
from tasks.core.training.population import Population
from tasks.core.training.schedule import StepSettings
from tasks.core.training.torch_engine import TorchEngine
from tasks.core.training.views import View

LOSS_EVERY = 20  # steps; between two looks at the loss. 20 steps of a few ms are less than anybody sees


def cuda_engine(options: TrainOptions, views: Sequence[View]) -> "MemoryGuard":
    """The engine for these options and photos, planned for what is free on the GPU now."""
    # SSIM takes differences of moments, which the ten bits of TF32's mantissa cannot hold.
    torch.backends.cudnn.allow_tf32 = False
    budget = gpu_budget(
        free_bytes(),
        available_memory_bytes(),
        [view.cameras[0].width * view.cameras[0].height for view in views],
        options.max_gaussians,
        options.sh_degree,
    )
    rasterize = Gsplat()
    rasterize.packed = budget.packed
    photos = PhotoStore("cuda", budget.pixel_bytes, budget.moment_bytes, budget.pinned_bytes)
    return MemoryGuard(TorchEngine("cuda", "cuda", rasterize, photos, LOSS_EVERY), rasterize, budget)


def free_bytes() -> float:
    """What this process may still allocate on the GPU: of the free memory, or of a share that was set for it."""
    free, total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    allowed = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_allocated()
    return min(free + cached, allowed)


class MemoryGuard:
    """An engine that goes on after it has run out of memory, as long as there is something to give up.

    The steps are those of the plan, cheapest first, and each is recorded. Training goes on where it was; a step that
    was broken off is done again. When nothing is left to give up the error goes on, and `memory.budgets` has the stage
    start anew with fewer Gaussians.
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
    ) -> StepResult:
        """See `Engine.step`."""
        while True:
            try:
                return self._engine.step(population, camera, photo, gain, settings, depth)
            except torch.OutOfMemoryError as error:
                # Its frames hold the tensors of the step that failed, as long as the traceback lives
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
