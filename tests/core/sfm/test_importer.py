"""Names in a given model that lead elsewhere: photos keep their bytes, and nothing is written outside of the scene."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pycolmap
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.core.errors import FormatError
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.image_files import match_images
from tasks.core.sfm.import_model import import_model
from tests.core.sfm.conftest import Flight
from tests.core.test_safe_names import names

COUNT = 4


def checksums(folder: Path) -> dict[str, str]:
    """Of every file below a folder, and where links lead."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


@pytest.fixture
def capture(flight: Flight, tmp_path: Path) -> Path:
    """The folder `given/images` with view 1.jpg … view 4.jpg, and the same photos beside it, which are private."""
    place = tmp_path / "user"
    for folder in ("given/images", "private"):
        (place / folder).mkdir(parents=True)
        for number in range(1, COUNT + 1):
            shutil.copy(flight.out / f"images/strip a/view {number}.jpg", place / folder / f"view {number}.jpg")
    return place / "given"


def write_model(flight: Flight, capture: Path, rename: Callable[[str], str], *, lens: bool, text: bool = False) -> None:
    """The flight's model with the first COUNT images, renamed from `view 1.jpg`; with a lens they are undistorted."""
    model = pycolmap.Reconstruction(flight.out / "sparse/0")
    kept = {f"strip a/view {number}.jpg" for number in range(1, COUNT + 1)}
    for image in list(model.images.values()):
        if image.name not in kept:
            model.deregister_frame(image.frame_id)
    for image in model.images.values():
        image.name = rename(image.name.removeprefix("strip a/"))
    if lens:
        for camera in model.cameras.values():
            camera.params, camera.model = (
                [camera.focal_length_x, camera.principal_point_x, camera.principal_point_y, 0.05],
                pycolmap.CameraModelId.SIMPLE_RADIAL,
            )
    (capture / "sparse/0").mkdir(parents=True)
    model.write_text(capture / "sparse/0") if text else model.write_binary(capture / "sparse/0")


def imported(capture: Path, tmp_path: Path, image_size: int = 320) -> Scene:
    """The scene, or what import_model raises; in both cases nothing but its folder has changed."""
    before = checksums(capture.parent)
    try:
        import_model(capture, tmp_path / "stages/sfm/out", image_size, ignore_progress)
    finally:
        assert checksums(capture.parent) == before
        assert {path.name for path in tmp_path.iterdir()} == {"user", "stages"}
        assert [path.name for path in (tmp_path / "stages/sfm").iterdir()] == ["out"]
    return Scene.load(tmp_path / "stages/sfm/out")


@pytest.mark.parametrize("lens", [False, True], ids=["ready", "lens"])
@pytest.mark.parametrize("spelling", ["{images}/{name}", "../images/{name}", "./{name}", "{images}/../images//{name}"])
def test_names_that_come_back_to_the_images_are_their_paths_there(
    spelling: str, lens: bool, flight: Flight, capture: Path, tmp_path: Path
) -> None:
    """Scripts that call COLMAP with full paths write such models."""
    write_model(flight, capture, lambda name: spelling.format(images=capture / "images", name=name), lens=lens)
    scene = imported(capture, tmp_path, 200 if lens else 320)
    assert [camera.name for camera in scene.cameras] == [f"view {number}.jpg" for number in range(1, COUNT + 1)]
    assert {max(camera.width, camera.height) for camera in scene.cameras} == {200 if lens else 320}
    assert all(scene.image(camera).shape == (camera.height, camera.width, 3) for camera in scene.cameras)
    written = pycolmap.Reconstruction(scene.folder / "sparse/0")
    assert {image.name for image in written.images.values()} == {camera.name for camera in scene.cameras}


@pytest.mark.parametrize("lens", [False, True], ids=["ready", "lens"])
@pytest.mark.parametrize(
    ("spelling", "says"),
    [
        ("{private}/{name}", "is an absolute path. Only images in .*/given/images are read"),
        ("../../private/{name}", "leads out of its folder. Only images in"),
        ("C:\\photos\\{name}", "names a drive"),
    ],
)
def test_names_that_lead_out_are_refused(
    spelling: str, says: str, lens: bool, flight: Flight, capture: Path, tmp_path: Path
) -> None:
    """Their photos would be published with the scene, and their undistorted copies written in their place."""
    private = capture.parent / "private"
    write_model(flight, capture, lambda name: spelling.format(private=private, name=name), lens=lens)
    with pytest.raises(FormatError, match=says):
        imported(capture, tmp_path)


