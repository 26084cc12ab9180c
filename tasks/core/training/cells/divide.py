"""Divide a scene into cells: who owns what, which photos train it, and with which budget."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.measurements import CellPlan, CellsSection
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.scene import Camera, Scene
from tasks.core.training import schedule
from tasks.core.training.cells.cell import Cell, CellView, Plan
from tasks.core.training.cells.exposures import solved_log_gains, usable_logs
from tasks.core.training.cells.regions import Owners, Regions, divide_space
from tasks.core.training.cells.surfaces import ObservedPoints, Surfaces
from tasks.core.training.coverage import SurfaceMap, project, sky_distance
from tasks.core.training.options import TrainOptions
from tasks.core.training.plan import split_cameras
from tasks.core.training.views import Mask, level_sizes, load_view
from tasks.core.transforms import Float64

MARGIN = 0.2  # of a cell's radius, the median distance of its points from their middle: trained beside the cell
LEAST_OWNED = 0.05  # of a photo: a cell leaves photos out that show less of it
FEWEST_VIEWS = 3  # photos of a place that stay in its cell, whatever they show of the rest
COUNTED_POINTS = 5000  # at most, on which the photos that show a place are counted
COLORED_AT_LEVEL = 1  # colours are read from photos of half the size, whose noise is less


@dataclass(frozen=True)
class _Shown:
    """The squares of one photo."""

    owners: Owners  # [rows, columns]
    trained: dict[int, Mask]  # [rows, columns] by cell, of those that the photo shows: the cell with its margin

    def owned_share(self, cell: int) -> float:
        return float((self.owners == cell).mean())


def divide(scene: Scene, out: Path, options: TrainOptions, count: int, on_progress: ProgressCallback) -> CellsSection:
    """Divide a scene into cells and write the plan to `out`.

    Args:
        scene: cameras, undistorted photos and sparse points.
        out: an existing folder.
        options: see TrainOptions; the number of cells is `count`.
        count: of cells, at least 1.
        on_progress: called after every photo.

    Raises:
        InputError: too few cameras.
    """
    training, held_out = split_cameras(scene, options.hold_out_every)
    trained_on = {camera.name for camera in training}
    is_trained = np.array([camera.name in trained_on for camera in scene.cameras])
    observed = ObservedPoints(scene)
    far = sky_distance(scene.points)
    sampled = [
        Surfaces.of(camera, scene.points.xyz[observed.of(number)], scene.up, far).sample()
        for number, camera in enumerate(scene.cameras)
        if is_trained[number]
    ]
    showing = np.repeat(np.arange(len(sampled)), [len(places) for places in sampled])
    regions = divide_space(np.concatenate(sampled), showing, count, scene.up)
    owners = regions.owner(scene.points.xyz)
    margins = [MARGIN * _radius(scene.points.xyz[owners == cell]) for cell in range(count)]

    shown, colors, digests = _read_photos(scene, options, observed, regions, margins, far, on_progress)
    usable, logs = usable_logs(colors)
    log_gains = np.zeros((len(scene.cameras), 3), np.float32)
    if options.exposure_compensation and usable.any():
        log_gains[:] = solved_log_gains(
            logs[usable], observed.cameras[usable], observed.points[usable], len(scene.cameras), is_trained
        )

    numbers = {camera.name: number for number, camera in enumerate(scene.cameras)}
    views = [
        _views(cell, [(camera, shown[numbers[camera.name]]) for camera in training], observed, numbers, owners)
        for cell in range(count)
    ]
    budget = _Budget.of(scene, options, training, held_out, observed, numbers)
    cells = []
    for cell in range(count):
        chosen = views[cell]
        measuring = [
            view
            for camera in held_out
            if cell in shown[numbers[camera.name]].trained
            and (view := _view(cell, camera, shown[numbers[camera.name]])).owned_share >= LEAST_OWNED
        ]
        seeds = np.flatnonzero(
            np.isfinite(scene.points.xyz).all(axis=1) & (regions.outside_by(cell, scene.points.xyz) <= margins[cell])
        )
        owned = sum(view.owned_share for view in chosen)
        trained = sum(float(view.trained.mean()) for view in chosen)
        cells.append(
            Cell(
                number=cell,
                views=tuple(chosen),
                held_out=tuple(measuring),
                seeds=seeds.astype(np.int32),
                log_gains=log_gains[[numbers[view.name] for view in (*chosen, *measuring)]],
                steps=budget.steps_of(len(chosen)),
                max_gaussians=budget.gaussians_of(owned, trained),
                far=far,
            )
        )
    plan = Plan(regions, owners, log_gains, budget.seam_steps, budget.joined_steps, tuple(cells))
    plan.save(out)
    return CellsSection(
        cells=tuple(
            CellPlan(
                number=cell.number,
                digest=cell.digest(scene, digests),
                views=len(cell.views),
                ring_views=sum(view.is_ring for view in cell.views),
                share=sum(view.owned_share for view in cell.views) / max(len(training), 1),
                steps=cell.steps,
                max_gaussians=cell.max_gaussians,
            )
            for cell in cells
        ),
        decisions=_decisions(cells, len(training)),
    )


def _radius(places: Float64) -> float:
    """The median distance of places from their middle; 0 without places."""
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return 0.0
    return float(np.median(np.linalg.norm(places - np.median(places, axis=0), axis=1)))


def _read_photos(
    scene: Scene,
    options: TrainOptions,
    observed: ObservedPoints,
    regions: Regions,
    margins: list[float],
    far: float,
    on_progress: ProgressCallback,
) -> tuple[list[_Shown], NDArray[np.uint8], dict[str, str]]:
    """Read each photo once: what it shows of the cells, the colours of its points [O, 3], and digests by name."""
    shown, digests = [], dict[str, str]()
    colors = np.zeros((len(observed.points), 3), np.uint8)
    for number, camera in enumerate(scene.cameras):
        points = observed.of(number)
        surfaces = Surfaces.of(camera, scene.points.xyz[points], scene.up, far)
        owners = surfaces.owners(regions)
        trained = {cell: surfaces.within(regions, cell, margins[cell]) for cell in np.unique(owners).tolist()}
        shown.append(_Shown(owners, trained))
        view = load_view(scene, camera, options.max_image_size)
        small = view.cameras[COLORED_AT_LEVEL]
        x, y = project(scene.points.xyz[points], small).pixels.T
        rows = np.clip(y, 0, small.height - 1).astype(int)
        colors[observed.range_of(number)] = view.photos[COLORED_AT_LEVEL][
            rows, np.clip(x, 0, small.width - 1).astype(int)
        ]
        digests[camera.name] = hashlib.sha256(scene.image_path(camera).read_bytes()).hexdigest()
        on_progress(Progress(number + 1, len(scene.cameras), f"photo {number + 1}/{len(scene.cameras)} divided"))
    return shown, colors, digests


def _view(cell: int, camera: Camera, shown: _Shown) -> CellView:
    share = shown.owned_share(cell)
    greatest = int(np.bincount(shown.owners.ravel()).argmax())
    return CellView(camera.name, shown.trained[cell], share, is_ring=greatest != cell)


def _views(
    cell: int,
    cameras: list[tuple[Camera, _Shown]],
    observed: ObservedPoints,
    numbers: dict[str, int],
    owners: Owners,
) -> list[CellView]:
    """The photos that train a cell: those that show enough of it, and those that its places need."""
    views = [_view(cell, camera, shown) for camera, shown in cameras if cell in shown.trained]
    observed_by = [observed.of(numbers[view.name]) for view in views]
    of_view = [points[owners[points] == cell] for points in observed_by]
    seen, wanted = np.zeros(len(owners), int), np.zeros(len(owners), int)
    chosen = np.array([view.owned_share >= LEAST_OWNED for view in views])
    for points, is_chosen in zip(of_view, chosen, strict=True):
        wanted[points] += 1
        if is_chosen:
            seen[points] += 1
    wanted = np.minimum(wanted, FEWEST_VIEWS)
    for number in np.argsort([-view.owned_share for view in views], kind="stable"):
        lacking = of_view[number][seen[of_view[number]] < wanted[of_view[number]]]
        if not chosen[number] and len(lacking):
            chosen[number] = True
            seen[of_view[number]] += 1
    return [view for view, is_chosen in zip(views, chosen, strict=True) if is_chosen]


@dataclass(frozen=True)
class _Budget:
    """The whole scene's steps and Gaussians, and their shares."""

    photos: int
    steps: int  # for the cells
    seam_steps: int
    joined_steps: int
    max_gaussians: int

    @classmethod
    def of(
        cls,
        scene: Scene,
        options: TrainOptions,
        training: tuple[Camera, ...],
        held_out: tuple[Camera, ...],
        observed: ObservedPoints,
        numbers: dict[str, int],
    ) -> "_Budget":
        joined = round(options.steps * schedule.JOINED_SHARE) if options.use_all_photos and held_out else 0
        seams = round(options.steps * schedule.SEAM_SHARE)
        pixels = sum(math.prod(level_sizes(camera, options.max_image_size)[0]) for camera in training)
        shown_by = photos_showing_a_place(scene, training, observed, numbers)
        return cls(
            photos=len(training),
            steps=options.steps - joined - seams,
            seam_steps=seams,
            joined_steps=joined,
            max_gaussians=schedule.most_gaussians(pixels, shown_by, options.max_gaussians, options.pixels_per_gaussian),
        )

    def steps_of(self, views: int) -> int:
        """Each photo that shows a part of a cell is drawn as often as it would be in one training of all photos."""
        return max(round(self.steps * views / self.photos), 1)

    def gaussians_of(self, owned: float, trained: float) -> int:
        """In proportion to the pixels, in photos, that a cell owns, and more for the margin, which is cut off."""
        of_cell = self.max_gaussians * owned / self.photos
        return max(round(of_cell * trained / max(owned, 1e-9)), schedule.FEWEST_GAUSSIANS // 4)


def photos_showing_a_place(
    scene: Scene, cameras: tuple[Camera, ...], observed: ObservedPoints, numbers: dict[str, int]
) -> float:
    """As `plan.photos_showing_a_point`, from a sample of places, and surfaces of what each photo observes."""
    finite = np.flatnonzero(np.isfinite(scene.points.xyz).all(axis=1))
    if not len(finite):
        return 1.0
    places = scene.points.xyz[finite[:: -(-len(finite) // COUNTED_POINTS)]]
    counts = np.zeros(len(places), int)
    for camera in cameras:
        points = scene.points.of(observed.of(numbers[camera.name]))
        counts += SurfaceMap(camera, points).sees(places)
    return float(1 / np.mean(1 / np.maximum(counts, 1)))


def _decisions(cells: list[Cell], photos: int) -> tuple[str, ...]:
    views = sum(len(cell.views) for cell in cells)
    return (
        f"{photos:,} photos are trained on in {len(cells)} cells. On average a photo is in "
        f"{views / max(photos, 1):.1f} of them, with the part that shows the cell.",
    )
