"""The options of the compress stage."""

from pydantic import Field

from tasks.core.gaussians import MAX_SH_DEGREE
from tasks.core.option_model import OptionModel

EFFORT_BY_PICTURE = -1


class CompressOptions(OptionModel):
    """How Gaussians become a .sog."""

    sh_degree: int = Field(
        default=MAX_SH_DEGREE,
        ge=0,
        le=MAX_SH_DEGREE,
        title="View-dependent colour",
        description="Highest spherical-harmonics degree that is kept. 0 keeps one colour for all directions and makes "
        "the smallest file.",
    )
    max_palette: int = Field(
        default=65536,
        ge=64,
        le=65536,
        title="Largest palette of view-dependent colours (entries)",
        description="Gaussians share this many sets of view-dependent coefficients at most. An entry costs about 40 "
        "bytes at degree 3. Small scenes get fewer entries on their own.",
    )
    max_psnr_drop_db: float = Field(
        default=0.25,
        ge=0.0,
        le=10.0,
        title="Most loss (dB)",
        description="While the held-out views lose more than this many dB against the .ply, numbers are stored more "
        "finely and more view-dependent colours kept: up to six sizes are tried.",
    )
    stream_above: int = Field(
        default=1_000_000,
        ge=1,
        le=20_000_000,
        title="Stream splats above (Gaussians)",
        description="A larger splat is written in levels of detail as well, so that a browser loads what it looks at "
        "first. The page that opens by double-click still holds all of it.",
    )
    webp_effort: int = Field(
        default=EFFORT_BY_PICTURE,
        ge=EFFORT_BY_PICTURE,
        le=5,
        title="WebP effort",
        description="0 is fastest, 5 is slowest; -1 gives each picture the effort that pays for it. Pictures are "
        "lossless at every effort; only time and bytes change.",
    )
