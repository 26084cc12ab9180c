"""The specification of every rasterizer here: slow, plain, float64, one formula a line.

EWA splatting (Zwicker et al. 2001, doi:10.1109/VISUAL.2001.964490) with the conventions of 3D Gaussian Splatting
(Kerbl et al. 2023, doi:10.1145/3592433) as gsplat's "classic" mode computes them. Every Gaussian is evaluated at every
pixel, without tiles. Extents (the box outside of which a Gaussian's alpha is below MIN_ALPHA) only decide which
Gaussians are visible.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.interface import (
    EPS2D,
    FOV_MARGIN,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
    Gradients,
    Image,
)
from tasks.core.scene import Camera

PARAMETERS = tuple(field.name for field in fields(Gaussians))
COLUMN_PX = 16  # the height of the CPU rasterizer's tiles


def rotmats_from_quats(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] from quaternions wxyz [N, 4] of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)  # [N, 3, 3]


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics [N, (degree+1)²] at unit directions [N, 3], in the order and signs of 3DGS."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, -1)


class ProjectedMeans:
    """The gradients of the projected means, in px, once the image has been differentiated.

    Pixels are summed by columns of COLUMN_PX, as in the CPU's tiles: `absgrad` is the sum of the absolute values of the
    columns' gradients. In gsplat's `absgrad` each pixel is a column of its own.
    """

    def __init__(self, shifts: Tensor) -> None:
        """Shifts [C, N, 2] of the means, by column."""
        self._shifts = shifts

    @property
    def grad(self) -> Tensor | None:
        """The gradient [N, 2]."""
        return None if self._shifts.grad is None else self._shifts.grad.sum(0)

    @property
    def absgrad(self) -> Tensor | None:
        """How strongly the image pulls at each mean [N, 2], in all directions together."""
        return None if self._shifts.grad is None else self._shifts.grad.abs().sum(0)


def rasterize(
    parameters: dict[str, Tensor], camera: Camera, sh_degree: int, background: Tensor
) -> tuple[Tensor, ProjectedMeans, Tensor]:
    """The image that the camera sees, differentiable in the parameters.

    Args:
        parameters: the fields of Gaussians, before activation; computed with in float64.
        camera: pinhole camera.
        sh_degree: degree to use, at most that of the parameters.
        background: RGB [3].

    Returns:
        Image [H, W, 3].
        An object that has the gradients of the projected means after the backward pass.
        The visible Gaussians [N]: those in front of the camera whose box meets the image.
    """
    parameters = {name: tensor.double() for name, tensor in parameters.items()}
    world_to_cam = torch.as_tensor(camera.cam_from_world, dtype=torch.float64)
    rotation, translation = world_to_cam[:3, :3], world_to_cam[:3, 3]  # [3, 3], [3]
    means = parameters["means"] @ rotation.T + translation  # [N, 3] in the camera's axes
    order = torch.argsort(means[:, 2].detach(), stable=True)
    order = order[means[order, 2] >= NEAR_PLANE]  # [V] nearest first
    x, y, z = means[order].unbind(-1)  # [V] each

    strips = -(-camera.height // COLUMN_PX)
    shifts2d = torch.zeros(
        strips * camera.width, len(means), 2, dtype=torch.float64, requires_grad=True
    )  # [C, N, 2] px, zeros that only serve to be differentiated
    means2d = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], -1)  # [V, 2]

    margin_x = FOV_MARGIN * camera.width / (2 * camera.fx)
    margin_y = FOV_MARGIN * camera.height / (2 * camera.fy)
    slope_x = (x / z).clamp(-camera.cx / camera.fx - margin_x, (camera.width - camera.cx) / camera.fx + margin_x)
    slope_y = (y / z).clamp(-camera.cy / camera.fy - margin_y, (camera.height - camera.cy) / camera.fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([camera.fx / z, zero, -camera.fx * slope_x / z], -1),
            torch.stack([zero, camera.fy / z, -camera.fy * slope_y / z], -1),
        ],
        -2,
    )  # [V, 2, 3]
    scales = torch.exp(parameters["log_scales"][order])  # [V, 3]
    spread = jacobian @ rotation @ rotmats_from_quats(parameters["quats"][order]) * scales[:, None, :]  # [V, 2, 3]
    covars2d = spread @ spread.mT + EPS2D * torch.eye(2, dtype=torch.float64)  # [V, 2, 2] px²
    conics = torch.linalg.inv(covars2d)  # [V, 2, 2]

    offsets = parameters["means"][order] - torch.as_tensor(camera.center, dtype=torch.float64)  # [V, 3]
    basis = sh_basis(sh_degree, torch.nn.functional.normalize(offsets, dim=-1))  # [V, K]
    coefficients = torch.cat([parameters["sh0"], parameters["shN"]], 1)[order, : basis.shape[1]]  # [V, K, 3]
    colors = (torch.einsum("vk,vkc->vc", basis, coefficients) + 0.5).clamp_min(0)  # [V, 3]
    opacities = torch.sigmoid(parameters["raw_opacities"][order])  # [V]

    columns = torch.arange(camera.width, dtype=torch.float64) + 0.5
    rows = torch.arange(camera.height, dtype=torch.float64) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2)  # [P, 2] pixel centres
    strip = (torch.arange(camera.height) // COLUMN_PX * camera.width)[:, None]
    column = (strip + torch.arange(camera.width)).reshape(-1)  # [P] of each pixel
    offsets2d = means2d[:, None] + shifts2d[:, order][column].transpose(0, 1) - pixels  # [V, P, 2]
    sigmas = torch.einsum("vpi,vij,vpj->vp", offsets2d, conics, offsets2d) / 2  # [V, P]
    alphas = (opacities[:, None] * torch.exp(-sigmas)).clamp_max(MAX_ALPHA)  # [V, P]
    alphas = torch.where(alphas >= MIN_ALPHA, alphas, 0.0)

    after = torch.cumprod(1 - alphas, 0)  # [V, P] transmittance behind each Gaussian
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]]) if len(after) else after  # [V, P]
    drawn = after > MIN_TRANSMITTANCE  # false from the Gaussian that finishes the pixel onwards
    weights = torch.where(drawn, alphas * before, 0.0)  # [V, P]
    left = torch.where(drawn, 1 - alphas, 1.0).prod(0)  # [P] transmittance to the background
    image = torch.einsum("vp,vc->pc", weights, colors) + left[:, None] * background.double()  # [P, 3]

    reach = torch.sqrt(2 * torch.log(opacities / MIN_ALPHA).clamp_min(0))  # [V] standard deviations
    half_sizes = reach[:, None] * torch.sqrt(torch.diagonal(covars2d, dim1=1, dim2=2))  # [V, 2] px
    size = torch.tensor([camera.width, camera.height])
    meets = ((means2d + half_sizes > 0) & (means2d - half_sizes < size)).all(1) & (opacities >= MIN_ALPHA)  # [V]
    visible = torch.zeros(len(means), dtype=torch.bool)
    visible[order[meets]] = True
    return image.reshape(camera.height, camera.width, 3), ProjectedMeans(shifts2d), visible


class ReferenceRasterizer:
    """`rasterize` behind the interface of the fast ones. For tests: memory grows with Gaussians times pixels."""

    name = "reference"

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] | None = None
        self._image: Tensor | None = None

    def render(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """The image that the camera sees; see `Rasterizer.render`."""
        with torch.no_grad():
            return self.forward(gaussians, camera, sh_degree, background)

    def forward(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """As `render`, and remembers what `backward` needs."""
        degree = gaussians.sh_degree if sh_degree is None else min(sh_degree, gaussians.sh_degree)
        self._tensors = {
            name: torch.tensor(getattr(gaussians, name), dtype=torch.float64, requires_grad=True) for name in PARAMETERS
        }
        color = torch.tensor([float(channel) for channel in background], dtype=torch.float64)
        self._image, _, _ = rasterize(self._tensors, camera, degree, color)
        return self._image.detach().numpy().astype(np.float32)

    def backward(self, d_image: Image) -> Gradients:
        """Gradients [float64] for the last forward's image; see `Rasterizer.backward`."""
        if self._tensors is None or self._image is None:
            raise ValueError("backward needs a forward pass before it")
        grads = torch.autograd.grad(
            self._image, list(self._tensors.values()), torch.as_tensor(d_image, dtype=torch.float64), allow_unused=True
        )
        return Gradients(
            **{
                name: (torch.zeros_like(tensor) if grad is None else grad).detach().numpy()
                for (name, tensor), grad in zip(self._tensors.items(), grads, strict=True)
            }
        )
