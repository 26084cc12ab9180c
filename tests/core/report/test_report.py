"""The report: says what was measured, hides nothing, and opens anywhere."""

import io
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import FormatError, StorageError
from tasks.core.gaussians import Gaussians
from tasks.core.georeference import Georeference, GpsResidual
from tasks.core.measurements import CellSection, FrameSection, LeftOutPhoto, Report, held_out_picture
from tasks.core.render.backends import rasterizer_for
from tasks.core.report import html
from tasks.core.report.charts import camera_map, camera_map_picture, cell_map, cell_map_picture, quality_curve
from tasks.core.report.divided_scene import DividedScene
from tasks.core.report.html import evenly_chosen, write_report
from tasks.core.report.preview import write_fly_around, write_preview
from tasks.core.scene import Camera, Scene
from tasks.core.training.held_out import split_views
from tests.core.report.reports import full_report, pictured_scene, save_renders
from tests.core.sog.splats import terrain
from tests.core.viewer.scenes import looking, orbit, scene_of
from tests.support.browser import chromium


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return pictured_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def held_out(scene: Scene) -> tuple[str, ...]:
    return tuple(camera.name for camera in split_views(scene, 8)[1])


@pytest.fixture(scope="module")
def renders(scene: Scene, held_out: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_renders(scene, held_out, tmp_path_factory.mktemp("renders") / "held_out")


def visible_text(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def test_every_measured_number_is_in_the_page(
    scene: Scene, held_out: tuple[str, ...], renders: Path, tmp_path: Path
) -> None:
    write_report(full_report(scene, held_out), scene, renders, tmp_path / "report.html")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    for said in (
        "24.32 dB", "0.812", "0.103", "74 %", "25.11 dB", "0.847", "0.088", "86 %", "62 % of the pixels",
        "24.00 dB · 70 %", "24.25 dB · 71 %",
        "31 250", "0.43 MB", "7.42 MB", "17.2× smaller", "5 min 59 s", "16 of 19 found",
        "0.61 px", "0.80 m rms", "in the largest of 2 models", "flight/90.jpg", "notes <1>.txt: not an image",
        "2 other files were not read: .<b> (2).",
        "instead of 960 px", "from an earlier run", "0.21 dB", "1.48 GB", "preset draft", "train.seconds 300",
        "train 4 min 40 s 5 min 1 s", "in all 5 min 42 s 5 min 59 s", "1.39 GB expected",
        "python 3.11.2", "23 November 2026", *held_out, "24.00 dB", "24.25 dB", "2 400, ended by time budget",
    ):  # fmt: skip
        assert said in text, said
    assert 'Field <script>alert("x")</script> & barn' in text


def test_what_was_not_measured_is_said_so(scene: Scene, renders: Path, tmp_path: Path) -> None:
    report = full_report(scene, ())
    data = report.model_dump()
    data["photos"] = None
    data["peak_memory_bytes"] = None
    data["train"] |= {
        "psnr_db": None,
        "ssim": None,
        "detail": None,
        "color_corrected_psnr_db": None,
        "curve": (),
        "eval_views": (),
        "eval_psnr_db": (),
    }
    data["sfm"] |= {"mean_reprojection_error_px": None, "georeferenced": False, "gps_residual_rms_m": None}
    data["sog"]["psnr_drop_db"] = None
    data["seconds"] = {}
    data["cache_hits"] = ()
    target = tmp_path / "report.html"
    write_report(Report.model_validate(data), scene, renders, target)
    text = visible_text(target.read_text(encoding="utf-8"))
    # PSNR, also with corrected colours, SSIM, detail, time in all twice, pairs, curve, reprojection error, five stages,
    # memory, loss of the .sog
    assert text.count("not measured") == 16
    assert "None" not in text.replace("train.max_gaussians None", "")
    assert "No views were held out" in text


def test_a_run_that_took_its_cameras_from_an_earlier_one_says_so(scene: Scene, renders: Path, tmp_path: Path) -> None:
    report = full_report(scene, ())
    for hits, said in (((), False), (("photos", "cameras"), True)):
        write_report(report.model_copy(update={"cache_hits": hits}), scene, renders, tmp_path / "report.html")
        text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert ("48.0 s, cameras from an earlier run" in text.replace("\u00a0", " ")) is said


def test_photos_whose_gps_does_not_fit_are_named_and_not_averaged(scene: Scene, renders: Path, tmp_path: Path) -> None:
    misplaced = [GpsResidual(name=f"{i}.jpg", east_m=3_274_914.6 / 10**i, north_m=0, up_m=0) for i in range(7)]
    georeference = Georeference(
        latitude_deg=47.1,
        longitude_deg=8.2,
        altitude_m=450.0,
        residual_rms_m=0.8,
        residual_median_m=0.6,
        left_out=tuple(residual.name for residual in misplaced),
        residuals=(GpsResidual(name="good.jpg", east_m=0.6, north_m=0, up_m=0), *misplaced),
    )
    report = full_report(scene, ())
    frame = FrameSection(
        up="Up rests on the GPS altitudes.",
        scale="Metres, by GPS of 1 photo.",
        place="East, north and up of 47.1, 8.2.",
        not_believed=("GPS of <b> is not where the scene says.", "The altitudes drift."),
    )
    sfm = report.sfm.model_copy(update={"georeference": georeference, "frame": frame})
    write_report(report.model_copy(update={"sfm": sfm}), scene, renders, tmp_path / "report.html")
    text = visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "cameras against GPS 0.80 m rms, 0.60 m median" in text
    for said in (frame.up, frame.scale, frame.place, *frame.not_believed):
        assert said in unescape(text)


@pytest.fixture
def divided(scene: Scene) -> DividedScene:
    """Two cells, by the sign of x; every fourth camera is not trained on."""
    homes = {camera.name: int(camera.center[0] > 0) for camera in scene.cameras[1::4] + scene.cameras[2::4]}
    return DividedScene(2, (scene.points.xyz[:, 0] > 0).astype(np.int16), homes)


def test_cells_have_a_table_and_a_map(
    scene: Scene, held_out: tuple[str, ...], renders: Path, divided: DividedScene, tmp_path: Path
) -> None:
    report = full_report(scene, held_out)
    cells = (
        CellSection(number=0, views=9, ring_views=2, num_gaussians=21_000, steps=700, psnr_db=23.456, seconds=65.0),
        CellSection(number=1, views=8, ring_views=1, num_gaussians=19_500, steps=600, cached=True),
    )
    measured = {"cells": cells, "seam_psnr_db": 24.111, "interior_psnr_db": 24.333, "seam_share": 0.031}
    report = report.model_copy(update={"train": report.train.model_copy(update=measured)})
    write_report(report, scene, renders, tmp_path / "report.html", cells=divided)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = visible_text(page)
    for said in (
        "0 9 2 21 000 700 23.46 dB 1 min 5 s",
        "1 8 1 19 500 600 not measured from an earlier run",
        "PSNR at seams 24.11 dB, 3 % of the pixels",
        "PSNR elsewhere 24.33 dB",
    ):
        assert said in text, said
    assert "Map of the cells from above" in page


def test_one_part_has_neither(scene: Scene, held_out: tuple[str, ...], renders: Path, tmp_path: Path) -> None:
    write_report(full_report(scene, held_out), scene, renders, tmp_path / "report.html")
    assert "Cells" not in visible_text((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_map_of_cells_shows_each_in_its_colour_and_the_cut_between(scene: Scene, divided: DividedScene) -> None:
    drawn = cell_map(scene, divided)
    first, second = "#1f77b4", "#ff7f0e"  # of matplotlib's tab20
    assert first in drawn
    assert second in drawn
    whole = cell_map(scene, DividedScene(1, np.zeros_like(divided.owners), divided.cell_of_camera))
    assert second not in whole
    assert drawn.count("ContourSet") > whole.count("ContourSet") == 0
    picture = Image.open(io.BytesIO(cell_map_picture(scene, divided)))
    assert picture.format == "PNG"


def test_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        DividedScene.read(b"{}", b"")


def test_at_most_twelve_pairs_and_the_rest_counted(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path, 15)
    names = tuple(camera.name for camera in scene.cameras)
    renders = save_renders(scene, names, tmp_path / "held_out")
    write_report(full_report(scene, names), scene, renders, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<figure class="pair">') == html.MAX_VIEWS
    assert "12 of 15 held-out views, evenly chosen; 3 left out" in visible_text(page)


def test_a_missing_picture_is_an_error(scene: Scene, held_out: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=re.escape(held_out_picture(held_out[0]))):
        write_report(full_report(scene, held_out), scene, tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_page_opens_without_errors_wide_and_narrow(
    scene: Scene, held_out: tuple[str, ...], renders: Path, tmp_path: Path
) -> None:
    write_report(full_report(scene, held_out), scene, renders, tmp_path / "report.html")
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile", 1100, 800) as browser:
        browser.open((tmp_path / "report.html").as_uri())
        browser.wait_for("document.readyState === 'complete' && document.images.length === 4")
        assert browser.evaluate("document.querySelector('a.open').getAttribute('href')") == "index.html"
        assert browser.screenshot()[:40, :40].mean() > 250
        for width in (1100, 360):
            browser.resize(width, 800, dark=width == 360)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.screenshot()[:10, :10].mean() < 40  # the dark scheme is dark
        assert browser.evaluate(
            "Promise.all([...document.images].map((image) => { image.loading = 'eager'; return image.decode(); }))"
            ".then((all) => all.length)"
        ) == 4  # fmt: skip
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]


def test_the_map_shows_metres_only_when_georeferenced(tmp_path: Path) -> None:
    cameras = (*orbit(6), looking((0, 0, 9), (0, 0, 0), "nadir.jpg", image_up=np.array([0.0, 1, 0])))
    metric = camera_map(scene_of(tmp_path, cameras, georeferenced=True), ("flight/00.jpg",))
    assert "east (m)" in metric
    assert "held-out camera" in metric
    free = camera_map(scene_of(tmp_path, cameras), ())
    assert "not metres" in free
    assert "held-out camera" not in free
    assert camera_map(scene_of(tmp_path, cameras), ()) == free  # the same drawing gives the same bytes


def test_photos_that_were_left_out_stand_where_gps_says(tmp_path: Path) -> None:
    lost = LeftOutPhoto(name="lost.jpg", reason="blurred", position_m=(30.0, 2.0, 5.0))
    nowhere = LeftOutPhoto(name="nowhere.jpg", reason="blurred")
    scene = scene_of(tmp_path, orbit(6), georeferenced=True)
    assert "not registered" in camera_map(scene, (), (lost, nowhere))
    far = LeftOutPhoto(name="c.jpg", reason="blurred", position_m=(3e6, 0.0, 0.0))
    assert camera_map(scene, (), (far,)) == camera_map(scene, ()), "one wrong place made a map of a country"
    assert "not registered" not in camera_map(scene, (), (nowhere,))
    with Image.open(io.BytesIO(camera_map_picture(scene, (lost, nowhere), 1))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    assert np.nonzero(red)[1].max() > 0.8 * pixels.shape[1]  # the lost one, 20 m east of all others


def test_the_map_of_one_camera_can_be_drawn(tmp_path: Path) -> None:
    assert "<svg" in camera_map(scene_of(tmp_path, orbit(1)), ())


def test_charts_take_the_pages_ink(scene: Scene, held_out: tuple[str, ...]) -> None:
    curve = quality_curve(full_report(scene, held_out).train.curve)
    assert "currentColor" in curve
    assert "#000000" not in curve


@pytest.mark.parametrize(("available", "wanted"), [(3, 12), (12, 12), (13, 12), (100, 12)])
def test_evenly_chosen(available: int, wanted: int) -> None:
    chosen = evenly_chosen(available, wanted)
    assert len(chosen) == len(set(chosen)) == min(available, wanted)
    assert chosen[0] == 0
    assert chosen[-1] == available - 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "not measured"), (0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (3600, "1 h 0 min")],
)
def test_durations_read_well(seconds: float | None, said: str) -> None:
    assert html.duration(seconds).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (None, "not measured"),
        (12_345, "0.01 MB"),
        (12_345_678, "12.3 MB"),
        (345_678_901, "346 MB"),
        (2_345_678_901, "2.35 GB"),
    ],
)
def test_sizes_read_well(size: int | None, said: str) -> None:
    assert html.megabytes(size).replace("\u00a0", " ") == said


def test_the_preview_is_the_render(tmp_path: Path) -> None:
    splat: Gaussians = terrain(1500, 1)
    camera = looking((4, -8, 5), (0, 0, 0.3))
    write_preview(splat, camera, rasterizer_for("cpu"), tmp_path / "preview.jpg")
    with Image.open(tmp_path / "preview.jpg") as image:
        assert image.size == (camera.width, camera.height)
        shown = np.asarray(image) / 255
    drawn = np.clip(rasterizer_for("cpu").render(splat, camera), 0, 1)
    assert np.abs(shown - drawn).mean() < 0.02  # JPEG at quality 90


@pytest.mark.parametrize("all_around", [True, False])
def test_the_fly_around_goes_about_the_pivot(tmp_path: Path, all_around: bool) -> None:
    camera = looking((4, -8, 5), (0, 0, 0.3), size=(480, 300))
    pivot, up = np.array([0, 0, 0.3]), np.array([0.0, 0, 1])
    seen: list[Camera] = []

    class Watched:
        name = "watched"

        def render(self, gaussians: Gaussians, camera: Camera) -> np.ndarray:
            seen.append(camera)
            shape = camera.height, camera.width, 3  # all different: WebP merges frames that are alike
            return np.random.default_rng(len(seen)).random(shape, np.float32)

    target = tmp_path / "fly-around.webp"
    write_fly_around(terrain(5, 0), camera, pivot, up, all_around, Watched(), target)
    with Image.open(target) as moving:
        assert moving.n_frames == len(seen) == 36
        assert moving.size == (480, 300)
        assert moving.info["loop"] == 0
    offsets = np.stack([view.center for view in seen]) - pivot
    np.testing.assert_allclose(offsets[0], camera.center - pivot, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), np.linalg.norm(offsets[0]), atol=1e-9)
    np.testing.assert_allclose(offsets[:, 2], offsets[0, 2], atol=1e-9)
    for view, offset in zip(seen, offsets, strict=True):
        np.testing.assert_allclose(view.forward, -offset / np.linalg.norm(offset), atol=1e-9)
    turned = np.degrees(np.unwrap(np.arctan2(offsets[:, 1], offsets[:, 0])))
    assert np.ptp(turned) == pytest.approx(350 if all_around else 40, abs=0.5)
