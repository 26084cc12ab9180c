"""The options that an upload may choose: fewer than an operator's, and within the operator's limits.

Those who upload are not those who pay: READY.json can name no place, no machine and nothing outside the upload.
"""

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from deployments.listener.uploads import READY_FILE
from tasks.core.errors import OptionsError, UnsafeNameError
from tasks.core.options import Preset, ReconstructOptions
from tasks.core.safe_names import safe_name, shown
from tasks.core.training.options import CUDA_BUDGETS, TRAIN_PRESETS

READY_BYTES = 64 * 1024  # options are some hundred bytes
PRESETS: tuple[Preset, ...] = get_args(Preset)  # from the shortest to the longest
LOG_SUFFIX = ".csv"
CHOICES = {  # options of each stage; none of them names anything outside the upload, and each has bounds of its own
    "photos": {"min_side_px", "flight_log", "conversion_quality"},
    "sfm": {"mapper", "min_registered_share", "random_seed"},
    "train": {
        *("max_image_size", "steps", "max_gaussians", "pixels_per_gaussian", "sh_degree", "time_budget_seconds"),
        *("hold_out_every", "use_all_photos", "ssim_weight", "depth_weight", "max_dropout", "max_prune_loss_db"),
        *("early_stop", "exposure_compensation", "fill_gaps", "random_seed"),
    },
    "compress": {"sh_degree", "max_palette", "max_psnr_drop_db", "stream_above"},
}


class Limits(BaseModel):
    """The operator's limits of what uploads may ask for: JSON in SPACEPORT_UPLOAD_LIMITS.

    Values that an upload does not choose follow the preset and are lowered to the limits. Steps that it does not choose
    grow with the photos; the minutes bound them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_preset: Preset = "high"
    max_steps: int = Field(30_000, ge=10)
    max_gaussians: int = Field(4_000_000, ge=100)
    max_image_size: int = Field(3200, ge=64)  # px
    max_train_minutes: float = Field(240.0, gt=0, le=7 * 24 * 60)
    max_archive_gib: float = Field(80.0, gt=0, le=2000)  # unpacked
    max_fresh_a_day: int = Field(20, ge=0)  # of all uploads together
    ask: str = Field("the operator of this account", min_length=1, max_length=200)  # who can raise them

    @classmethod
    def from_json(cls, text: str, said_as: str = "SPACEPORT_UPLOAD_LIMITS") -> "Limits":
        """Raises OptionsError with the first thing that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise OptionsError(f"{said_as}: {_first(error)}") from error


class Ready(BaseModel):
    """What a run of an upload is given."""

    model_config = ConfigDict(frozen=True)

    options: ReconstructOptions = Field(default_factory=ReconstructOptions)
    fresh: bool = False


