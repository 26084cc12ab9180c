"""One model from the cameras of merged parts: points are triangulated anew, and everything is adjusted together."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.sfm.map_part import GROWTH_OF_MANY, incremental_options
from tasks.core.sfm.merging import Merged
from tasks.core.transforms import Float64

logger = logging.getLogger(__name__)

REFINEMENTS = 3  # rounds of adjusting all, filtering and triangulating again
TOLERANCE = 1e-4  # of the cost, at which a round ends: a quarter less time than 1e-6, and the same errors
LEAST_CHANGE = 0.0005  # of observations in a round, below which they end: COLMAP's


def assemble(
    database: Path, merged: Merged, models: Sequence[pycolmap.Reconstruction], seed: int, *, fixed_lenses: bool = False
) -> pycolmap.Reconstruction:
    """Triangulate and adjust all photos of a database that has their matches.

    Args:
        database: no process writes it.
        merged: cameras in one world.
        models: those that were merged; a lens gets the median of their numbers for it.
        seed: of RANSAC.
        fixed_lenses: whether cropped photos keep their focal lengths.

    Photos that no part has placed, and that see enough of the points, are placed as well.
    """
    pycolmap.set_random_seed(seed)
    pipeline = incremental_options(seed, growth=GROWTH_OF_MANY, fixed_lenses=fixed_lenses)
    pipeline.ba_global_function_tolerance = TOLERANCE
    selection = pycolmap.DatabaseCacheOptions()
    selection.min_num_matches = pipeline.min_num_matches
    with pycolmap.Database.open(database) as known:
        cache = pycolmap.DatabaseCache.create(known, selection)
    posed = _posed(cache, merged, _median_lenses(models))
    mapper = pycolmap.IncrementalMapper(cache)
    mapper.begin_reconstruction(posed)
    options, triangulation = pipeline.get_mapper(), pipeline.get_triangulation()
    for image in sorted(posed.reg_image_ids()):
        mapper.triangulate_image(triangulation, image)
    mapper.complete_and_merge_tracks(triangulation)
    adjustment = pipeline.get_global_bundle_adjustment()
    mapper.iterative_global_refinement(REFINEMENTS, LEAST_CHANGE, options, adjustment, triangulation)
    if _place_left_out(mapper, pipeline):
        mapper.iterative_global_refinement(1, LEAST_CHANGE, options, adjustment, triangulation)
    mapper.end_reconstruction(False)
    return posed


def _median_lenses(models: Sequence[pycolmap.Reconstruction]) -> dict[int, Float64]:
    found: dict[int, list[Float64]] = {}
    for model in models:
        used = {int(model.image(i).camera_id) for i in model.reg_image_ids()}
        for number in used:
            found.setdefault(number, []).append(np.asarray(model.camera(number).params, np.float64))
    return {number: np.median(np.stack(of_lens), axis=0) for number, of_lens in sorted(found.items())}


def _posed(cache: pycolmap.DatabaseCache, merged: Merged, lenses: dict[int, Float64]) -> pycolmap.Reconstruction:
    """A model of the cameras alone."""
    posed = pycolmap.Reconstruction()
    images = {image.name: image for image in cache.images.values()}
    chosen = [images[name] for name in sorted(merged.poses) if name in images]
    for number in sorted(lenses):
        if cache.exists_camera(number):
            camera = cache.camera(number)
            camera.params = lenses[number].tolist()
            posed.add_camera(camera)
    for number in sorted({cache.frame(image.frame_id).rig_id for image in chosen}):
        posed.add_rig(cache.rig(number))
    for image in chosen:
        rotation, center = merged.poses[image.name]
        frame = cache.frame(image.frame_id)
        frame.rig_from_world = pycolmap.Rigid3d(np.column_stack([rotation, -rotation @ center]))
        posed.add_frame(frame)
        posed.add_image(image)
        posed.register_frame(image.frame_id)
    return posed


def _place_left_out(mapper: pycolmap.IncrementalMapper, pipeline: pycolmap.IncrementalPipelineOptions) -> int:
    """Place photos that no part has placed, one after the other; returns how many."""
    options, triangulation = pipeline.get_mapper(), pipeline.get_triangulation()
    placed = 0
    while True:
        for image in mapper.find_next_images(options, False):
            if mapper.register_next_image(options, image):
                mapper.triangulate_image(triangulation, image)
                mapper.iterative_local_refinement(
                    1, LEAST_CHANGE, options, pipeline.get_local_bundle_adjustment(), triangulation, image
                )
                placed += 1
                break
        else:
            return placed
