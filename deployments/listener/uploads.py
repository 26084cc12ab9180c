"""Uploads: the object that completes a capture, and the options that its READY.json may choose.

An upload may choose fewer options than an operator, and only within the operator's limits, because uploaders do not
pay. READY.json cannot name a place, a machine or anything else outside the upload.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tasks.core.errors import InputError, OptionsError, UnsafeNameError
from tasks.core.options import Preset, ReconstructOptions
from tasks.core.photos import other_files
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name, shown
from tasks.core.training.options import CUDA_BUDGETS, TRAIN_PRESETS

FOLDER = "uploads"
READY_FILE, DONE, FAILED = other_files.READY_FILE, other_files.DONE_FILE, other_files.FAILED_FILE
_KEY = re.compile(rf"{FOLDER}/(?P<capture>.+?)(?P<end>/{re.escape(READY_FILE)}|\.zip)", re.DOTALL)
_IDENTITY = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)#(?P<version>[^#]+)", re.DOTALL)
_VERSION = re.compile(r"[!-\"$-~]{1,1024}")  # ASCII without spaces and #; a # ends the key in an identity
_NOT_IN_PLACES = re.compile(r"[^A-Za-z0-9]+")
_PLACE_CHARACTERS = 40  # of the capture's own name, for people
_PLACE_DIGITS = 24  # hexadecimal, to make places distinct


class MessageError(InputError):
    """A message that cannot become a run, however often it is delivered."""


class Upload(BaseModel):
    """One version of the object that completes a capture: its READY.json, or the .zip itself."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version: str  # S3's version id; the ETag in a bucket without versions

    @property
    def identity(self) -> str:
        """The run's idempotency key, the same for every message about this version."""
        return f"s3://{self.bucket}/{self.key}#{self.version}"

    @classmethod
    def of_identity(cls, identity: str | None) -> "Upload | None":
        """Return the upload of a run; None for a run that the listener did not start."""
        found = _IDENTITY.fullmatch(identity or "")
        if found is None or not _KEY.fullmatch(found["key"]) or not _VERSION.fullmatch(found["version"]):
            return None
        return cls(**found.groupdict())

    def __str__(self) -> str:
        """For logs: short, and without control characters."""
        return f"{shown(self.key)} {self.version[:8]}"

    @property
    def capture(self) -> str:
        """The capture's name, with the slashes of the key."""
        found = _KEY.fullmatch(self.key)
        assert found is not None, self.key
        return found["capture"]

    @property
    def is_archive(self) -> bool:
        """Whether it is a .zip."""
        return self.key.endswith(".zip")

    @property
    def photos(self) -> str:
        """The run's parameter `photos`."""
        place = self.key if self.is_archive else self.key.removesuffix(f"/{READY_FILE}")
        return f"s3://{self.bucket}/{place}"

    @property
    def place(self) -> str:
        """Name of the folder of its result: one part of a path, unique to this version and capture."""
        return _place(self.capture, self.identity)

    @property
    def tag(self) -> str:
        """A tag for finding runs: the same for all versions of this capture, and different for other captures."""
        return _place(self.capture, f"s3://{self.bucket}/{self.key}")

    def signal_key(self, name: str) -> str:
        """Return the key of DONE.json or FAILED.json: in the capture's folder, or next to the archive."""
        return f"{self.key}.{name}" if self.is_archive else f"{self.key.removesuffix(READY_FILE)}{name}"

    def require_plain_name(self) -> None:
        """Raise InputError for a name that other storage would map to another capture, since it drops empty parts."""
        try:
            plain = safe_name(self.capture.strip("/"))
        except UnsafeNameError as error:
            raise InputError(f"{error} Upload it under another name.") from error
        if plain != self.capture:
            end = self.key.removeprefix(f"{FOLDER}/{self.capture}")
            raise InputError(
                f"The capture's name {shown(self.capture)} has empty parts, dots or backslashes between its slashes: "
                f"upload it as {shown(f'{FOLDER}/{plain}{end}')}."
            )


def places_start(capture: str) -> str:
    """Return the common start of the places of all versions of a capture; other captures may share it."""
    return f"{_NOT_IN_PLACES.sub('-', capture).strip('-')[:_PLACE_CHARACTERS].strip('-') or 'capture'}-"


def _place(capture: str, identity: str) -> str:
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{places_start(capture)}{digest[:_PLACE_DIGITS]}"


def read_event(body: str, bucket: str) -> Upload:
    """Return the upload that an event of EventBridge reports. Raises MessageError.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html. Keys in it are not URL-encoded.
    """
    try:
        event = json.loads(body)
        kind = event["source"], event["detail-type"]
        detail = event["detail"]
        there, stored = str(detail["bucket"]["name"]), detail["object"]
        key = str(stored["key"])
        # Emulators spell the ETag differently.
        version = stored.get("version-id") or stored.get("etag") or stored.get("eTag")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError(f"not an event of S3 by EventBridge ({type(error).__name__}: {error})") from error
    if kind != ("aws.s3", "Object Created"):
        raise MessageError(f"an event {shown(str(kind[1]))} of {shown(str(kind[0]))}, not 'Object Created' of 'aws.s3'")
    if there != bucket:
        raise MessageError(f"about the bucket {shown(there)}, while this listener listens for {bucket}")
    found = _KEY.fullmatch(key)
    if found is None or {".", ".."} & set(key.split("/")):
        raise MessageError(
            f"the key {shown(key)} is neither {FOLDER}/<capture>/{READY_FILE} nor {FOLDER}/<capture>.zip"
        )
    if not version:
        raise MessageError("the object has neither version nor ETag")
    upload = Upload(bucket=there, key=key, version=str(version).strip('"'))
    if not _VERSION.fullmatch(upload.version):
        raise MessageError(f"the version {shown(upload.version)} is none of S3")
    _require_answerable(upload)
    return upload