class _Said(BaseModel):
    """What READY.json holds; nothing at all is fine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: dict[str, JsonValue] = Field(default_factory=dict)
    fresh: bool = False


def read_ready(content: bytes, limits: Limits) -> Ready:
    """What an upload has chosen, within the limits. Raises OptionsError with the first thing that is wrong."""
    if len(content) > READY_BYTES:
        raise OptionsError(f"{READY_FILE} has more than {READY_BYTES} bytes, the most that it may have.")
    try:
        said = _Said.model_validate_json(content) if content.strip() else _Said()
        for name in _not_to_choose(said.options):
            raise OptionsError(f"{READY_FILE} cannot choose {shown(name)}: ask {limits.ask}.")
        options = ReconstructOptions.model_validate(said.options)
    except ValidationError as error:
        raise OptionsError(f"{READY_FILE}: {_first(error)}") from error
    _require_log_in_upload(options.photos.flight_log)
    _require_within(options, "preset" in said.options, limits)
    if said.fresh and not limits.max_fresh_a_day:
        raise OptionsError(f"{READY_FILE} cannot choose 'fresh': ask {limits.ask}.")
    return lowered(Ready(options=options, fresh=said.fresh), limits)


def ready_json(options: ReconstructOptions, *, fresh: bool) -> bytes:
    """READY.json with these options. Those that an upload cannot choose are left out."""
    written = options.model_dump(mode="json")
    chosen = {stage: {name: written[stage][name] for name in CHOICES[stage] & set(written[stage])} for stage in CHOICES}
    return _Said(options={"preset": options.preset, **chosen}, fresh=fresh).model_dump_json().encode()


def too_many_fresh(limits: Limits) -> OptionsError:
    """The refusal of one more run that computes everything anew."""
    return OptionsError(
        f"{READY_FILE} asks for 'fresh', which {limits.max_fresh_a_day} uploads have done within a day, the most that "
        f"may: leave it out, wait a day, or ask {limits.ask}."
    )


def lowered(ready: Ready, limits: Limits) -> Ready:
    """The same, with what was not chosen brought down to the limits."""
    options = ready.options
    preset = PRESETS[min(PRESETS.index(options.preset), PRESETS.index(limits.max_preset))]
    chosen = {name: getattr(options.train, name) for name in options.train.model_fields_set}
    decided = {  # by the preset, wherever training computes
        name: max(getattr(TRAIN_PRESETS[preset], name), CUDA_BUDGETS[preset][name])
        for name in ("max_gaussians", "max_image_size")
    }
    limited = {
        name: most
        for name, most in _train_limits(limits).items()
        if name not in chosen and (name == "time_budget_seconds" or decided.get(name, 0) > most)
    }
    archive_gib = min(options.photos.max_archive_gib, limits.max_archive_gib)
    return Ready(
        options=ReconstructOptions.model_validate(
            {
                "preset": preset,
                "photos": {**options.photos.model_dump(), "max_archive_gib": archive_gib},
                "sfm": options.sfm.model_dump(),
                "train": {**limited, **chosen},
                "compress": options.compress.model_dump(),
            }
        ),
        fresh=ready.fresh,
    )


def _not_to_choose(given: dict[str, JsonValue]) -> Iterator[str]:
    """Options that an upload has no choice in; the models say what is wrong with the others."""
    for stage, values in given.items():
        if stage == "preset":
            continue
        if stage not in CHOICES:
            yield stage
        elif isinstance(values, dict):
            yield from (f"{stage}.{name}" for name in values if name not in CHOICES[stage])


def _require_log_in_upload(name: str) -> None:
    """Raises OptionsError for a flight log that could be another file than one of the upload."""
    try:
        inside = not name or (safe_name(name) == name and not name.startswith("~"))
    except UnsafeNameError:
        inside = False
    if not inside or (name and not name.lower().endswith(LOG_SUFFIX)):
        raise OptionsError(
            f"{READY_FILE}: photos.flight_log is {shown(name)}: give the name of a {LOG_SUFFIX} file of the upload."
        )


def _require_within(options: ReconstructOptions, preset_chosen: bool, limits: Limits) -> None:
    """Raises OptionsError for the first choice above its limit."""
    if preset_chosen and PRESETS.index(options.preset) > PRESETS.index(limits.max_preset):
        raise OptionsError(
            f"{READY_FILE}: preset is {options.preset}, and {limits.max_preset} is the most for uploads: choose that, "
            f"or ask {limits.ask}."
        )
    for name, most in _train_limits(limits).items():
        value = getattr(options.train, name)
        if name in options.train.model_fields_set and value > most:
            raise OptionsError(
                f"{READY_FILE}: train.{name} is {value:.15g}, and {most:.15g} is the most for uploads: choose less, or "
                f"ask {limits.ask}."
            )


def _train_limits(limits: Limits) -> dict[str, float]:
    """By option of training."""
    return {
        "steps": limits.max_steps,
        "max_gaussians": limits.max_gaussians,
        "max_image_size": limits.max_image_size,
        "time_budget_seconds": limits.max_train_minutes * 60,
    }


def _first(error: ValidationError) -> str:
    """A sentence for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{shown(where) if where else 'the file'}: {shown(first['msg'])[1:-1]}."
