"""How close two images are: PSNR and SSIM, as the 3D Gaussian Splatting papers report them."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

Image = NDArray[np.floating]

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def gaussian_window() -> NDArray[np.float64]:
    """The normalised 1-D window of SSIM [11], sigma 1.5 px."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    return np.asarray(weights / weights.sum())


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB of two images [H, W, 3] in 0..1, clipped to that range first.

    10 log10(1 / mean squared error) over all pixels and channels; infinite for equal images. Raises ValueError when
    the shapes differ.
    """
    a, b = _clipped(a, b)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def color_corrected(image: Image, target: Image) -> NDArray[np.float64]:
    """The image with its colours moved as close to the target's as one affine map of RGB can, for all pixels the same.

    What is left after it is structure: a held-out photo has an exposure and a white balance of its own, which no splat
    can know. Least squares over the pixels of both images [H, W, 3] clipped to 0..1, as the evaluations of methods for
    photos in the wild do (Zip-NeRF, Barron et al. 2023, arXiv:2304.06706, use a quadratic one).
    """
    image, target = _clipped(image, target)
    colors = np.column_stack([image.reshape(-1, 3), np.ones(image[..., 0].size)])
    mapping = np.linalg.lstsq(colors.T @ colors, colors.T @ target.reshape(-1, 3), rcond=None)[0]
    return np.asarray((colors @ mapping).reshape(image.shape))


def ssim(a: Image, b: Image) -> float:
    """Structural similarity of two images [H, W, 3] in 0..1, clipped to that range first; 1 for equal images.

    The variant of Wang et al. 2004 (doi:10.1109/TIP.2003.819861): 11x11 Gaussian window of sigma 1.5, population
    moments, K1 0.01, K2 0.03, averaged over the windows that lie inside the image and over the channels. Raises
    ValueError when the shapes differ or a side is shorter than the window.
    """
    a, b = _clipped(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} px, got {a.shape[1]}x{a.shape[0]}")
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a = _windowed(a * a) - mean_a**2
    var_b = _windowed(b * b) - mean_b**2
    covar = _windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    structure = (2 * covar + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return float(np.mean(luminance * structure))


def _clipped(a: Image, b: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if a.shape != b.shape:
        raise ValueError(f"images differ in shape: {list(a.shape)} and {list(b.shape)}")
    return np.clip(a, 0, 1).astype(np.float64), np.clip(b, 0, 1).astype(np.float64)


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Window-weighted means of every window inside the image [H-10, W-10, 3]."""
    margin = SSIM_WINDOW // 2
    for axis in (0, 1):
        image = correlate1d(image, gaussian_window(), axis=axis, mode="constant")
    return image[margin:-margin, margin:-margin]
