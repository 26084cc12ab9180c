"""FAILED.json says what uploaders can act on, and nothing of the machines."""

import inspect

import pytest
from prefect.states import Cancelled, Crashed, Failed, State

from deployments.listener.signals import MOST_CHARACTERS, TOLD, bounded, reason_of
from deployments.listener.uploads import Upload
from tasks.core import errors
from tests.deployments.listener.fakes import ended_run

UPLOAD = Upload(bucket="b", key="uploads/x.zip", version="1")
SECRET = "PREFECT_API_AUTH_STRING=admin:hunter2"
RAISED = "Flow run encountered an exception: "
CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
OTHERS = [kind for kind in CLASSES if issubclass(kind, errors.SpaceportError) and kind not in TOLD]


def reason(state: State[None]) -> str:
    return reason_of(ended_run(UPLOAD, state), "desk@example.org")


@pytest.mark.parametrize("kind", TOLD)
def test_a_sentence_about_the_photos_is_told(kind: type[errors.SpaceportError]) -> None:
    assert reason(Failed(message=f"{RAISED}{kind.__name__}: 2 photos; 3 are needed.")) == (
        f"{kind.__name__}: 2 photos; 3 are needed."
    )


def test_a_way_out_that_uploads_have_not_says_whom_to_ask() -> None:
    sentence = "PhotosError: x.zip unpacks to 90.0 GiB, the limit is 80 GiB: split it, or raise photos.max_archive_gib."
    assert reason(Failed(message=RAISED + sentence)) == (
        f"{sentence} Uploads cannot choose photos.max_archive_gib: ask desk@example.org."
    )
    told = reason(Failed(message="RegistrationError: 2 photos: use sfm.max_features_image_size or sfm.matcher."))
    assert "choose sfm.max_features_image_size: ask" in told
    assert "choose sfm.matcher: ask" in reason(Failed(message="RegistrationError: use sfm.matcher=auto."))
    long = reason(Failed(message=f"{RAISED}PhotosError: photos.max_archive_gib {'x' * 1000}"))
    assert len(long) == MOST_CHARACTERS
    assert long.endswith("ask desk@example.org.")
    theirs = "PhotosError: no photos: lower photos.min_side_px."
    assert reason(Failed(message=RAISED + theirs)) == theirs


@pytest.mark.parametrize("kind", [*OTHERS, ValueError, KeyError, OSError])
def test_what_other_errors_say_stays_with_the_operator(kind: type[Exception]) -> None:
    for message in (f"{RAISED}{kind.__name__}: {SECRET}", f"{kind.__name__}: PhotosError: {SECRET}"):
        told = reason(Failed(message=message))
        assert SECRET not in told
        assert "desk@example.org" in told


@pytest.mark.parametrize("state", [*(kind(message=SECRET) for kind in (Crashed, Cancelled, Failed)), Failed()])
def test_other_ends_say_whom_to_ask_and_for_which_run(state: State[None]) -> None:
    run = ended_run(UPLOAD, state)
    told = reason_of(run, "desk@example.org")
    assert SECRET not in told
    assert f"Ask desk@example.org, who finds it as run {run.id}." in told


def test_a_reason_is_one_short_line() -> None:
    told = reason(Failed(message=f"PhotosError: {'x' * 100_000}\n\x1b[2J\ud800"))
    assert len(told) == MOST_CHARACTERS
    assert bounded("PhotosError: a\n\tb \x1b[2J\ud800") == "PhotosError: a b \\x1b[2J\\ud800"
