"""One self-contained page: viewer and splat in a single index.html that opens by double-click, without a network."""

import base64
import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from scipy.spatial.transform import Rotation

from tasks.core.errors import MissingPartError
from tasks.core.transforms import Float64
from tasks.core.viewer.view import ViewerSettings, start_view

__all__ = ["ViewerSettings", "start_view", "viewer_version", "write_page"]

_HERE = Path(__file__).parent
_PACKAGE = _HERE / "npm" / "node_modules" / "@playcanvas" / "supersplat-viewer"
_EXPORT = "export { createViewer };"  # the line of the bundle that the start script relies on

# The viewer lets people zoom and turn without end and has no option against it; the page's own limits are put there.
_LIMITS = {
    "this.controller.zoomRange = new Vec2(0.01, Infinity);": "this.controller.zoomRange = "
    "new Vec2(...(globalThis.spaceportLimits?.zoom ?? [0.01, Infinity]));",
    "this.controller.pitchRange = new Vec2(-90, 90);": "this.controller.pitchRange = "
    "new Vec2(...(globalThis.spaceportLimits?.pitchDeg ?? [-90, 90]));",
}

# The viewer moves by so many units a second whatever the splat's size, so every splat is shown at the same distance.
_DISTANCE = 6.0
_NEAREST, _FARTHEST = 0.05, 5.0  # of the start's distance
_LOWEST_PITCH_DEG, _HIGHEST_PITCH_DEG = -90.0, 5.0  # from straight down to a little below the horizon


def viewer_version() -> str:
    """Version of the installed viewer package; MissingPartError when it is absent."""
    return str(json.loads(_package_file("package.json"))["version"])


def write_page(
    splat: Path | str,
    target: Path,
    settings: ViewerSettings,
    poster: Path | None = None,
    fly_around: str | None = None,
    stream_page: str | None = None,
) -> None:
    """Write a page that shows a splat from the start view, with a link to report.html beside it.

    splat: a .sog that the page holds in itself, so that it opens by double-click; or the relative URL of a .sog,
        meta.json or lod-meta.json, which a web server has to give.
    poster: a JPEG of the start view that is shown until the splat is.
    fly_around: relative URL of a moving picture to link to.
    stream_page: relative URL of the page to go to instead when a web server gives this one.

    Its content security policy keeps the browser from asking any other host. Query parameters: `noui` leaves only the
    picture, `webgpu` draws with WebGPU where the browser has it.

    Raises MissingPartError when the viewer package is not installed or not the pinned one.
    """
    bundle = _package_file("public/index.js")
    if _EXPORT not in bundle or "<!--" in bundle or any(bundle.count(old) != 1 for old in _LIMITS):
        raise MissingPartError(
            f"supersplat-viewer {viewer_version()} is not the version this program was written for; run `make setup`."
        )
    for old, new in _LIMITS.items():
        bundle = bundle.replace(old, new)
    bundle = bundle.replace("//# sourceMappingURL=index.js.map", "").replace("</script", "<\\/script")
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        title=settings.title,
        date=settings.date,
        poster=None if poster is None else "data:image/jpeg;base64," + base64.b64encode(poster.read_bytes()).decode(),
        fly_around=fly_around,
        stream_page=stream_page,
        streamed=isinstance(splat, str),
        version=viewer_version(),
        license=_package_file("LICENSE").replace("--", "- -"),
        css=Markup(_package_file("public/index.css")),
        viewer=Markup(bundle),
        start=Markup((_HERE / "start.js").read_text(encoding="utf-8")),
        settings=_for_script(_start_data(settings) | {"content": splat if isinstance(splat, str) else None}),
        sog=None if isinstance(splat, str) else base64.b64encode(splat.read_bytes()).decode(),
    )
    target.write_text(page, encoding="utf-8")


def _package_file(name: str) -> str:
    try:
        return (_PACKAGE / name).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingPartError(
            "The viewer package is not installed; run `make setup` (or `npm ci --prefix tasks/core/viewer/npm`)."
        ) from error


def _for_script(data: object) -> Markup:
    """JSON that no HTML parser can take for the end of its script element."""
    return Markup(json.dumps(data).replace("<", "\\u003c"))


def _start_data(view: ViewerSettings) -> dict[str, object]:
    """The viewer's own settings (format version 2), the splat's size and rotation xyzw, what the window holds."""
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
    """The rotation [3, 3] that turns `up` [3], a unit vector, to +y; for +z it is a quarter turn about x."""
    z_up_from_scene = np.diag([1.0, -1.0, -1.0])  # for the one direction that has no shortest turn
    if up[2] > -1 + 1e-9:  # the shortest turn of up to +z, Rodrigues: v = up × z, R = I + [v] + [v]²/(1 + cos)
        x, y, z = up
        cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])
        z_up_from_scene = np.eye(3) + cross + cross @ cross / (1 + z)
    return np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ z_up_from_scene