def _require_answerable(upload: Upload) -> None:
    """Raise MessageError if no signal can be written next to the upload."""
    try:
        longest = max(len(upload.signal_key(name).encode()) for name in (DONE, FAILED))
    except UnicodeEncodeError as error:
        raise MessageError(f"the key {shown(upload.key)} is not valid UTF-8") from error
    if longest > MAX_KEY_BYTES:
        raise MessageError(
            f"the key {shown(upload.key)} leaves no room for {FAILED} beside it: {longest} bytes, and S3 takes "
            f"{MAX_KEY_BYTES}"
        )


READY_BYTES = 64 * 1024  # options are some hundred bytes
PRESETS: tuple[Preset, ...] = get_args(Preset)  # from the shortest to the longest
LOG_SUFFIX = ".csv"
CHOICES = {  # options of each stage; none of them names anything outside the upload, and each has bounds
    "photos": {"min_side_px", "flight_log", "conversion_quality"},
    "sfm": {"mapper", "min_registered_share", "random_seed"},
    "train": {
        *("max_image_size", "steps", "max_gaussians", "pixels_per_gaussian", "sh_degree", "time_budget_seconds"),
        *("hold_out_every", "use_all_photos", "ssim_weight", "depth_weight", "max_dropout", "max_prune_loss_db"),
        *("early_stop", "exposure_compensation", "fill_gaps", "random_seed"),
    },
    "compress": {"sh_degree", "max_palette", "max_psnr_drop_db", "stream_above"},
    "publish": {"page"},
}


class Limits(BaseModel):
    """The operator's limits for uploads: JSON in SPACEPORT_UPLOAD_LIMITS.

    Values that an upload does not choose come from the preset, lowered to the limits. Steps that it does not choose
    grow with the number of photos; the limit of minutes bounds them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_preset: Preset = "high"
    max_steps: int = Field(30_000, ge=10)
    max_gaussians: int = Field(4_000_000, ge=100)
    max_image_size: int = Field(3200, ge=64)  # px
    max_train_minutes: float = Field(240.0, gt=0, le=7 * 24 * 60)
    max_archive_gib: float = Field(80.0, gt=0, le=2000)  # unpacked
    max_fresh_a_day: int = Field(20, ge=0)  # of all uploads together
    ask: str = Field("the operator of this account", min_length=1, max_length=200)  # the person who can raise them

    @classmethod
    def from_json(cls, text: str, said_as: str = "SPACEPORT_UPLOAD_LIMITS") -> "Limits":
        """Read the limits. Raises OptionsError with the first error."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise OptionsError(f"{said_as}: {_first(error)}") from error


class Ready(BaseModel):
    """Parameters of an upload's run."""

    model_config = ConfigDict(frozen=True)

    options: ReconstructOptions = Field(default_factory=ReconstructOptions)
    fresh: bool = False


class _Said(BaseModel):
    """Content of READY.json, which may be empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: dict[str, JsonValue] = Field(default_factory=dict)
    fresh: bool = False


def read_ready(content: bytes, limits: Limits) -> Ready:
    """Read an upload's choices and check them against the limits. Raises OptionsError with the first error."""
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
    """Return READY.json with these options, without those that an upload cannot choose."""
    written = options.model_dump(mode="json")
    chosen = {stage: {name: written[stage][name] for name in CHOICES[stage] & set(written[stage])} for stage in CHOICES}
    return _Said(options={"preset": options.preset, **chosen}, fresh=fresh).model_dump_json().encode()


def too_many_fresh(limits: Limits) -> OptionsError:
    """Return the error for one more run that computes everything anew."""
    return OptionsError(
        f"{READY_FILE} asks for 'fresh', which {limits.max_fresh_a_day} uploads have done within a day, the most that "
        f"may: leave it out, wait a day, or ask {limits.ask}."
    )


def lowered(ready: Ready, limits: Limits) -> Ready:
    """Lower the values that were not chosen to the limits."""
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
                "publish": options.publish.model_dump(),
            }
        ),
        fresh=ready.fresh,
    )


def _not_to_choose(given: dict[str, JsonValue]) -> Iterator[str]:
    """Yield given options that uploads cannot choose; the models check the others."""
    for stage, values in given.items():
        if stage == "preset":
            continue
        if stage not in CHOICES:
            yield stage
        elif isinstance(values, dict):
            yield from (f"{stage}.{name}" for name in values if name not in CHOICES[stage])


def _require_log_in_upload(name: str) -> None:
    """Raise OptionsError for a flight log that could be a file outside of the upload."""
    try:
        inside = not name or (safe_name(name) == name and not name.startswith("~"))
    except UnsafeNameError:
        inside = False
    if not inside or (name and not name.lower().endswith(LOG_SUFFIX)):
        raise OptionsError(
            f"{READY_FILE}: photos.flight_log is {shown(name)}: give the name of a {LOG_SUFFIX} file of the upload."
        )


def _require_within(options: ReconstructOptions, preset_chosen: bool, limits: Limits) -> None:
    """Raise OptionsError for the first choice above its limit."""
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
    """Return the limits by option of training."""
    return {
        "steps": limits.max_steps,
        "max_gaussians": limits.max_gaussians,
        "max_image_size": limits.max_image_size,
        "time_budget_seconds": limits.max_train_minutes * 60,
    }


def _first(error: ValidationError) -> str:
    """Return a sentence for the first error."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{shown(where) if where else 'the file'}: {shown(first['msg'])[1:-1]}."
