"""What is decided before the first step, from the scene, the photos and the machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.errors import InputError
from tasks.core.machine_memory import available_memory_bytes
from tasks.core.render.backends import resolve_backend
from tasks.core.scene import Camera, Scene
from tasks.core.training import schedule
from tasks.core.training.coverage import views_per_point
from tasks.core.training.cpu_budget import SPARE_SHARE, affordable_gaussians, bytes_each
from tasks.core.training.engine import Engine
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_file import PhotoFile, photo_bytes
from tasks.core.training.views import Photo, View, evenly_chosen, in_memory, load_view

MIN_CAMERAS = 3
DETAIL_VIEWS = 24  # photos, at most, that say how coarse training may begin


@dataclass(frozen=True)
class Plan:
    """The course of one training."""

    engine: Engine
    views: list[View]  # to train on
    held_out: list[View]
    scene_radius: float  # unit of the means' learning rate
    max_gaussians: int
    dropout: float  # share of the Gaussians that a step leaves out
    halvings: int  # how often the photos' sides are halved at the start, at most
    decisions: tuple[str, ...]  # for people

    @property
    def curve_views(self) -> list[View]:
        """The held-out views on which the curve is measured."""
        return evenly_chosen(self.held_out, schedule.CURVE_VIEWS)


def plan_for(scene: Scene, options: TrainOptions, folder: Path) -> Plan:
    """Read the photos and decide.

    Args:
        scene: cameras, photos and points.
        options: see TrainOptions.
        folder: an existing one, on whose disk photos are kept if memory does not suffice for them.

    Raises:
        InputError: too few cameras.
        MissingPartError: the backend cannot run on this machine.
        DiskFullError: neither memory nor disk has room for the photos.
    """
    training_cameras, held_out_cameras = split_cameras(scene, options.hold_out_every)
    wanted = schedule.most_gaussians(len(scene.points.xyz), options.max_gaussians, options.max_gaussians_per_point)
    capped = options.model_copy(update={"max_gaussians": wanted})
    stored, of_photos = room_for_photos(scene.cameras, capped, folder)
    views = [load_view(scene, camera, options.max_image_size, stored) for camera in training_cameras]
    held_out = [load_view(scene, camera, options.max_image_size, stored) for camera in held_out_cameras]
    engine = engine_for(capped, views)
    limit = wanted if engine.max_gaussians is None else min(wanted, engine.max_gaussians)
    seen_by = views_per_point(scene.points, views)
    dropout = schedule.dropout_for(seen_by, options.max_dropout)
    halvings = min(coarsest_level(evenly_chosen(views, DETAIL_VIEWS)), max(view.most_halvings for view in views))
    return Plan(
        engine=engine,
        views=views,
        held_out=held_out,
        scene_radius=scene.extent / 2,
        max_gaussians=limit,
        dropout=dropout,
        halvings=halvings,
        decisions=of_photos + _decisions(wanted, options, seen_by, dropout, halvings),
    )


def room_for_photos(
    cameras: Sequence[Camera], options: TrainOptions, folder: Path
) -> tuple[Callable[[Photo], Photo], tuple[str, ...]]:
    """Decide where the photos are kept, as `load_view` takes it; with a sentence about it unless that is memory.

    Raises DiskFullError if the disk of the folder has no room for those that memory does not suffice for.
    """
    needed, free = photo_bytes(cameras, options.max_image_size), available_memory_bytes()
    on_cpu = resolve_backend(options.backend) == "cpu"
    gaussians = options.max_gaussians * bytes_each(options.sh_degree) if on_cpu else 0.0
    if needed + gaussians <= free * (1 - SPARE_SHARE):
        return in_memory, ()
    sentence = (
        f"The {len(cameras):,} photos ({needed / 1e9:.2f} GB) are read from a file on the disk during training: "
        f"{free / 1e9:.2f} GB of memory are free, of which the Gaussians may need {gaussians / 1e9:.2f} GB."
    )
    return PhotoFile(folder, needed).stored, (sentence,)


def coarsest_level(views: Sequence[View]) -> int:
    """How often photos can be halved and keep KEPT_DETAIL of their variance, the median over views."""
    kept = [[float(photo.var()) / max(float(view.photos[0].var()), 1e-9) for photo in view.photos] for view in views]
    shares = np.median(kept, axis=0)
    return int(np.flatnonzero(shares >= schedule.KEPT_DETAIL).max(initial=0))


def _decisions(wanted: int, options: TrainOptions, seen_by: float, dropout: float, halvings: int) -> tuple[str, ...]:
    sentences = [f"Training begins with photos at 1/{2**halvings} of their size."]
    if wanted < options.max_gaussians:
        sentences.append(
            f"At most {wanted:,} Gaussians: {options.max_gaussians_per_point:g} for each sparse point "
            "(train.max_gaussians_per_point)."
        )
    if dropout > 0:
        sentences.append(
            f"{dropout:.0%} of the Gaussians are left out of every step (train.max_dropout): a typical point lies in "
            f"the frame of {seen_by:.0f} photos only, which training could learn by heart."
        )
    return tuple(sentences)


def engine_for(options: TrainOptions, views: Sequence[View] = ()) -> Engine:
    """The engine of the backend that the options ask for; MissingPartError when it cannot run here.

    It plans its memory, on a GPU for these views.
    """
    if resolve_backend(options.backend) == "cuda":
        from tasks.core.training.cuda_engine import cuda_engine

        return cuda_engine(options, views)
    from tasks.core.training.cpu_engine import CpuEngine

    affordable = affordable_gaussians(available_memory_bytes(), options.sh_degree)
    if affordable >= options.max_gaussians:
        return CpuEngine(options.max_gaussians)
    reason = (
        f"{affordable:,} instead of {options.max_gaussians:,} Gaussians, for which the free memory does not suffice. "
        "Close other programs, or take a machine with more memory."
    )
    return CpuEngine(affordable, (reason,))


def split_cameras(scene: Scene, hold_out_every: int) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """Cameras to train on and cameras held out; none is held out where that would leave fewer than MIN_CAMERAS.

    Raises InputError when the scene has fewer than MIN_CAMERAS cameras.
    """
    if len(scene.cameras) < MIN_CAMERAS:
        raise InputError(
            f"The scene has {len(scene.cameras)} registered photos; training needs at least {MIN_CAMERAS}. "
            "Add photos that overlap these."
        )
    if hold_out_every == 0:
        return scene.cameras, ()
    training, held_out = scene.split(hold_out_every)
    return (training, held_out) if len(training) >= MIN_CAMERAS else (scene.cameras, ())
