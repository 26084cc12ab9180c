"""Results on S3: whole, replaced, and opened in a browser through their links."""

import errno
import fcntl
import json
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import DestinationError, DiskFullError, StorageError
from tasks.core.safe_names import safe_name
from tasks.core.sog.writer import write_sog
from tasks.core.storage import S3Folder, describe_files
from tasks.core.storage.folder_switch import VERSIONS_FOLDER
from tasks.core.storage.s3_switch import LOCK_FILE, leading_into
from tasks.core.viewer.page import ViewerSettings, write_page
from tasks.places.destination import LOCK_FILE as LOCK_FILE_OF_FOLDER
from tasks.places.destination import LocalDestination, S3Destination, open_destination
from tasks.places.result_files import CONTENTS_FILE, PAGE_FILE, REPORT_FILE
from tasks.places.workspace import open_workspace
from tests.core.sog.splats import terrain
from tests.core.viewer.scenes import Z_UP, looking
from tests.support.browser import chromium
from tests.support.s3_server import S3Server

REPORT_TEMPLATE = Path(__file__).parents[2] / "tasks" / "core" / "report" / "report.html.j2"


@pytest.fixture
def folder(s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Folder:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    return S3Folder(s3_environment.client(), s3_environment.new_bucket(), "results/north field")


def publish(uri: str, workspace: Path, files: dict[str, bytes]) -> None:
    destination = open_destination(uri, open_workspace(str(workspace)))
    destination.check()
    with destination.scratch() as scratch:
        for name, content in files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(content)
        destination.deliver(scratch)


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize(
    "later",
    [
        {"index.html": b"now"},  # another result of the same size
        {"colmap/images/a.jpg": b"longer"},
        {"stream.html": b"more"},
    ],
)
def test_a_result_is_held_until_a_file_of_it_changes(
    folder: S3Folder, tmp_path: Path, kind: str, later: dict[str, bytes]
) -> None:
    uri = folder.uri if kind == "s3" else str(tmp_path / "out")
    files = {"index.html": b"old", "scene.sog": b"sog", "colmap/images/a.jpg": b"photo"}
    for name, content in files.items():
        path = tmp_path / "described" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    described = describe_files(tmp_path / "described")
    destination = open_destination(uri, open_workspace(str(tmp_path)))
    assert not destination.holds(described), "nothing is there yet"
    publish(uri, tmp_path, files)
    if kind == "s3":
        folder.write("notes.txt", b"mine")
    else:
        (tmp_path / "out" / "notes.txt").write_bytes(b"mine")
    assert destination.holds(described)
    publish(uri, tmp_path, {**files, **later})
    assert not destination.holds(described)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_an_older_result_is_replaced_and_nothing_else(folder: S3Folder, tmp_path: Path, kind: str) -> None:
    uri = folder.uri if kind == "s3" else str(tmp_path / "out")
    publish(uri, tmp_path, {"index.html": b"old", "colmap/images/old.jpg": b"old", "colmap/images/kept.jpg": b"old"})
    if kind == "s3":
        folder.write("notes.txt", b"mine")
    else:
        (tmp_path / "out" / "notes.txt").write_bytes(b"mine")
    publish(uri, tmp_path, {"index.html": b"new", "colmap/images/kept.jpg": b"new", "scene.sog": b"new"})
    destination = open_destination(uri, open_workspace(str(tmp_path)))
    expected = {
        "index.html": b"new",
        "colmap/images/kept.jpg": b"new",
        "scene.sog": b"new",
        "notes.txt": b"mine",
    }
    assert {name: destination.read(name) for name in expected} == expected
    with pytest.raises(StorageError, match="index"):
        destination.read("colmap/images/index.html")
    with pytest.raises(StorageError, match=r"old\.jpg"):
        destination.read("colmap/images/old.jpg")
    if kind == "s3":
        assert {found.name for found in folder.objects()} == {*expected, CONTENTS_FILE}, "no probe is left"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_what_a_smaller_result_has_not_is_removed_and_the_users_own_is_not(
    folder: S3Folder, tmp_path: Path, kind: str
) -> None:
    uri = folder.uri if kind == "s3" else str(tmp_path / "out")
    large = {"index.html": b"1", "stream.html": b"1", "lod/lod-meta.json": b"1", "lod/0/means.webp": b"1"}

    def files() -> set[str]:
        if kind == "s3":
            return {found.name for found in folder.objects()}
        return {path.relative_to(uri).as_posix() for path in Path(uri).rglob("*") if path.is_file()}

    mine = {"lod/notes.txt", "colmap/images/mine.jpg", "stream.txt"}
    publish(uri, tmp_path, {**large, "colmap/images/a.jpg": b"1"})
    for name in mine:
        if kind == "s3":
            folder.write(name, b"mine")
        else:
            (Path(uri) / name).write_bytes(b"mine")
    publish(uri, tmp_path, {"index.html": b"2", "colmap/images/b.jpg": b"2"})
    assert files() == {"index.html", "colmap/images/b.jpg", CONTENTS_FILE, *mine}
    if kind == "local":
        assert not (Path(uri) / "lod" / "0").exists()
    publish(uri, tmp_path, large)
    assert files() == {*large, CONTENTS_FILE, *mine}


def test_the_longest_name_of_an_image_is_known_as_ours(tmp_path: Path) -> None:
    """The list has the folders of a result before names that are as long as names of images may be."""
    image = "/".join(["x" * 179] * 5)
    assert safe_name(image) == image
    publish(str(tmp_path / "out"), tmp_path, {"index.html": b"1", f"colmap/images/{image}": b"1"})
    publish(str(tmp_path / "out"), tmp_path, {"index.html": b"2"})
    assert not (tmp_path / "out" / "colmap").exists()


def test_nothing_outside_of_the_destination_is_written_or_removed(tmp_path: Path) -> None:
    """Whatever the list or a link there says."""
    out, other = tmp_path / "out", tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for name in ("a.jpg", "images/a.jpg"):
        (other / name).write_bytes(b"mine")
    out.mkdir()
    listed = ["../other/a.jpg", str(other / "a.jpg"), "colmap/images/a.jpg", "lod/a.jpg", "", ".", 3]
    (out / CONTENTS_FILE).write_text(json.dumps(listed[:-1]))
    (out / "colmap").symlink_to(other)
    (out / "lod").symlink_to(other)
    with pytest.raises(DestinationError, match=r"replace colmap in .*/out, which no earlier result has put there"):
        publish(str(out), tmp_path, {"index.html": b"new", "colmap/images/a.jpg": b"new"})
    publish(str(out), tmp_path, {"index.html": b"new"})
    assert sorted(path.name for path in other.rglob("*")) == ["a.jpg", "a.jpg", "images"]
    assert sorted(path.name for path in out.iterdir() if path.is_symlink()) == ["colmap", "lod"]
    (out / CONTENTS_FILE).write_text(json.dumps(listed))
    with pytest.raises(DestinationError, match=r"replace index\.html"):  # a list that is not ours says nothing
        publish(str(out), tmp_path, {"index.html": b"newer"})


# Names beside the result's own that a delivery writes to or removes.
BESIDE = (VERSIONS_FOLDER, LOCK_FILE_OF_FOLDER, f".{CONTENTS_FILE}.partial", "colmap")


@pytest.mark.parametrize("name", BESIDE)
def test_a_link_in_place_of_a_name_of_ours_leads_to_nothing_that_changes(tmp_path: Path, name: str) -> None:
    """The folder has a report from before results had lists of files, as an archive from another person may."""
    out, other = tmp_path / "out", tmp_path / "other"
    theirs = [other / "notes.txt", other / "folder" / "a.txt", other / "sparse" / "0" / "cameras.bin"]
    for file in theirs:
        save(file)
    out.mkdir()
    (out / "report.json").write_text('{"versions": {"spaceport": "0.9"}}')
    (out / name).symlink_to(theirs[0] if name.startswith(".") else other)
    for _ in range(2):
        with suppress(DestinationError):  # as for all but the unfinished list, which is replaced
            publish(str(out), tmp_path, {"index.html": b"new", "colmap/sparse/0/cameras.bin": b"new"})
    assert {file for file in other.rglob("*") if file.is_file()} == set(theirs)
    assert {file.read_bytes() for file in theirs} == {b"mine"}


def test_a_folder_with_the_name_of_the_versions_is_the_users(tmp_path: Path) -> None:
    save(tmp_path / "out" / VERSIONS_FOLDER / "mine.txt")
    with pytest.raises(DestinationError, match=f"would replace {VERSIONS_FOLDER} in .* move away"):
        publish(str(tmp_path / "out"), tmp_path, {"index.html": b"new"})
    assert (tmp_path / "out" / VERSIONS_FOLDER / "mine.txt").read_bytes() == b"mine"
    assert not (tmp_path / "out" / "index.html").exists()


USERS = {
    "index.html": b"mine",
    "colmap/sparse/0/cameras.bin": b"mine",
    "colmap/images/a.jpg": b"mine",
    "a.txt": b"mine",
}


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("name", [name for name in USERS if name != "a.txt"])
def test_the_users_own_files_are_never_replaced(folder: S3Folder, tmp_path: Path, kind: str, name: str) -> None:
    uri = folder.uri if kind == "s3" else str(tmp_path / "out")
    destination = open_destination(uri, open_workspace(str(tmp_path)))
    for own in (name, "a.txt", "colmap/notes.txt"):
        destination._write(own, b"mine") if kind == "s3" else save(Path(uri) / own)
    result = {"index.html": b"new", "colmap/sparse/0/cameras.bin": b"new", "colmap/images/a.jpg": b"new"}
    with pytest.raises(DestinationError, match=f"would replace {name} in .* which no earlier result has put there"):
        publish(uri, tmp_path, result)
    assert [destination.read(own) for own in (name, "a.txt", "colmap/notes.txt")] == [b"mine"] * 3
    with pytest.raises(StorageError):
        destination.read(CONTENTS_FILE)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")


def test_a_result_from_before_there_were_lists_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    save(out / "index.html")
    (out / "report.json").write_text('{"capture": "field", "versions": {"spaceport": "0.9", "python": "3.11"}}')
    publish(str(out), tmp_path, {"index.html": b"new", "report.json": b"{}"})
    assert (out / "index.html").read_bytes() == b"new"
    publish(str(out), tmp_path, {"index.html": b"newer", "report.json": b"{}"})


def test_what_is_in_the_way_has_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out" / "scene.sog").mkdir(parents=True)
    (tmp_path / "out" / "colmap").touch()
    for name in ("scene.sog", "colmap/a.jpg"):
        with pytest.raises(DestinationError, match="move away what is in its place"):
            publish(str(tmp_path / "out"), tmp_path, {name: b"new"})


def test_the_page_goes_last(folder: S3Folder, tmp_path: Path) -> None:
    (tmp_path / "colmap").mkdir()
    for name in ("index.html", "scene.sog", "report.html", "colmap/a.jpg"):
        (tmp_path / name).write_bytes(b"new")
    put: list[str] = []
    folder.client.meta.events.register(
        "before-parameter-build.s3.PutObject", lambda params, **_: put.append(params["Key"]), unique_id="order"
    )
    try:
        S3Destination(folder).deliver(tmp_path)
    finally:
        folder.client.meta.events.unregister("before-parameter-build.s3.PutObject", unique_id="order")
    names = [key.removeprefix(f"{folder.prefix}/") for key in put]
    assert names[:2] == [LOCK_FILE, CONTENTS_FILE]
    assert names[-1] == CONTENTS_FILE
    files = [name for name in names if name not in (CONTENTS_FILE, LOCK_FILE)]
    assert files[-1] == "index.html"
    assert sorted(files) == ["colmap/a.jpg", "index.html", "report.html", "scene.sog"]
    head = folder.client.head_object(Bucket=folder.bucket, Key=f"{folder.prefix}/scene.sog")
    assert (head["ContentType"], head["CacheControl"]) == ("application/octet-stream", "no-cache")


def test_the_page_and_the_report_open_through_their_links(folder: S3Folder, tmp_path: Path) -> None:
    write_sog(terrain(4000, 2), tmp_path / "scene.sog")
    view = ViewerSettings("Field", looking((4.0, -8.0, 5.0), (0, 0, 0.3)), np.array([0, 0, 0.3]), Z_UP)
    write_page(tmp_path / "scene.sog", tmp_path / "index.html", view)
    # The report's own frame: its security policy, its link to the page and the script that takes that link away.
    template = REPORT_TEMPLATE.read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=.*>", template)
    link = re.search(r'<a class="open".*?</script>', template, re.DOTALL)
    assert policy
    assert link
    report = f"<!doctype html><head>{policy[0]}</head><body>{re.sub(r'{#.*#}', '', link[0])}</body>"
    publish(folder.uri, tmp_path, {PAGE_FILE: (tmp_path / "index.html").read_bytes(), REPORT_FILE: report.encode()})
    destination = open_destination(folder.uri, open_workspace(str(tmp_path)))
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile", 480, 300) as page:
        page.open(destination.link(PAGE_FILE))
        page.wait_for("window.spaceportViewer")
        assert page.evaluate("document.querySelector('#about a') === null"), "the signature is for one file"
        assert page.screenshot().std() > 20, "8-bit levels; an empty page has none"
        page.open(destination.link(REPORT_FILE))
        page.wait_for("document.readyState === 'complete' && !document.querySelector('canvas')")
        assert page.evaluate("document.querySelector('a.open') === null")
        (tmp_path / "report.html").write_text(report)
        page.open((tmp_path / "report.html").as_uri())
        page.wait_for("location.protocol === 'file:' && document.readyState === 'complete'")
        assert page.evaluate("document.querySelector('a.open') !== null"), "beside its page the link stays"
        # As it is put while a result is replaced: its own security policy must not keep it from leading elsewhere.
        (tmp_path / "moment.html").write_bytes(leading_into((tmp_path / "index.html").read_bytes(), "spaceport-1"))
        page.open((tmp_path / "moment.html").as_uri())
        page.wait_for("location.pathname.endsWith('moment.html') && document.readyState === 'complete'")
        assert page.evaluate("document.querySelector('#about a').href.endsWith('/spaceport-1/report.html')")
        assert [error for error in page.errors if "favicon" not in error] == []


def test_links_of_a_local_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "runs" / "flight-1" / "splat", tmp_path / "out"
    for place in (inside, outside):
        link = open_destination(str(place), open_workspace(str(tmp_path))).link("index.html")
        assert link == str(place / "index.html")
    monkeypatch.setenv("SPACEPORT_PAGES_URL", "http://127.0.0.1:9")
    workspace = open_workspace(str(tmp_path))
    assert open_destination(str(inside), workspace).link("index.html") == (
        "http://127.0.0.1:9/flight-1/splat/index.html"
    )
    assert open_destination(str(outside), workspace).link("index.html") == str(outside / "index.html")


def test_places_that_cannot_be_written_are_refused(s3_environment: S3Server, tmp_path: Path) -> None:
    workspace = open_workspace(str(tmp_path))
    with pytest.raises(DestinationError, match="There is no bucket for s3://no-such-bucket/x"):
        open_destination("s3://no-such-bucket/x", workspace).check()
    with pytest.raises(DestinationError, match="cannot be written to"):
        open_destination("ftp://host/x", workspace)
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError, match="--out"):
        open_destination(str(tmp_path / "file"), workspace).check()


