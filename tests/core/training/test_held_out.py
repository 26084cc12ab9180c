"""Photos that are held out, and those that are trained on."""

from dataclasses import replace

import numpy as np

from tasks.core.scene import Camera, Scene
from tasks.core.training.held_out import split_views, views_of


def moved(camera: Camera, name: str, share: float) -> Camera:
    """The camera, moved to the side by a share of the distance of what it sees, under another name."""
    pose = camera.cam_from_world.copy()
    pose[0, 3] += share * np.linalg.norm(camera.center)
    return replace(camera, name=name, cam_from_world=pose)


def names(cameras: tuple[Camera, ...]) -> list[str]:
    return [camera.name for camera in cameras]


def test_every_nth_photo_is_held_out_in_name_order(scene: Scene) -> None:
    training, held_out = split_views(scene, 4)
    by_name = sorted(camera.name for camera in scene.cameras)
    assert names(held_out) == by_name[::4]
    assert names(training) == [name for name in by_name if name not in by_name[::4]]


def test_near_copies_are_all_trained_on_or_all_held_out(scene: Scene) -> None:
    """A burst, whatever it is called; the same picture at half the size; and a neighbour that is none."""
    by_name = sorted(scene.cameras, key=lambda camera: camera.name)
    first, second = by_name[0], by_name[1]
    copies = [
        moved(first, f"{first.name}-burst", 0.0005),
        moved(first, "zz.jpg", -0.0005),
        replace(first.resized(first.width // 2, first.height // 2), name="small.jpg"),
        moved(second, f"{second.name}-burst", 0.0005),
    ]
    neighbour = moved(second, f"{second.name}-next", 0.05)
    more = replace(scene, cameras=(*scene.cameras, *copies, neighbour))
    training, held_out = split_views(more, 4)
    assert {first.name, f"{first.name}-burst", "zz.jpg", "small.jpg"} <= set(names(held_out))
    assert {second.name, f"{second.name}-burst"} <= set(names(training))
    assert [neighbour] in views_of(more)
    assert len(training) + len(held_out) == len(more.cameras)


def test_a_slow_video_does_not_become_one_view(scene: Scene) -> None:
    first = scene.cameras[0]
    frames = tuple(moved(first, f"{number:03}.jpg", 0.002 * number) for number in range(40))
    views = views_of(replace(scene, cameras=frames))
    assert 8 < len(views) < 40
    assert [camera.name for view in views for camera in view] == [frame.name for frame in frames]


def test_without_points_every_photo_is_a_view(scene: Scene) -> None:
    bare = replace(scene, points=replace(scene.points, xyz=np.zeros((0, 3))))
    assert [len(view) for view in views_of(bare)] == [1] * len(scene.cameras)
