"""A step in torch, for rasterizers that are differentiable by autograd: gsplat on CUDA, the specification in tests."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.render.kernels.adam import BETA1, BETA2, EPSILON
from tasks.core.render.metrics import SSIM_C1, SSIM_C2, SSIM_WINDOW, gaussian_window
from tasks.core.scene import Camera
from tasks.core.training.engine import SAMPLED_EVERY, StepResult
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import StepSettings

# (parameters, camera, sh_degree, background [3]) -> image [H, W, 3]; means2d with grad retained [..., N, 2] in px;
# whether each Gaussian can touch the image [N]
DifferentiableRasterizer = Callable[[dict[str, Tensor], Camera, int, Tensor], tuple[Tensor, Tensor, Tensor]]


class TorchEngine:
    """See `Engine`."""

    def __init__(self, name: str, device: str, rasterize: DifferentiableRasterizer) -> None:
        self.name = name
        self.device = device
        self._rasterize = rasterize
        self._photos: dict[int, tuple[NDArray[np.uint8], Tensor]] = {}  # by id; holding the array keeps the id taken

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
    ) -> StepResult:
        """Forward, loss, autograd, Adam; see `Engine.step`."""
        leaves = {
            name: tensor.detach().requires_grad_() for name, tensor in population.active(population.parameters).items()
        }
        background = torch.zeros(3, device=self.device)
        image, means2d, visible = self._rasterize(leaves, camera, settings.sh_degree, background)
        exposed = image * torch.as_tensor(gain, device=self.device)
        loss = l1_ssim(exposed, self._on_device(photo), settings.ssim_weight)
        if loss.requires_grad:
            loss.backward()
        sample = image.detach()[::SAMPLED_EVERY, ::SAMPLED_EVERY].float().cpu().numpy()
        result = StepResult(float(loss.detach()), sample)
        if means2d.grad is None:  # nothing visible
            return result
        rows = visible.nonzero()[:, 0]
        population.updates[rows] += 1
        population.seen[rows] += 1
        population.scores[rows] += means2d.grad.reshape(-1, 2)[rows].norm(dim=1)
        for name in PARAMETERS:
            gradient = leaves[name].grad
            if gradient is not None:
                adam(population, name, gradient, rows, settings)
        return result

    def _on_device(self, photo: NDArray[np.uint8]) -> Tensor:
        if id(photo) not in self._photos:
            self._photos[id(photo)] = (photo, torch.as_tensor(photo, device=self.device))
        return self._photos[id(photo)][1].float() / 255


@torch.no_grad()
def adam(population: Population, name: str, gradient: Tensor, rows: Tensor, settings: StepSettings) -> None:
    """Adam on rows [M] of one parameter, each with the bias correction of its own number of updates."""
    columns = slice(None)
    if name == "shN":
        columns = slice(0, (settings.sh_degree + 1) ** 2 - 1)
    g = gradient[rows, columns] if gradient.dim() > 1 else gradient[rows]
    index = (rows, columns) if gradient.dim() > 1 else (rows,)
    first, second = population.first_moments[name], population.second_moments[name]
    beta1, beta2 = float(BETA1), float(BETA2)
    m = first[index] * beta1 + (1 - beta1) * g
    v = second[index] * beta2 + (1 - beta2) * g * g
    first[index], second[index] = m, v
    updates = population.updates[rows].double()
    correction = (torch.sqrt(1 - beta2**updates) / (1 - beta1**updates)).to(g.dtype)
    correction = correction.reshape(-1, *[1] * (g.dim() - 1))
    population.parameters[name][index] -= settings.rates[name] * correction * m / (v.sqrt() + float(EPSILON))


def l1_ssim(image: Tensor, photo: Tensor, ssim_weight: float) -> Tensor:
    """(1 - w) mean|x - y| + w (1 - mean SSIM) of images [H, W, 3], with zeros outside them."""
    l1 = (image - photo).abs().mean()
    if ssim_weight == 0:
        return l1
    window = torch.as_tensor(gaussian_window(), dtype=image.dtype, device=image.device)
    kernel = window.expand(15, 1, SSIM_WINDOW)
    x, y = image.permute(2, 0, 1), photo.to(image.dtype).permute(2, 0, 1)  # [3, H, W]
    stacked = torch.cat([x, y, x * x, y * y, x * y])[None]  # [1, 15, H, W]: one convolution for all moments
    margin = SSIM_WINDOW // 2
    stacked = torch.nn.functional.conv2d(stacked, kernel[:, :, None, :], padding=(0, margin), groups=15)
    stacked = torch.nn.functional.conv2d(stacked, kernel[:, :, :, None], padding=(margin, 0), groups=15)
    mean_x, mean_y, xx, yy, xy = stacked[0].reshape(5, 3, *x.shape[1:]).unbind(0)
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    variances = xx - mean_x**2 + yy - mean_y**2
    structure = (2 * (xy - mean_x * mean_y) + SSIM_C2) / (variances + SSIM_C2)
    similarity: Tensor = (luminance * structure).mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - similarity)
