"""Names of the photos stage's output and of those after it: what changes them, and what does not."""

import os
from pathlib import Path

import pytest

from tasks.core.errors import PhotosError
from tasks.core.photos.options import PhotosOptions
from tasks.core.refs import PhotosRef, RunContext
from tasks.photos import PHOTOS, ingest_photos
from tests.core.photos.test_ingest import encoded, folder_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "flight", {f"{i}.jpg": encoded(i) for i in range(3)})


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(workspace=str(tmp_path / "workspace"), run="flight-1")


def ingested(source: Path, context: RunContext, **options: str) -> PhotosRef:
    return ingest_photos.fn(str(source), PhotosOptions.model_validate(options), context)


@pytest.mark.parametrize("name", ["raw.dng", "text.jpg", "black.png"])
def test_one_more_file_that_cannot_be_used_costs_no_later_stage_its_output(
    name: str, source: Path, context: RunContext
) -> None:
    before = ingested(source, context)
    (source / name).write_bytes(b"no photo")
    after = ingested(source, context)
    assert (after.cached, after.rejected) == (False, 1), "the report has to name it"
    assert after.digest == before.digest, "sfm's key"


def test_a_photo_more_or_another_one_is_another_set(source: Path, context: RunContext) -> None:
    digests = [ingested(source, context).digest]
    folder_of(source, {"3.jpg": encoded(3)})
    digests.append(ingested(source, context).digest)
    folder_of(source, {"3.jpg": encoded(4)})
    digests.append(ingested(source, context).digest)
    assert len(set(digests)) == 3


def test_bytes_of_files_that_the_stage_does_not_read_do_not_count_but_their_number_does(
    source: Path, context: RunContext
) -> None:
    before = ingested(source, context)
    (source / "film.mp4").write_bytes(b"video")
    (source / "notes.txt").write_bytes(b"words")
    after = ingested(source, context)
    assert not after.cached, "the report has to name them"
    assert after.digest == before.digest, "sfm's key"
    notes = PHOTOS.measured(after, context).notes
    assert notes[0] == "2 other files were not read: .mp4 (1), .txt (1)."
    assert notes[1].startswith("Videos (.mp4) are not read: extract their frames first")
    (source / "film.mp4").write_bytes(b"another video")
    assert ingested(source, context).cached


def test_a_folder_whose_own_name_is_not_utf_8_is_refused_in_a_sentence(tmp_path: Path, context: RunContext) -> None:
    """Its path is passed on as text. Names below it may have any bytes."""
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/fl\xe9che"))
    folder_of(odd, {f"{n}.jpg": encoded(n) for n in range(3)})
    with pytest.raises(PhotosError, match="fl\ufffdche is not in UTF-8: rename that folder"):
        ingested(odd, context)


def test_bytes_of_raw_files_are_not_read(source: Path, context: RunContext) -> None:
    (source / "a.dng").write_bytes(b"raw")
    ingested(source, context)
    (source / "a.dng").write_bytes(b"another")
    assert ingested(source, context).cached


@pytest.mark.parametrize(
    ("place", "named"),
    [("flight/log.csv", "log.csv"), ("elsewhere.csv", "{folder}/elsewhere.csv"), ("elsewhere.csv", "elsewhere.csv")],
)
def test_the_flight_log_counts(
    place: str, named: str, source: Path, context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log, named = tmp_path / place, named.format(folder=tmp_path)
    rows = "".join(f"47,{number},100\n" for number in range(8, 11))
    log.write_text(f"lat,lon,altitude(m)\n{rows}")
    first = ingested(source, context, flight_log=named)
    assert ingested(source, context, flight_log=named).cached
    log.write_text(f"lat,lon,altitude(ft)\n{rows}")
    second = ingested(source, context, flight_log=named)
    assert not second.cached
    assert second.digest != first.digest
