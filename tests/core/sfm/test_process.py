"""The worker process may die, and it must not outlive the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.core.errors import DiskFullError, OutOfMemoryError, SfmCrashError, StageError
from tasks.core.progress import Progress
from tasks.core.sfm import process
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.process import ROOT
from tasks.core.source_digest import source_modules
from tests.core.sfm.conftest import Flight
from tests.core.sfm.patched_worker import patch_worker
from tests.support.patience import eventually, is_alive


def workers(module: str = "pipeline") -> list[psutil.Process]:
    """Workers started by this process, or processes of another module that these have started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if is_alive(child) and f"tasks.core.sfm.{module}" in child.cmdline()]


def test_the_stages_own_process_never_loads_pycolmap() -> None:
    """Its image library beside Pillow's, in one process, has ended in an abort."""
    program = """
import sys
import tasks.core.sfm.cameras, tasks.core.sfm.import_model, tasks.core.sfm.undistort, tasks.core.estimate.stages
sys.exit("pycolmap" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_programs_of_the_workers_import_no_more_than_they_use() -> None:
    parents = {"tasks.core.sfm.cameras", "tasks.core.sfm.process", "tasks.core.sfm.undistort"}
    assert not source_modules("tasks.core.sfm.pipeline") & parents
    own = {name for name in source_modules("tasks.core.sfm.match_part") if name.startswith("tasks.core.sfm.")}
    assert own == {"tasks.core.sfm.match_part"}


def test_abort_in_native_code_becomes_an_error_with_the_last_words(flight: Flight, tmp_path: Path) -> None:
    def abort(progress: Progress) -> None:
        for worker in workers():
            worker.send_signal(signal.SIGABRT)

    with pytest.raises(
        SfmCrashError, match=r"was killed by SIGABRT\. Its last words: .*(phase features|Processed file)"
    ) as caught:
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), abort)
    assert caught.value.retryable
    assert not (tmp_path / "out/.work").exists()


def test_a_python_exception_in_the_worker_is_told_and_not_tried_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "photos.json").write_text("{}")
    with pytest.raises(StageError, match=r"(?s)failed with ValidationError: .*Field required") as caught:
        find_cameras(photos, tmp_path / "out", SfmOptions(), lambda _: None)
    assert not caught.value.retryable


def test_a_worker_that_cannot_start_is_not_tried_again(
    flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_worker(tmp_path, "sys.modules['tasks.core.sfm.frame'] = None", monkeypatch)
    with pytest.raises(StageError, match=r"ended with status 1\. Its last words: .*ModuleNotFoundError") as caught:
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), lambda _: None)
    assert not caught.value.retryable


def test_want_of_memory_in_the_worker_is_told_and_not_tried_again(
    flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more_than_there_is = "pycolmap.extract_features = lambda *_, **__: bytearray(2**60)"
    patch_worker(tmp_path, more_than_there_is, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"GB are free now\): lower sfm\.max_features_image_size") as caught:
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), lambda _: None)
    assert not caught.value.retryable


def test_a_full_quota_in_the_worker_is_told_as_a_full_disk(
    flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = """
def extract_features(*_, **__):
    raise OSError(122, "Disk quota exceeded")

pycolmap.extract_features = extract_features
"""
    patch_worker(tmp_path, full, monkeypatch)
    with pytest.raises(DiskFullError, match="is full"):
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), lambda _: None)


@pytest.mark.parametrize(
    ("kills", "error"),
    [((3, 4), OutOfMemoryError), ((3, 3), SfmCrashError), ((None, None), OutOfMemoryError)],
    ids=["by the kernel", "by another program", "without a count"],
)
def test_a_worker_that_is_killed(
    kills: tuple[int | None, int | None],
    error: type[StageError],
    flight: Flight,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's count of kills, before and after, shows want of memory."""
    before, after = kills
    monkeypatch.setattr(process, "oom_kills", lambda: before)
    monkeypatch.setattr("tasks.core.sfm.worker.oom_kills", lambda: after)

    def kill(progress: Progress) -> None:
        for worker in workers():
            worker.kill()

    with pytest.raises(error, match=r"was killed by SIGKILL") as caught:
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), kill)
    assert caught.value.retryable == (error is SfmCrashError)
    assert ("lower sfm.max_features_image_size" in str(caught.value)) == (error is OutOfMemoryError)


@pytest.mark.parametrize(
    ("phase", "native"),
    [("features", "extract_features"), ("matching", "match_image_pairs"), ("placed", "incremental_mapping")],
)
def test_interrupt_ends_the_worker(
    phase: str, native: str, flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each phase, which pycolmap is made to repeat for ever."""
    again = f"""
native = pycolmap.{native}

def endless(*args, **options):
    while True:
        native(*args, **options)

pycolmap.{native} = endless
"""
    patch_worker(tmp_path, again, monkeypatch)
    started: list[psutil.Process] = []
    helpers: list[psutil.Process] = []

    def interrupt(progress: Progress) -> None:
        if progress.note.startswith(phase):
            started.extend(workers())
            helpers.extend(workers("match_part"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), interrupt)
    assert started, "which would never have ended by itself"
    assert not any(worker.is_running() for worker in started)
    eventually(lambda: not any(map(is_alive, helpers)), "end of the processes that the worker had started")
    assert not (tmp_path / "out/.work").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_worker_ends_when_its_parent_is_killed(how: signal.Signals, flight: Flight, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.cameras import find_cameras
find_cameras(Path({str(flight.photos)!r}), Path({str(tmp_path / "out")!r}), SfmOptions(),
             lambda progress: print(progress, flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline()  # the worker has begun
        (worker,) = [p for p in psutil.Process(parent.pid).children() if "tasks.core.sfm.pipeline" in p.cmdline()]
        assert worker.pid == os.getpgid(worker.pid)
    finally:
        parent.send_signal(how)
        parent.wait()
    eventually(lambda: not is_alive(worker), "end of the worker")
