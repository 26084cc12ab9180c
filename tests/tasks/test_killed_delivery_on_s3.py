"""A delivery to S3 that is killed before any of its requests: those who begin at the page see one whole result."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from tasks.core.storage import S3Folder, s3_switch
from tasks.core.storage.s3_switch import LOCK_FILE
from tasks.places.destination import S3Destination
from tasks.places.result_files import CONTENTS_FILE
from tests.support.s3_server import S3Server

Result = dict[str, bytes]
MINE = {"notes.txt": b"mine", "colmap/images/mine.txt": b"mine"}


def result(version: str, *names: str) -> Result:
    return {name: f"{name} of {version}".encode() for name in ("index.html", "report.html", *names)}


OLD = result("old", "colmap/images/a.jpg", "lod/0/means.webp")
NEW = result("new", "colmap/images/a.jpg", "colmap/images/c.jpg")
NEXT = result("next", "colmap/images/b.jpg")


class KilledError(Exception):
    """Stands for the end of the process: from then on no request is sent."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Folder]:
    """In memory."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="results")
        yield S3Folder(client, "results", "flight 1")


@pytest.fixture(autouse=True)
def no_wait_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a killed delivery is that of this process, which lives."""
    monkeypatch.setattr(s3_switch, "_DEAD_SECONDS", 0.0)
    monkeypatch.setattr(s3_switch, "_POLL_SECONDS", 0.0)


def deliver(folder: S3Folder, local: Path, files: Result) -> None:
    for name, content in files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(content)
    S3Destination(folder).deliver(local)


def deliver_and_die(folder: S3Folder, local: Path, files: Result, requests: int) -> bool:
    """Deliver as a process that is killed after so many requests. False when it was."""
    left = requests

    def count(**_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    folder.client.meta.events.register("before-call.s3", count, unique_id="kill")
    try:
        with suppress(KilledError):
            deliver(folder, local, files)
    finally:
        folder.client.meta.events.unregister("before-call.s3", unique_id="kill")
    return left >= 0


def objects(folder: S3Folder) -> Result:
    found = {each.name: folder.read(each.name) for each in folder.objects()}
    return {name: content[0] for name, content in found.items() if content is not None}


def seen_from_the_page(folder: S3Folder) -> Result:
    """All that the page leads to."""
    there = objects(folder)
    page = there.get("index.html")
    if page is None:
        return {}
    base = re.match(rb'<base href="(spaceport-[0-9a-f]{12})/">', page)
    if base is None:
        ours = {name for name in there if not name.startswith("spaceport-") and name not in MINE}
        return {name: there[name] for name in ours - {LOCK_FILE, CONTENTS_FILE}}
    version = base[1].decode()
    found = {name.removeprefix(f"{version}/"): there[name] for name in there if name.startswith(f"{version}/")}
    assert found["index.html"] == page.removeprefix(base[0])
    return found


@pytest.mark.parametrize("older", [OLD, {}], ids=["over an older result", "in an empty place"])
def test_killed_before_any_request(folder: S3Folder, tmp_path: Path, older: Result) -> None:
    for name, content in MINE.items():
        folder.write(name, content)
    if older:
        deliver(folder, tmp_path / "old", OLD)
    seen, requests, ended = set(), 0, False
    while not ended:
        ended = deliver_and_die(folder, tmp_path / f"new {requests}", NEW, requests)
        there = seen_from_the_page(folder)
        assert there in (older, NEW), f"killed after {requests} requests"
        seen.add(there == NEW)
        deliver(folder, tmp_path / f"next {requests}", OLD)
        rest = objects(folder)
        assert rest.pop(CONTENTS_FILE)
        assert rest == {**OLD, **MINE}, f"killed after {requests} requests"
        if not older:
            folder.delete([*OLD, CONTENTS_FILE])
        requests += 1
    assert seen == {False, True}
    assert requests > 10, "it was killed in many places"


def test_two_writers_never_mix_and_know_each_others_files(s3: S3Server, tmp_path: Path) -> None:
    folder = S3Folder(s3.client(), s3.new_bucket(), "flight 1")
    deliver(folder, tmp_path / "old", OLD)
    start = threading.Barrier(3)

    def work(files: Result) -> None:
        start.wait()
        deliver(folder, tmp_path / files["index.html"].decode(), files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_switch, "_DEAD_SECONDS", 120.0)
        patch.setattr(s3_switch, "_POLL_SECONDS", 0.02)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, (OLD, NEW, NEXT)))
    files = objects(folder)
    listed = files.pop(CONTENTS_FILE)
    assert files in (OLD, NEW, NEXT)
    assert listed.decode().count('"') == 2 * len(files)
