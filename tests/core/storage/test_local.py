import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.core.errors import DestinationError, DiskFullError, StorageError, UnsafeNameError
from tasks.core.storage import (
    MANIFEST_FILE,
    LocalWorkspace,
    Manifest,
    StoredFile,
    cache_key,
    describe_output,
    hash_files,
    verify_output,
)


def store(workspace: LocalWorkspace, key: str, content: bytes = b"bytes") -> Path:
    with workspace.new_output("train", key) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(content)
        manifest = describe_output(folder, "train", {"steps": 3}, "0/1", 1.5)
        workspace.commit(folder, "train", key, manifest)
    return workspace.output_folder("train", key)


def test_an_output_is_found_by_its_key(tmp_path: Path) -> None:
    workspace = LocalWorkspace(str(tmp_path))
    assert workspace.find("train", "k") is None
    place = store(workspace, "k")
    manifest = workspace.find("train", "k")
    assert manifest is not None
    assert [file.path for file in manifest.files] == ["sub/file"]
    assert (place / "sub" / "file").read_bytes() == b"bytes"
    assert [entry.name for entry in place.parent.iterdir()] == ["k"], "the partial folder is gone"


@pytest.mark.parametrize("damage", ["remove", "alter", "truncate", "manifest"])
def test_a_damaged_output_is_a_miss_and_is_replaced(tmp_path: Path, damage: str) -> None:
    workspace = LocalWorkspace(str(tmp_path))
    place = store(workspace, "k")
    file = place / "sub" / "file"
    if damage == "remove":
        file.unlink()
    elif damage == "alter":
        file.write_bytes(b"BYTES")
    elif damage == "truncate":
        file.write_bytes(b"b")
    else:
        (place / MANIFEST_FILE).write_text("{}")
    assert workspace.find("train", "k") is None
    with pytest.raises(StorageError):
        verify_output(place)
    store(workspace, "k")
    assert verify_output(place).stage == "train"


def test_a_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with LocalWorkspace(str(tmp_path)).new_output("train", "k") as folder:
            (folder / "half").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert list((tmp_path / "stages" / "train").iterdir()) == []


def test_the_first_of_two_equal_outputs_stays(tmp_path: Path) -> None:
    workspace = LocalWorkspace(str(tmp_path))
    with workspace.new_output("train", "k") as ours:
        (ours / "file").write_bytes(b"ours")
        theirs = store(workspace, "k", b"theirs")
        manifest = workspace.commit(ours, "train", "k", describe_output(ours, "train", {}, "0/1", 1.0))
    assert manifest == workspace.find("train", "k")
    assert (theirs / "sub" / "file").read_bytes() == b"theirs"


def test_eight_runs_that_commit_at_once_agree(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def compute(number: int) -> Manifest:
        workspace = LocalWorkspace(tmp_path)
        with workspace.new_output("train", "k") as folder:
            (folder / "file").write_bytes(f"from {number}".encode())
            manifest = describe_output(folder, "train", {}, "0/1", 1.0)
            start.wait()
            return workspace.commit(folder, "train", "k", manifest)

    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(compute, range(8)))
    assert len({manifest.digest for manifest in manifests}) == 1, "one wins, and all say so"
    assert LocalWorkspace(tmp_path).find("train", "k") == manifests[0]
    assert [entry.name for entry in (tmp_path / "stages" / "train").iterdir()] == ["k"]


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with LocalWorkspace(tmp_path).new_output("train", "k") as folder:
            (folder / "half").write_bytes(b"half")
            Path("/dev/full").write_bytes(b"no room")

    with pytest.raises(DiskFullError, match=r"The disk that holds .* is full: [\d,]+ MB are free") as caught:
        fill()
    assert (caught.value.retryable, caught.value.exit_status) == (False, 1)
    assert list((tmp_path / "stages" / "train").iterdir()) == []


