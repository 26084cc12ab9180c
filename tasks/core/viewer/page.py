"""Write the page that shows a splat: by itself in one index.html that opens by double-click, or with files beside it.

`start_view` chooses the view that the page shows when it opens.
"""

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from scipy.spatial.transform import Rotation

from tasks.core.gaussians import Float32
from tasks.core.scene import Camera, Scene
from tasks.core.transforms import Float64, rigid
from tasks.core.viewer.bundle import (
    EARLY_FILE,
    SCRIPT_FILE,
    SORTER_FILE,
    STYLE_FILE,
    VIEWER_FOLDER,
    viewer_license,
    viewer_script,
    viewer_style,
    viewer_version,
    with_sorter_file,
)

# A viewer's orbit camera has no heading when it looks straight down, so nadir views are tilted by at least this much.
MIN_TILT_DEG = 15.0
_AIM_WEIGHT = 1 / 45.0  # looking 45° past the subject costs as much as being at the rim of the capture
_STEEP_DEG = 30.0  # a view within this angle of straight down looks like a map; see _STEEP_WEIGHT
_TURN_DEG = 20.0  # a camera is turned to the subject by at most this much
_WIDEST_GAP_DEG = 75.0  # cameras are all around a place if no wider sector is without one
_BULK, _STAND_OFF = 0.8, 2.5  # without cameras: this share of a splat counts, seen from so many times its radius
_SLANT = 0.6  # and from above, by this slope
_STEEP_WEIGHT = 1.0  # a steep view is chosen only if no slanted one is within the capture's rim

_HERE = Path(__file__).parent

# The viewer moves at a fixed number of units a second for any size of splat, so each is shown at the same distance.
_DISTANCE = 6.0
_NEAREST, _FARTHEST = 0.05, 5.0  # of the start's distance
_LOWEST_PITCH_DEG, _HIGHEST_PITCH_DEG = -90.0, 5.0  # from straight down to a little below the horizon


@dataclass(frozen=True)
class ViewerSettings:
    """The view that the page shows first, in scene coordinates."""

    title: str
    camera: Camera  # level, principal point in the middle, as a viewer needs it; the preview shows the same view
    target: Float64  # [3] point on the camera's axis that the view orbits about
    up: Float64  # [3] unit vector that points to the sky
    date: str | None = None  # when the photos were taken, as text
    around: bool = False  # whether there are cameras on all sides of the target


def start_view(scene: Scene, title: str, date: str | None = None) -> ViewerSettings:
    """Choose a registered camera near the middle of the capture with a slanted view of the subject, and level it.

    The subject is the median of the sparse points. The camera is turned to it, and the view orbits about it. A camera
    that looks nearly straight down is moved about its target until it is tilted by MIN_TILT_DEG; the photo's upper edge
    stays at the top.
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
    if aim_deg[nearest] > _TURN_DEG:  # no camera here looks at the middle: orbit about the place it looks at
        target = chosen.center + _median_depth(scene, chosen) * chosen.forward
    camera = _level(chosen, target, scene.up)
    return ViewerSettings(title, camera, target, scene.up, date, _stand_around(centers - target, scene.up))


def view_without_cameras(means: Float32, title: str, up: Float64) -> ViewerSettings:
    """A slanted view of the middle of a splat that came without cameras. means [N, 3], N >= 1."""
    target = np.median(means.astype(np.float64), axis=0)
    distance = _STAND_OFF * max(float(np.quantile(np.linalg.norm(means - target, axis=1), _BULK)), 1e-6)
    side = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0])
    forward = -(side / np.linalg.norm(side) + _SLANT * up)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = rigid(rotation, -rotation @ (target - distance * forward))
    width, height = 960, 600
    return ViewerSettings(title, Camera("", width, height, width, width, width / 2, height / 2, pose), target, up)


def _stand_around(offsets: Float64, up: Float64) -> bool:
    """Whether every sector without cameras is narrower than _WIDEST_GAP_DEG, seen from the target along `up`."""
    east = np.cross(up, [0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [1.0, 0.0, 0.0])
    azimuths = np.sort(np.degrees(np.arctan2(offsets @ np.cross(up, east), offsets @ east)))
    gaps = np.diff(np.append(azimuths, azimuths[0] + 360))
    return bool(gaps.max() < _WIDEST_GAP_DEG)


def _median_depth(scene: Scene, camera: Camera) -> float:
    """Median depth of the sparse points inside the camera's image, or of all in front of it if none is inside."""
    in_camera = scene.points.xyz @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depth = in_camera[:, 2]
    before = depth > 1e-6
    safe = np.where(before, depth, 1.0)
    x, y = camera.fx * in_camera[:, 0] / safe + camera.cx, camera.fy * in_camera[:, 1] / safe + camera.cy
    inside = before & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    chosen = inside if inside.any() else before
    if not chosen.any():  # all points are behind the camera: use the scale of the capture
        return max(scene.extent, 1e-3)
    return float(np.median(depth[chosen]))


def _level(camera: Camera, target: Float64, up: Float64) -> Camera:
    """The camera without roll, looking at target from the same distance, tilted by at least MIN_TILT_DEG."""
    distance = float(np.linalg.norm(target - camera.center))
    forward = (target - camera.center) / distance
    tilt = np.radians(MIN_TILT_DEG)
    upright = float(forward @ up)
    if abs(upright) > np.cos(tilt):
        heading = -np.sign(upright) * camera.up  # when looking down, the photo's up is the heading
        heading = heading - (heading @ up) * up
        heading = heading / np.linalg.norm(heading)
        forward = np.cos(tilt) * np.sign(upright) * up + np.sin(tilt) * heading
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    center = target - distance * forward
    pose = rigid(rotation, -rotation @ center)
    return replace(camera, cx=camera.width / 2, cy=camera.height / 2, cam_from_world=pose)


