"""Publishing reads no more than it needs."""

from pathlib import Path

import pytest

from tasks.core.photoset import Photo, PhotoSet
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.storage import LocalWorkspace
from tasks.publish import _days
from tasks.running.stage import Stage, run_stage
from tests.tasks.test_stage import CODE, Measured


def test_the_days_are_known_without_fetching_a_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = PhotoSet(
        photos=tuple(
            Photo(name=f"{day}.jpg", width=64, height=64, sha256="0", taken_at=f"2026-05-{day}T10:00:00")
            for day in (30, 31)
        )
    )

    def compute(folder: Path) -> Measured:
        photos.save(folder)
        return Measured(value=1)

    context = RunContext(workspace=str(tmp_path), run="test")
    output = run_stage(Stage("photos", CODE, Measured), context, inputs=[], compute=compute)
    ref = PhotosRef.of(output, capture="fox", usable=2, rejected=0)

    def refuse(store: LocalWorkspace, uri: str) -> Path:
        raise AssertionError("fetched")

    monkeypatch.setattr(LocalWorkspace, "fetch", refuse)
    assert _days(ref, context) == "30 May 2026 – 31 May 2026"
