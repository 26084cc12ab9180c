"""Photos in memory or on the disk: the same bytes come out of both."""

import weakref

import numpy as np
import pytest
import torch

from tasks.core.training.torch_loss import MOMENT_BYTES_PER_PIXEL, PhotoStore, l1_ssim, photo_moments

PIXELS = 30 * 20
BYTES = 3 * PIXELS


def photos(count: int, height: int = 20, width: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("pixel_bytes", [0, 2 * BYTES, 100 * BYTES])
@pytest.mark.parametrize("moment_bytes", [0, 3 * PIXELS * MOMENT_BYTES_PER_PIXEL])
def test_the_same_numbers_whatever_is_kept(pixel_bytes: int, moment_bytes: int) -> None:
    store = PhotoStore("cpu", pixel_bytes, moment_bytes)
    images = photos(5)
    for photo in images * 3:
        pixels, moments = store.get(photo, with_moments=True)
        expected = torch.tensor(photo) / 255
        assert torch.equal(pixels, expected)
        assert moments is not None
        assert torch.equal(moments.mean, photo_moments(expected).mean)
        assert torch.equal(moments.mean_of_squares, photo_moments(expected).mean_of_squares)


def test_kept_moments_change_neither_loss_nor_gradient() -> None:
    image, photo = torch.rand(20, 30, 3, dtype=torch.float64), torch.rand(20, 30, 3, dtype=torch.float64)
    results = []
    for moments in (None, photo_moments(photo)):
        x = image.clone().requires_grad_()
        loss = l1_ssim(x, photo, 0.2, moments)
        loss.backward()
        results.append((float(loss.detach()), x.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def kept(store: PhotoStore) -> tuple[int, int]:
    """Photos and moments that are held."""
    entries = store._kept.values()
    return sum(e.pixels is not None for e in entries), sum(e.moments is not None for e in entries)


def test_budgets_are_kept_and_the_first_stay() -> None:
    store = PhotoStore("cpu", 2.5 * BYTES, 1.5 * PIXELS * MOMENT_BYTES_PER_PIXEL)
    images = photos(6)
    store.get(images[0], with_moments=True)
    first = store._kept[id(images[0])].pixels
    for index in np.random.default_rng(1).permuted(np.tile(np.arange(6), (8, 1)), axis=1).flat:
        store.get(images[index], with_moments=True)
        assert kept(store)[0] <= 2
        assert kept(store)[1] <= 1
    assert store._kept[id(images[0])].pixels is first


def test_photos_of_a_size_that_is_left_behind_make_room() -> None:
    store = PhotoStore("cpu", 4 * BYTES, 4 * PIXELS * MOMENT_BYTES_PER_PIXEL)
    small, large = photos(16, 10, 15), photos(4)
    for photo in small:
        store.get(photo, with_moments=True)
    assert kept(store) == (16, 16)
    for photo in large * 12:
        store.get(photo, with_moments=True)
    assert all(store._kept[id(photo)].pixels is not None for photo in large)
    assert all(store._kept[id(photo)].moments is not None for photo in large)


def test_giving_up_says_whether_there_was_anything_to_give_up() -> None:
    store = PhotoStore("cpu", 100 * BYTES, 100 * PIXELS * MOMENT_BYTES_PER_PIXEL)
    images = photos(3)
    for _ in range(2):
        for photo in images:
            store.get(photo, with_moments=True)
    assert store.forget_moments()
    assert not store.forget_moments()
    assert kept(store) == (3, 0)
    assert store.move_to_host()
    assert not store.move_to_host()
    pixels, _ = store.get(images[0], with_moments=False)
    assert torch.equal(pixels, torch.tensor(images[0]) / 255)
    assert kept(store) == (0, 0)


@pytest.mark.parametrize("pixel_bytes", [0, 2 * BYTES])
def test_a_photo_with_a_name_may_move_and_is_not_held(pixel_bytes: int) -> None:
    """As photos that are read from the disk anew for each step."""
    store = PhotoStore("cpu", pixel_bytes, 3 * PIXELS * MOMENT_BYTES_PER_PIXEL)
    images = photos(5)
    for index in [*range(5)] * 3:
        again = images[index].copy()
        read_from_disk = weakref.ref(again)
        pixels, moments = store.get(again, True, index)
        again[:] = 0  # another photo's turn
        del again
        assert read_from_disk() is None
        assert torch.equal(pixels, torch.tensor(images[index]) / 255)
        assert moments is not None
        assert torch.equal(moments.mean, photo_moments(pixels).mean)
    assert kept(store) == (pixel_bytes // BYTES, 3)
