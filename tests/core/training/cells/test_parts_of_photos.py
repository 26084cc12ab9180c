"""Views of parts of photos: their cameras, sizes and masks."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.core.scene import Scene
from tasks.core.training.coverage import project
from tasks.core.training.schedule import MAX_HALVINGS, SMALLEST_SIDE_PX
from tasks.core.training.views import Squares, load_view


def squares(rows: slice, columns: slice, shape: tuple[int, int] = (48, 64)) -> Squares:
    counted = np.zeros(shape, bool)
    counted[rows, columns] = True
    return Squares(counted, 64)


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene(cameras=4, width=640, height=480)


def test_a_part_shows_what_the_photo_shows_there(scene: Scene) -> None:
    camera = scene.cameras[1]
    whole, part = load_view(scene, camera, 640), load_view(scene, camera, 640, part=squares(np.s_[20:40], np.s_[30:55]))
    assert part.photos[0].shape[:2] == (200, 256)  # rows 200 to 400 and columns 296 to 552, in multiples of 8 px
    for level in range(MAX_HALVINGS + 1):
        top, left = (offset >> level for offset in (200, 296))
        height, width = part.photos[level].shape[:2]
        assert (part.cameras[level].width, part.cameras[level].height) == (width, height)
        np.testing.assert_array_equal(part.photos[level], whole.photos[level][top : top + height, left : left + width])
        place = np.array([[0.1, 0.2, 0.0]])
        shift = project(place, whole.cameras[level]).pixels - project(place, part.cameras[level]).pixels
        np.testing.assert_allclose(shift, [[left, top]], atol=1e-9)


def test_what_does_not_count_is_hidden_at_every_level(scene: Scene) -> None:
    counted = np.zeros((48, 64), bool)
    counted[20:40, 30:55] = True
    counted[25:30, 40:45] = False
    part = load_view(scene, scene.cameras[0], 640, part=Squares(counted, 64))
    hidden = part.hidden_at(0)
    assert hidden is not None
    assert hidden[50:100, 104:154].all()
    assert not hidden[:50, 8:254].any()
    for level, photo in enumerate(part.photos):
        at_level = part.hidden_at(level)
        assert at_level is not None
        assert at_level.shape == photo.shape[:2]
        assert at_level.mean() == pytest.approx(hidden.mean(), abs=0.05)  # half a pixel around the squares, at 1/8


@pytest.mark.parametrize("at", [np.s_[0:1], np.s_[30:31], np.s_[47:48]])
def test_a_small_part_is_not_smaller_than_training_allows(scene: Scene, at: slice) -> None:
    part = load_view(scene, scene.cameras[0], 640, part=squares(at, at))
    assert min(part.photos[0].shape[:2]) >= SMALLEST_SIDE_PX
    assert not part.hidden_at(0).all()
    assert part.most_halvings == load_view(scene, scene.cameras[0], 640).most_halvings


def test_a_part_of_everything_is_the_photo(scene: Scene) -> None:
    whole, part = (
        load_view(scene, scene.cameras[2], 500),
        load_view(scene, scene.cameras[2], 500, part=squares(np.s_[:], np.s_[:])),
    )
    for level in range(MAX_HALVINGS + 1):
        np.testing.assert_array_equal(part.photos[level], whole.photos[level])
