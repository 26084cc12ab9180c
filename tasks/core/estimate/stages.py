"""What the stages around structure from motion and training take: photos, compress and publish."""

from tasks.core.estimate.capture import Capture
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.train import Training, render_work
from tasks.core.estimate.work import Work
from tasks.core.gaussians import SH_COEFFICIENTS
from tasks.core.report.preview import FRAME_WIDTH_PX, FRAMES
from tasks.core.sog.options import CompressOptions

# CPU seconds of a core of the reference machine, fitted to runs of four photo sets: docs/estimate.md.
DECODE_SECONDS_PER_MEGAPIXEL = 0.005
PHOTOS_SECONDS = 0.2
COMPRESS_SECONDS = 0.5  # in the process that has trained; kernels and libraries take 2 s more in one of its own
ENCODE_SECONDS_PER_MILLION = 26.0  # Gaussians with harmonics of degree 3, on the first rung of the ladder of precisions
PUBLISH_SECONDS = 0.8  # pages, report and pictures in them
FRAME_SECONDS_PER_MEGAPIXEL = 0.2  # to encode the fly-around
FLY_AROUND_SHARE = 0.5  # of the Gaussians, that a frame of the fly-around shows
BETWEEN_STAGES_SECONDS = 3.0  # Prefect, hashing, and imports

BASE_BYTES = 310e6  # of a process with the flow's libraries
RENDERING_BYTES = 650e6  # of one that renders: numba with its kernels, scipy
BYTES_PER_DECODED_PIXEL = 10


def photos_work(capture: Capture) -> Work:
    """Every photo is decoded to its last byte, on all cores."""
    return Work(serial=PHOTOS_SECONDS, parallel=DECODE_SECONDS_PER_MEGAPIXEL * capture.megapixels)


def photos_bytes(capture: Capture, machine: Machine) -> float:
    """Peak memory: as many photos as there are cores."""
    largest = max(photo.width * photo.height for photo in capture.photos)
    return BASE_BYTES + min(8, machine.cores, len(capture.photos)) * BYTES_PER_DECODED_PIXEL * largest


def compress_work(training: Training, options: CompressOptions) -> Work:
    """Encoding, and two renders of every held-out view, with the precision that is tried first."""
    harmonics = SH_COEFFICIENTS[min(options.sh_degree, training.sh_degree)] / SH_COEFFICIENTS[-1]
    encoding = Work(parallel=ENCODE_SECONDS_PER_MILLION * training.kept / 1e6 * harmonics)
    renders = render_work(training.megapixels, training.kept * training.shown_share) * training.held_out
    return Work(serial=COMPRESS_SECONDS) + encoding + renders * 2


def compress_bytes(training: Training) -> float:
    """Peak memory; a few copies of every parameter."""
    return RENDERING_BYTES + 1000 * training.kept


def publish_work(training: Training) -> Work:
    """Page and report, and the frames of the fly-around."""
    frame = FRAME_WIDTH_PX**2 * training.height / training.width / 1e6
    frames = render_work(frame, training.kept * FLY_AROUND_SHARE) * FRAMES
    return Work(serial=PUBLISH_SECONDS + FRAME_SECONDS_PER_MEGAPIXEL * FRAMES * frame) + frames


def publish_bytes(training: Training) -> float:
    """Peak memory, of a process of its own."""
    return RENDERING_BYTES + 500 * training.kept
