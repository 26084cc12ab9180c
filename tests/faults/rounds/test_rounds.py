"""The rounds see what they look for: without this, sixty passed rounds would say nothing."""

import errno
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tasks.core.stages import STAGES
from tests.faults.rounds.places import FolderPlace, S3Place, after, other_outputs
from tests.faults.rounds.plan import FAULTS, draw
from tests.faults.rounds.proxy import MODES, Proxy, proxy
from tests.faults.rounds.results import difference, in_folder, on_s3, shows
from tests.faults.rounds.small_disk import small_disk
from tests.faults.rounds.verdict import Verdict, orphans, running
from tests.support.s3_server import S3Server

ANSWER = bytes(100_000)
RESULT = {"index.html": b"page", "report.html": b"12 s", "colmap/a.jpg": b"photo"}


def test_a_seed_draws_the_same_rounds_and_sixty_have_every_fault_and_stage() -> None:
    rounds = draw(60, 0)
    assert rounds == draw(60, 0)
    assert rounds != draw(60, 1)
    assert {(each.where, each.fault) for each in rounds} == {
        (w, fault) for w, those in FAULTS.items() for fault in those
    }
    assert {(each.runs_in, each.stage) for each in rounds} == {(r, s) for r in ("terminal", "server") for s in STAGES}
    assert {each.over_older for each in rounds} == {False, True}


def test_a_stage_finds_the_outputs_of_those_before_it() -> None:
    assert after("photos") == {"photos", "sfm", "cameras", "train", "compress", "publish", "pictures"}
    assert after("sfm") == {"sfm", "cameras", "train", "compress", "publish", "pictures"}
    assert after("train") == {"train", "compress", "publish", "pictures"}
    assert after("publish") == {"publish", "pictures"}


def test_outputs_differ_but_for_the_name_of_the_published_one() -> None:
    reference = {("train", "a"), ("publish", "b")}
    assert other_outputs({("train", "a"), ("publish", "c")}, reference) == []
    assert other_outputs({("train", "x"), ("publish", "c")}, reference) == [("train", "a"), ("train", "x")]
    assert other_outputs({("train", "a"), ("publish", "c"), ("publish", "d")}, reference) == [
        ("publish", "c"),
        ("publish", "d"),
    ]


