"""A preset's budget on a machine; a user's own number is never replaced."""

import pytest

from tasks.core.estimate.machine import Machine
from tasks.core.estimate.run import estimate_stages
from tasks.core.estimate.stages import Capture, expected_options
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.photoset import Photo
from tasks.core.stages import STAGES
from tasks.core.training.options import BY_MACHINE, CUDA_BUDGETS, FEW_PHOTOS, TRAIN_PRESETS, Backend, steps_for

T4 = Machine(name="T4", cores=4, gpu=True)


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_few_photos_on_a_cpu_get_what_the_preset_says(preset: str) -> None:
    assert parse_options(preset, []).train_on("cpu", FEW_PHOTOS) == TRAIN_PRESETS[preset]


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_a_gpu_gets_a_gpus_budget(preset: str) -> None:
    decided = parse_options(preset, []).train_on("cuda", FEW_PHOTOS)
    assert {name: getattr(decided, name) for name in BY_MACHINE} == CUDA_BUDGETS[preset]
    assert decided.sh_degree == TRAIN_PRESETS[preset].sh_degree


def test_steps_grow_with_the_square_root_of_the_photos() -> None:
    assert [steps_for(1500, photos) for photos in (0, 3, 25, 100, 2500)] == [1500, 1500, 1500, 3000, 15000]
    assert steps_for(1500, 164) == 3840


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("name", BY_MACHINE)
def test_what_is_chosen_stays_even_where_it_is_what_a_cpus_preset_says(backend: Backend, name: str) -> None:
    """It was not told from what a preset fills in, once it had been sent to another process."""
    value = getattr(TRAIN_PRESETS["standard"], name)
    options = parse_options("standard", [f"train.{name}={value}"])
    sent = ReconstructOptions.model_validate_json(options.model_dump_json())
    for each in (options, sent, ReconstructOptions.model_validate(dict(sent)), options.model_copy()):
        decided = each.train_on(backend, 400)
        assert getattr(decided, name) == value
        other = next(other for other in BY_MACHINE if other not in (name, "steps"))
        budget = CUDA_BUDGETS["standard"] if backend == "cuda" else TRAIN_PRESETS["standard"].model_dump()
        assert getattr(decided, other) == budget[other]


def test_a_degree_that_is_chosen_stays_with_another_preset() -> None:
    written = parse_options("draft", ["train.sh_degree=2"]).model_dump(mode="json")
    assert written["train"] == {"sh_degree": 2}
    assert ReconstructOptions.model_validate({**written, "preset": "high"}).train.sh_degree == 2


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_what_was_decided_arrives_where_it_is_sent(preset: str) -> None:
    """The report's options are those that training had, wherever they were decided."""
    options = parse_options(preset, ["train.ssim_weight=0.3"])
    decided = options.with_train(options.train_on("cuda", 400))
    arrived = ReconstructOptions.model_validate_json(decided.model_dump_json())
    assert arrived.train == decided.train == arrived.train_on("cpu", 9)
    assert decided.spelled_out()["train"] == arrived.spelled_out()["train"]
    assert options.train.model_fields_set == {"ssim_weight"}, "left as they were"


def test_another_preset_in_place_leaves_nothing_of_the_first_behind() -> None:
    written = ReconstructOptions().model_copy(update={"preset": "high"}).model_dump(mode="json")
    assert written["train"] == {}


def test_nothing_is_chosen_by_default() -> None:
    for options in (ReconstructOptions(), ReconstructOptions.model_validate({"preset": "draft", "train": {}})):
        assert options.train.model_fields_set == set()
    assert parse_options("high", ["train.steps=70"]).train.model_fields_set == {"steps"}
    assert TRAIN_PRESETS["standard"].model_fields_set, "of which the copy was cleared"


@pytest.mark.parametrize(("preset", "minutes"), [("draft", 2), ("standard", 8), ("high", 25)])
def test_a_gpus_budgets_are_the_minutes_that_they_promise(preset: str, minutes: float) -> None:
    """By the model of the estimate, within a third; no T4 has been measured."""
    capture = Capture(tuple(Photo(name=f"{i}.jpg", width=4000, height=3000, sha256="") for i in range(100)))
    stages = estimate_stages(capture, parse_options(preset, []), dict.fromkeys(STAGES, T4))
    [train] = [stage for stage in stages if stage.stage == "train"]
    assert minutes / 1.33 <= train.seconds / 60 <= minutes * 1.33


def test_the_estimate_knows_what_will_train() -> None:
    capture = Capture(tuple(Photo(name=f"{i}.jpg", width=4000, height=3000, sha256="") for i in range(100)))
    on_t4 = expected_options(capture, parse_options("draft", []), T4)
    assert on_t4.max_image_size == CUDA_BUDGETS["draft"]["max_image_size"]
    for options, machine in (
        (parse_options("draft", []), T4.model_copy(update={"gpu": False})),
        (parse_options("draft", ["train.backend=cpu"]), T4),
    ):
        expected = expected_options(capture, options, machine)
        assert (expected.max_image_size, expected.steps) == (480, 3000)
