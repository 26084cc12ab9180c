"""Decisions before the first step, from the scene, the photos and the machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import InputError
from tasks.core.gaussians import Gaussians
from tasks.core.machine_memory import available_memory_bytes
from tasks.core.render.backends import resolve_backend
from tasks.core.scene import Camera, Scene, SparsePoints
from tasks.core.training import schedule
from tasks.core.training.coverage import photos_showing
from tasks.core.training.depth import SparseDepths
from tasks.core.training.engine import CpuEngine, Engine
from tasks.core.training.held_out import split_views
from tasks.core.training.memory import SPARE_SHARE, affordable_gaussians, cpu_bytes_each
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_file import FEWEST_IN_MEMORY, PhotoFile, StoredPhoto
from tasks.core.training.views import (
    EndlessShuffle,
    MaskLevels,
    Squares,
    View,
    evenly_chosen,
    in_memory,
    level_sizes,
    load_view,
    photo_bytes,
)

MIN_CAMERAS = 3
DETAIL_VIEWS = 24  # photos, at most, that decide how coarse training may begin


@dataclass(frozen=True)
class Plan:
    """All decisions about one training."""

    engine: Engine
    views: list[View]  # to train on
    held_out: list[View]
    depths: SparseDepths  # of `all_views`
    scene_radius: float  # unit of the means' learning rate
    max_gaussians: int
    halvings: int  # how often the photos' sides are halved at the start, at most
    decisions: tuple[str, ...]  # for people
    steps: int  # before the held-out photos join
    joins: bool  # whether they join
    joined_steps: int | None = None  # when they have joined; None for a share of the steps before
    begins_at: float = 0.0  # the progress at the first step
    log_gains: NDArray[np.float32] | None = None  # [V, 3] of `all_views` where exposures are known before training
    all_training: tuple[Camera, ...] = ()  # cameras of all photos to train on, where `views` are some of them
    measures_also: Callable[[Gaussians], Mapping[str, float | None]] | None = None  # fields of TrainSection

    @property
    def all_views(self) -> list[View]:
        """The views to train on, followed by the held-out views if these join at the end."""
        return self.views + self.held_out

    @property
    def share_before_joining(self) -> float:
        """The share of the whole training before the held-out photos join."""
        if not self.joins:
            return 1.0
        if self.joined_steps is not None:
            return self.steps / (self.steps + self.joined_steps)
        return 1 - schedule.JOINED_SHARE

    def level_of(self, view: View, progress: float) -> int:
        """The number of halvings of a view's photo at this progress."""
        return min(schedule.halvings_at(progress), self.halvings, view.most_halvings)

    def read_ahead(self, order: EndlessShuffle, progress: float) -> None:
        """Begin to read the photos that come next in the order of all views, where photos are on the disk."""
        file = photo_file_of(self.views)
        if file is None:
            return
        views = self.all_views
        coming = [views[index] for index in order.upcoming(file.most_ahead)]
        file.expect((view.photos, self.level_of(view, progress)) for view in coming)

    @property
    def curve_views(self) -> list[View]:
        """The held-out views on which the curve is measured."""
        return evenly_chosen(self.held_out, schedule.CURVE_VIEWS)


def plan_for(scene: Scene, options: TrainOptions, folder: Path) -> Plan:
    """Read the photos and decide.

    Args:
        scene: cameras, photos and points.
        options: see TrainOptions.
        folder: an existing folder; photos are kept on its disk if memory does not suffice.

    Raises:
        InputError: too few cameras.
        MissingPartError: the backend cannot run on this machine.
        DiskFullError: the disk has no room for photos that memory does not suffice for.
    """
    training_cameras, held_out_cameras = split_cameras(scene, options.hold_out_every)
    shown_by = photos_showing_a_point(training_cameras, scene.points)
    sizes = [level_sizes(camera, options.max_image_size)[0] for camera in training_cameras]
    pixels = sum(width * height for width, height in sizes)
    wanted = schedule.most_gaussians(pixels, shown_by, options.max_gaussians, options.pixels_per_gaussian)
    capped = options.model_copy(update={"max_gaussians": wanted})
    views, held_out, of_photos = read_views(scene, training_cameras, held_out_cameras, capped, folder)
    joins = options.use_all_photos and bool(held_out)
    engine = engine_for(capped, views + held_out if joins else views)
    depths = SparseDepths(scene, views + held_out)
    limit = wanted if engine.max_gaussians is None else min(wanted, engine.max_gaussians)
    halvings = halvings_of(views)
    return Plan(
        engine=engine,
        views=views,
        held_out=held_out,
        depths=depths,
        scene_radius=scene.extent / 2,
        max_gaussians=limit,
        halvings=halvings,
        decisions=of_photos + _decisions(wanted, options, len(views), engine.name, shown_by, halvings, depths),
        steps=max(round(options.steps * (1 - schedule.JOINED_SHARE)), 1) if joins else options.steps,
        joins=joins,
    )


def read_views(
    scene: Scene,
    training: Sequence[Camera],
    held_out: Sequence[Camera],
    options: TrainOptions,
    folder: Path,
    parts: Mapping[str, Squares] = MappingProxyType({}),
) -> tuple[list[View], list[View], tuple[str, ...]]:
    """Read the photos to train on and those held out, or parts of them, by name; and sentences for people.

    They are kept in memory, or else on the folder's disk. `options.max_gaussians` decides the memory of the Gaussians.
    """
    file, decisions = room_for_photos([*training, *held_out], options, folder, parts)
    stored = in_memory if file is None else file.stored
    masks: MaskLevels = {}

    def read(camera: Camera) -> View:
        return load_view(scene, camera, options.max_image_size, stored, masks, parts.get(camera.name))

    return [read(camera) for camera in training], [read(camera) for camera in held_out], decisions


