"""Models of each stage's measurements, and of `report.json`, which contains them.

A number that was not measured is null.
"""

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.georeference import Georeference
from tasks.core.model_frame import ModelFrame
from tasks.core.photoset import RejectedPhoto
from tasks.core.safe_names import safe_name

SCHEMA_VERSION = 1
LONGEST_PICTURE_BYTES = 200  # of a camera's name in that of its picture, which may have 255


def held_out_picture(camera_name: str) -> str:
    """Return the file name of the compress stage's picture for a held-out camera, which the report shows.

    Different cameras have different names. Raises UnsafeNameError.
    """
    flat = safe_name(camera_name).replace("/", "__")
    if "__" in camera_name or len(flat.encode()) > LONGEST_PICTURE_BYTES:  # two cameras could share that name
        digest = hashlib.sha256(camera_name.encode()).hexdigest()[:12]
        flat = flat.encode()[:LONGEST_PICTURE_BYTES].decode(errors="ignore") + f".{digest}"
    return flat + ".render.jpg"


class Section(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhotosSection(Section):
    """The photos of the capture."""

    found: int
    usable: int
    rejected: tuple[RejectedPhoto, ...] = ()
    flight_log: str | None = None  # how the photos' places were found in a flight log; null where none was given
    not_read: dict[str, int] = Field(default_factory=dict)  # files that are not offered as photos, by extension
    notes: tuple[str, ...] = ()  # sentences on these files, and on what was done to the photos' pixels


class LeftOutPhoto(Section):
    """A usable photo that is not in the scene."""

    name: str
    reason: str
    position_m: tuple[float, float, float] | None = None  # in the scene, by its GPS; null without a georeference


class SfmTry(Section):
    """One try to register the photos; a more expensive one follows if it was not good enough."""

    # "first try", "moving points", "zoomed photos apart", "more neighbours", "similar photos", "all pairs",
    # "raised contrast", "finer features"
    rung: str
    matcher: str
    pairs: int
    mapper: str
    registered: int
    models: int
    note: str = ""  # result of the other mapper, if the first was not good enough


class FrameSection(Section):
    """What the scene's axes rest on, in sentences."""

    up: str
    scale: str
    place: str
    not_believed: tuple[str, ...] = ()  # places, altitudes and angles of the photos that were left out, and why


class SfmSection(Section):
    """The result of structure from motion."""

    registered: int
    unregistered: tuple[str, ...] = ()
    left_out: tuple[LeftOutPhoto, ...] = ()  # the same photos, with the reason of each
    models: int  # separate reconstructions; the largest is used
    mean_reprojection_error_px: float | None = None
    points: int
    georeferenced: bool
    gps_residual_rms_m: float | None = None  # of the photos whose GPS the georeference was fitted to
    georeference: Georeference | None = None  # also in georeference.json, beside the splat
    frame: FrameSection | None = None  # null for a given model
    model_frame: ModelFrame | None = None  # of a user's own model; also in model_frame.json, beside the splat
    # "exhaustive", "sequential", "spatial+sequential", "appearance", one of these with "+appearance", or "given" for a
    # user's own model
    matcher: str
    mapper: str  # "incremental", "global", or "given"
    rung: str = "given"  # of the ladder of efforts, whose result is used
    tries: tuple[SfmTry, ...] = ()  # in order, the last one not always the best
    degradations: tuple[str, ...] = ()  # what was not believed, was left out, or makes the cameras doubtful


class CurvePoint(Section):
    """Held-out quality at one moment of training."""

    step: int
    seconds: float  # wall time of training, evaluation left out
    psnr_db: float
    detail: float | None = None  # of the first held-out view, which the dashboard shows; render's over photo's


class CellSection(Section):
    """The result of one cell."""

    number: int
    views: int  # photos that it was trained on
    ring_views: int  # those of them of which another cell owns more
    num_gaussians: int  # before merging, those in the margin that is cut off included
    steps: int
    psnr_db: float | None = None  # of the cell's own held-out views, before merging
    seconds: float | None = None  # null for a cell that came from the cache
    cached: bool = False


class TrainSection(Section):
    """The result of training."""

    backend: str  # "cpu" or "cuda"
    steps: int
    resumed_from_step: int | None = None  # of the checkpoint that the run resumed from; null when there was none
    num_gaussians: int
    image_width: int  # of the first camera at the training resolution
    image_height: int
    psnr_db: float | None = None  # mean over the held-out views, as all that follow
    ssim: float | None = None
    gmsd: float | None = None  # gradient magnitude similarity deviation, 0 for equal images
    detail: float | None = None  # gradient magnitude of the render over that of the photo
    # The same over the pixels whose surface at least three photos see that were trained on
    psnr_db_covered: float | None = None
    ssim_covered: float | None = None
    gmsd_covered: float | None = None
    detail_covered: float | None = None
    covered_share: float | None = None  # of the held-out views' pixels
    # PSNR when one affine map of colours for each view has made up for its exposure and white balance; mean over views
    color_corrected_psnr_db: float | None = None
    # Of a splat trained in cells: PSNR over pixels within 16 px of a change of their owner, and over the others
    seam_psnr_db: float | None = None
    interior_psnr_db: float | None = None
    seam_share: float | None = None  # of the held-out views' pixels
    # The step after which, everything above being measured, the held-out photos joined the training; null: never
    held_out_joined_at_step: int | None = None
    eval_views: tuple[str, ...] = ()  # names of the held-out cameras
    eval_psnr_db: tuple[float, ...] = ()  # one for each of eval_views
    eval_detail: tuple[float | None, ...] = ()  # the same; null where the photo has no detail at all
    cells: tuple[CellSection, ...] = ()  # empty for a training in one part
    stopped_by: str  # "schedule", "time budget", "flat quality"
    curve: tuple[CurvePoint, ...] = ()
    decisions: tuple[str, ...] = ()  # what was chosen because of the machine, as where photos lie
    degradations: tuple[str, ...] = ()  # what the machine made worse than was asked for


class CellPlan(Section):
    """A cell of a scene that is trained in parts."""

    number: int
    digest: str  # sha256 of all that decides its training, beside the options
    views: int  # photos that it is trained on
    ring_views: int  # those of them of which another cell owns more
    share: float  # of the photos' pixels that it owns
    steps: int
    max_gaussians: int  # in its training, the margin that is cut off included


class CellsSection(Section):
    """A scene's division into cells."""

    cells: tuple[CellPlan, ...]
    decisions: tuple[str, ...] = ()


class SogSection(Section):
    """The loss and the size of compression."""

    bytes: int
    ply_bytes: int
    psnr_drop_db: float | None = (
        None  # PSNR of the .ply minus that of the decoded .sog, on the views quality was measured on
    )
    sh_bands: int
    streamed_bytes: int | None = None  # of all files in levels of detail; null for a splat that is not that large
    degradations: tuple[str, ...] = ()  # a loss above the limit that no finer storage could reach


class PicturesSection(Section):
    """The pictures of the splat for people."""

    preview_bytes: int
    fly_around_bytes: int


class PublishSection(Section):
    """The published result."""

    psnr_db: float | None = None  # mean over the held-out views, as all that follow
    ssim: float | None = None
    gmsd: float | None = None
    detail: float | None = None
    num_gaussians: int
    sog_bytes: int
    degradations: tuple[str, ...] = ()  # of all stages


class SecondsSection(Section):
    """Wall time by stage; null for a stage that came from the cache or did not run."""

    photos: float | None = None
    sfm: float | None = None
    train: float | None = None
    compress: float | None = None
    publish: float | None = None
    total: float | None = None


class CostSection(Section):
    """US dollars of machine time by stage; null where no price is known, and for a stage from the cache."""

    photos: float | None = None
    sfm: float | None = None
    train: float | None = None
    compress: float | None = None
    publish: float | None = None
    total: float | None = None


class EstimateSection(Section):
    """The estimate of the run before its stages began, each on its own machine.

    Stages that turned out to be in the workspace are included.
    """

    seconds: SecondsSection
    cost_usd: CostSection = CostSection()  # null where no price is known
    peak_memory_bytes: int


class Report(Section):
    """Everything measured in one run."""

    schema_version: int = SCHEMA_VERSION
    capture: str  # what people call it: the name of the photos' folder or archive
    created_at: str  # ISO 8601, UTC
    photos: PhotosSection | None  # null for a user's own COLMAP model
    sfm: SfmSection
    train: TrainSection
    sog: SogSection
    seconds: SecondsSection
    cost_usd: CostSection = CostSection()
    estimate: EstimateSection | None = None  # beside `seconds`; null for a report of before there were estimates
    peak_memory_bytes: int | None = None
    cache_hits: tuple[str, ...] = ()
    degradations: tuple[str, ...] = ()  # what was done worse than asked for, and why
    options: dict[str, object] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    # By stage: release of Spaceport / digest of the sources that made its output.
    code_versions: dict[str, str] = Field(default_factory=dict)