def write_page(
    splat: Path | str,
    target: Path,
    settings: ViewerSettings,
    poster: Path | None = None,
    fly_around: str | None = None,
    stream_page: str | None = None,
    *,
    report: str | None = "report.html",
    in_files: bool = False,
) -> None:
    """Write a page that shows a splat from the start view.

    splat: a .sog to embed, so that the page opens by double-click; or the relative URL of a .sog, meta.json or
        lod-meta.json, for a page on a web server.
    poster: a JPEG of the start view, shown until the splat appears; in the same folder as the page.
    fly_around: relative URL of a moving picture to link to.
    stream_page: relative URL of the page to open instead when a web server serves this one.
    report: relative URL of the report to link to.
    in_files: write script and style as VIEWER_FILES, so that the page contains no code; `splat` is then a URL.

    Its content security policy keeps the browser from contacting any other host. Query parameters: `noui` shows only
    the picture, `webgpu` draws with WebGPU where the browser supports it.

    Raises MissingPartError when the viewer package is not installed, or is another version than the pinned one.
    """
    assert not (in_files and isinstance(splat, Path)), "a page of files loads its splat"
    script = viewer_script()
    style = viewer_style() + (_HERE / STYLE_FILE).read_text(encoding="utf-8")
    early, start = ((_HERE / name).read_text(encoding="utf-8") for name in (EARLY_FILE, "start.js"))
    if in_files:
        script, sorter = with_sorter_file(script)
        content = {SCRIPT_FILE: script + start, STYLE_FILE: style, EARLY_FILE: early, SORTER_FILE: sorter}
        for name, text in content.items():
            (target.parent / VIEWER_FOLDER).mkdir(exist_ok=True)
            (target.parent / VIEWER_FOLDER / name).write_text(text, encoding="utf-8")
    loaded = isinstance(splat, str)
    poster_url = None
    if poster is not None:
        poster_url = poster.name if in_files else "data:image/jpeg;base64," + _base64(poster)
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        title=settings.title,
        date=settings.date,
        poster=poster_url,
        picture=None if poster is None else poster.name,
        fly_around=fly_around,
        report=report,
        stream_page=stream_page,
        loaded=loaded,
        files={name: f"{VIEWER_FOLDER}/{name}" for name in (SCRIPT_FILE, STYLE_FILE, EARLY_FILE)} if in_files else None,
        version=viewer_version(),
        license=viewer_license().replace("--", "- -"),
        css=Markup(style),
        early=Markup(early),
        script=Markup(_inside_script(script + start)),
        settings=_for_script(_start_data(settings) | {"content": splat if loaded else None}),
        sog=None if isinstance(splat, str) else _base64(splat),
    )
    target.write_text(page, encoding="utf-8")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _inside_script(script: str) -> str:
    """The script in a form that no HTML parser takes for the end of its element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _for_script(data: object) -> Markup:
    """JSON that no HTML parser can mistake for the end of its script element."""
    return Markup(json.dumps(data).replace("<", "\\u003c"))


def _start_data(view: ViewerSettings) -> dict[str, object]:
    """The viewer's own settings (format version 2), the splat's size and rotation xyzw, and what the window shows."""
    viewer_from_scene = _y_up_from_scene(view.up)
    looks_along = view.target - view.camera.center
    scale = _DISTANCE / max(float(np.linalg.norm(looks_along)), 1e-9)
    pitch_deg = float(np.degrees(np.arcsin(np.clip(scale * looks_along @ view.up / _DISTANCE, -1, 1))))
    pose = {
        "position": (scale * viewer_from_scene @ view.camera.center).tolist(),
        "target": (scale * viewer_from_scene @ view.target).tolist(),
        "fov": 60,  # the start script sets it for the window's shape
    }
    settings = {
        "version": 2,
        "tonemapping": "none",
        "highPrecisionRendering": False,
        "background": {"color": [0, 0, 0]},  # the background that training assumes
        "postEffectSettings": {
            "sharpness": {"enabled": False, "amount": 0},
            "bloom": {"enabled": False, "intensity": 0.1, "blurLevel": 2},
            "grading": {"enabled": False, "brightness": 1, "contrast": 1, "saturation": 1, "tint": [1, 1, 1]},
            "vignette": {"enabled": False, "intensity": 0.5, "inner": 0.3, "outer": 0.75, "curvature": 1},
            "fringing": {"enabled": False, "intensity": 0.5},
        },
        "animTracks": [],
        "cameras": [{"initial": pose}],
        "annotations": [],
        "startMode": "default",
    }
    camera = view.camera
    return {
        "settings": settings,
        "scale": scale,
        "limits": {
            "zoom": [_NEAREST * _DISTANCE, _FARTHEST * _DISTANCE],
            "pitchDeg": [_LOWEST_PITCH_DEG, max(_HIGHEST_PITCH_DEG, pitch_deg + 10)],
        },
        "rotation": Rotation.from_matrix(viewer_from_scene).as_quat().tolist(),
        "half_fov_tangents": [camera.width / 2 / camera.fx, camera.height / 2 / camera.fy],
    }


def _y_up_from_scene(up: Float64) -> Float64:
    """The rotation [3, 3] that turns `up` [3], a unit vector, to +y. For +z it is a quarter turn about x."""
    z_up_from_scene = np.diag([1.0, -1.0, -1.0])  # for the one direction that has no shortest turn
    if up[2] > -1 + 1e-9:  # the shortest turn of up to +z, Rodrigues: v = up × z, R = I + [v] + [v]²/(1 + cos)
        x, y, z = up
        cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
        z_up_from_scene = np.eye(3) + cross + cross @ cross / (1 + z)
    return np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ z_up_from_scene
