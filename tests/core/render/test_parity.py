"""Every fast rasterizer against the specification: images and gradients."""

import dataclasses

import numpy as np
import pytest

from tasks.core.gaussians import Gaussians
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Camera
from tests.core.render.scenes import random_gaussians

# Of these, tests/conftest.py leaves out "cuda" where there is no GPU; nothing is skipped.
BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
# Of a colour in 0..1; 1e-4 is a fortieth of an 8-bit step, and float32 rounding grows with the overlap. gsplat is built
# with fast maths, whose exp and division are wrong in more of their last bits.
IMAGE_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}
GRADIENT_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}  # norm-relative; gsplat's own tests allow about this much
BACKGROUND = (0.2, 0.4, 0.6)

SCENES = {
    "overlap": random_gaussians(300, 64, 48, 5.0),
    "many small": random_gaussians(1500, 90, 61, 1.5, seed=1),
    "odd size, degree 2": random_gaussians(200, 37, 53, 4.0, sh_degree=2, seed=2),
    "degree 0": random_gaussians(200, 40, 40, 4.0, sh_degree=0, seed=3),
    "one pixel": random_gaussians(60, 1, 1, 3.0, seed=4),
    "opaque wall": random_gaussians(400, 48, 48, 12.0, seed=5),
}


def opaque(gaussians: Gaussians) -> Gaussians:
    return dataclasses.replace(gaussians, raw_opacities=np.full(len(gaussians), 8, np.float32))


SCENES["opaque wall"] = (opaque(SCENES["opaque wall"][0]), SCENES["opaque wall"][1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SCENES)
def test_image_and_gradients_agree_with_the_specification(name: str, backend: str) -> None:
    gaussians, camera = SCENES[name]
    fast, reference = rasterizer_for(backend), rasterizer_for("reference")
    image = fast.forward(gaussians, camera, background=BACKGROUND)
    expected = reference.forward(gaussians, camera, background=BACKGROUND)
    assert np.abs(image - expected).max() <= IMAGE_TOLERANCE[backend]

    d_image = np.random.default_rng(9).normal(size=image.shape).astype(np.float32)
    gradients, expected_gradients = fast.backward(d_image), reference.backward(d_image)
    for field in dataclasses.fields(expected_gradients):
        ours, theirs = getattr(gradients, field.name), getattr(expected_gradients, field.name)
        assert ours.shape == theirs.shape
        norm = np.linalg.norm(theirs)
        if theirs.size and name != "opaque wall":
            assert norm > 0, f"the scene does not exercise {field.name}"
        assert np.linalg.norm(ours - theirs) <= GRADIENT_TOLERANCE[backend] * norm, field.name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lower_degree_of_spherical_harmonics_than_stored(degree: int, backend: str) -> None:
    gaussians, camera = random_gaussians(150, 32, 32, 4.0, seed=6)
    fast, reference = rasterizer_for(backend), rasterizer_for("reference")
    image, expected = fast.forward(gaussians, camera, degree), reference.forward(gaussians, camera, degree)
    assert np.abs(image - expected).max() <= IMAGE_TOLERANCE[backend]
    ours, theirs = fast.backward(np.ones_like(image)), reference.backward(np.ones_like(image))
    unused = slice((degree + 1) ** 2 - 1, None)
    assert not theirs.shN[:, unused].any()
    if degree:
        used = slice(0, (degree + 1) ** 2 - 1)
        difference = np.linalg.norm(ours.shN[:, used] - theirs.shN[:, used])
        assert difference <= GRADIENT_TOLERANCE[backend] * np.linalg.norm(theirs.shN[:, used])


def moved_to_depth(depth: float | np.ndarray) -> tuple[Gaussians, Camera]:
    gaussians, camera = random_gaussians(50, 24, 24, 3.0, seed=7)
    forward = camera.forward
    along = (gaussians.means - camera.center) @ forward
    means = gaussians.means + (depth - along)[:, None] * forward
    return dataclasses.replace(gaussians, means=means.astype(np.float32)), camera


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("depth", [-3.0, -1e-3, 0.0, 0.009])
def test_gaussians_behind_or_too_near_leave_the_background(depth: float, backend: str) -> None:
    gaussians, camera = moved_to_depth(depth)
    fast = rasterizer_for(backend)
    image = fast.forward(gaussians, camera, background=BACKGROUND)
    np.testing.assert_array_equal(image, np.broadcast_to(np.float32(BACKGROUND), image.shape))
    gradients = fast.backward(np.ones_like(image))
    assert not any(getattr(gradients, field.name).any() for field in dataclasses.fields(gradients))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gaussians_just_beyond_the_near_plane(backend: str) -> None:
    # At different depths: of equal ones, rounding would decide which is in front
    gaussians, camera = moved_to_depth(np.linspace(0.02, 0.1, 50))
    image = rasterizer_for(backend).render(gaussians, camera)
    expected = rasterizer_for("reference").render(gaussians, camera)
    # Splats of hundreds of pixels a few hundredths of a unit away: positions in px carry float32's rounding of both
    assert np.abs(image - expected).max() <= 1e-3


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_no_gaussians_at_all(backend: str) -> None:
    gaussians, camera = random_gaussians(0, 20, 17, 3.0)
    image = rasterizer_for(backend).render(gaussians, camera, background=BACKGROUND)
    np.testing.assert_array_equal(image, np.broadcast_to(np.float32(BACKGROUND), (17, 20, 3)))