def photo_file_of(views: Sequence[View]) -> PhotoFile | None:
    """The file in which the photos of these views are; None if they are in memory."""
    photos = views[0].photos if views else ()
    return photos.file if isinstance(photos, StoredPhoto) else None


def halvings_of(views: Sequence[View]) -> int:
    """How often the sides of photos are halved at the start of training, at most."""
    return min(coarsest_level(evenly_chosen(views, DETAIL_VIEWS)), max(view.most_halvings for view in views))


def room_for_photos(
    cameras: Sequence[Camera],
    options: TrainOptions,
    folder: Path,
    parts: Mapping[str, Squares] = MappingProxyType({}),
) -> tuple[PhotoFile | None, tuple[str, ...]]:
    """Decide where the photos are kept: a file on the disk and a sentence for people, or None if all are in memory.

    When memory is short, fewer photos are in memory at once, so that the Gaussians have their room.

    Raises DiskFullError if the disk of the folder has no room for the photos.
    """
    needed, free = photo_bytes(cameras, options.max_image_size, parts), available_memory_bytes()
    on_cpu = resolve_backend(options.backend) == "cpu"
    gaussians = options.max_gaussians * cpu_bytes_each(options.sh_degree) if on_cpu else 0.0
    room = free * (1 - SPARE_SHARE) - gaussians
    asked = options.max_photos_in_memory or len(cameras)
    if needed <= room and asked >= len(cameras):
        return None, ()
    largest = max(photo_bytes([camera], options.max_image_size, parts, smaller=False) for camera in cameras)
    most = max(min(asked, int(max(room, 0) / largest)), FEWEST_IN_MEMORY)
    if most == options.max_photos_in_memory:
        reason = f"train.max_photos_in_memory is {asked:,}."
    else:
        reason = f"{free / 1e9:.2f} GB of memory are free, of which the Gaussians may need {gaussians / 1e9:.2f} GB."
    sentence = (
        f"The {len(cameras):,} photos ({needed / 1e9:.2f} GB) are read from a file on the disk during training, and "
        f"at most {most:,} of them are in memory: {reason}"
    )
    return PhotoFile(folder, needed, most), (sentence,)


def coarsest_level(views: Sequence[View]) -> int:
    """The number of halvings at which photos keep KEPT_DETAIL of their variance, the median over views."""
    variances = np.array([[float(photo.var()) for photo in view.photos] for view in views])  # [V, levels]
    shares = np.median(variances / np.maximum(variances[:, :1], 1e-9), axis=0)
    return int(np.flatnonzero(shares >= schedule.KEPT_DETAIL).max(initial=0))


def photos_showing_a_point(cameras: Sequence[Camera], points: SparsePoints) -> float:
    """The number of photos that show a sparse point, the harmonic mean over points; 1 where there are no points.

    The pixels of all photos divided by this number are the pixels of surface: a place that n photos show counts 1/n in
    each of them.
    """
    counts = photos_showing(points.xyz[np.isfinite(points.xyz).all(axis=1)], cameras, points)
    return float(1 / np.mean(1 / np.maximum(counts, 1))) if len(counts) else 1.0


def _decisions(
    wanted: int,
    options: TrainOptions,
    photos: int,
    engine: str,
    shown_by: float,
    halvings: int,
    depths: SparseDepths,
) -> tuple[str, ...]:
    sentences = [
        f"{options.steps:,} steps for {photos:,} photos of at most {options.max_image_size:,} px on {engine}. They "
        f"begin at 1/{2**halvings} of their size."
    ]
    if wanted < options.max_gaussians:
        sentences.append(
            f"At most {wanted:,} Gaussians: a typical place is in {shown_by:.1f} photos, and there is one for each "
            f"{options.pixels_per_gaussian:g} pixels of surface (train.pixels_per_gaussian)."
        )
    if options.depth_weight > 0 and not depths.known:
        sentences.append("The scene does not say which photos show its points, so their depths are not used.")
    return tuple(sentences)


def engine_for(options: TrainOptions, views: Sequence[View] = ()) -> Engine:
    """The engine of the options' backend, with its memory planned, on a GPU for these views.

    Raises MissingPartError when it cannot run here.
    """
    if resolve_backend(options.backend) == "cuda":
        from tasks.core.training.torch_engine import cuda_engine

        return cuda_engine(options, views, photo_file_of(views) is not None)
    affordable = affordable_gaussians(available_memory_bytes(), options.sh_degree)
    if affordable >= options.max_gaussians:
        return CpuEngine(options.max_gaussians)
    reason = (
        f"{affordable:,} instead of {options.max_gaussians:,} Gaussians, for which the free memory does not suffice. "
        "Close other programs, or take a machine with more memory."
    )
    return CpuEngine(affordable, (reason,))


def split_cameras(scene: Scene, hold_out_every: int) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """Cameras to train on and cameras held out. None is held out if fewer than MIN_CAMERAS would be left.

    Raises InputError when the scene has fewer than MIN_CAMERAS cameras.
    """
    if len(scene.cameras) < MIN_CAMERAS:
        raise InputError(
            f"The scene has {len(scene.cameras)} registered photos; training needs at least {MIN_CAMERAS}. "
            "Add photos that overlap these."
        )
    if hold_out_every == 0:
        return scene.cameras, ()
    training, held_out = split_views(scene, hold_out_every)
    return (training, held_out) if len(training) >= MIN_CAMERAS else (scene.cameras, ())
