"""What travels between stages: a pointer to a stored output and what is known about it, never the bytes."""

from pydantic import BaseModel, ConfigDict


class RunContext(BaseModel):
    """Where one run keeps things; the same for all of its stages, on whatever machine they run."""

    model_config = ConfigDict(frozen=True)

    workspace: str  # root of stage outputs: an absolute local folder, `s3://bucket/prefix` or `s3-bucket/<block>`
    run: str  # name of the run's own folder in the workspace, for what people look at
    fresh: bool = False  # compute every stage anew, whatever the workspace holds
    dispatched: bool = False  # this is the stage's own run already: compute here
    expected_seconds: dict[str, float] = {}  # by stage, as estimated; its own run may take so many times as long


class Ref(BaseModel):
    """A stage's stored output."""

    model_config = ConfigDict(frozen=True)

    uri: str  # of the output's folder, which holds `manifest.json`
    digest: str  # sha256 over the manifest's file list: equal digests are equal outputs
    seconds: float | None = None  # wall time of the computation; null when it came from the cache
    peak_memory_bytes: int | None = None  # of the process that computed it, with those that it started
    cost_usd: float | None = None  # of the machine's time; null where no price is known, or from the cache
    cached: bool = False
    code_version: str = ""  # release of Spaceport / digest of the sources that made it


class PhotosRef(Ref):
    """A validated photo set."""

    capture: str  # what people call it
    usable: int
    rejected: int


class SceneRef(Ref):
    """Cameras, images and sparse points."""

    capture: str
    cameras: int
    points: int
    cameras_cached: bool = False  # they were in the workspace; only their images were made


class GaussiansRef(Ref):
    """A trained splat."""

    count: int
    psnr_db: float | None
    degradations: tuple[str, ...] = ()  # what was done worse than asked for, and why


class SogRef(Ref):
    """A compressed splat."""

    bytes: int


class Publication(BaseModel):
    """Where people find the result."""

    model_config = ConfigDict(frozen=True)

    uri: str
    page: str
    report: str
    psnr_db: float | None
    ssim: float | None = None
    gmsd: float | None = None
    detail: float | None = None
    num_gaussians: int
    sog_bytes: int
    seconds: float | None = None  # of publishing; the other stages' stand in their refs
    cost_usd: float | None = None
    peak_memory_bytes: int | None = None
    cache_hits: tuple[str, ...] = ()
    degradations: tuple[str, ...] = ()