def test_what_is_free_is_counted_before_the_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a full disk is said to have room for what was just removed from it."""

    def usage(_: Path) -> shutil._ntuple_diskusage:
        used = any(tmp_path.rglob("half"))
        return shutil._ntuple_diskusage(10**9, 10**9 * used, 0 if used else 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)

    def fill() -> None:
        with LocalWorkspace(tmp_path).new_output("train", "k") as folder:
            (folder / "half").write_bytes(b"half")
            Path("/dev/full").write_bytes(b"no room")

    with pytest.raises(DiskFullError, match="is full: 0 MB are free"):
        fill()


def test_a_new_root_is_closed_to_others_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    def put(root: Path) -> int:
        with LocalWorkspace(root).new_output("train", "k"):
            pass
        return stat.S_IMODE(root.stat().st_mode)

    LocalWorkspace(tmp_path / "run").write_run_file("flight-1", "a.txt", b"a")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert put(tmp_path / "far" / "new") == 0o700
    (tmp_path / "old").mkdir(mode=0o755)
    (tmp_path / "old").chmod(0o755)
    assert put(tmp_path / "old") == 0o755


def test_names_stay_in_the_workspace(tmp_path: Path) -> None:
    workspace = LocalWorkspace(tmp_path / "workspace")
    outside = tmp_path / "outside"
    with LocalWorkspace(outside).new_output("train", "k") as folder:
        LocalWorkspace(outside).commit(folder, "train", "k", describe_output(folder, "train", {}, "0/1", 1.0))
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    place = store(workspace, "k")
    (place.parent / "link").symlink_to(outside / "stages/train/k")
    escapes = (
        f"{place}/../../../../outside/stages/train/k",
        str(place.parent / "link"),
        str(outside / "stages/train/k"),
    )
    with_uri: list[Callable[[str], object]] = [
        workspace.fetch,
        workspace.remove_output,
        lambda uri: workspace.read(uri, MANIFEST_FILE),
    ]
    for uri, ask in product((*escapes, str(workspace.root), str(workspace.root / "stages")), with_uri):
        with pytest.raises(StorageError, match="is not an output in the workspace"):
            ask(uri)
    with_name: list[Callable[[str], object]] = [
        lambda name: workspace.read(str(place), name),
        lambda name: workspace.read_run_file("flight-1", name),
        lambda name: workspace.write_run_file("flight-1", name, b"theirs"),
    ]
    with_run: list[Callable[[str], object]] = [
        lambda run: workspace.read_run_file(run, "secret"),
        lambda run: workspace.write_run_file(run, "secret", b"theirs"),
        workspace.remove_run,
        workspace.run_files,
        workspace.remove_checkpoints,
        lambda run: workspace.checkpoints("k", run),
        lambda run: workspace.find("train", run),
    ]
    names = product(("../../../../secret", str(secret)), with_name)
    for name, ask in (*names, *product(("..", "../..", "a/../../..", str(tmp_path), ""), with_run)):
        with pytest.raises(UnsafeNameError):
            ask(name)
    assert secret.read_bytes() == b"mine"
    assert (outside / "stages/train/k" / MANIFEST_FILE).is_file()


def test_a_manifest_keeps_to_its_folder() -> None:
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(ValidationError):
            StoredFile(path=name, size=1, sha256="0")


def test_a_log_does_not_make_it_another_output(tmp_path: Path) -> None:
    for name, log in (("one", "08:00 began"), ("two", "09:30 began")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sfm.log").write_text(log)
        (tmp_path / name / "scene.json").write_text("{}")
    one, two = (describe_output(tmp_path / name, "sfm", {}, "0/1", 1.0) for name in ("one", "two"))
    assert one.files != two.files
    assert one.digest == two.digest


def test_keys_depend_on_inputs_options_and_version() -> None:
    base = cache_key(["a"], {"steps": 1}, "1")
    assert base == cache_key(["a"], {"steps": 1}, "1")
    others = [
        cache_key(["b"], {"steps": 1}, "1"),
        cache_key(["a"], {"steps": 2}, "1"),
        cache_key(["a"], {"steps": 1}, "2"),
    ]
    assert len({base, *others}) == 4


def digest_of_all(folder: Path) -> str:
    return hash_files(folder, [path for path in folder.rglob("*") if path.is_file()])


def test_a_set_of_files_is_its_names_and_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a.jpg").write_bytes(b"a")
    assert digest_of_all(tmp_path / "one") == digest_of_all(tmp_path / "two"), "the folder's own name does not count"
    (tmp_path / "two" / "sub" / "a.jpg").rename(tmp_path / "two" / "a.jpg")
    assert digest_of_all(tmp_path / "one") != digest_of_all(tmp_path / "two")


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DestinationError, match="cannot be written"),
        LocalWorkspace(str(tmp_path / "file")).new_output("a", "k"),
    ):
        pass


def test_what_a_killed_process_left_is_removed_and_what_others_work_on_is_not(tmp_path: Path) -> None:
    workspace = LocalWorkspace(tmp_path)
    script = (
        "import sys; from tasks.core.storage import LocalWorkspace\n"
        "with LocalWorkspace(sys.argv[1]).new_output('train', 'a') as folder:\n"
        "    (folder / 'half').write_text('half'); print(folder, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other:
        theirs = Path(other.stdout.readline().strip())
        with workspace.new_output("train", "b"):
            assert (theirs / "half").is_file(), "its process lives"
        other.kill()
        other.wait()
        assert theirs.is_dir()
        with workspace.new_output("train", "b") as ours:
            left = (tmp_path / "stages" / "train").iterdir()
            assert [entry for entry in left if entry.is_dir()] == [ours]
        assert list((tmp_path / "stages" / "train").iterdir()) == []
