"""The report's drawings as inline SVG: the quality curve, the maps of cameras and of cells; each also as a picture.

Figures are made with matplotlib's objects, never with pyplot, so that stages in several threads do not share a figure.
Whatever is text or line takes the page's own colour, so that one drawing serves light and dark.
"""

import io

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.measurements import CurvePoint, LeftOutPhoto
from tasks.core.report.divided_scene import DividedScene
from tasks.core.scene import Scene
from tasks.core.transforms import Float64

_INK = "#010203"  # a placeholder for the page's text colour
_ACCENT = "#3b82c4"  # readable on white and on near-black
_HELD_OUT = "#d9822b"
_LEFT_OUT = "#c93a3a"
_MAP_POINTS = 20_000  # more would only paint over each other
_MAP_DPI = 160
_NO_CELL = -1
_CUT_COLUMNS = 200  # of the grid on which cuts between cells are found
_PICTURE_DPI = 160
_WIDTH = 5.6  # inches; the page scales the drawing, so a small number means large letters
_FARTHEST = 3  # times the extent of all cameras, to which the map reaches for photos that were left out
_KEPT_SHARE = (2, 98)  # percentiles of the sparse points that the map must show; strays would shrink everything


def quality_curve(curve: tuple[CurvePoint, ...]) -> Markup:
    """Held-out PSNR over training time."""
    figure, axes = _curve_figure(curve)
    return _as_svg(figure, axes, "Held-out PSNR over training time")


def quality_curve_picture(curve: tuple[CurvePoint, ...]) -> bytes:
    """The same as a PNG on white, for places that show no SVG."""
    figure, _ = _curve_figure(curve)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PICTURE_DPI, facecolor="white")
    return buffer.getvalue()


def _curve_figure(curve: tuple[CurvePoint, ...]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [p.seconds for p in curve], [p.psnr_db for p in curve], "-o", color=_ACCENT, markersize=3.5, linewidth=1.6
    )
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("held-out PSNR (dB)")
    axes.set_xlim(left=0)
    axes.grid(visible=True, color=_INK, alpha=0.12, linewidth=0.7)
    return figure, axes


def camera_map(scene: Scene, held_out: tuple[str, ...], left_out: tuple[LeftOutPhoto, ...] = ()) -> Markup:
    """The scene from above: sparse points in their colours, cameras with their viewing directions.

    Photos left out are drawn where their GPS says, if the scene has a georeference and that is not far from it.
    """
    kinds = ("training camera", _ACCENT), ("held-out camera", _HELD_OUT)
    figure, axes = _map_figure(scene, held_out, kinds, left_out)
    return _as_svg(figure, axes, "Map of the cameras from above")


def camera_map_picture(scene: Scene, left_out: tuple[LeftOutPhoto, ...], rejected: int) -> bytes:
    """The same as a PNG on white, before anything is trained; what could not be drawn is counted below it."""
    figure, axes = _map_figure(scene, (), (("registered camera", _ACCENT), ("", _HELD_OUT)), left_out)
    nowhere = len(left_out) - len(_lost_places(scene, left_out))
    said = [f"{len(scene.cameras)} registered", f"{len(left_out)} not registered"]
    said += [f"{nowhere} of them without a place to draw"] if nowhere else []
    said += [f"{rejected} rejected before"] if rejected else []
    axes.set_title(", ".join(said), fontsize=8, color="black", y=-0.24)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PICTURE_DPI, facecolor="white")
    return buffer.getvalue()


