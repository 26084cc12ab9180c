"""Names of a given model's images that are not quite those of the files."""

import re
from collections.abc import Callable
from pathlib import Path

import pycolmap
import pytest

from tasks.core.errors import FormatError
from tasks.core.sfm.given_model import read_given
from tests.core.sfm.given_model import POINTS, rewritten, scene_of, write_given

COUNT = 8
NAMES = [f"{number}.jpg" for number in range(1, COUNT + 1)]


def renamed(home: Path, change: Callable[[str], str]) -> None:
    def rename(model: pycolmap.Reconstruction) -> None:
        for image in model.images.values():
            image.name = change(image.name)

    rewritten(home, rename)


@pytest.mark.parametrize(
    ("in_model", "on_disk", "says"),
    [
        ("{}.JPG", "{}.jpg", "8 images have names that differ from the model's in letter case, extension or folder"),
        ("{}.png", "{}.jpg", "1.jpg was taken for 1.png."),
        ("cam1\\{}.jpg", "cam1/{}.jpg", None),
        ("./cam1//{}.jpg", "cam1/{}.jpg", None),
        ("cam1/{}.jpg", "{}.jpg", "1.jpg was taken for cam1/1.jpg."),
        ("{}.jpg", "cam1/{}.jpg", "cam1/1.jpg was taken for 1.jpg."),
        ("images/{}.jpg", "{}.jpg", None),
        ("Caf\u00e9 {}.jpg", "Cafe\u0301 {}.jpg", "Cafe\u0301 1.jpg was taken for Caf\u00e9 1.jpg."),
    ],
)
def test_names_that_differ_a_little(in_model: str, on_disk: str, says: str | None, tmp_path: Path) -> None:
    home = write_given(tmp_path / "given", count=COUNT)
    renamed(home, lambda name: in_model.format(name.removesuffix(".jpg")))
    for number in range(1, COUNT + 1):
        target = tmp_path / "given/images" / on_disk.format(number)
        target.parent.mkdir(exist_ok=True)
        (tmp_path / f"given/images/{number}.jpg").rename(target)
    found = read_given(tmp_path / "given")
    assert [image.file for image in found.images] == [
        tmp_path / "given/images" / on_disk.format(number) for number in range(1, COUNT + 1)
    ]
    assert len(found.notes) == (says is not None)
    assert says is None or says in found.notes[0]
    assert scene_of(tmp_path / "given", tmp_path / "out")[0].registered == COUNT


def test_names_with_spaces_in_text(tmp_path: Path) -> None:
    """RealityScan's names. pycolmap ends a name at its first space, so that all images had the same name."""
    home = write_given(tmp_path / "given", count=COUNT, text=True)
    text = re.sub(r"(\d+\.jpg)", r"A photo (\1", (home / "images.txt").read_text())
    (home / "images.txt").write_bytes(text.replace("\n", "\r\n").encode())
    for name in NAMES:
        (tmp_path / "given/images" / name).rename(tmp_path / f"given/images/A photo ({name}")
    section, scene = scene_of(tmp_path / "given", tmp_path / "out")
    assert [camera.name for camera in scene.cameras] == [f"A photo ({name}" for name in NAMES]
    assert section.degradations == ()
    assert section.points == POINTS


def test_images_of_a_text_model_without_lines_of_points(tmp_path: Path) -> None:
    home = write_given(tmp_path / "given", count=COUNT, text=True)
    lines = (home / "images.txt").read_text().split("\n")
    (home / "images.txt").write_text("\n".join(line for line in lines if line.endswith(".jpg")))
    with pytest.raises(FormatError, match=r"images\.txt has no line of points after image 1"):
        read_given(tmp_path / "given")


def test_a_file_with_a_similar_name_is_not_taken_for_a_single_missing_image(tmp_path: Path) -> None:
    """It may be a mask, or the photo of another camera."""
    write_given(tmp_path / "given", count=COUNT)
    (tmp_path / "given/images/3.jpg").rename(tmp_path / "given/images/3.png")
    (tmp_path / "given/images/cam2").mkdir()
    (tmp_path / "given/images/4.jpg").rename(tmp_path / "given/images/cam2/4.jpg")
    assert read_given(tmp_path / "given").missing == ("3.jpg", "4.jpg")