def test_a_trial_leaves_what_others_put_there_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LocalDestination._make

    def make_beside_another(self: LocalDestination) -> None:
        made(self)
        (tmp_path / "a" / "log").touch()

    monkeypatch.setattr(LocalDestination, "_make", make_beside_another)
    open_destination(str(tmp_path / "a" / "b"), open_workspace(str(tmp_path))).check()
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["log"]


def test_a_trial_leaves_no_folder(tmp_path: Path) -> None:
    open_destination(str(tmp_path / "a" / "b"), open_workspace(str(tmp_path))).check()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_full_disk_leaves_nothing(folder: S3Folder, tmp_path: Path, kind: str) -> None:
    destination = open_destination(folder.uri if kind == "s3" else str(tmp_path / "out"), open_workspace(str(tmp_path)))

    def fill() -> None:
        with destination.scratch() as scratch:
            (scratch / "half").write_bytes(b"half")
            Path("/dev/full").write_bytes(b"no room")

    with pytest.raises(DiskFullError, match="MB are free"):
        fill()
    left = (path for place in ("home", "out") for path in (tmp_path / place).rglob("*"))
    assert [path for path in left if path.is_file() or "partial" in path.name] == []


def test_a_folder_without_file_locks_is_refused_at_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(DestinationError, match="no file locks"):
        open_destination(str(tmp_path / "new/out"), open_workspace(str(tmp_path))).check()
    assert not (tmp_path / "new").exists()
