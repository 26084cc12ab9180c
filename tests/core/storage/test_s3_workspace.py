"""Stage outputs on a real S3 server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core.errors import StorageError
from tasks.core.storage import (
    MANIFEST_FILE,
    Manifest,
    OutputCache,
    S3Folder,
    S3Workspace,
    describe_output,
    verify_output,
)
from tests.support.s3_server import S3Server

FILES = {"scene.ply": b"ply" * 5000, "images/flight one/Süd 1.jpg": b"jpg", "empty": b""}
GB = 10**9


@pytest.fixture
def root(s3: S3Server) -> S3Folder:
    return S3Folder(s3.client(), s3.new_bucket(), "field/données")


@pytest.fixture
def open_machine(root: S3Folder, tmp_path: Path) -> Callable[[str], S3Workspace]:
    """The same workspace, as machines with disks of their own see it."""
    return lambda machine: S3Workspace(root, OutputCache(tmp_path / machine, GB), patience_seconds=0)


def store(
    workspace: S3Workspace, files: dict[str, bytes] = FILES, key: str = "k", *, replace: bool = False
) -> Manifest:
    with workspace.new_output("train", key) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        manifest = describe_output(folder, "train", {"steps": 3}, "0/1", 1.5)
        return workspace.commit(folder, "train", key, manifest, replace=replace)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_output_travels_from_one_machine_to_another(
    open_machine: Callable[[str], S3Workspace], tmp_path: Path
) -> None:
    here, there = open_machine("here"), open_machine("there")
    assert here.find("train", "k") is None
    stored = store(here)
    assert there.find("train", "k") == stored
    uri = there.output_uri("train", "k")
    assert uri.endswith("field/données/stages/train/k")
    copy = there.fetch(uri)
    assert contents(copy) == FILES
    assert copy.is_relative_to(tmp_path / "there")
    assert there.fetch(uri) == copy
    assert there.read(uri, "scene.ply") == FILES["scene.ply"]
    with pytest.raises(StorageError, match=r"no\.txt of s3://.* is missing or altered"):
        there.read(uri, "no.txt")


def test_what_was_made_here_is_not_downloaded(
    open_machine: Callable[[str], S3Workspace], root: S3Folder, tmp_path: Path
) -> None:
    here = open_machine("here")
    manifest = store(here)
    part = root.below(f"stages/train/k/{manifest.part}")
    part.delete(list(FILES))  # so a download would fail
    assert contents(here.fetch(here.output_uri("train", "k"))) == FILES
    folders = [entry.name for entry in (tmp_path / "here").iterdir() if entry.is_dir()]
    assert folders == [manifest.full_digest], "no partial folder stays"


def test_a_damaged_local_copy_is_fetched_anew(open_machine: Callable[[str], S3Workspace]) -> None:
    here = open_machine("here")
    store(here)
    copy = here.fetch(here.output_uri("train", "k"))
    (copy / "scene.ply").write_bytes(b"altered")
    assert contents(here.fetch(here.output_uri("train", "k"))) == FILES


@pytest.mark.parametrize("damage", ["missing file", "other size", "no manifest", "broken manifest"])
def test_a_damaged_output_is_a_miss_and_is_stored_again(
    open_machine: Callable[[str], S3Workspace], root: S3Folder, damage: str
) -> None:
    here = open_machine("here")
    manifest = store(here)
    place = root.below("stages/train/k")
    part = place.below(manifest.part)
    if damage == "missing file":
        part.delete(["scene.ply"])
    elif damage == "other size":
        part.write("scene.ply", b"short")
    elif damage == "no manifest":
        place.delete([MANIFEST_FILE])
    else:
        place.write(MANIFEST_FILE, b'{"stage": 3')
    assert here.find("train", "k") is None
    again = store(here)
    assert here.find("train", "k") == again
    assert contents(open_machine("there").fetch(here.output_uri("train", "k"))) == FILES


def test_altered_bytes_never_reach_a_stage(open_machine: Callable[[str], S3Workspace], root: S3Folder) -> None:
    here, there = open_machine("here"), open_machine("there")
    manifest = store(here)
    root.below(f"stages/train/k/{manifest.part}").write("scene.ply", b"PLY" * 5000)  # same size
    uri = here.output_uri("train", "k")
    for read in (lambda: there.fetch(uri), lambda: there.read(uri, "scene.ply")):
        with pytest.raises(StorageError, match=r"scene\.ply of s3://.*--fresh"):
            read()


def test_a_manifest_cannot_lead_out_of_the_folder(open_machine: Callable[[str], S3Workspace], root: S3Folder) -> None:
    here = open_machine("here")
    text = store(here, {"aa": b"a"}).model_dump_json().replace('"aa"', '"../../../aa"')
    root.below("stages/train/k").write(MANIFEST_FILE, text.encode())
    assert here.find("train", "k") is None
    with pytest.raises(StorageError, match="no complete stage output"):
        here.fetch(here.output_uri("train", "k"))


def test_eight_runs_that_commit_at_once_agree(open_machine: Callable[[str], S3Workspace], root: S3Folder) -> None:
    machines = [open_machine(str(number)) for number in range(8)]
    start = threading.Barrier(len(machines))

    def compute(number: int) -> Manifest:
        files = {"result": f"from {number}".encode(), **FILES}
        with machines[number].new_output("train", "k") as folder:
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            manifest = describe_output(folder, "train", {}, "0/1", 1.0)
            start.wait()
            return machines[number].commit(folder, "train", "k", manifest)

    with ThreadPoolExecutor(len(machines)) as pool:
        manifests = list(pool.map(compute, range(len(machines))))
    assert len({manifest.part for manifest in manifests}) == 1, "one wins, and all say so"
    names = {found.name for found in root.below("stages/train/k").objects()}
    assert names == {MANIFEST_FILE} | {f"{manifests[0].part}/{name}" for name in (*FILES, "result")}
    results = [contents(machine.fetch(machine.output_uri("train", "k"))) for machine in machines]
    assert all(result == results[0] for result in results)
    assert verify_output(machines[0].fetch(machines[0].output_uri("train", "k"))) == manifests[0]


def test_the_first_stays_unless_it_shall_be_replaced(
    open_machine: Callable[[str], S3Workspace], root: S3Folder
) -> None:
    here, there = open_machine("here"), open_machine("there")
    first = store(here, {"result": b"first"})
    assert store(there, {"result": b"second"}) == first
    uri = here.output_uri("train", "k")
    assert contents(there.fetch(uri)) == {"result": b"first"}

    third = store(there, {"result": b"third", "more": b"more"}, replace=True)
    assert here.find("train", "k") == third
    assert contents(here.fetch(uri)) == {"result": b"third", "more": b"more"}
    parts = {found.name.split("/")[0] for found in root.below("stages/train/k").objects()}
    assert parts == {MANIFEST_FILE, third.part}, "the files of the first are gone"


def test_what_is_stored_is_not_lost_to_tidying_up(
    open_machine: Callable[[str], S3Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither files of ours that lost nor a local copy that cannot be made is worth computing a stage again."""

    def gone(*_: object) -> None:
        raise StorageError("out of reach")

    here, there = open_machine("here"), open_machine("there")
    first = store(here, {"result": b"first"})
    with monkeypatch.context() as patch:
        patch.setattr(S3Folder, "delete", gone)
        assert store(here, {"result": b"second"}) == first
    with monkeypatch.context() as patch:
        patch.setattr(OutputCache, "adopt", gone)
        stored = store(there, {"result": b"third"}, key="other")
    assert here.find("train", "other") == stored
    assert contents(there.fetch(there.output_uri("train", "other"))) == {"result": b"third"}


