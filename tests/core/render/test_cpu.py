"""Details of the CPU rasterizer alone: buffers, threads, unusual input."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from tasks.core.render.cpu import CpuRasterizer
from tasks.core.render.kernels import binning
from tasks.core.render.warmup import compile_kernels
from tests.conftest import REPOSITORY
from tests.core.render.scenes import random_gaussians

DIGEST = """
import dataclasses, hashlib, numba, numpy as np
from tasks.core.render.cpu import CpuRasterizer
from tests.core.render.scenes import random_gaussians
gaussians, camera = random_gaussians(3000, 120, 90, 2.5)
rasterizer = CpuRasterizer()
digest = hashlib.sha256(rasterizer.render(gaussians, camera).tobytes())
gradients = rasterizer.backward(np.random.default_rng(0).normal(size=(90, 120, 3)).astype(np.float32))
for field in dataclasses.fields(gradients):
    digest.update(getattr(gradients, field.name).tobytes())
print(numba.get_num_threads(), digest.hexdigest())
"""


def test_the_same_bytes_for_any_number_of_threads() -> None:
    """In processes of their own: one has as many threads as it starts with, and here may be a single core."""
    said = {}
    for threads in (3, 1):
        environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", DIGEST]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        number, said[threads] = done.stdout.split()
        assert number == str(threads)
    assert said[1] == said[3]


def test_buffers_carry_nothing_from_one_image_to_the_next() -> None:
    small, small_camera = random_gaussians(100, 30, 20, 3.0)
    large, large_camera = random_gaussians(2000, 100, 80, 4.0, seed=1)
    used, fresh = CpuRasterizer(), CpuRasterizer()
    used.forward(large, large_camera)
    used.backward(np.ones((80, 100, 3), np.float32))
    image, expected = used.forward(small, small_camera), fresh.forward(small, small_camera)
    np.testing.assert_array_equal(image, expected)
    gradients, expected_gradients = used.backward(np.ones_like(image)), fresh.backward(np.ones_like(image))
    np.testing.assert_array_equal(gradients.means, expected_gradients.means)
    np.testing.assert_array_equal(gradients.shN, expected_gradients.shN)


def test_read_only_and_strided_arrays_are_drawn_the_same() -> None:
    gaussians, camera = random_gaussians(100, 30, 20, 3.0)
    expected = CpuRasterizer().render(gaussians, camera)
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in vars(gaussians).items()}
    strided["means"].flags.writeable = False
    np.testing.assert_array_equal(CpuRasterizer().render(dataclasses.replace(gaussians, **strided), camera), expected)


def test_values_that_are_not_finite_draw_nothing_and_do_not_crash() -> None:
    gaussians, camera = random_gaussians(40, 30, 20, 3.0)
    expected = CpuRasterizer().render(gaussians.take(np.arange(20)), camera)
    for name in ("means", "quats", "log_scales", "raw_opacities"):
        for value in (np.nan, np.inf):
            broken = getattr(gaussians, name).copy()
            broken[20:] = value
            if name == "raw_opacities" and value == np.inf:
                continue  # sigmoid(inf) = 1 is a number
            image = CpuRasterizer().render(dataclasses.replace(gaussians, **{name: broken}), camera)
            np.testing.assert_allclose(image, expected, atol=1e-6, err_msg=f"{name} {value}")


def test_backward_without_forward_is_refused() -> None:
    with pytest.raises(ValueError, match="forward"):
        CpuRasterizer().backward(np.zeros((2, 2, 3), np.float32))


def test_depth_sort_is_exact_and_stable() -> None:
    rng = np.random.default_rng(0)
    splats = np.zeros((5000, 12), np.float32)
    splats[:, 11] = rng.choice(np.exp(rng.uniform(-4, 12, 3000)), 5000)  # sixteen octaves with ties
    visible = np.sort(rng.permutation(5000)[:4000])
    spare = [np.empty(4000, np.uint32), np.empty(4000, np.int64), np.empty(4000, np.uint32), np.empty(4000, np.int64)]
    order = binning.sort_by_depth(splats, visible, 4000, *spare)[:4000]
    np.testing.assert_array_equal(order, visible[np.argsort(splats[visible, 11], kind="stable")])


def test_warm_up_compiles_all_that_training_calls() -> None:
    notes: list[float] = []
    compile_kernels(lambda progress: notes.append(progress.done / progress.total))
    assert notes == sorted(notes)
    assert notes[-1] == 1


def test_threads_are_those_of_openmp_also_where_there_is_tbb() -> None:
    """TBB can hang when the process ends. In a process of its own: the first parallel kernel decides."""
    look = (
        "from tasks.core.progress import ignore_progress as silent\n"
        "from tasks.core.render.warmup import compile_kernels\n"
        "compile_kernels(silent)\n"
        "import numba; print(numba.threading_layer())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_THREADING")}
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "omp"
