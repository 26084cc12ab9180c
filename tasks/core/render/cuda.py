"""gsplat on a CUDA GPU behind our interface: argument mapping and autograd, no mathematics of its own.

Written against gsplat 1.5.3's signatures. It needs an NVIDIA GPU; the parity tests cover it on machines that have one.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import EPS2D, NEAR_PLANE, Gradients, Image
from tasks.core.scene import Camera

PARAMETERS = tuple(field.name for field in fields(Gaussians))


def why_unavailable() -> str | None:
    """Why gsplat's CUDA kernels cannot run here, as a sentence with the remedy; None when they can.

    The first call on a machine without a prebuilt gsplat compiles its kernels, which takes minutes.
    """
    if not torch.cuda.is_available():
        build = (
            "has no CUDA support" if torch.version.cuda is None else f"finds no usable GPU (CUDA {torch.version.cuda})"
        )
        return f"PyTorch {torch.__version__} {build}; install an NVIDIA driver and a CUDA build of PyTorch."
    try:
        from gsplat.cuda._backend import _C
    except (ImportError, OSError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[:1]
        reason = " ".join(first_line)
        return f"gsplat's CUDA kernels could not be built ({reason}); install the CUDA toolkit (nvcc) and g++."
    if _C is None:
        return f"gsplat has no CUDA kernels; install the CUDA toolkit {torch.version.cuda} (nvcc) to build them."
    return None


class Gsplat:
    """gsplat's rasterization of tensors that live on the GPU, differentiable in the parameters."""

    def __init__(self) -> None:
        self.packed = False  # keep intermediate results of visible Gaussians only: less memory, more bookkeeping
        # By id; keeping the camera keeps its id from being reused. Copying a camera at every step would make the host
        # wait for the GPU at every step.
        self._cameras: dict[int, tuple[Camera, Tensor, Tensor]] = {}

    def __call__(
        self,
        parameters: dict[str, Tensor],
        camera: Camera,
        sh_degree: int,
        background: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The image that the camera sees.

        Args:
            parameters: the fields of Gaussians as tensors on the GPU, before activation.
            camera: pinhole camera.
            sh_degree: degree to use, at most that of the parameters.
            background: RGB [3] on the GPU.

        Returns:
            Image [H, W, 3].
            Projected means in px: [1, N, 2], or [M, 2] where packed. Their gradient is retained, and after the backward
            pass their `absgrad` is the sum of its absolute values over pixels.
            The visible Gaussians: bool [N], or the indices int64 [M] of the projected means where packed.
        """
        from gsplat import rasterization

        pose, intrinsics = self._on_gpu(camera, background.device)
        images, _, meta = rasterization(
            means=parameters["means"],
            quats=parameters["quats"],
            scales=torch.exp(parameters["log_scales"]),
            opacities=torch.sigmoid(parameters["raw_opacities"]),
            colors=torch.cat([parameters["sh0"], parameters["shN"]], dim=1),
            viewmats=pose,
            Ks=intrinsics,
            width=camera.width,
            height=camera.height,
            near_plane=NEAR_PLANE,
            eps2d=EPS2D,
            sh_degree=sh_degree,
            packed=self.packed,
            backgrounds=background[None],
            rasterize_mode="classic",
            absgrad=True,
        )
        means2d = meta["means2d"]
        if means2d.requires_grad:
            means2d.retain_grad()
        visible = meta["gaussian_ids"] if self.packed else (meta["radii"][0] > 0).all(dim=-1)
        return images[0], means2d, visible

    def _on_gpu(self, camera: Camera, device: torch.device) -> tuple[Tensor, Tensor]:
        if id(camera) not in self._cameras:
            intrinsics = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
            self._cameras[id(camera)] = (
                camera,
                torch.as_tensor(camera.cam_from_world, dtype=torch.float32, device=device)[None],
                torch.tensor(intrinsics, dtype=torch.float32, device=device)[None],
            )
        return self._cameras[id(camera)][1:]


class CudaRasterizer:
    """gsplat for callers that hold numpy arrays; training uses `Gsplat` on tensors that stay on the GPU."""

    name = "cuda"

    def __init__(self) -> None:
        self._rasterize = Gsplat()
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
        with torch.no_grad():  # nothing is kept: in training, other things need the GPU's memory
            return _on_host(self._draw(_on_gpu(gaussians), gaussians, camera, sh_degree, background))

    def forward(
        self,
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None = None,
        background: Sequence[float] = (0, 0, 0),
    ) -> Image:
        """As `render`, and remembers what `backward` needs."""
        self._tensors = {name: tensor.requires_grad_() for name, tensor in _on_gpu(gaussians).items()}
        self._image = self._draw(self._tensors, gaussians, camera, sh_degree, background)
        return _on_host(self._image)

    def _draw(
        self,
        tensors: dict[str, Tensor],
        gaussians: Gaussians,
        camera: Camera,
        sh_degree: int | None,
        background: Sequence[float],
    ) -> Tensor:
        degree = gaussians.sh_degree if sh_degree is None else min(sh_degree, gaussians.sh_degree)
        color = torch.tensor([float(channel) for channel in background], device="cuda")
        if len(gaussians) == 0:  # gsplat's kernels refuse empty inputs
            return color.expand(camera.height, camera.width, 3)
        return self._rasterize(tensors, camera, degree, color)[0]

    def backward(self, d_image: Image) -> Gradients:
        """Gradients for the last forward's image; see `Rasterizer.backward`."""
        if self._tensors is None or self._image is None:
            raise ValueError("backward needs a forward pass before it")
        if self._image.requires_grad:
            self._image.backward(torch.as_tensor(d_image, device="cuda"))
        gradients = {
            name: np.zeros(tensor.shape, np.float32) if tensor.grad is None else tensor.grad.cpu().numpy()
            for name, tensor in self._tensors.items()
        }
        return Gradients(**gradients)


def _on_gpu(gaussians: Gaussians) -> dict[str, Tensor]:
    return {name: torch.tensor(getattr(gaussians, name), device="cuda") for name in PARAMETERS}


def _on_host(image: Tensor) -> Image:
    return np.ascontiguousarray(image.detach().cpu().numpy(), np.float32)
