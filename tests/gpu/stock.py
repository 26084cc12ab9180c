"""gsplat's stock strategies in a loop of our own: the baseline's equivalent, not the baseline.

Rates, schedules and starts are those that gsplat publishes for its 1.5.3 trainer at 30,000 steps, scaled with the
steps as it does. Where that trainer would be slower (photos from a data loader, a read-out of the loss at each step,
Adam that is not fused) this loop is not; loss, held-out views and PSNR are the code that ours uses.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa
from scipy.spatial import cKDTree
from torch import Tensor

from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.measurements import CurvePoint
from tasks.core.render.interface import EPS2D, NEAR_PLANE
from tasks.core.scene import Scene
from tasks.core.training.photo_store import PhotoStore
from tasks.core.training.torch_loss import l1_ssim
from tasks.core.training.views import EndlessShuffle, View

Kind = Literal["default", "default-repaired", "mcmc"]
PUBLISHED_STEPS = 30_000
SH_DEGREE, SH_DEGREE_EVERY = 3, 1000
SSIM_WEIGHT = 0.2
START_OPACITY = {"default": 0.1, "default-repaired": 0.1, "mcmc": 0.5}
START_SCALE = {"default": 1.0, "default-repaired": 1.0, "mcmc": 0.1}
OPACITY_WEIGHT = SCALE_WEIGHT = 0.01  # MCMC only
RATES = {"means": 1.6e-4, "scales": 5e-3, "opacities": 5e-2, "quats": 1e-3, "sh0": 2.5e-3, "shN": 2.5e-3 / 20}
MEANS_RATE_END = 0.01
OURS = {"scales": "log_scales", "opacities": "raw_opacities"}  # gsplat's name of a parameter -> ours


class RepairedDefaultStrategy(DefaultStrategy):
    """With the reset of opacities that 1.5.3 never does: `step % reset_every == 0 & step > 0` is always false there."""

    def step_post_backward(
        self, params: Any, optimizers: Any, state: Any, step: int, info: Any, packed: bool = False
    ) -> None:
        super().step_post_backward(params, optimizers, state, step, info, packed)
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params=params, optimizers=optimizers, state=state, value=2 * self.prune_opa)


@dataclass(frozen=True)
class StockResult:
    gaussians: Gaussians
    seconds: float  # of training alone, the GPU waited for
    curve: tuple[CurvePoint, ...]


def strategy_of(kind: Kind, steps: int, most_gaussians: int) -> DefaultStrategy | MCMCStrategy:
    """The stock strategy, its milestones scaled to the number of steps."""
    strategy: DefaultStrategy | MCMCStrategy
    if kind == "mcmc":
        strategy = MCMCStrategy(cap_max=most_gaussians)
    else:
        strategy = RepairedDefaultStrategy() if kind == "default-repaired" else DefaultStrategy()
    scale = steps / PUBLISHED_STEPS
    for name in ("refine_start_iter", "refine_stop_iter", "refine_every", "reset_every"):
        if hasattr(strategy, name):
            setattr(strategy, name, max(1, int(getattr(strategy, name) * scale)))
    return strategy


def start(scene: Scene, kind: Kind, generator: torch.Generator) -> dict[str, Tensor]:
    """A Gaussian at each sparse point, as large as the root mean square distance to its three neighbours."""
    points = torch.tensor(scene.points.xyz, dtype=torch.float32)
    distances = np.asarray(cKDTree(scene.points.xyz).query(scene.points.xyz, k=4)[0])[:, 1:]
    sizes = torch.tensor(np.sqrt((distances**2).mean(axis=1)), dtype=torch.float32).clamp_min(1e-6)
    n = len(points)
    return {
        "means": points,
        "scales": torch.log(START_SCALE[kind] * sizes)[:, None].repeat(1, 3),
        "quats": torch.rand(n, 4, generator=generator),
        "opacities": torch.logit(torch.full((n,), START_OPACITY[kind])),
        "sh0": ((torch.tensor(scene.points.rgb / 255.0, dtype=torch.float32) - 0.5) / SH_C0)[:, None, :],
        "shN": torch.zeros(n, (SH_DEGREE + 1) ** 2 - 1, 3),
    }


def as_gaussians(params: dict[str, torch.nn.Parameter]) -> Gaussians:
    """What is trained, in our own terms."""
    return Gaussians(**{OURS.get(name, name): value.detach().cpu().numpy() for name, value in params.items()})


def train_stock(
    scene: Scene,
    views: Sequence[View],
    kind: Kind,
    steps: int,
    most_gaussians: int,
    seed: int,
    psnr_db: Callable[[Gaussians], float],
    rasterization: Callable[..., tuple[Tensor, Tensor, dict[str, Any]]],
    device: str = "cuda",
) -> StockResult:
    """Train on the views.

    Args:
        scene: gives sparse points and the unit of length.
        views: to train on, at full size.
        kind: which strategy.
        steps: number of updates.
        most_gaussians: MCMC's cap; the default strategy has none.
        seed: of starts, order and strategies.
        psnr_db: measures held-out quality; its time does not count.
        rasterization: gsplat's function of that name, or its replacement in tests.
        device: where to compute.
    """
    torch.manual_seed(seed)
    params = {
        name: torch.nn.Parameter(tensor.to(device))
        for name, tensor in start(scene, kind, torch.Generator().manual_seed(seed)).items()
    }
    unit = 1.1 * scene.extent / 2  # the published trainer's scene scale
    optimizers = {
        name: torch.optim.Adam(
            [{"params": [param], "lr": RATES[name] * (unit if name == "means" else 1)}],
            eps=1e-15,
            fused=device == "cuda",
        )
        for name, param in params.items()
    }
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizers["means"], MEANS_RATE_END ** (1 / steps))
    strategy = strategy_of(kind, steps, most_gaussians)
    strategy.check_sanity(params, optimizers)
    is_mcmc = isinstance(strategy, MCMCStrategy)
    state = strategy.initialize_state() if is_mcmc else strategy.initialize_state(scene_scale=unit)
    cameras = [_camera(view, device) for view in views]
    photos = PhotoStore(device, float("inf"), 0)
    background = torch.zeros(1, 3, device=device)
    order = EndlessShuffle(len(views), np.random.default_rng(seed))
    degree_every = max(1, int(SH_DEGREE_EVERY * steps / PUBLISHED_STEPS))
    measure_after = {max(1, steps * 7 // 30), steps}
    curve = []
    seconds, began = 0.0, _now(device)
    for step in range(steps):
        index = order.next()
        camera = views[index].cameras[0]
        images, _, info = rasterization(
            means=params["means"], quats=params["quats"], scales=torch.exp(params["scales"]),
            opacities=torch.sigmoid(params["opacities"]), colors=torch.cat([params["sh0"], params["shN"]], 1),
            viewmats=cameras[index][0], Ks=cameras[index][1], width=camera.width, height=camera.height,
            near_plane=NEAR_PLANE, eps2d=EPS2D, sh_degree=min(step // degree_every, SH_DEGREE), packed=False,
            backgrounds=background,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        photo, _ = photos.get(views[index].photos[0], with_moments=False)
        loss = l1_ssim(images[0], photo, SSIM_WEIGHT)
        if is_mcmc:
            loss = loss + OPACITY_WEIGHT * torch.sigmoid(params["opacities"]).mean()
            loss = loss + SCALE_WEIGHT * torch.exp(params["scales"]).mean()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay.step()
        if is_mcmc:
            strategy.step_post_backward(params, optimizers, state, step, info, lr=decay.get_last_lr()[0])
        else:
            strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
        if step + 1 in measure_after:
            seconds += _now(device) - began
            curve.append(CurvePoint(step=step + 1, seconds=seconds, psnr_db=psnr_db(as_gaussians(params))))
            began = _now(device)
    return StockResult(as_gaussians(params), seconds, tuple(curve))


def _camera(view: View, device: str) -> tuple[Tensor, Tensor]:
    camera = view.cameras[0]
    intrinsics = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
    pose = torch.tensor(camera.cam_from_world, dtype=torch.float32, device=device)
    return pose[None], torch.tensor(intrinsics, dtype=torch.float32, device=device)[None]


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