def save(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_results_differ_in_names_and_bytes_but_not_in_times(tmp_path: Path) -> None:
    save(tmp_path, {**RESULT, "report.html": b"13 s", "spaceport-files.json": b"[]"})
    found = in_folder(tmp_path)
    assert difference(found, RESULT) == ""
    assert difference({**found, "colmap/a.jpg": b"other"}, RESULT) == "has other bytes in colmap/a.jpg (1)"
    assert difference({"index.html": b"page", "more": b""}, RESULT).startswith(
        "lacks colmap/a.jpg, report.html (2); has"
    )
    assert shows({**found, "more": b""}, RESULT)
    assert not shows({**found, "index.html": b"other page"}, RESULT)


def test_a_result_on_s3_is_what_its_page_leads_to(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    page = b'<head><base href="spaceport-1/"></head>'
    objects = {f"out/{name}": content for name, content in {**RESULT, "index.html": page}.items()}
    objects |= {f"out/spaceport-1/{name}": name.encode() for name in RESULT} | {"out/spaceport-2/colmap/a.jpg": b""}
    for name, content in objects.items():
        s3.client().put_object(Bucket=bucket, Key=name, Body=content)
    assert on_s3(s3.client(), bucket, "out/") == {name: name.encode() for name in RESULT}


def test_left_over_files_are_found(tmp_path: Path) -> None:
    save(tmp_path / "out", {**RESULT, "spaceport-files.json": b"[]"})
    save(tmp_path / "workspace/stages/sfm/key", {"manifest.json": b""})
    assert FolderPlace(tmp_path).left_over() == []
    left = ["out/.spaceport.lock", "out/spaceport-versions/a", "workspace/stages/sfm/.x.partial/a"]
    left += ["workspace/checkpoints/key/1.npz"]
    save(tmp_path, dict.fromkeys(left, b""))
    found = FolderPlace(tmp_path).left_over()
    assert {name for name in left if not any(name.startswith(each) for each in found)} == set()


def test_left_over_objects_are_found(s3: S3Server) -> None:
    place = S3Place(s3)
    kept = ["workspace/stages/sfm/key/part/scene.json", "workspace/stages/sfm/key/manifest.json", "out/index.html"]
    left = ["workspace/stages/sfm/key/lost/a", "workspace/stages/train/key/part/a", "out/spaceport-1/index.html"]
    left += ["out/.spaceport.lock", "workspace/checkpoints/key/1.npz"]
    for name in kept:
        s3.client().put_object(Bucket=place.bucket, Key=name, Body=b"")
    assert place.left_over() == []
    assert place.outputs() == {("sfm", "key")}
    for name in left:
        s3.client().put_object(Bucket=place.bucket, Key=name, Body=b"")
    s3.client().create_multipart_upload(Bucket=place.bucket, Key="out/scene.sog")
    assert len(place.left_over()) == len(left) + 1


def test_a_run_that_has_not_ended_is_found(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        database.execute("CREATE TABLE flow_run (name TEXT, state_type TEXT)")
        rows = [("one", "COMPLETED"), ("two", "CRASHED"), ("three", "RUNNING"), ("four", "PENDING")]
        database.executemany("INSERT INTO flow_run VALUES (?, ?)", rows)
        database.commit()
    assert running(tmp_path) == ["three is RUNNING", "four is PENDING"]


def test_a_process_that_stays_is_an_orphan_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.rounds.verdict.GRACE_LOOKS", 1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"]) as stays:
        process = psutil.Process(stays.pid)
        [orphan] = orphans(lambda: [process] if process.status() != psutil.STATUS_ZOMBIE else [])
        assert orphan.startswith(f"{stays.pid} ")
    assert orphans(list) == []


@pytest.mark.parametrize("words", ["Traceback (most recent call last)", "--- Error logging to API ---"])
def test_what_is_not_for_people_is_wrong(words: str) -> None:
    verdict = Verdict()
    verdict.said("error The disk is full.")
    assert verdict.passed
    verdict.said(words)
    assert not verdict.passed


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The URL of a server with one long answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(spoils: Proxy) -> object:
    """The answer's length, or the status or kind of its error."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(spoils.url) as answer:
            return len(answer.read())
    except urllib.error.HTTPError as error:
        return error.code
    except Exception as error:  # noqa: BLE001 - of one of many kinds, depending on where it was cut
        return type(error)


def test_a_proxy_spoils_answers_while_it_is_told_to(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.rounds.proxy.SLOW_SECONDS", 0.01)
    with proxy(storage, 0) as spoils:
        assert ask(spoils) == len(ANSWER)
        assert spoils.spoilt == 0
        answers = {}
        for spoils.mode in MODES:
            before = spoils.spoilt
            answers[spoils.mode] = ask(spoils)
            assert spoils.spoilt > before, spoils.mode
        spoils.mode = None
        assert ask(spoils) == len(ANSWER)
    assert (answers["5xx"], answers["slow"]) == (503, len(ANSWER))
    assert isinstance(answers["cut"], type)
    assert isinstance(answers["lost"], type)


FAILING = """
import sys
from pathlib import Path
from tests.faults.rounds.failing_disk import FailingDisk
trigger, folder = Path(sys.argv[1]), Path(sys.argv[2])
FailingDisk(trigger, folder).install()
(folder / "before").write_text("whole")
open_file = (folder / "during").open("wb", buffering=0)
trigger.touch()
def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return error.errno
print(attempt((folder / "new").mkdir), attempt((folder / "before").read_text), attempt(lambda: open_file.write(b"a")),
      attempt(lambda: (folder / "before").rename(folder / "after")), attempt((folder.parent / "elsewhere").mkdir))
trigger.unlink()
print((folder / "before").read_text(), open_file.write(b"ab"))
"""


def test_a_disk_fails_while_its_trigger_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [sys.executable, "-c", FAILING, tmp_path / "trigger", folder]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"{errno.EIO} {errno.EIO} {errno.EIO} {errno.EIO} done\nwhole 2\n"


def test_a_small_disk_is_full_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        write = [*disk.seen_from, "sh", "-c", f"echo a > {tmp_path}/disk/file"]
        disk.fill()
        assert subprocess.run(write, check=False, capture_output=True).returncode != 0
        disk.make_room()
        assert subprocess.run(write, check=False, capture_output=True).returncode == 0
        assert (disk.folder / "file").read_text() == "a\n"
    assert list((tmp_path / "disk").iterdir()) == []
