"""References between stages: a pointer to a stored output with some facts about it, never the bytes."""

from typing import Self

from pydantic import BaseModel, ConfigDict


class RunContext(BaseModel):
    """The places of one run; the same for all of its stages, on every machine."""

    model_config = ConfigDict(frozen=True)

    workspace: str  # root of stage outputs: an absolute local folder, `s3://bucket/prefix` or `s3-bucket/<block>`
    run: str  # name of the run's own folder in the workspace, for people
    fresh: bool = False  # compute every stage anew, whatever the workspace holds
    dispatched: bool = False  # this is the stage's own run already: compute here
    expected_seconds: dict[str, float] = {}  # estimate by stage; limits the time of a stage's own run


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

    @classmethod
    def of(cls, output: "Ref", **known: object) -> Self:
        """Return the ref of a stage's output, with facts about this kind of output."""
        return cls.model_validate({**output.model_dump(), **known})

    @property
    def summary(self) -> str:
        """The output in some words, for people."""
        return f"output {self.digest[:8]}"


class PhotosRef(Ref):
    """A validated photo set."""

    capture: str  # what people call it
    usable: int
    rejected: int

    @property
    def summary(self) -> str:
        """How many photos it has."""
        return f"{self.usable} photos"


class SceneRef(Ref):
    """Cameras, images and sparse points."""

    capture: str
    cameras: int
    points: int
    cameras_cached: bool = False  # they were in the workspace; only their images were made

    @property
    def summary(self) -> str:
        """How many cameras it has."""
        return f"{self.cameras} cameras"


class CellsRef(Ref):
    """The plan of a training in cells."""

    count: int

    @property
    def summary(self) -> str:
        """How many cells it has."""
        return f"{self.count} cells"


class CellRef(Ref):
    """One trained cell."""

    number: int  # from 0
    count: int
    psnr_db: float | None
    degradations: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How many Gaussians it has."""
        return f"{self.count:,} Gaussians"


class GaussiansRef(Ref):
    """A trained splat. Of a training in cells, time and cost are those of all its parts."""

    count: int
    psnr_db: float | None
    degradations: tuple[str, ...] = ()  # what was done worse than asked for, and why
    plan: CellsRef | None = None  # None for a training in one part
    cells: tuple[CellRef, ...] = ()

    @property
    def summary(self) -> str:
        """How many Gaussians it has."""
        return f"{self.count:,} Gaussians"


class SogRef(Ref):
    """A compressed splat."""

    bytes: int

    @property
    def summary(self) -> str:
        """Its size."""
        return f"{self.bytes / 1e6:.1f} MB"


class Outputs(BaseModel):
    """The outputs of a run's stages before it is published."""

    model_config = ConfigDict(frozen=True)

    photos: PhotosRef | None  # None where a COLMAP model was given
    scene: SceneRef
    gaussians: GaussiansRef
    sog: SogRef

    @property
    def by_stage(self) -> dict[str, Ref]:
        """The outputs by the names of their stages, in order."""
        refs: dict[str, Ref] = {} if self.photos is None else {"photos": self.photos}
        return {**refs, "sfm": self.scene, "train": self.gaussians, "compress": self.sog}

    @property
    def cached_stages(self) -> tuple[str, ...]:
        """The stages whose output was in the workspace, and `cameras` where only a scene's images were made."""
        cached = [name for name, ref in self.by_stage.items() if ref.cached]
        return (*cached, "cameras") if self.scene.cameras_cached else tuple(cached)


class Publication(Ref):
    """A published result. The stage's output lists the files that were put at the destination."""

    place: str  # the destination: a local folder or `s3://bucket/prefix`
    page: str  # path or link of the viewer page
    report: str  # path or link of the report
    psnr_db: float | None
    ssim: float | None = None
    gmsd: float | None = None
    detail: float | None = None
    num_gaussians: int
    sog_bytes: int
    cache_hits: tuple[str, ...] = ()  # stages before this one whose output was in the workspace
    degradations: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Where the result is."""
        return f"unchanged at {self.place}"
