"""The options of a whole reconstruction: each stage's model, and the preset that fills in the options not chosen."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from tasks.core.errors import OptionsError
from tasks.core.option_model import FilledInByPreset, OptionModel
from tasks.core.photos.options import PhotosOptions
from tasks.core.sfm.options import SfmOptions
from tasks.core.sog.options import CompressOptions
from tasks.core.training.options import BY_MACHINE, CUDA_BUDGETS, TRAIN_PRESETS, Backend, TrainOptions, budgeted
from tasks.core.viewer.options import PublishOptions

Preset = Literal["draft", "standard", "high"]
# Options of training whose values differ between presets or machines.
DECIDED_BY_PRESET = {
    *BY_MACHINE,
    *(name for name in TrainOptions.model_fields if len({getattr(each, name) for each in TRAIN_PRESETS.values()}) > 1),
}
PRESETS_IN_WORDS = (
    "How large and long training is. With 20 photos on two CPU cores: draft at 480 px, about 1 minute; standard at "
    "960 px, 5 minutes; high at 1600 px, 30 minutes. With 100 photos on a CUDA GPU, at 1600 px and more: 2, 8 and 25 "
    "minutes of a T4, not measured. It decides every training option that is left empty."
)


class ReconstructOptions(OptionModel):
    """Everything that can be chosen for one reconstruction.

    `train` is complete in memory, with a CPU's budget where nothing was chosen, and knows what was chosen
    (`model_fields_set`); `train_on` says what it means where it runs. When written down it only holds what was chosen
    or differs from the preset, so that a run's parameters can be taken up again with another preset.
    """

    preset: Preset = Field(
        "standard",
        title="Preset",
        description=PRESETS_IN_WORDS,
    )
    photos: PhotosOptions = Field(default_factory=PhotosOptions, title="Photos")
    sfm: SfmOptions = Field(default_factory=SfmOptions, title="Structure from motion")
    train: Annotated[TrainOptions, FilledInByPreset(TRAIN_PRESETS, {"a CUDA GPU": CUDA_BUDGETS})] = Field(
        default_factory=lambda: nothing_chosen("standard"), title="Training"
    )
    compress: CompressOptions = Field(default_factory=CompressOptions, title="Compression")
    publish: PublishOptions = Field(default_factory=PublishOptions, title="Publishing")

    @model_validator(mode="wrap")
    @classmethod
    def _fill_in_preset(cls, given: Any, validate: ModelWrapValidatorHandler["ReconstructOptions"]) -> Any:
        if not isinstance(given, dict):
            return validate(given)
        name = given.get("preset", "standard")
        preset = TRAIN_PRESETS.get(name) if isinstance(name, str) else None
        train = given.get("train", {})
        if isinstance(train, BaseModel):
            train = train.model_dump(exclude_unset=True)
        if preset is None or not isinstance(train, dict):
            return validate(given)  # which says what is wrong
        chosen = {name: value for name, value in train.items() if value is not None}
        valid = validate({**given, "train": {**preset.model_dump(), **chosen}})
        valid.train.model_fields_set.intersection_update(chosen)
        return valid

    @model_serializer(mode="wrap")
    def _leave_out_preset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        preset = TRAIN_PRESETS[self.preset].model_dump()
        train, chosen = written["train"], self.train.model_fields_set
        written["train"] = {
            name: train[name]
            for name in train
            if (name in chosen if name in DECIDED_BY_PRESET else train[name] != preset[name])
        }
        return written

    def train_on(self, backend: Backend, photos: int) -> TrainOptions:
        """Return the options of training for this backend and number of photos."""
        return budgeted(self.train, self.preset, backend, photos)

    def with_train(self, train: TrainOptions) -> "ReconstructOptions":
        """Return a copy with these options of training, all of which count as chosen."""
        return self.model_copy(update={"train": TrainOptions.model_validate(train.model_dump())})

    def spelled_out(self) -> dict[str, JsonValue]:
        """Return every option with its value."""
        written: dict[str, JsonValue] = self.model_dump(mode="json")
        return {**written, "train": self.train.model_dump(mode="json")}


def nothing_chosen(preset: str) -> TrainOptions:
    """Return the preset's options of training, none of which counts as chosen."""
    options = TRAIN_PRESETS[preset].model_copy()
    options.model_fields_set.clear()
    return options


def parse_options(preset: str | None, assignments: Iterable[str]) -> ReconstructOptions:
    """Read options from the command line, each as `stage.option=value`.

    Raises OptionsError that names the option, the value and the bound.
    """
    given: dict[str, Any] = {} if preset is None else {"preset": preset}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not (equals and dot and option):
            raise OptionsError(f"--set {assignment!r} is not of the form stage.option=value, as in train.steps=3000.")
        if stage == "preset":
            raise OptionsError(f"--set {assignment!r}: a preset has no options of its own; choose one with --preset.")
        given.setdefault(stage, {})[option] = _parse_value(text.strip())
    try:
        return ReconstructOptions.model_validate(given)
    except ValidationError as error:
        raise OptionsError(_describe(error)) from error


def _parse_value(text: str) -> JsonValue:
    """Parse numbers, booleans and null as JSON; anything else is a string."""
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value


def _describe(error: ValidationError) -> str:
    """Return one sentence for the first error."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no option '{name}'. {_known_options(first['loc'])}"
    return f"{name}={first['input']}: {first['msg'].lower()}."


def _known_options(location: tuple[int | str, ...]) -> str:
    """Return a sentence with the options that exist."""
    model: type[BaseModel] = ReconstructOptions
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    prefix = "".join(f"{part}." for part in location[:-1])
    return "There are: " + ", ".join(prefix + name for name in model.model_fields) + "."


def describe_options() -> list[tuple[str, str, str, str]]:
    """All options for help texts: (name, default in the standard preset, bounds or choices, description)."""
    defaults = ReconstructOptions()
    schemas = ReconstructOptions.model_json_schema()["$defs"]
    rows = []
    for stage in ("photos", "sfm", "train", "compress", "publish"):
        model: BaseModel = getattr(defaults, stage)
        schema = schemas[type(model).__name__]["properties"]
        for option in type(model).model_fields:
            field = schema[option]
            rows.append(
                (
                    f"{stage}.{option}",
                    json.dumps(model.model_dump(mode="json")[option]).strip('"') or "none",
                    _bounds(field),
                    str(field.get("description", "")),
                )
            )
    return rows


def _bounds(field: dict[str, Any]) -> str:
    """Return choices or bounds of one field of a JSON schema, for people."""
    variants = [field, *field.get("anyOf", [])]
    if field.get("type") == "boolean":
        return "true | false"
    choices = [str(choice) for variant in variants for choice in variant.get("enum", [])]
    if choices:
        return " | ".join(choices)
    for variant in variants:
        low = variant.get("minimum", variant.get("exclusiveMinimum"))
        high = variant.get("maximum", variant.get("exclusiveMaximum"))
        if low is not None or high is not None:
            return f"{'' if low is None else low} … {'' if high is None else high}".strip()
    if "maxLength" in field:
        return f"up to {field['maxLength']} characters"
    return ""
