"""READY.json chooses from a list of its own, within the operator's limits."""

import json
import math
from typing import Any

import pytest

from deployments.listener.uploads import CHOICES, Limits, Ready, lowered, read_ready, ready_json
from tasks.core.errors import OptionsError
from tasks.core.options import ReconstructOptions, describe_options

LIMITS = Limits(ask="desk@example.org")
ALL = [name for name, *_ in describe_options()]


def read(limits: Limits = LIMITS, *, fresh: bool = False, **options: Any) -> Ready:
    return read_ready(json.dumps({"options": options, "fresh": fresh}).encode(), limits)


def test_options_of_an_upload_are_checked() -> None:
    assert read_ready(b" ", LIMITS) == lowered(Ready(), LIMITS)
    ready = read(preset="draft", fresh=True)
    assert (ready.options.preset, ready.fresh) == ("draft", True)
    for content, says in (
        (b'{"options": {"sfm": {"nonsense": 1}}}', "nonsense"),
        (b'{"options": {"train": {"steps": "many"}}}', "train.steps"),
        (b'{"destination": "s3://elsewhere"}', "destination"),
        (b"{", "JSON"),
        (b" " * 70_000, "65536"),
    ):
        with pytest.raises(OptionsError, match=says):
            read_ready(content, LIMITS)


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_on_the_list_cannot_be_chosen(name: str) -> None:
    stage, _, option = name.partition(".")
    value = ReconstructOptions().spelled_out()[stage]
    assert isinstance(value, dict)
    if option in CHOICES[stage]:
        read(**{stage: {option: value[option]}})
        return
    with pytest.raises(OptionsError, match=f"'{name}': ask desk@example.org"):
        read(**{stage: {option: value[option]}})


def test_what_costs_or_names_other_places_is_not_on_the_list() -> None:
    assert not CHOICES["train"] & {"backend", "checkpoint_seconds"}
    assert not CHOICES["sfm"] & {"matcher", "max_features", "max_features_image_size", "spatial_neighbors"}
    assert not [name for name in CHOICES["photos"] if name.startswith("max_archive")]
    assert {f"{stage}.{name}" for stage, names in CHOICES.items() for name in names} < set(ALL)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "~/log.csv", "~", "../log.csv", "a/../../log.csv", "C:\\log.csv", "C:/log.csv", "./log.csv"),
        *("a//b.csv", "log", ".pgpass", "pyproject.toml", "a\\b.csv", "log.csv\n", "/proc/self/environ.csv"),
    ],
)
def test_a_flight_log_is_a_file_of_the_upload(name: str) -> None:
    with pytest.raises(OptionsError, match="flight_log"):
        read(photos={"flight_log": name})


def test_a_flight_log_of_the_upload_is_taken() -> None:
    assert read(photos={"flight_log": "logs/Flight 1.CSV"}).options.photos.flight_log == "logs/Flight 1.CSV"


@pytest.mark.parametrize(
    ("name", "asked", "limit", "most"),
    [
        ("steps", 1_000_000, "max_steps", 30_000),
        ("max_gaussians", 16_000_000, "max_gaussians", 4_000_000),
        ("max_image_size", 8192, "max_image_size", 3200),
        ("time_budget_seconds", 7 * 24 * 3600, "max_train_minutes", 14_400),
    ],
)
def test_a_choice_above_its_limit_is_refused_with_number_limit_and_whom_to_ask(
    name: str, asked: int, limit: str, most: int
) -> None:
    with pytest.raises(OptionsError, match=rf"train.{name} is {asked}, and {most} is the most.*ask desk@example.org"):
        read(train={name: asked})
    assert getattr(read(train={name: most}).options.train, name) == most
    lower = Limits.model_validate({limit: 100})
    with pytest.raises(OptionsError, match="is the most"):
        read(lower, train={name: 100 * 60 + 1})


def test_a_preset_above_its_limit_is_refused_and_one_that_was_not_chosen_is_lowered() -> None:
    limits = Limits(max_preset="draft")
    with pytest.raises(OptionsError, match="preset is high, and draft is the most"):
        read(limits, preset="high")
    assert read(limits).options.preset == "draft"


@pytest.mark.parametrize("ready", [Ready(), None])
def test_what_is_not_chosen_stays_below_the_limits(ready: Ready | None) -> None:
    """`Ready()` is what an archive is given, which has no READY.json."""
    limits = Limits(max_archive_gib=2, max_train_minutes=10, max_gaussians=700_000, max_image_size=1000)
    options = (read(limits) if ready is None else lowered(ready, limits)).options
    assert options.photos.max_archive_gib == 2
    for backend in ("cpu", "cuda"):
        train = options.train_on(backend, photos=5000)
        assert train.time_budget_seconds == 600
        assert (train.max_gaussians, train.max_image_size) == (700_000, 1000)
    assert "steps" not in options.train.model_fields_set, "which grow with the photos"


def test_nothing_else_changes_for_an_upload_that_chooses_nothing() -> None:
    budget = {"time_budget_seconds": LIMITS.max_train_minutes * 60}
    assert read().options == ReconstructOptions.model_validate({"train": budget})


def test_computing_anew_can_be_forbidden() -> None:
    with pytest.raises(OptionsError, match="'fresh': ask the desk\\."):
        read(Limits(max_fresh_a_day=0, ask="the desk"), fresh=True)


def test_what_is_written_for_an_upload_is_read_again() -> None:
    options = ReconstructOptions.model_validate({"preset": "draft", "train": {"steps": 300}})
    ready = read_ready(ready_json(options, fresh=True), LIMITS)
    assert ready.fresh
    assert ready.options.preset == "draft"
    assert ready.options.train.model_fields_set == {"steps", "time_budget_seconds"}


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "SPACEPORT_UPLOAD_LIMITS"), ('{"max_step": 1}', "max_step"), ('{"max_train_minutes": NaN}', "minutes")],
)
def test_limits_without_a_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(OptionsError, match=says):
        Limits.from_json(text)


def test_limits_are_finite() -> None:
    assert Limits.from_json("{}") == Limits()
    assert math.isfinite(Limits.from_json('{"max_train_minutes": 30}').max_train_minutes)
