"""What a SOG v2 file consists of: meta.json as a model, and how Gaussians lie in pictures.

Specification: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.ply import SplatModel

META_FILE = "meta.json"
CODEBOOK_ENTRIES = 256  # viewers upload exactly 256
MAX_WEBP_SIDE = 16383
MAX_PALETTE = 65536  # labels have 16 bits
PALETTE_COLUMNS = 64  # palette entries in one row of the centroids picture
QUAT_TAG = 252  # alpha of a quats pixel is 252 + index of the component that was left out

# Greatest |sign(x) ln(1 + |x|)| of a float32 position.
MAX_LOG_POSITION = 88.72

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-3.4e38, le=3.4e38)]
LogPosition = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_LOG_POSITION, le=MAX_LOG_POSITION)]
Codebook = Annotated[tuple[Finite, ...], Field(min_length=CODEBOOK_ENTRIES, max_length=CODEBOOK_ENTRIES)]


class Part(BaseModel):
    """A part of meta.json; keys this version does not know are ignored, as the specification asks."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Asset(Part):
    """Who wrote the file."""

    generator: str = ""


class MeansPart(Part):
    """Positions: 16 bits an axis, low and high bytes in two pictures; bounds are of sign(x) ln(1 + |x|)."""

    mins: tuple[LogPosition, LogPosition, LogPosition]
    maxs: tuple[LogPosition, LogPosition, LogPosition]
    files: tuple[FileName, FileName]


class ScalesPart(Part):
    """Log scales: one codebook for the three axes."""

    codebook: Codebook
    files: tuple[FileName]


class QuatsPart(Part):
    """Rotations: the three smallest components in 8 bits each, and which one was left out."""

    files: tuple[FileName]


class Sh0Part(Part):
    """Base colour through one codebook; opacity in alpha."""

    codebook: Codebook
    files: tuple[FileName]


class ShNPart(Part):
    """View-dependent colour: a palette picture and a 16-bit label for each Gaussian."""

    count: int = Field(ge=1, le=MAX_PALETTE)
    bands: int = Field(ge=1, le=3)
    codebook: Codebook
    files: tuple[FileName, FileName]


class Meta(Part):
    """meta.json of SOG version 2."""

    version: Literal[2]
    asset: Asset = Asset()
    count: int = Field(ge=1)
    model: SplatModel | None = None
    means: MeansPart
    scales: ScalesPart
    quats: QuatsPart
    sh0: Sh0Part
    shN: ShNPart | None = None


def picture_size(count: int) -> tuple[int, int]:
    """Width and height in px of the pictures that hold one pixel for each of `count` Gaussians."""
    width = 4 * math.ceil(math.sqrt(count) / 4)
    return width, 4 * math.ceil(count / width / 4)


def palette_size(entries: int, coefficients: int) -> tuple[int, int]:
    """Width and height in px of the picture that holds a palette of `entries` times `coefficients` (3, 8 or 15)."""
    return PALETTE_COLUMNS * coefficients, math.ceil(entries / PALETTE_COLUMNS)
