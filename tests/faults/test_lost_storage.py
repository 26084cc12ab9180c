"""The workspace's S3 is gone when a stage has something to store, and comes back after it was missed several times."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.reconstruct import reconstruct
from tasks.core.options import parse_options
from tasks.core.progress import Progress
from tasks.core.storage import s3_workspace
from tasks.reporting.progress import listening
from tests.support.s3_server import s3_server

MISSED = 5  # times, which takes about half a minute
OPTIONS = parse_options("draft", ["train.steps=60", "train.max_gaussians=5000", "train.max_image_size=160"])


@pytest.mark.usefixtures("prefect_server")
def test_what_was_computed_waits_for_its_storage(flight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = missed = 0
    reached = 0.0

    def lose_storage(stage: str, progress: Progress) -> None:
        nonlocal trained, reached
        if stage != "train":
            return
        if trained == 0 or progress.done < reached:  # it begins, or begins again
            trained += 1
            if trained == 1:
                server.stop()
        reached = progress.done

    def sleep(seconds: float) -> None:
        """Between two attempts to store: here, and nowhere else, the workspace has noticed that its server is gone."""
        nonlocal missed
        missed += 1
        if missed == MISSED:
            server.start()
        time.sleep(seconds)

    monkeypatch.setattr(s3_workspace, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SPACEPORT_WORKSPACE", f"s3://{server.new_bucket()}/workspace")
        monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
        with listening(lose_storage):
            publication = reconstruct(str(flight), str(tmp_path / "out"), OPTIONS)
        assert missed >= MISSED
        assert trained == 1, "what was computed waits for its storage; it is not computed again"
        assert publication.degradations == ()
        again = reconstruct(str(flight), str(tmp_path / "again"), OPTIONS)
        assert again.cache_hits == ("photos", "sfm", "train", "compress")
