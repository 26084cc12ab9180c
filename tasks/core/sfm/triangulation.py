"""Points for a given model without any: features of its photos, matched, and triangulated with its cameras as given."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.errors import FormatError
from tasks.core.photoset import IMAGES_FOLDER, Photo
from tasks.core.safe_names import below
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.image_sizes import GivenImage
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import FEW_PHOTOS, Pair, PairChoice

NEIGHBOURS = 20  # photos that each is compared with where there are more than FEW_PHOTOS
MOST_TURNED_DEG = 75.0  # between the viewing directions of a pair: beyond it, features do not match
FEW_POINTS = 15  # in an image: with fewer its camera is not believed
LEAST_SHARE = 0.5  # of the images that must show more


def triangulate(model: pycolmap.Reconstruction, images: list[GivenImage], work: Path) -> pycolmap.Reconstruction:
    """Return a model with the same cameras and poses, and points that are triangulated from the images' files.

    `work` receives the features. Raises FormatError where the images of one camera have several sizes, and where too
    few points result for the cameras to be right.
    """
    for image in images:
        camera = model.camera(image.camera)
        if image.size != (camera.width, camera.height):
            raise FormatError(
                f"The model has too few points, and {image.name} has another size than other images of its camera, so "
                "that none can be triangulated: scale the images to one size."
            )
    source = work / "given"
    for image in images:
        link = below(source / IMAGES_FOLDER, image.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.file)
    photos = tuple(Photo(name=image.name, width=image.size[0], height=image.size[1], sha256="") for image in images)
    options = SfmOptions()
    database = FeatureDatabase(work / "points", source, photos, options)
    posed = _enter(database, model, images)
    database.extract()
    database.match(PairChoice("given", _pairs(model, images)))
    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.random_seed = options.random_seed
    pipeline.num_threads = 1
    (work / "triangulated").mkdir()
    found = pycolmap.triangulate_points(
        posed, database.path, database.images, work / "triangulated", clear_points=True, options=pipeline
    )
    shown = [int(image.num_points3D) for image in found.images.values()]
    if sum(count >= FEW_POINTS for count in shown) < LEAST_SHARE * len(images):
        raise FormatError(
            f"The model has too few points, and with its cameras only {found.num_points3D():,} could be triangulated "
            f"from {len(images)} images: export it with points, or give the photos alone."
        )
    names = {link: image.name for link, image in zip(database.names, images, strict=True)}
    for image in found.images.values():
        image.name = names[image.name]
    return found


def _enter(
    database: FeatureDatabase, model: pycolmap.Reconstruction, images: list[GivenImage]
) -> pycolmap.Reconstruction:
    """Enter cameras and images into the database; return a model of them with the same numbers, without points."""
    posed = pycolmap.Reconstruction()
    rigs: dict[int, int] = {}
    with pycolmap.Database.open(database.path) as entered:
        for number in sorted({image.camera for image in images}):
            camera = model.camera(number)
            camera.has_prior_focal_length = True
            entered.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(camera.sensor_id)
            rigs[number] = entered.write_rig(rig)
            posed.add_camera_with_trivial_rig(camera)
        for link, image in zip(database.names, images, strict=True):
            entry = pycolmap.Image(name=link, camera_id=image.camera)
            entry.image_id = entered.write_image(entry)
            frame = pycolmap.Frame(rig_id=rigs[image.camera])
            frame.add_data_id(entry.data_id)
            entered.write_frame(frame)
            own = pycolmap.Image(name=link, camera_id=image.camera, image_id=entry.image_id)
            posed.add_image_with_trivial_frame(own, model.image(image.number).cam_from_world())
    return posed


def _pairs(model: pycolmap.Reconstruction, images: list[GivenImage]) -> tuple[Pair, ...]:
    """Return the pairs of images to compare: all of few, else the nearest that look in a similar direction."""
    if len(images) <= FEW_PHOTOS:
        return tuple(combinations(range(len(images)), 2))
    poses = [model.image(image.number) for image in images]
    centers = np.stack([pose.projection_center() for pose in poses])
    forwards = np.stack([pose.cam_from_world().rotation.matrix()[2] for pose in poses])
    pairs: set[Pair] = set()
    for number, (center, forward) in enumerate(zip(centers, forwards, strict=True)):
        distances = np.linalg.norm(centers - center, axis=1)
        distances[forwards @ forward < np.cos(np.radians(MOST_TURNED_DEG))] = np.inf
        distances[number] = np.inf
        for other in np.argsort(distances, kind="stable")[:NEIGHBOURS]:
            if np.isfinite(distances[other]):
                pairs.add((min(number, int(other)), max(number, int(other))))
    return tuple(sorted(pairs))