def test_readers_see_whole_outputs_while_they_are_replaced(open_machine: Callable[[str], S3Workspace]) -> None:
    """Each output says one number in all of its files; a mixture would show."""
    writer, uri = open_machine("writer"), open_machine("writer").output_uri("train", "k")

    def numbered(number: int) -> dict[str, bytes]:
        return {f"file {index}": str(number).encode() for index in range(4)}

    store(writer, numbered(0))
    done = threading.Event()

    def read_until_done(machine: S3Workspace) -> int:
        reads = 0
        while not done.is_set() or reads == 0:
            assert len(set(contents(machine.fetch(uri)).values())) == 1
            assert machine.find("train", "k") is not None
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_until_done, open_machine(f"reader {number}")) for number in range(2)]
        try:
            for number in range(1, 7):
                store(writer, numbered(number), replace=True)
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert contents(writer.fetch(uri)) == numbered(6)


def test_files_of_a_run(open_machine: Callable[[str], S3Workspace], root: S3Folder) -> None:
    here = open_machine("here")
    assert here.read_run_file("flight-1", "log/run.html") is None
    here.write_run_file("flight-1", "log/run.html", b"old")
    here.write_run_file("flight-1", "log/run.html", b"new")
    assert here.read_run_file("flight-1", "log/run.html") == b"new"
    assert here.run_uri("flight-1") == f"{root.uri}/runs/flight-1"
    head = root.client.head_object(Bucket=root.bucket, Key=f"{root.prefix}/runs/flight-1/log/run.html")
    assert head["ContentType"] == "text/html; charset=utf-8"
    assert head["CacheControl"] == "no-cache"


def test_a_failed_computation_leaves_nothing(
    open_machine: Callable[[str], S3Workspace], root: S3Folder, tmp_path: Path
) -> None:
    def fail_halfway() -> None:
        with open_machine("here").new_output("train", "k") as folder:
            (folder / "half").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert list(root.objects()) == []
    assert list((tmp_path / "here").iterdir()) == []
