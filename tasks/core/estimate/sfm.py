"""What structure from motion takes, from what it decides itself: size for features, pairs to compare, images to write.

That more pairs or finer features turn out to be needed (docs/sfm.md, *The ladder*) is not foreseen.
"""

from tasks.core.estimate.capture import Capture
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.work import Work
from tasks.core.sfm.grey import features_image_size, scaled_size
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import choose_pairs

# CPU seconds of a core of the reference machine, fitted to runs of four photo sets: docs/estimate.md.
WORKER_SECONDS = 2.6  # start of the worker process and its libraries
GREY_SECONDS_PER_MEGAPIXEL = 0.01  # of the photo as it came in
FEATURE_SECONDS_PER_MEGAPIXEL = 0.4  # of the photo as features are looked for; frames of a video need less
PAIR_SECONDS = 0.009
MAPPING_SECONDS_PER_PHOTO = 0.11
UNDISTORT_SECONDS_PER_MEGAPIXEL = (0.008, 0.26)  # read, written

WORKER_BYTES = 100e6
BYTES_PER_FEATURE_PIXEL = 120  # in each thread: tasks/core/sfm/features.py


def sfm_work(capture: Capture, options: SfmOptions, image_size: int) -> Work:
    """Features, matching and mapping, then the undistorted images; for a given model only the images.

    Args:
        capture: what headers say of the photos.
        options: of structure from motion.
        image_size: longer side of the images that it writes, in pixels.

    Raises OptionsError when the photos lack what a matcher needs.
    """
    photos = capture.photos
    written = sum(_megapixels(*scaled_size(p.width, p.height, image_size)) for p in photos)
    read_seconds, write_seconds = UNDISTORT_SECONDS_PER_MEGAPIXEL
    undistorting = Work(parallel=read_seconds * capture.megapixels + write_seconds * written)
    start = Work(serial=WORKER_SECONDS)
    if capture.is_given_model:
        return start + undistorting
    sizes = _feature_sizes(capture, options)
    looked_at = sum(_megapixels(*size) for size in sizes)
    pairs = len(choose_pairs(photos, options).pairs)
    return (
        start
        + undistorting
        + Work(parallel=GREY_SECONDS_PER_MEGAPIXEL * capture.megapixels + FEATURE_SECONDS_PER_MEGAPIXEL * looked_at)
        + Work(parallel=PAIR_SECONDS * pairs)
        + Work(serial=MAPPING_SECONDS_PER_PHOTO * len(photos))
    )


def sfm_bytes(capture: Capture, options: SfmOptions, machine: Machine) -> float:
    """Peak memory of the worker process."""
    if capture.is_given_model:
        return WORKER_BYTES
    largest = max(width * height for width, height in _feature_sizes(capture, options))
    return WORKER_BYTES + min(machine.cores, len(capture.photos)) * BYTES_PER_FEATURE_PIXEL * largest


def _feature_sizes(capture: Capture, options: SfmOptions) -> list[tuple[int, int]]:
    long_side = features_image_size(capture.photos, options.max_features_image_size)
    return [scaled_size(photo.width, photo.height, long_side) for photo in capture.photos]


def _megapixels(width: int, height: int) -> float:
    return width * height / 1e6
