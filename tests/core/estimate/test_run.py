"""Properties of an estimate, and its fit to runs that were measured."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import OptionsError
from tasks.core.estimate import stages
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.run import STAGES, StageEstimate, cpu_seconds, estimate_stages, in_words, section_of
from tasks.core.estimate.stages import START_SECONDS, Capture, expected_training
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.photos.headers import read_headers
from tasks.core.photoset import Photo
from tasks.core.training.schedule import USUAL_OVERLAP
from tasks.core.words import rough_duration

REFERENCE = Machine(name="reference", cores=2)
MEASURED = Machine(name="EPYC", cores=2, speed=0.85)


def capture(count: int, width: int = 4000, height: int = 3000) -> Capture:
    return Capture(tuple(Photo(name=f"{i}.jpg", width=width, height=height, sha256="") for i in range(count)))


def stages_of(
    of: Capture, options: ReconstructOptions | None = None, machine: Machine = REFERENCE
) -> dict[str, StageEstimate]:
    found = estimate_stages(of, options or ReconstructOptions(), dict.fromkeys(STAGES, machine))
    return {stage.stage: stage for stage in found}


def total(of: Capture, options: ReconstructOptions | None = None, machine: Machine = REFERENCE) -> float:
    return sum(stage.seconds for stage in stages_of(of, options, machine).values())


def test_the_usual_size_is_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing each photo's size with all others' took seconds for thousands of photos."""
    compared = 0

    class Size(tuple[int, int]):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    monkeypatch.setattr(stages, "scaled_size", lambda width, height, _: Size((width, height)))
    usual, other = capture(1000), capture(999, 5000, 4000)
    found = expected_training(Capture((*other.photos, *usual.photos)), ReconstructOptions().train)
    assert (found.width, found.height) == (4000, 3000)
    assert compared < 10 * 1999


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 400), st.integers(700, 6000), st.integers(700, 6000), st.sampled_from(["draft", "standard"]))
def test_more_of_anything_never_takes_less(count: int, width: int, height: int, preset: str) -> None:
    """But a photo that is hardly larger than 192 px, where training can begin with halves, and is quicker for it."""
    options = parse_options(preset, [])
    base = stages_of(capture(count, width, height), options)
    for more in (
        stages_of(capture(2 * count, width, height), options),
        stages_of(capture(count, 2 * width, 2 * height), options),
        stages_of(capture(count, width, height), parse_options(preset, ["train.steps=10000"])),
        stages_of(capture(count, width, height), parse_options(preset, ["train.max_image_size=8000"])),
    ):
        for stage in STAGES:
            # sides are whole pixels: the shape of a narrow photo changes a little with its size
            assert more[stage].seconds >= base[stage].seconds * 0.97
            assert more[stage].peak_memory_bytes >= base[stage].peak_memory_bytes


def test_presets_are_budgets_in_their_order() -> None:
    draft, standard, high = (total(capture(50), parse_options(preset, [])) for preset in ("draft", "standard", "high"))
    assert 2 * draft < standard
    assert 2 * standard < high


def test_a_machine_twice_as_fast_needs_half_and_more_cores_help_with_what_is_shared() -> None:
    once = total(capture(30))
    assert total(capture(30), machine=REFERENCE.model_copy(update={"speed": 2.0})) == pytest.approx(once / 2)
    with_eight = total(capture(30), machine=REFERENCE.model_copy(update={"cores": 8}))
    assert once / 4 < with_eight < once / 1.5, "some of it goes on in one thread"


def test_a_time_budget_ends_training() -> None:
    options = parse_options("standard", ["train.time_budget_seconds=20", "train.steps=100000"])
    train = stages_of(capture(50), options)["train"].seconds
    assert 20 < train < 20 + 30, "s; beside the steps there are evaluations, prune and start"


