import numpy as np
import pytest

from tasks.core.transforms import (
    rigid,
    rigid_inverse,
    rotation_angle_deg,
    rotmat_from_quat,
    similarity_from_points,
)

QUATS = np.random.default_rng(7).normal(size=(20, 4))
# Float64 arithmetic on values of order one loses a few units of 2e-16.
EXACT = 1e-12


def test_rotation_matrices_are_rotations() -> None:
    rotations = rotmat_from_quat(QUATS)
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=EXACT)
    assert np.allclose(np.linalg.det(rotations), 1, atol=EXACT)


def test_a_quaternion_and_its_negative_are_one_rotation() -> None:
    assert np.allclose(rotmat_from_quat(QUATS), rotmat_from_quat(-3 * QUATS), atol=EXACT)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    half = np.sqrt(0.5)
    assert np.allclose(rotmat_from_quat(np.array([half, 0, 0, half])) @ [1, 0, 0], [0, 1, 0], atol=EXACT)


def test_inverse() -> None:
    transform = rigid(rotmat_from_quat(QUATS[0]), np.random.default_rng(8).normal(size=3))
    assert np.allclose(rigid_inverse(transform) @ transform, np.eye(4), atol=EXACT)


@pytest.mark.parametrize("angle_deg", [0.0, 1e-6, 0.2, 90.0, 179.9])
def test_small_angles_keep_their_digits(angle_deg: float) -> None:
    half = np.radians(angle_deg) / 2
    rotation = rotmat_from_quat(np.array([np.cos(half), 0, np.sin(half), 0]))
    assert rotation_angle_deg(rotation) == pytest.approx(angle_deg, abs=1e-9)  # degrees; arccos would give 1e-6


def test_similarity_recovers_what_made_the_points() -> None:
    source = np.random.default_rng(8).normal(size=(12, 3))
    rotation, translation = rotmat_from_quat(QUATS[1]), np.array([3.0, -2.0, 5.0])
    scale, found, offset = similarity_from_points(source, 2.5 * source @ rotation.T + translation)
    assert scale == pytest.approx(2.5, abs=EXACT)
    assert np.allclose(found, rotation, atol=EXACT)
    assert np.allclose(offset, translation, atol=1e-11)


def test_similarity_never_mirrors() -> None:
    source = np.random.default_rng(8).normal(size=(12, 3))
    _, rotation, _ = similarity_from_points(source, source * [1, 1, -1])
    assert np.linalg.det(rotation) == pytest.approx(1, abs=EXACT)