def test_names_of_a_text_model_that_lead_out_are_refused(flight: Flight, capture: Path, tmp_path: Path) -> None:
    for photo in (capture.parent / "private").iterdir():
        photo.rename(photo.with_name(photo.name.replace(" ", "_")))  # COLMAP's text ends a name at its first space
    write_model(flight, capture, lambda name: f"../../private/{name.replace(' ', '_')}", lens=True, text=True)
    with pytest.raises(FormatError, match="leads out of its folder"):
        imported(capture, tmp_path)


def test_backslashes_are_folders_unless_a_file_has_them(flight: Flight, capture: Path, tmp_path: Path) -> None:
    images = capture / "images"
    (images / "left").mkdir()
    for number in (1, 2):
        (images / f"view {number}.jpg").rename(images / f"left/view {number}.jpg")
    for number in (3, 4):
        (images / f"view {number}.jpg").rename(images / f"left\\view {number}.jpg")
    write_model(flight, capture, lambda name: f"left\\{name}", lens=False)
    scene = imported(capture, tmp_path)
    assert [camera.name for camera in scene.cameras] == [f"left/view {number}.jpg" for number in range(1, COUNT + 1)]


@pytest.mark.parametrize("kind", ["photo", "folder"])
def test_a_link_that_leads_out_is_refused(kind: str, flight: Flight, capture: Path, tmp_path: Path) -> None:
    images = capture / "images"
    if kind == "photo":
        (images / "view 1.jpg").unlink()
        (images / "view 1.jpg").symlink_to(capture.parent / "private/view 1.jpg")
    else:
        (images / "strip").symlink_to(capture.parent / "private")
    write_model(flight, capture, lambda name: name if kind == "photo" else f"strip/{name}", lens=False)
    with pytest.raises(FormatError, match=r"view 1\.jpg' in .*/images is a link that leads out of that folder"):
        imported(capture, tmp_path)


def test_links_that_stay_in_the_images_are_followed(flight: Flight, capture: Path, tmp_path: Path) -> None:
    images = capture / "images"
    images.rename(capture.parent / "photos")
    images.symlink_to(capture.parent / "photos")  # the user's own choice of a folder
    (images / "first.jpg").symlink_to("view 1.jpg")
    write_model(flight, capture, lambda name: name.replace("view 1", "first"), lens=False)
    scene = imported(capture, tmp_path)
    assert [camera.name for camera in scene.cameras] == ["first.jpg", "view 2.jpg", "view 3.jpg", "view 4.jpg"]
    assert scene.image_path(scene.cameras[0]).read_bytes() == (images / "view 1.jpg").read_bytes()


def test_names_that_differ_by_letter_case_get_files_of_their_own(flight: Flight, capture: Path, tmp_path: Path) -> None:
    images = capture / "images"
    (images / "view 2.jpg").rename(images / "View 1.jpg")
    write_model(flight, capture, lambda name: name.replace("view 2", "View 1"), lens=True)
    scene = imported(capture, tmp_path)
    assert [camera.name for camera in scene.cameras] == ["View 1.jpg", "view 1-2.jpg", "view 3.jpg", "view 4.jpg"]


def test_one_file_for_two_cameras_is_refused(flight: Flight, capture: Path, tmp_path: Path) -> None:
    write_model(flight, capture, lambda name: name.replace("view 2", ".//view 1"), lens=False)
    with pytest.raises(FormatError, match=r"names 'view 1\.jpg' twice"):
        imported(capture, tmp_path)


def test_a_name_that_is_no_text_is_refused(flight: Flight, capture: Path, tmp_path: Path) -> None:
    write_model(flight, capture, lambda name: name, lens=False)
    file = capture / "sparse/0/images.bin"
    file.write_bytes(file.read_bytes().replace(b"view 2.jpg", b"v\xffew 2.jpg"))
    with pytest.raises(FormatError, match="is not UTF-8"):
        imported(capture, tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names.filter(lambda name: "\0" not in name), min_size=1, max_size=4))
@example(["../outside/a.jpg"])
@example(["/etc/passwd"])
@example(["inner/../../outside/a.jpg"])
def test_whatever_the_names_sources_lie_in_the_images_and_targets_below(tmp_path: Path, wanted: list[str]) -> None:
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    if not (images / "a").is_symlink():
        (images / "a").symlink_to("/")
    (images / "there.jpg").touch()
    try:
        matches = match_images(dict(enumerate([*wanted, "there.jpg"])), images)
    except FormatError:
        return
    assert set(matches.files) | set(matches.missing) == set(range(len(wanted) + 1))
    assert matches.files
    for name, source in matches.files.values():
        assert Path(os.path.realpath(source)).is_relative_to(images.resolve())
        assert Path(os.path.normpath(tmp_path / "out" / name)).is_relative_to(tmp_path / "out")
