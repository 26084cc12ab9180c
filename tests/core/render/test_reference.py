"""The specification itself: by properties and finite differences, since nothing else can judge it."""

import dataclasses

import numpy as np
import pytest
import torch

from tasks.core.errors import MissingPartError
from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.backends import rasterizer_for, resolve_backend
from tasks.core.render.cuda import why_unavailable
from tasks.core.render.reference import sh_basis
from tasks.core.scene import Camera
from tests.core.render.scenes import random_gaussians


def test_spherical_harmonics_are_orthonormal() -> None:
    # Exact quadrature for products of degree 6: Gauss-Legendre in z, equal steps in the angle
    z, z_weights = np.polynomial.legendre.leggauss(8)
    angles = np.arange(16) * 2 * np.pi / 16
    radius = np.sqrt(1 - z**2)
    directions = np.stack(
        [np.outer(radius, np.cos(angles)), np.outer(radius, np.sin(angles)), np.outer(z, np.ones(16))], -1
    ).reshape(-1, 3)
    weights = np.outer(z_weights, np.full(16, 2 * np.pi / 16)).ravel()
    basis = sh_basis(3, torch.tensor(directions)).numpy()
    np.testing.assert_allclose((basis * weights[:, None]).T @ basis, np.eye(16), atol=1e-12)


def single(opacity: float, scale: float = 0.1, depth: float = 2.0, color: float = 0.8) -> Gaussians:
    return Gaussians(
        means=np.array([[0, 0, depth]], np.float32),
        quats=np.array([[2, 0, 0, 0]], np.float32),
        log_scales=np.log(np.full((1, 3), scale, np.float32)),
        raw_opacities=np.array([np.log(opacity / (1 - opacity))], np.float32),
        sh0=np.full((1, 1, 3), (color - 0.5) / SH_C0, np.float32),
        shN=np.zeros((1, 0, 3), np.float32),
    )


def test_one_round_gaussian_by_hand() -> None:
    # A pixel's centre is on the axis: 11 px wide, principal point 5.5. One standard deviation is
    # 50 px * 0.1 / 2 = 2.5 px, and the variance grows by 0.3 px².
    camera = Camera("view", 11, 11, 50.0, 50.0, 5.5, 5.5, np.eye(4))
    image = rasterizer_for("reference").render(single(0.5), camera, background=(1, 0, 0))
    variance = 2.5**2 + 0.3
    for offset in (0, 1, 3):
        alpha = 0.5 * np.exp(-(offset**2) / (2 * variance))
        np.testing.assert_allclose(image[5, 5 + offset], [0.8 * alpha + 1 - alpha, 0.8 * alpha, 0.8 * alpha], atol=1e-6)


def test_alpha_is_capped_and_faint_gaussians_vanish() -> None:
    camera = Camera("view", 3, 3, 50.0, 50.0, 1.5, 1.5, np.eye(4))
    opaque = rasterizer_for("reference").render(single(0.99999, color=0.0), camera, background=(1, 1, 1))
    assert opaque[1, 1] == pytest.approx(0.001, abs=1e-6)  # 1 - MAX_ALPHA
    faint = rasterizer_for("reference").render(single(0.99 / 255), camera)
    assert not faint.any()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Gaussians)])
def test_gradients_against_finite_differences(name: str) -> None:
    # Few and large Gaussians, so that no pixel sits on the edge alpha = 1/255 within the step
    gaussians, camera = random_gaussians(6, 12, 10, 30.0, seed=11)
    weights = np.random.default_rng(1).normal(size=(10, 12, 3)).astype(np.float32)
    rasterizer = rasterizer_for("reference")
    rasterizer.forward(gaussians, camera)
    gradient = getattr(rasterizer.backward(weights), name)
    direction = np.random.default_rng(2).normal(size=gradient.shape)
    step, values = 1e-3, []
    for sign in (1, -1):
        moved = getattr(gaussians, name) + sign * step * direction
        changed = dataclasses.replace(gaussians, **{name: moved.astype(np.float32)})
        values.append(float((rasterizer.render(changed, camera).astype(np.float64) * weights).sum()))
    # float32 parameters and images limit the difference quotient to about 1e-3
    assert (gradient * direction).sum() == pytest.approx((values[0] - values[1]) / (2 * step), rel=5e-3, abs=2e-3)


def test_what_auto_means_here() -> None:
    assert resolve_backend("auto") == ("cpu" if why_unavailable() else "cuda")
    assert rasterizer_for("auto").name == resolve_backend("auto")


def test_a_backend_that_cannot_run_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingPartError, match=r"install .*train\.backend=cpu"):
        rasterizer_for("cuda")
