"""Rotations and rigid transforms. Quaternions are wxyz; `b_from_a` maps coordinates in a to coordinates in b."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def rotmat_from_quat(quat: Float64) -> Float64:
    """Rotation matrices [..., 3, 3] from quaternions wxyz [..., 4], which need not be normalised."""
    w, x, y, z = np.moveaxis(quat / np.linalg.norm(quat, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rigid(rotation: Float64, translation: Float64) -> Float64:
    """A 4x4 transform from a rotation [3, 3] and a translation [3]."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = translation
    return transform


def rigid_inverse(transform: Float64) -> Float64:
    """The inverse of a rigid 4x4 transform, without a general matrix inversion."""
    rotation = transform[:3, :3].T
    return rigid(rotation, -rotation @ transform[:3, 3])


def rotation_angle_deg(rotation: Float64) -> Float64:
    """Angle in degrees of rotation matrices [..., 3, 3].

    Through atan2 of the antisymmetric part and the trace: arccos of the trace alone loses half the digits near 0°.
    """
    antisymmetric = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(antisymmetric, axis=-1) / 2
    cosine = (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2
    return np.asarray(np.degrees(np.arctan2(sine, cosine)))


def similarity_from_points(source: Float64, target: Float64) -> tuple[float, Float64, Float64]:
    """Least-squares scale, rotation [3, 3] and translation [3] with target ≈ scale · rotation · source + translation.

    source, target: [N, 3], N >= 3, not collinear. Umeyama 1991, doi:10.1109/34.88573, eq. 40-43.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    sign = np.ones(3)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[2] = -1
    rotation = u @ np.diag(sign) @ vt
    scale = float((singular * sign).sum() / (source_centred**2).sum(axis=1).mean())
    return scale, rotation, target_mean - scale * rotation @ source_mean


def rotation_between(source: Float64, target: Float64) -> Float64:
    """The smallest rotation [3, 3] that turns one unit vector [3] into another."""
    axis, cosine = np.cross(source, target), float(source @ target)
    if cosine < -1 + 1e-9:  # opposite: half a turn about anything square to it
        square = np.cross(source, np.eye(3)[int(np.argmin(np.abs(source)))])
        square /= np.linalg.norm(square)
        return np.asarray(2 * np.outer(square, square) - np.eye(3))
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1 + cosine))  # Rodrigues