def _map_figure(
    scene: Scene, held_out: tuple[str, ...], kinds: tuple[tuple[str, str], ...], left_out: tuple[LeftOutPhoto, ...]
) -> tuple[Figure, Axes]:
    right, ahead = _ground_axes(scene.up)
    points = np.column_stack([scene.points.xyz @ right, scene.points.xyz @ ahead])  # [P, 2]
    centers = np.stack([camera.center for camera in scene.cameras])
    places = np.column_stack([centers @ right, centers @ ahead])  # [C, 2]
    forwards = np.stack([camera.forward for camera in scene.cameras])
    directions = np.column_stack([forwards @ right, forwards @ ahead])  # shorter than 1 where a camera looks down
    lost = _lost_places(scene, left_out)
    lost = np.column_stack([lost @ right, lost @ ahead])  # [L, 2]
    low, high = _limits(points, np.concatenate([places, lost]))
    size = high - low
    figure = Figure(figsize=(_WIDTH, float(np.clip(_WIDTH * size[1] / size[0], 3, 6))), layout="constrained")
    axes = figure.add_subplot()
    # from the lowest to the highest, so that roofs cover floors
    shown = np.argsort(scene.points.xyz @ scene.up, kind="stable")[:: max(1, -(-len(points) // _MAP_POINTS))]
    axes.scatter(
        points[shown, 0], points[shown, 1], s=3, c=scene.points.rgb[shown] / 255, linewidths=0, rasterized=True
    )
    is_held_out = np.array([camera.name in held_out for camera in scene.cameras])
    arrow = 0.06 * float(size.max())
    for mask, (label, color) in zip((~is_held_out, is_held_out), kinds, strict=True):
        if not mask.any():
            continue
        x, y = places[mask].T
        along = arrow * directions[mask]
        axes.plot(x, y, "o", color=color, markersize=3.5, label=label)
        axes.quiver(x, y, along[:, 0], along[:, 1], color=color, angles="xy", scale_units="xy", scale=1, width=0.003)
    if len(lost):
        axes.plot(*lost.T, "x", color=_LEFT_OUT, markersize=5, label="not registered")
    _frame_map(axes, scene, low, high)
    axes.legend(frameon=False, fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, labelcolor=_INK)
    return figure, axes


def _frame_map(axes: Axes, scene: Scene, low: Float64, high: Float64) -> None:
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    metric = scene.georeference is not None
    axes.set_xlabel("east (m)" if metric else "x (scene units, not metres)")
    axes.set_ylabel("north (m)" if metric else "y (scene units, not metres)")


def cell_map(scene: Scene, plan: DividedScene) -> Markup:
    """A training's cells from above: sparse points and cameras in the colours of their cells, and the cuts between."""
    figure, axes = _cells_figure(scene, plan)
    return _as_svg(figure, axes, "Map of the cells from above")


def cell_map_picture(scene: Scene, plan: DividedScene) -> bytes:
    """The same as a PNG on white."""
    figure, _ = _cells_figure(scene, plan)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PICTURE_DPI, facecolor="white")
    return buffer.getvalue()


def _cells_figure(scene: Scene, plan: DividedScene) -> tuple[Figure, Axes]:
    right, ahead = _ground_axes(scene.up)
    points = np.column_stack([scene.points.xyz @ right, scene.points.xyz @ ahead])  # [P, 2]
    centers = np.stack([camera.center for camera in scene.cameras])
    places = np.column_stack([centers @ right, centers @ ahead])  # [C, 2]
    low, high = _limits(points, places)
    size = high - low
    figure = Figure(figsize=(_WIDTH, float(np.clip(_WIDTH * size[1] / size[0], 3, 6))), layout="constrained")
    axes = figure.add_subplot()
    shown = np.argsort(scene.points.xyz @ scene.up, kind="stable")[:: max(1, -(-len(points) // _MAP_POINTS))]
    cells = np.arange(plan.count)
    colors = matplotlib.colormaps["tab20"](2 * cells % 20 + cells // 10 % 2)  # [cells, 4], pairs of shades apart
    x, y = points[shown].T
    axes.scatter(x, y, s=3, c=colors[plan.owners[shown]], linewidths=0, rasterized=True)
    _draw_cuts(axes, points, plan, low, high)
    homes = np.array([plan.cell_of_camera.get(camera.name, _NO_CELL) for camera in scene.cameras])
    for cell in (*cells.tolist(), _NO_CELL):  # hollow where it is not trained on
        color = "none" if cell == _NO_CELL else colors[cell]
        x, y = places[homes == cell].T
        axes.plot(x, y, "o", markerfacecolor=color, markeredgecolor=_INK, markeredgewidth=0.4, markersize=4)
        if (plan.owners == cell).any():
            x, y = np.median(points[plan.owners == cell], axis=0)
            axes.annotate(str(cell), (float(x), float(y)), color=_INK, fontsize=13, ha="center", va="center")
    _frame_map(axes, scene, low, high)
    return figure, axes


def _draw_cuts(axes: Axes, points: Float64, plan: DividedScene, low: Float64, high: Float64) -> None:
    """Draw lines between places whose nearest points belong to different cells."""
    if not len(points):
        return
    x, y = (np.linspace(low[axis], high[axis], _CUT_COLUMNS) for axis in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    _, nearest = cKDTree(points).query(grid.reshape(-1, 2))
    owners = plan.owners[nearest].reshape(grid.shape[:2])
    for cell in np.unique(owners):
        if (owners != cell).any():
            axes.contour(x, y, owners == cell, levels=[0.5], colors=[_INK], linewidths=0.7, alpha=0.6)


def _lost_places(scene: Scene, left_out: tuple[LeftOutPhoto, ...]) -> Float64:
    """Places of the photos that were left out [L, 3], without far ones: one would make it a map of a country."""
    lost = np.array([photo.position_m for photo in left_out if photo.position_m is not None]).reshape(-1, 3)
    middle = np.median([camera.center for camera in scene.cameras], axis=0)
    near: Float64 = lost[np.linalg.norm(lost - middle, axis=1) <= _FARTHEST * scene.extent]
    return near


def _ground_axes(up: Float64) -> tuple[Float64, Float64]:
    """Two level unit vectors, right and ahead on the map; x and y when up is z."""
    x = np.array([1.0, 0, 0]) if abs(up[0]) < 0.9 else np.array([0, 1.0, 0])
    right = x - (x @ up) * up
    right /= np.linalg.norm(right)
    return right, np.cross(up, right)


def _limits(points: NDArray[np.float64], places: NDArray[np.float64]) -> tuple[Float64, Float64]:
    """Lower left and upper right of a map that shows all cameras and nearly all points, with a margin."""
    near = np.percentile(points, _KEPT_SHARE, axis=0) if len(points) else places
    everything = np.concatenate([near, places])
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.06 * max(float((high - low).max()), 1e-6)
    return low - margin, high + margin


def _as_svg(figure: Figure, axes: Axes, title: str) -> Markup:
    for side in axes.spines.values():
        side.set_color(_INK)
        side.set_alpha(0.35)
    axes.tick_params(colors=_INK, labelsize=9.5)
    axes.xaxis.label.set(color=_INK, fontsize=10)
    axes.yaxis.label.set(color=_INK, fontsize=10)
    axes.set_facecolor("none")
    figure.set_facecolor("none")
    buffer = io.StringIO()
    # text stays text and takes the page's font; a fixed salt makes the ids, and so the bytes, repeatable
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title}, dpi=_MAP_DPI)
    svg = buffer.getvalue()
    return Markup(svg[svg.index("<svg") :].replace(_INK, "currentColor"))
