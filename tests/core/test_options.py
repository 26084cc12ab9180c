import re

import pytest
from pydantic import ValidationError

from tasks.core.errors import OptionsError
from tasks.core.options import ReconstructOptions, describe_options, parse_options
from tasks.core.training.options import TRAIN_PRESETS


@pytest.mark.parametrize("preset", ["draft", "standard", "high"])
def test_a_preset_fills_in_training(preset: str) -> None:
    assert parse_options(preset, []).train == TRAIN_PRESETS[preset]


def test_presets_are_budgets_that_grow() -> None:
    draft, standard, high = (TRAIN_PRESETS[name] for name in ("draft", "standard", "high"))
    assert draft.max_image_size < standard.max_image_size < high.max_image_size
    assert draft.steps < standard.steps < high.steps


def test_what_is_said_wins_over_the_preset() -> None:
    options = parse_options("high", ["train.max_image_size=480", " compress.sh_degree = 0 ", "sfm.matcher=spatial"])
    assert options.train.max_image_size == 480
    assert options.train.steps == TRAIN_PRESETS["high"].steps
    assert options.compress.sh_degree == 0
    assert options.sfm.matcher == "spatial"


def test_options_survive_json() -> None:
    """As Prefect stores a run's parameters and passes them to the flow."""
    options = parse_options("draft", ["train.time_budget_seconds=12.5"])
    assert ReconstructOptions.model_validate_json(options.model_dump_json()) == options


def test_unknown_options_name_the_known_ones() -> None:
    with pytest.raises(OptionsError, match=re.escape("There is no option 'compress.quality'")) as error:
        parse_options(None, ["compress.quality=3"])
    assert "compress.sh_degree" in str(error.value)


def test_bounds_are_said_with_the_value() -> None:
    with pytest.raises(OptionsError, match=r"^train\.max_image_size=3: .*greater than or equal to \d+\.$"):
        parse_options(None, ["train.max_image_size=3"])


def test_every_option_explains_itself() -> None:
    """The command line's list and Prefect's form are made of these."""
    for name, default, allowed, description in describe_options():
        assert len(description) > 20, name
        assert default, name
        assert allowed, f"{name} has no bounds"
    schema = ReconstructOptions.model_json_schema()
    for model in schema["$defs"].values():
        for name, field in model["properties"].items():
            assert field.get("title"), name


def test_a_preset_is_a_word() -> None:
    for preset in (None, "draft"):
        with pytest.raises(OptionsError, match="a preset has no options of its own"):
            parse_options(preset, ["preset.size=1"])
    with pytest.raises(ValidationError, match="Input should be 'draft'"):
        ReconstructOptions.model_validate({"preset": ["draft"]})
