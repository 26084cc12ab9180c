"""Options of the compress stage, and how finely numbers are stored."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Precision:
    """The rounding steps of all numbers. None and 1 are as fine as the format allows."""

    gaussians_per_entry: float = 1.2  # how many Gaussians share an entry of the palette of view-dependent colours
    sh_step: float | None = None  # of the palette's coefficients; None: chosen from the palette's own error
    scale_step: float | None = None  # of log scales: 0.1 is a tenth of an axis' length
    color_step: float | None = None  # of sh0: a step of 1 is SH_C0 = 0.28 of the brightest colour
    byte_step: int = 1  # of rotations and opacities, of 255
    position_share: float | None = None  # rounding of positions, as a share of the Gaussians' size
    by_appearance: bool = False  # axes are reordered, and the palette favours what covers most of a picture


FINEST = Precision()

# Precisions that the compress stage tries, from small files to large ones, until the held-out views lose little enough.
# In each, a byte saved on one attribute costs about as much as on any other (docs/sog.md has the figures).
LADDER = (
    Precision(8, sh_step=0.04, scale_step=0.15, color_step=0.12, byte_step=4, position_share=0.2, by_appearance=True),
    Precision(4, sh_step=0.03, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(2, sh_step=0.02, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(1, sh_step=0.03, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(1, sh_step=0.01, scale_step=0.05, color_step=0.04, byte_step=1, position_share=0.05, by_appearance=True),
    Precision(1, by_appearance=True),
)
