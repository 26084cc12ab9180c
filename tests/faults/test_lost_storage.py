"""The workspace's S3 is gone for half a minute while a stage has something to store."""

import threading
from pathlib import Path

import pytest

from flows.reconstruct import reconstruct
from tasks.core.options import parse_options
from tasks.core.progress import Progress
from tasks.reporting import listening
from tests.s3_server import s3_server

GONE_SECONDS = 30.0
OPTIONS = parse_options("draft", ["train.steps=60", "train.max_gaussians=5000", "train.max_image_size=160"])


@pytest.mark.usefixtures("prefect_server")
def test_storage_gone_for_half_a_minute(flight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = 0
    comes_back = threading.Timer(GONE_SECONDS, lambda: server.start())

    def lose_storage(stage: str, progress: Progress) -> None:
        nonlocal trained
        if stage == "train" and progress.done == progress.total:
            trained += 1
            if not comes_back.is_alive() and trained == 1:
                server.stop()
                comes_back.start()

    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SPACEPORT_WORKSPACE", f"s3://{server.new_bucket()}/workspace")
        monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
        with listening(lose_storage):
            publication = reconstruct(str(flight), str(tmp_path / "out"), OPTIONS)
        comes_back.join()
        assert trained == 1, "what was computed waits for its storage; it is not computed again"
        assert publication.degradations == ()
        again = reconstruct(str(flight), str(tmp_path / "again"), OPTIONS)
        assert again.cache_hits == ("photos", "sfm", "train", "compress")
