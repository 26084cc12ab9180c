"""Bad input: one clear sentence, exit status 2, nothing half-written."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from flows.cli.app import main
from tasks.running.run_folder import OUTPUTS_FOLDER
from tests.support.patience import finished
from tests.support.pictures import save_black, save_textured

Maker = Callable[[Path], None]


def empty_folder(photos: Path) -> None:
    photos.mkdir()


def no_photos_among_files(photos: Path) -> None:
    photos.mkdir()
    (photos / "notes.txt").write_text("no photo")
    (photos / "clip.mp4").write_bytes(b"no photo")


def photos_of_number(n: int) -> Maker:
    def make(photos: Path) -> None:
        for i in range(n):
            save_textured(photos / f"{i}.jpg", i)

    return make


def only_black_photos(photos: Path) -> None:
    for i in range(5):
        save_black(photos / f"{i}.jpg")


def text_named_jpg(photos: Path) -> None:
    photos.mkdir()
    (photos / "a.jpg").write_text("hello")


def zip_that_climbs(photos: Path) -> None:
    with zipfile.ZipFile(photos, "w") as archive:
        archive.writestr("../escaped.jpg", b"x")


def zip_bomb(photos: Path) -> None:
    with zipfile.ZipFile(photos, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(64_000_000))


REFUSALS = [
    ("photos", empty_folder, "is empty"),
    ("photos", no_photos_among_files, "No photos among 2 files"),
    ("photos", photos_of_number(1), "Only 1 of 1 photos"),
    ("photos", photos_of_number(2), "Only 2 of 2 photos"),
    ("photos", only_black_photos, "blank"),
    ("photos", text_named_jpg, "a.jpg"),
    ("photos.zip", zip_that_climbs, "../escaped.jpg"),
    ("photos.zip", zip_bomb, "bomb"),
    ("nothing", lambda path: None, "does not exist"),
]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of `spaceport …` in this process, on the tests' Prefect server where there is one."""
    if url := PREFECT_API_URL.value():
        monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setattr(sys, "argv", ["spaceport", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    code = exit_info.value.code
    return code if isinstance(code, int) else 1


@pytest.mark.usefixtures("prefect_server", "empty_workspace")
@pytest.mark.parametrize(("name", "make", "says"), REFUSALS, ids=[make.__name__ for _, make, _ in REFUSALS])
def test_bad_photos(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    make: Maker,
    says: str,
) -> None:
    make(tmp_path / name)
    out = tmp_path / "out"
    assert run_cli(monkeypatch, "run", str(tmp_path / name), "--out", str(out)) == 2
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message
    assert message.count("\n") == 1, f"more than one line: {message}"
    assert not out.exists()
    assert not (tmp_path / "escaped.jpg").exists()
    files = [path for path in (tmp_path / "workspace").rglob("*") if path.is_file()]
    stored = [path for path in files if path.suffix != ".log" and path.parent.name != OUTPUTS_FOLDER]
    assert stored == [], "nothing half-written; the log of what went wrong is kept, and which output was begun"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "train.stepz=3"], "There is no option 'train.stepz'"),
        (["--set", "trian.steps=3"], "There is no option 'trian'"),
        (["--set", "train.max_image_size=3"], "train.max_image_size=3"),
        (["--set", "train.max_image_size=many"], "train.max_image_size=many"),
        (["--set", "steps"], "stage.option=value"),
        (["--preset", "best"], "preset=best"),
    ],
)
def test_bad_options(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    photos_of_number(4)(tmp_path / "photos")
    assert run_cli(monkeypatch, "run", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), *arguments) == 2
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_an_out_below_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos_of_number(4)(tmp_path / "photos")
    (tmp_path / "file").touch()
    assert run_cli(monkeypatch, "run", str(tmp_path / "photos"), "--out", str(tmp_path / "file" / "out")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_out_inside_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos_of_number(4)(tmp_path / "photos")
    assert run_cli(monkeypatch, "run", str(tmp_path / "photos"), "--out", str(tmp_path / "photos" / "out")) == 2
    assert "is inside the photo folder" in capsys.readouterr().err


def without_root_powers() -> list[str]:
    """A command prefix under which file permissions hold for root too."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "run as a normal user, or install util-linux"
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*without_root_powers(), sys.executable, "-m", "flows.cli", *arguments]
    return finished(command)


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    photos_of_number(4)(tmp_path / "photos")
    (tmp_path / "photos").chmod(0)
    try:
        ended = run_process("run", str(tmp_path / "photos"), "--out", str(tmp_path / "out"))
    finally:
        (tmp_path / "photos").chmod(0o755)
    assert ended.returncode == 2, ended.stderr
    assert "cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written(tmp_path: Path) -> None:
    photos_of_number(4)(tmp_path / "photos")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    ended = run_process("run", str(tmp_path / "photos"), "--out", str(tmp_path / "locked" / "out"))
    assert ended.returncode == 2, ended.stderr
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_command_is_a_wrong_command() -> None:
    ended = run_process("reconstruct")
    assert ended.returncode == 2
    assert "No such command" in ended.stderr
