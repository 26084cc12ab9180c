"""How finely numbers are stored: from all that the format holds down to what a picture shows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Steps of everything that is rounded. None and 1 are as fine as the format allows."""

    gaussians_per_entry: float = 1.2  # how many Gaussians share an entry of the palette of view-dependent colours
    sh_step: float | None = None  # of the palette's coefficients; None follows from what the palette itself loses
    scale_step: float | None = None  # of log scales: 0.1 is a tenth of an axis' length
    color_step: float | None = None  # of sh0, of which 1 is SH_C0 = 0.28 of the brightest colour
    byte_step: int = 1  # of rotations and opacities, of 255
    position_share: float | None = None  # rounding of positions, as a share of the Gaussians' size
    by_appearance: bool = False  # axes are named anew, and the palette serves best what covers most of a picture


FINEST = Precision()

# What the compress stage tries, from small to large, until the held-out views lose little enough. The steps of each are
# where a byte saved on one attribute costs about as much as on every other (docs/sog.md has the figures).
LADDER = (
    Precision(8, sh_step=0.04, scale_step=0.15, color_step=0.12, byte_step=4, position_share=0.2, by_appearance=True),
    Precision(4, sh_step=0.03, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(2, sh_step=0.02, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(1, sh_step=0.03, scale_step=0.1, color_step=0.08, byte_step=2, position_share=0.1, by_appearance=True),
    Precision(1, sh_step=0.01, scale_step=0.05, color_step=0.04, byte_step=1, position_share=0.05, by_appearance=True),
    Precision(1, by_appearance=True),
)
