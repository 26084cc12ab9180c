"""Options of training, the presets that most users choose from, and their values on each kind of machine."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator

from tasks.core.gaussians import MAX_SH_DEGREE
from tasks.core.option_model import OptionModel

MOST_PIXELS_PER_GAUSSIAN = 10_000
MOST_CELLS = 256
MOST_GAUSSIANS = 16_000_000
ONE_PART_AT_MOST = 600  # photos, unless memory is short
PHOTOS_PER_CELL = 300  # of a scene with more photos

Backend = Literal["cpu", "cuda"]

FEW_PHOTOS = 25  # up to this number of photos, a preset takes its own number of steps

# For 2, 8 and 25 minutes on a T4 with 100 photos, by the published times in estimate/stages.py. Not measured.
CUDA_BUDGETS: dict[str, dict[str, Any]] = {
    "draft": {"max_image_size": 1600, "steps": 500, "max_gaussians": 500_000, "pixels_per_gaussian": 4.0},
    "standard": {"max_image_size": 1600, "steps": 2400, "max_gaussians": 1_500_000, "pixels_per_gaussian": 3.0},
    "high": {"max_image_size": 2000, "steps": 5800, "max_gaussians": 4_000_000, "pixels_per_gaussian": 3.0},
}
BY_MACHINE = tuple(CUDA_BUDGETS["draft"])


WITHOUT_EFFECT = ("checkpoint_seconds", "max_photos_in_memory")  # options that do not change the result


class TrainOptions(OptionModel):
    """Options of the train stage."""

    max_image_size: int = Field(
        960,
        ge=64,
        le=8192,
        title="Image size (px)",
        description="Longer side of the photos during training, in pixels. Training time grows with its square.",
    )
    steps: int = Field(
        2500,
        ge=10,
        le=1_000_000,
        title="Steps",
        description="Number of optimiser updates, one photo each. Every milestone of training is a fraction of it. "
        "What a preset says is for up to 25 photos; it grows with the square root of their number.",
    )
    max_gaussians: int = Field(
        1_500_000,
        ge=100,
        le=MOST_GAUSSIANS,
        title="Most Gaussians",
        description="Upper limit of the number of Gaussians; memory in training is about 2 kB for each, and a cell has "
        "its share of them. What a preset says is for up to 600 photos, and grows with the number of cells beyond.",
    )
    pixels_per_gaussian: float = Field(
        7.0,
        ge=0,
        le=MOST_PIXELS_PER_GAUSSIAN,
        title="Least pixels per Gaussian",
        description="Limits the number of Gaussians to one for so many pixels of surface, counting once what several "
        "photos show, but never below 5000. Fewer pixels make a finer and slower splat. 0: no such limit.",
    )
    cells: int | None = Field(
        None,
        ge=1,
        le=MOST_CELLS,
        title="Cells",
        description="Number of parts of the scene that are trained apart and put together at the end: one after the "
        "other, or at the same time where training has a work pool of its own. Left empty, or auto: one for up to 600 "
        "photos, one for each 300 photos of larger captures, and more where memory is short.",
    )
    sh_degree: int = Field(
        MAX_SH_DEGREE,
        ge=0,
        le=MAX_SH_DEGREE,
        title="Spherical harmonics degree",
        description="How finely colours depend on the viewing direction: 0 not at all, 3 most finely. "
        "Where no more than four photos show a place, its colors do not depend on it.",
    )
    backend: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        title="Backend",
        description="What computes: a CUDA GPU, the CPU, or whichever of the two this machine has.",
    )
    hold_out_every: int = Field(
        8,
        ge=0,
        le=1000,
        title="Hold out every n-th photo",
        description="Every n-th photo is not trained on but measures quality. 0 trains on all and measures none.",
        json_schema_extra={"not": {"const": 1}},  # the validator below refuses 1; this is for readers of the schema
    )
    use_all_photos: bool = Field(
        True,
        title="Use all photos in the end",
        description="When quality has been measured on the held-out photos, they join the training for its last part, "
        "so that the splat lacks none of them.",
    )
    ssim_weight: float = Field(
        0.2,
        ge=0,
        le=1,
        title="SSIM weight",
        description="Share of structural dissimilarity in the loss, without a unit; the rest is absolute difference.",
    )
    depth_weight: float = Field(
        0.1,
        ge=0,
        le=100,
        title="Depth weight",
        description="What an error in depth counts beside the photo's loss, at the points that structure from motion "
        "measured, as a share of the depth. Keeps Gaussians on the surface instead of floating before it. 0: nothing.",
    )
    early_stop: bool = Field(
        True,
        title="Early stop",
        description="When the photos that are trained on have been matched no better for a tenth of the steps, the "
        "rest is left out but for the closing phase, in which everything settles.",
    )
    exposure_compensation: bool = Field(
        True,
        title="Exposure compensation",
        description="Cameras expose and balance white anew for every photo. A gain for each photo and channel is "
        "found and left out of the splat, so that it does not store the differences as haze and floaters.",
    )
    max_prune_loss_db: float = Field(
        0.05,
        ge=0,
        le=3,
        title="Final prune (dB)",
        description="At the end the Gaussians that contribute least are left out, as many as cost no more than this "
        "PSNR on the training photos. The file and the viewer's work shrink with them. 0 leaves out none.",
    )
    fill_gaps: bool = Field(
        True,
        title="Fill gaps",
        description="Start with Gaussians also where photos show something and structure from motion found no point, "
        "such as leaves, water and sky.",
    )
    max_dropout: float = Field(
        0.3,
        ge=0,
        le=0.9,
        title="Most dropout",
        description="Share of the Gaussians that every step leaves out where one or two photos show a place; it falls "
        "to none where five do. Keeps training from learning these photos by heart. 0: none.",
    )
    max_photos_in_memory: int | None = Field(
        None,
        ge=2,
        le=1_000_000,
        title="Most photos in memory (photos)",
        description="Training holds at most so many photos in memory at once; the others are read from the disk in "
        "time. Without a number, free memory decides. The result does not depend on it.",
    )
    time_budget_seconds: float | None = Field(
        None,
        gt=0,
        le=7 * 24 * 3600,
        title="Time budget (s)",
        description="Training ends after this many seconds if it has not ended before; the whole schedule is "
        "compressed into them, so the result is a finished one; the final prune takes a few more. Without a budget the "
        "steps decide.",
    )
    random_seed: int = Field(
        42,
        ge=0,
        le=2**31 - 1,
        title="Random seed",
        description="The same seed, photos and options give the same Gaussians on the same machine.",
    )

    checkpoint_seconds: float = Field(
        60,
        ge=0,
        le=24 * 3600,
        title="Checkpoint interval (s)",
        description="Seconds between two savings of training's whole state, from which a killed run continues. "
        "0 saves none. The result does not depend on it.",
    )

    @field_validator("cells", mode="before")
    @classmethod
    def _auto_is_left_empty(cls, value: object) -> object:
        return None if value == "auto" else value

    @field_validator("hold_out_every")
    @classmethod
    def _something_left_to_train_on(cls, value: int) -> int:
        if value == 1:
            raise ValueError("1 would hold out every photo and leave none to train on; give 0, or 2 and more")
        return value


# For a CPU and up to FEW_PHOTOS photos: see CUDA_BUDGETS and `steps_for`. Measured: docs/training.md.
TRAIN_PRESETS: dict[str, TrainOptions] = {
    "draft": TrainOptions(max_image_size=480, steps=1500, max_gaussians=500_000, pixels_per_gaussian=5.0, sh_degree=2),
    "standard": TrainOptions(
        max_image_size=960, steps=2500, max_gaussians=1_500_000, pixels_per_gaussian=7.0, sh_degree=3
    ),
    "high": TrainOptions(
        max_image_size=1600, steps=4000, max_gaussians=4_000_000, pixels_per_gaussian=5.0, sh_degree=3
    ),
}


def steps_for(steps: int, photos: int) -> int:
    """The steps of a preset for this number of photos, a multiple of ten; `steps` is for few photos.

    A step's cost depends on the photo's pixels and on the number of Gaussians that the photo shows. With a fixed number
    of pixels for each Gaussian, both are alike in small and large captures. So only the number of steps grows with the
    photos: by the square root of their number, because several photos see what a step changes.
    """
    return round(steps * math.sqrt(max(photos / FEW_PHOTOS, 1.0)) / 10) * 10


def cells_for(photos: int) -> int:
    """The cells of a scene with this number of photos, where the user leaves it open and memory suffices."""
    return 1 if photos <= ONE_PART_AT_MOST else math.ceil(photos / PHOTOS_PER_CELL)


def budgeted(chosen: TrainOptions, preset: str, backend: Backend, photos: int) -> TrainOptions:
    """Decide the options that were not chosen: those missing in `chosen.model_fields_set`.

    Args:
        chosen: a complete set of options; values that were not chosen are ignored.
        preset: the preset's name.
        backend: the backend that trains.
        photos: the number of photos with a camera; 0 if the caller only needs options that do not depend on it.
    """
    budget = CUDA_BUDGETS[preset] if backend == "cuda" else {n: getattr(TRAIN_PRESETS[preset], n) for n in BY_MACHINE}
    budget = {**budget, "steps": steps_for(budget["steps"], photos)}
    if chosen.cells is None:  # each cell may have as many Gaussians as a scene of one part
        budget["max_gaussians"] = min(budget["max_gaussians"] * cells_for(photos), MOST_GAUSSIANS)
    decided = {name: value for name, value in budget.items() if name not in chosen.model_fields_set}
    return chosen.model_copy(update=decided)
