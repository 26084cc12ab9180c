"""A server that disappears and returns."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core.errors import StorageError
from tasks.core.storage import OutputCache, S3Folder, S3Workspace, describe_output
from tests.support.patience import STALL_SECONDS
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        yield server


def test_what_was_computed_waits_until_the_server_is_back(server: S3Server, tmp_path: Path) -> None:
    root = S3Folder(server.client(), server.new_bucket(), "x")
    root.write("kept", b"kept")
    kept = root.head("kept")
    assert kept is not None
    patient = S3Workspace(root, OutputCache(tmp_path / "copies", 10**9), patience_seconds=STALL_SECONDS)
    hasty = S3Workspace(root, OutputCache(tmp_path / "copies", 10**9), patience_seconds=0)
    with patient.new_output("train", "k") as folder, hasty.new_output("train", "k") as ours:
        for place in (folder, ours):
            (place / "file").write_bytes(b"file")
        server.stop()
        for ask in (
            lambda: list(root.objects()),
            lambda: root.read("kept"),
            lambda: root.write("y", b""),
            lambda: root.download([(kept, tmp_path / "kept")]),
            lambda: patient.find("train", "k"),
            lambda: hasty.commit(ours, "train", "k", describe_output(ours, "train", {}, "0/1", 1.0)),
        ):
            with pytest.raises(StorageError, match=r"s3://.* cannot be reached"):
                ask()
        manifest = describe_output(folder, "train", {}, "0/1", 1.0)
        with ThreadPoolExecutor(1) as pool:
            commit = pool.submit(patient.commit, folder, "train", "k", manifest)
            server.start()
            stored = commit.result()
    assert patient.find("train", "k") == stored
    assert root.read("kept") is not None
