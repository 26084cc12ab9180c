"""Where the page looks from when it opens."""

from dataclasses import dataclass, replace

import numpy as np

from tasks.core.scene import Camera, Scene
from tasks.core.transforms import Float64, rigid

# A viewer's orbit camera has no heading when it looks straight down, so nadir photos are tilted by at least this much.
MIN_TILT_DEG = 15.0
_AIM_WEIGHT = 1 / 45.0  # 45° off the subject weighs as much as standing at the rim of the capture
_STEEP_DEG = 30.0  # a view within this angle of straight down reads as a map, not as a place …
_TURN_DEG = 20.0  # a camera is turned to the subject by at most this much
_WIDEST_GAP_DEG = 75.0  # a flight around a place leaves no wider sector without photos
_STEEP_WEIGHT = 1.0  # … so it is taken only when no slanted view stands inside the capture's rim


@dataclass(frozen=True)
class ViewerSettings:
    """What the page shows first, in scene coordinates."""

    title: str
    camera: Camera  # level, principal point in the middle: what a viewer can show, for a preview of the same view
    target: Float64  # [3] point on the camera's axis that the view orbits about
    up: Float64  # [3] unit vector that points to the sky
    date: str | None = None  # when the photos were taken, as people read it
    around: bool = False  # whether cameras stand on all sides of the target


def start_view(scene: Scene, title: str, date: str | None = None) -> ViewerSettings:
    """The registered camera nearest to the middle of the capture that looks at the subject aslant, made level.

    The subject is the median of the sparse points; the camera is turned to it, so that the view orbits about it. A
    camera that looks nearly straight down is moved about its target until it is tilted by MIN_TILT_DEG, keeping what
    was up in the photo up.
    """
    centers = np.stack([camera.center for camera in scene.cameras])
    subject = np.median(scene.points.xyz, axis=0)
    to_subject = subject - centers
    distances = np.maximum(np.linalg.norm(to_subject, axis=1), 1e-9)
    forwards = np.stack([camera.forward for camera in scene.cameras])
    aim_deg = np.degrees(np.arccos(np.clip((forwards * to_subject).sum(axis=1) / distances, -1, 1)))
    offset = np.linalg.norm(centers - np.median(centers, axis=0), axis=1) / max(scene.extent / 2, 1e-9)
    steep = np.abs(forwards @ scene.up) > np.cos(np.radians(_STEEP_DEG))
    nearest = int(np.argmin(offset + aim_deg * _AIM_WEIGHT + steep * _STEEP_WEIGHT))
    chosen = scene.cameras[nearest]
    target = subject
    if aim_deg[nearest] > _TURN_DEG:  # nobody looked at the middle from here: orbit about what was looked at instead
        target = chosen.center + _median_depth(scene, chosen) * chosen.forward
    camera = _level(chosen, target, scene.up)
    return ViewerSettings(title, camera, target, scene.up, date, _stand_around(centers - target, scene.up))


def _stand_around(offsets: Float64, up: Float64) -> bool:
    """Whether no sector without cameras is wider than _WIDEST_GAP_DEG, seen from the target along `up`."""
    east = np.cross(up, [0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [1.0, 0.0, 0.0])
    azimuths = np.sort(np.degrees(np.arctan2(offsets @ np.cross(up, east), offsets @ east)))
    gaps = np.diff(np.append(azimuths, azimuths[0] + 360))
    return bool(gaps.max() < _WIDEST_GAP_DEG)


def _median_depth(scene: Scene, camera: Camera) -> float:
    """Median depth of the sparse points inside the camera's image, else of all that lie before it."""
    in_camera = scene.points.xyz @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depth = in_camera[:, 2]
    before = depth > 1e-6
    safe = np.where(before, depth, 1.0)
    x, y = camera.fx * in_camera[:, 0] / safe + camera.cx, camera.fy * in_camera[:, 1] / safe + camera.cy
    inside = before & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    chosen = inside if inside.any() else before
    if not chosen.any():  # a camera that sees none of the points: stay at the scale of the capture
        return max(scene.extent, 1e-3)
    return float(np.median(depth[chosen]))


def _level(camera: Camera, target: Float64, up: Float64) -> Camera:
    """The camera without roll, looking at target from the same distance, tilted by at least MIN_TILT_DEG."""
    distance = float(np.linalg.norm(target - camera.center))
    forward = (target - camera.center) / distance
    tilt = np.radians(MIN_TILT_DEG)
    upright = float(forward @ up)
    if abs(upright) > np.cos(tilt):
        heading = -np.sign(upright) * camera.up  # what was up in the photo lies ahead when looking down
        heading = heading - (heading @ up) * up
        heading = heading / np.linalg.norm(heading)
        forward = np.cos(tilt) * np.sign(upright) * up + np.sin(tilt) * heading
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    center = target - distance * forward
    pose = rigid(rotation, -rotation @ center)
    return replace(camera, cx=camera.width / 2, cy=camera.height / 2, cam_from_world=pose)
