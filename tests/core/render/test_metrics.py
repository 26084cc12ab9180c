"""PSNR, SSIM, GMSD and detail by their properties, the kernel's loss by another formula and by finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tasks.core.render.kernels.loss import l1_ssim
from tasks.core.render.metrics import GMSD_C, color_corrected, detail, gmsd, gradient_magnitudes, psnr, ssim
from tasks.core.training import torch_loss


def random() -> np.random.Generator:
    """For each test its own, so that none depends on those before it."""
    return np.random.default_rng(0)


def images(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = random()
    base = rng.random((height, width, 3))
    return base, np.clip(base + rng.normal(0, 0.1, base.shape), 0, 1)


def test_psnr_of_a_known_error() -> None:
    black = np.zeros((4, 4, 3))
    assert psnr(black, black + 0.1) == pytest.approx(20.0)  # mean squared error 0.01
    assert psnr(black, black) == float("inf")
    assert psnr(black - 5, black + 7) == pytest.approx(0.0)  # clipped to 0 and 1 first


def test_color_correction_takes_exposure_and_white_balance_out_and_leaves_structure() -> None:
    photo, other = images(20, 30)
    exposed = photo @ np.diag([0.5, 0.7, 0.6]) + 0.1
    np.testing.assert_allclose(color_corrected(exposed, photo), photo, atol=1e-9)
    assert psnr(color_corrected(other, photo), photo) < psnr(other, photo) + 1  # noise stays noise
    np.testing.assert_allclose(color_corrected(np.zeros_like(photo), photo)[0, 0], photo.mean(axis=(0, 1)))


def test_ssim_properties() -> None:
    a, b = images(40, 50)
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert 0 < ssim(a, b) < 1
    assert ssim(a, 1 - a) < 0  # inverted structure
    # Constant images have no structure: what is left is the luminance term
    assert ssim(np.full((20, 20, 3), 0.2), np.full((20, 20, 3), 0.6)) == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4))


def test_ssim_by_its_definition_at_one_window() -> None:
    a, b = images(11, 11)
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        x, y = a[..., channel], b[..., channel]
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy, cov = (
            (window * (p - m) * (q - k)).sum() for p, m, q, k in ((x, mx, x, mx), (y, my, y, my), (x, mx, y, my))
        )
        values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-12)


def blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.asarray(gaussian_filter(image, (sigma_px, sigma_px, 0)))


def test_detail_is_the_share_of_the_gradients() -> None:
    photo, _ = images(40, 50)
    assert detail(photo, photo) == 1
    assert detail(0.5 * photo + 0.2, photo) == pytest.approx(0.5)  # half the contrast
    assert detail(blurred(photo, 2.0), photo) < detail(blurred(photo, 1.0), photo) < 0.5
    assert math.isnan(detail(photo, np.full_like(photo, 0.3)))


def test_a_ramp_has_the_gradient_of_its_slope() -> None:
    ramp = 0.01 * np.arange(20)[None, :] * np.ones((10, 1))
    np.testing.assert_allclose(gradient_magnitudes(ramp)[:, 1:-1], 0.02)  # over two px, as Xue et al. have it


def test_gmsd_by_its_definition() -> None:
    a, b = images(20, 24)
    maps = []
    for image in (a, b):
        grey = image @ [0.299, 0.587, 0.114]
        halved = (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4
        padded = np.pad(halved, 1, mode="edge")
        rows, columns = halved.shape
        x, y = np.zeros_like(halved), np.zeros_like(halved)
        for i in range(rows):
            for j in range(columns):
                around = padded[i : i + 3, j : j + 3]
                x[i, j] = (around[:, 2].sum() - around[:, 0].sum()) / 3
                y[i, j] = (around[2].sum() - around[0].sum()) / 3
        maps.append(np.sqrt(x**2 + y**2))
    similarity = (2 * maps[0] * maps[1] + GMSD_C) / (maps[0] ** 2 + maps[1] ** 2 + GMSD_C)
    assert gmsd(a, b) == pytest.approx(similarity.std(), rel=1e-12)


def test_gmsd_sees_a_blur_that_is_nothing_to_psnr() -> None:
    photo, _ = images(60, 80)
    photo = blurred(photo, 0.7)
    moved, soft = np.roll(photo, 1, axis=1), blurred(photo, 3.0)
    assert gmsd(photo, photo) == pytest.approx(0, abs=1e-12)
    assert psnr(soft, photo) > psnr(moved, photo)  # what misleads PSNR: sharp, and a pixel off
    assert detail(moved, photo) > 0.95
    assert detail(soft, photo) < 0.3


def test_a_mask_measures_a_part_as_if_it_were_alone() -> None:
    a, b = images(60, 80)
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:70] = True
    assert psnr(a, b, mask) == pytest.approx(psnr(a[10:50, 20:70], b[10:50, 20:70]))
    other = np.where(mask[..., None], b, 1 - b)  # only what is outside differs
    inner = np.zeros_like(mask)
    inner[16:44, 26:64] = True  # and no window reaches there
    for measure in (ssim, gmsd, detail):
        assert measure(a, other, inner) == pytest.approx(measure(a, b, inner)), measure.__name__
        assert measure(a, other) != pytest.approx(measure(a, b)), measure.__name__
        assert math.isnan(measure(a, b, np.zeros_like(mask))), measure.__name__


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        psnr(np.zeros((2, 2, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="11x11"):
        ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))


def kernel_loss(image: np.ndarray, photo: np.ndarray, weight: float) -> tuple[float, np.ndarray]:
    height, width, _ = image.shape
    gradient = np.zeros((height, 3 * width), np.float32)
    scratch = np.full((8, height, 3 * width), np.nan, np.float32)
    rows = image.astype(np.float32).reshape(height, -1)
    loss = l1_ssim(rows, photo.reshape(height, -1), np.float32(weight), 2, scratch, gradient)
    return float(loss), gradient.reshape(image.shape)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (37, 53)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_kernel_loss_and_gradient_against_autograd_in_float64(height: int, width: int, weight: float) -> None:
    rng = random()
    image = rng.random((height, width, 3)).astype(np.float32)
    photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    loss, gradient = kernel_loss(image, photo, weight)
    tensor = torch.tensor(image, dtype=torch.float64, requires_grad=True)
    expected = torch_loss.l1_ssim(tensor, torch.tensor(photo / 255), weight)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6)  # float32 sums of numbers below 1
    norm = np.linalg.norm(tensor.grad)
    assert np.linalg.norm(gradient - tensor.grad.numpy()) <= 1e-5 * norm


def test_kernel_gradient_against_finite_differences() -> None:
    # Of the float64 formula, at pixels away from the kink of |x - y|
    rng = random()
    photo = rng.integers(60, 200, (16, 17, 3)).astype(np.uint8)
    image = (photo / 255 + rng.choice([-1, 1], photo.shape) * rng.uniform(0.02, 0.2, photo.shape)).astype(np.float32)
    _, gradient = kernel_loss(image, photo, 0.2)
    target, step = torch.tensor(photo / 255), 1e-5
    for y, x, c in [(0, 0, 0), (8, 8, 1), (15, 16, 2), (3, 12, 0)]:
        values = []
        for sign in (1, -1):
            moved = torch.tensor(image, dtype=torch.float64)
            moved[y, x, c] += sign * step
            values.append(torch_loss.l1_ssim(moved, target, 0.2).item())
        assert gradient[y, x, c] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_loss_of_an_image_with_itself_is_zero() -> None:
    photo = random().integers(0, 256, (30, 30, 3)).astype(np.uint8)
    loss, _ = kernel_loss(photo / 255, photo, 0.2)
    assert loss == pytest.approx(0.0, abs=1e-6)
