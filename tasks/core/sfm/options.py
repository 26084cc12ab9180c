"""Options of the sfm stage."""

from typing import Literal

from pydantic import Field

from tasks.core.option_model import OptionModel


class SfmOptions(OptionModel):
    """How cameras are found."""

    max_features_image_size: int = Field(
        1600,
        title="Image size for features",
        description="Photos are scaled down to this long side before features are looked for (px). 1000 halves the "
        "time and loses photos with little overlap; above 1600 costs memory and seldom registers more.",
        ge=320,
        le=6400,
    )
    max_features: int = Field(
        8192,
        title="Features per photo",
        description="The strongest features that are kept of each photo (count, before orientations are assigned).",
        ge=500,
        le=32768,
    )
    matcher: Literal["auto", "exhaustive", "spatial", "sequential", "appearance"] = Field(
        "auto",
        title="Matcher",
        description="Which photos are compared: every pair (exhaustive), neighbours by GPS (spatial), neighbours in "
        "capture order (sequential), photos that look alike by their features (appearance), or chosen from number, GPS "
        "and order of the photos (auto), which compares more pairs when too few photos register.",
    )
    spatial_neighbors: int = Field(
        12,
        title="Neighbours by GPS",
        description="How many of the nearest photos each photo is compared with by the spatial matcher (count).",
        ge=2,
        le=200,
    )
    sequential_overlap: int = Field(
        5,
        title="Neighbours in order",
        description="How many following photos each photo is compared with by the sequential matcher (count); beyond "
        "them the photos at distances of powers of two.",
        ge=1,
        le=200,
    )
    mapper: Literal["auto", "incremental", "global"] = Field(
        "auto",
        title="Mapper",
        description="Cameras one after the other (incremental), all at once (global), or incremental with the global "
        "mapper as rescue when it leaves photos out (auto).",
    )
    min_registered_share: float = Field(
        0.6,
        title="Least registered share",
        description="The run ends with an error when a smaller share of the usable photos can be placed (0 to 1). "
        "Photos of a camera of which none can be placed, as a thermal one beside others, do not count.",
        ge=0.0,
        le=1.0,
    )
    random_seed: int = Field(
        0,
        title="Random seed",
        description="The same photos, options and seed give the same cameras on the same machine.",
        ge=0,
        le=2**31 - 1,
    )
