"""The layout of a SOG file: meta.json as a model, and the sizes of its pictures. We write version 2.

Specification: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog
"""

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from tasks.core.ply import SplatModel

META_FILE = "meta.json"
LOD_META_FILE = "lod-meta.json"
LOD_FOLDER = "lod"  # next to scene.sog
CODEBOOK_ENTRIES = 256  # viewers upload exactly 256
MAX_WEBP_SIDE = 16383
MAX_PALETTE = 65536  # labels have 16 bits
PALETTE_COLUMNS = 64  # palette entries in one row of the centroids picture
QUAT_TAG = 252  # alpha of a quats pixel is 252 + index of the component that was left out

# Greatest |sign(x) ln(1 + |x|)| of a float32 position.
MAX_LOG_POSITION = 88.72

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
MAX_NUMBER = 3.4e38  # of float32
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_NUMBER, le=MAX_NUMBER)]
LogPosition = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_LOG_POSITION, le=MAX_LOG_POSITION)]


def _with_first_entry(codebook: Any) -> Any:
    """A codebook with its first entry, as viewers fill it in: early writers left null there for minus infinity."""
    if not isinstance(codebook, list) or len(codebook) != CODEBOOK_ENTRIES or codebook[0] is not None:
        return codebook
    second, last = codebook[1], codebook[-1]
    if not all(isinstance(value, int | float) and abs(value) < MAX_NUMBER for value in (second, last)):
        return codebook
    return [second + (second - last) / (CODEBOOK_ENTRIES - 1), *codebook[1:]]


Codebook = Annotated[
    tuple[Finite, ...],
    Field(min_length=CODEBOOK_ENTRIES, max_length=CODEBOOK_ENTRIES),
    BeforeValidator(_with_first_entry),
]


class Part(BaseModel):
    """A part of meta.json; keys this version does not know are ignored, as the specification asks."""

    # Models are built at first use: a writer never needs those of version 1.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Asset(Part):
    """The program that wrote the file."""

    generator: str = ""


class BoundedPart(Part):
    """A part whose bytes are fractions between two bounds. `field` is its name in meta.json."""

    field: ClassVar[str]
    mins: Any
    maxs: Any


class MeansPart(BoundedPart):
    """Positions: 16 bits an axis, low and high bytes in two pictures; bounds are of sign(x) ln(1 + |x|)."""

    field = "means"
    mins: tuple[LogPosition, LogPosition, LogPosition]
    maxs: tuple[LogPosition, LogPosition, LogPosition]
    files: tuple[FileName, FileName]


class ScalesPart(Part):
    """Log scales: one codebook for the three axes."""

    codebook: Codebook
    files: tuple[FileName]


class QuatsPart(Part):
    """Rotations: the three smallest components in 8 bits each, and the index of the one left out."""

    files: tuple[FileName]


class Sh0Part(Part):
    """Base colour through one codebook; opacity in alpha."""

    codebook: Codebook
    files: tuple[FileName]


class ShNPart(Part):
    """View-dependent colour: a palette picture and a 16-bit label for each Gaussian.

    Some writers leave out `count` and `bands`; the palette's size says both.
    """

    count: int | None = Field(default=None, ge=1, le=MAX_PALETTE)
    bands: int | None = Field(default=None, ge=1, le=3)
    codebook: Codebook
    files: tuple[FileName, FileName]


class Meta(Part):
    """meta.json of SOG version 2."""

    version: Literal[2]
    asset: Asset = Asset()
    count: int = Field(ge=1)
    model: SplatModel | None = None
    antialias: bool = Field(default=False, exclude=True)  # of the specification of 2025, before `model`
    means: MeansPart
    scales: ScalesPart
    quats: QuatsPart
    sh0: Sh0Part
    shN: ShNPart | None = None

    @property
    def drawn_as(self) -> SplatModel:
        """How to draw the splat."""
        return self.model or ("antialiased" if self.antialias else "default")


class ShapedMeans(MeansPart):
    """Positions of version 1, whose shape contains the count."""

    shape: tuple[Annotated[int, Field(ge=1)], int]


class EvenScales(BoundedPart):
    """Log scales of version 1."""

    field = "scales"
    mins: tuple[Finite, Finite, Finite]
    maxs: tuple[Finite, Finite, Finite]
    files: tuple[FileName]


class EvenSh0(BoundedPart):
    """Base colour of version 1, and logits of opacity as a fourth channel."""

    field = "sh0"
    mins: tuple[Finite, Finite, Finite, Finite]
    maxs: tuple[Finite, Finite, Finite, Finite]
    files: tuple[FileName]


class EvenShN(BoundedPart):
    """View-dependent colour of version 1: the number of bands follows from the picture's width."""

    field = "shN"
    mins: Finite
    maxs: Finite
    files: tuple[FileName, FileName]


class Meta1(Part):
    """meta.json of SOG version 1, without a version number. Written by playcanvas/sogs; viewers still read it."""

    means: ShapedMeans
    scales: EvenScales
    quats: QuatsPart
    sh0: EvenSh0
    shN: EvenShN | None = None

    @property
    def count(self) -> int:
        """Number of Gaussians."""
        return self.means.shape[0]


def _version(meta: Any) -> str:
    return "1" if isinstance(meta, dict) and "version" not in meta else "2"


AnyMeta: TypeAdapter[Meta | Meta1] = TypeAdapter(
    Annotated[Annotated[Meta, Tag("2")] | Annotated[Meta1, Tag("1")], Discriminator(_version)],
    config=ConfigDict(defer_build=True),
)


def is_meta(path: Path) -> bool:
    """Whether a file of this name describes an unbundled SOG. Some writers put the scene's name in front."""
    return path.name.lower().endswith(META_FILE) and not is_lod_meta(path)


def is_lod_meta(path: Path) -> bool:
    """Whether a file of this name describes levels of detail."""
    return path.name.lower().endswith(LOD_META_FILE)


def picture_size(count: int) -> tuple[int, int]:
    """Width and height in px of the pictures that hold one pixel for each of `count` Gaussians."""
    width = 4 * math.ceil(math.sqrt(count) / 4)
    return width, 4 * math.ceil(count / width / 4)


def palette_size(entries: int, coefficients: int) -> tuple[int, int]:
    """Width and height in px of the picture that holds a palette of `entries` times `coefficients` (3, 8 or 15)."""
    return PALETTE_COLUMNS * coefficients, math.ceil(entries / PALETTE_COLUMNS)
