"""Measures of a render against its photo: PSNR and SSIM as the 3D Gaussian Splatting papers report them, GMSD, detail.

PSNR prefers a blur wherever a sharp texture is a pixel off, although people prefer the texture. GMSD and detail compare
edges. Every measure takes a mask, so that a part of the image can be measured alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, prewitt

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]  # [H, W], the pixels that count

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
GMSD_C = 170 / 255**2  # of Xue et al., for images in 0..1
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G and B


def gaussian_window() -> NDArray[np.float64]:
    """The normalised 1-D window of SSIM [11], sigma 1.5 px."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    return np.asarray(weights / weights.sum())


def psnr(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two images [H, W, 3] in 0..1, clipped to that range first.

    10 log10(1 / mean squared error) over all channels and all pixels, or the pixels of the mask. Infinite for equal
    images. Raises ValueError when the shapes differ.
    """
    a, b = _clipped(a, b)
    errors = (a - b) ** 2
    error = float(np.mean(errors if mask is None else errors[mask]))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def color_corrected(image: Image, target: Image) -> NDArray[np.float64]:
    """The image after the one affine map of RGB, the same for all pixels, that brings it closest to the target.

    The remaining difference is structure: a held-out photo has an exposure and a white balance of its own, which no
    splat can know. Least squares over the pixels of both images [H, W, 3] clipped to 0..1, as evaluations of methods
    for photos in the wild do (Zip-NeRF, Barron et al. 2023, arXiv:2304.06706, use a quadratic map).
    """
    image, target = _clipped(image, target)
    colors = np.column_stack([image.reshape(-1, 3), np.ones(image[..., 0].size)])
    mapping = np.linalg.lstsq(colors.T @ colors, colors.T @ target.reshape(-1, 3), rcond=None)[0]
    return np.asarray((colors @ mapping).reshape(image.shape))


def ssim(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Structural similarity of two images [H, W, 3] in 0..1, clipped to that range first; 1 for equal images.

    The variant of Wang et al. 2004 (doi:10.1109/TIP.2003.819861): 11x11 Gaussian window of sigma 1.5, population
    moments, K1 0.01, K2 0.03, averaged over the channels and over the windows inside the image. With a mask, only
    windows whose middle is in it count. NaN when there is no such window. Raises ValueError when the shapes differ or a
    side is shorter than the window.
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
    similarity = luminance * structure
    if mask is not None:
        margin = SSIM_WINDOW // 2
        similarity = similarity[mask[margin:-margin, margin:-margin]]
    return float(np.mean(similarity)) if similarity.size else float("nan")


def gmsd(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Gradient magnitude similarity deviation of two images [H, W, 3] in 0..1: 0 for equal images, more for worse ones.

    Xue et al. 2014 (arXiv:1308.3052): grey images halved by averaging, Prewitt gradients, and the standard deviation
    of their similarity over all pixels. With a mask, a pixel counts if its four pixels before halving are in the mask;
    NaN when none is. Raises ValueError when the shapes differ or a side is shorter than 2 px.
    """
    a, b = _clipped(a, b)
    if min(a.shape[:2]) < 2:
        raise ValueError(f"GMSD needs images of at least 2x2 px, got {a.shape[1]}x{a.shape[0]}")
    of_a, of_b = (gradient_magnitudes(_halved(grey(image))) for image in (a, b))
    similarity = (2 * of_a * of_b + GMSD_C) / (of_a**2 + of_b**2 + GMSD_C)
    if mask is not None:
        similarity = similarity[_halved(mask.astype(np.float64)) == 1]
    return float(np.std(similarity)) if similarity.size else float("nan")


def detail(image: Image, photo: Image, mask: Mask | None = None) -> float:
    """The amount of fine structure in the image relative to the photo: 1 for as much, 0 for a plain area.

    Mean gradient magnitude of the grey image divided by that of the photo, both [H, W, 3] in 0..1, over all pixels or
    the pixels of the mask. It ignores where the structure is, so read it together with GMSD. NaN when the photo has no
    gradient there. Raises ValueError when the shapes differ.
    """
    image, photo = _clipped(image, photo)
    of_image, of_photo = (gradient_magnitudes(grey(pixels)) for pixels in (image, photo))
    if mask is not None:
        of_image, of_photo = of_image[mask], of_photo[mask]
    total = float(of_photo.sum())
    return float(of_image.sum()) / total if total > 0 else float("nan")


def grey(image: Image) -> NDArray[np.float64]:
    """Luma [H, W] of an RGB image [H, W, 3]."""
    return np.asarray(image @ np.array(LUMA), np.float64)


def gradient_magnitudes(plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of the Prewitt gradient [H, W] of a grey image [H, W], per pixel; border pixels are repeated outwards."""
    return np.hypot(*(prewitt(plain, axis=axis, mode="nearest") / 3 for axis in (0, 1)))


def _halved(plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2x2 px; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in plain.shape)
    return np.asarray(plain[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))


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