def test_training_is_limited_as_the_trainer_limits_it() -> None:
    options = ReconstructOptions().train.model_copy(update={"pixels_per_gaussian": 30.0})
    few = expected_training(capture(12), options)
    assert few.limit == round(10 * 960 * 720 / 5 / options.pixels_per_gaussian), "half of 10 photos show a place"
    assert few.shown_share == 0.5
    assert few.points < few.start < few.limit < options.max_gaussians
    many = expected_training(capture(200), options)
    assert many.limit == round(175 * 960 * 720 / USUAL_OVERLAP / options.pixels_per_gaussian)
    assert expected_training(capture(2000), ReconstructOptions().train).limit == options.max_gaussians
    assert (few.width, few.height) == (960, 720)
    assert (few.views, few.held_out) == (10, 2)
    given_model = Capture(capture(12).photos, given_points=100_000, is_given_model=True)
    assert expected_training(given_model, options).limit == few.limit
    assert expected_training(given_model, options).start == few.limit


def test_a_given_model_needs_no_features() -> None:
    photos = capture(100)
    stages = stages_of(Capture(photos.photos, given_points=20_000, is_given_model=True))
    assert list(stages) == ["sfm", "train", "compress", "publish"]
    assert stages["sfm"].seconds < stages_of(photos)["sfm"].seconds / 2


def test_pairs_decide_what_matching_takes() -> None:
    every = stages_of(capture(100), parse_options("draft", ["sfm.matcher=exhaustive"]))["sfm"].seconds
    some = stages_of(capture(100), parse_options("draft", ["sfm.matcher=sequential"]))["sfm"].seconds
    assert every > 1.2 * some
    with pytest.raises(OptionsError, match="needs photos with GPS"):
        stages_of(capture(100), parse_options("draft", ["sfm.matcher=spatial"]))


def test_prices_are_of_time() -> None:
    machine = REFERENCE.model_copy(update={"hourly_usd": 3600.0})
    stages = stages_of(capture(20), machine=machine)
    section = section_of(tuple(stages.values()))
    assert section.cost_usd.train == pytest.approx(stages["train"].seconds)
    assert section.cost_usd.total == pytest.approx(sum(stage.seconds for stage in stages.values()))
    assert section_of(tuple(stages_of(capture(20)).values())).cost_usd.total is None


@pytest.mark.data
@pytest.mark.parametrize(
    ("photos", "preset", "stage", "measured_seconds"),
    [
        # Runs on two cores of a machine of MEASURED's speed: docs/estimate.md
        ("brighton_beach", "draft", None, 76),
        ("brighton_beach", "draft", "train", 45),
        ("brighton_beach", "standard", None, 274),
        ("brighton_beach", "standard", "sfm", 14.7),
        ("brighton_beach", "standard", "train", 250),
    ],
)
def test_it_fits_runs_that_were_measured(
    photo_sets: Path, photos: str, preset: str, stage: str | None, measured_seconds: float
) -> None:
    capture = Capture.of_headers(read_headers(photo_sets / photos))
    found = stages_of(capture, parse_options(preset, []), MEASURED)
    section = section_of(tuple(found.values()))
    expected = section.seconds.total if stage is None else found[stage].seconds
    assert expected is not None
    # The bar of the estimate is 30 % of the measured time.
    assert 0.7 * measured_seconds <= expected <= 1.3 * measured_seconds


@pytest.mark.data
def test_it_fits_the_cpu_seconds_of_another_set(photo_sets: Path) -> None:
    """36 for 800 steps at 480 px with at most 30,000 Gaussians (docs/training.md, the ablation), without the start."""
    assignments = ["train.max_image_size=480", "train.steps=800", "train.max_gaussians=30000"]
    capture = Capture.of_headers(read_headers(photo_sets / "fox/images"))
    expected = cpu_seconds(capture, parse_options("standard", assignments))["train"] - START_SECONDS
    assert 0.7 * 36 <= expected <= 1.3 * 36


def test_in_words_it_is_one_line() -> None:
    words = in_words(section_of(tuple(stages_of(capture(20)).values())))
    assert words.startswith("about ")
    assert "\n" not in words
    assert all(stage in words for stage in STAGES)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(3, "3 s"), (41, "40 s"), (118, "2 min"), (140, "2 min 15 s"), (700, "12 min"), (5000, "1 h 20 min")],
)
def test_a_duration_is_as_exact_as_an_estimate(seconds: float, says: str) -> None:
    assert rough_duration(seconds) == says
