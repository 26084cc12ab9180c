"""The whole line, real from end to end, on a small demo flight."""

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from deployments.validation.checks import check_result
from deployments.validation.ways import Published
from flows.reconstruct import reconstruct
from tasks import publish
from tasks.core.demo.flight import fly, ground_truth_path, load_ground_truth
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.measurements import Report
from tasks.core.model_frame import MODEL_FRAME_FILE, ModelFrame
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.photoset import PhotoSet
from tasks.core.ply import read_ply
from tasks.core.progress import ignore_progress
from tasks.core.refs import Publication
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.metrics import psnr
from tasks.core.scene import Camera, Scene
from tasks.core.sog.reader import read_sog
from tasks.core.storage import MANIFEST_FILE, S3Folder, verify_output
from tasks.core.transforms import rotation_angle_deg, similarity_from_points
from tasks.core.viewer.bundle import VIEWER_FILES
from tasks.places.destination import open_destination
from tasks.places.result_files import CONTENTS_FILE
from tasks.places.workspace import open_workspace
from tests.support.browser import chromium
from tests.support.patience import STALL_SECONDS
from tests.support.s3_server import S3Server

FLIGHT = DemoOptions(photos=14, width=640, height=480)
# To the last step: where quality becomes flat differs from one kind of processor to another.
SMALL = ("train.steps=500", "train.max_gaussians=15000", "train.max_image_size=320", "train.early_stop=false")
OPTIONS = parse_options("draft", [*SMALL])


@dataclass(frozen=True)
class Result:
    """One run over the small flight, and where things lie."""

    photos: Path
    out: Path
    workspace: Path
    publication: Publication
    report: Report
    run_folder: Path  # in the workspace
    scene: Scene  # the sfm stage's output, which the published COLMAP model is a copy of

    def run(self, out: Path, options: ReconstructOptions = OPTIONS, photos: Path | None = None) -> Publication:
        return reconstruct(str(photos or self.photos), str(out), options)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Result]:
    folder = tmp_path_factory.mktemp("reconstruct")
    photos, out, workspace = folder / "small flight", folder / "out", folder / "workspace"
    fly(photos, FLIGHT, ignore_progress)
    whole = (photos / "DEMO_0001.JPG").read_bytes()
    (photos / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPACEPORT_WORKSPACE", str(workspace))
        publication = reconstruct(str(photos), str(out), OPTIONS)
        report = Report.model_validate_json((out / "report.json").read_bytes())
        [scene] = (workspace / "stages" / "sfm").iterdir()
        [run_folder] = (workspace / "runs").iterdir()
        yield Result(photos, out, workspace, publication, report, run_folder, Scene.load(scene))


def test_everything_promised_is_there(result: Result) -> None:
    expected = {
        "scene.sog",
        "scene.ply",
        "georeference.json",
        "index.html",
        "report.html",
        "report.json",
        "preview.jpg",
        "fly-around.webp",
        "colmap",
        CONTENTS_FILE,
    }
    assert json.loads((result.out / CONTENTS_FILE).read_text()) == sorted(
        path.relative_to(result.out).as_posix()
        for path in result.out.rglob("*")
        if path.is_file() and path.name != CONTENTS_FILE
    )
    assert {entry.name for entry in result.out.iterdir()} == expected
    images = sorted(path.name for path in (result.out / "colmap" / "images").iterdir())
    assert len(images) == FLIGHT.photos
    model = {path.name for path in (result.out / "colmap" / "sparse" / "0").iterdir()}
    assert model >= {"cameras.bin", "images.bin", "points3D.bin"}


def test_the_report_holds_what_was_measured(result: Result) -> None:
    report = result.report
    assert report.photos is not None
    assert report.photos.usable == report.sfm.registered == FLIGHT.photos
    assert [(photo.name, photo.reason.split()[0]) for photo in report.photos.rejected] == [("broken.jpg", "damaged")]
    assert report.capture == "small flight"
    assert report.sfm.georeferenced
    assert report.sfm.gps_residual_rms_m is not None
    assert report.sfm.gps_residual_rms_m < 1.5  # metres; the flight's GPS errs by 0.3 m on each axis
    assert report.train.steps == 500
    assert report.train.num_gaussians == len(read_ply(result.out / "scene.ply")) <= 15000
    assert report.sog.bytes == (result.out / "scene.sog").stat().st_size
    assert report.sog.ply_bytes == (result.out / "scene.ply").stat().st_size
    assert report.sog.psnr_drop_db is not None
    assert report.sog.psnr_drop_db <= 0.5
    assert len(report.train.curve) >= 2
    assert report.cache_hits == ()
    stages = report.seconds.model_dump()
    assert all(seconds is not None and seconds > 0 for seconds in stages.values())
    assert sum(stages.values()) - stages["total"] < stages["total"]
    assert set(json.loads((result.out / "report.json").read_text())) >= {
        "schema_version",
        "photos",
        "sfm",
        "train",
        "sog",
    }


def psnr_db_of(out: Path, scene: Scene, names: Sequence[str]) -> float:
    """Of a published splat on some photos, from the published files alone."""
    gaussians, rasterizer = read_ply(out / "scene.ply"), rasterizer_for("cpu")
    values = []
    for name in names:
        camera = next(camera for camera in scene.cameras if camera.name == name)
        photo = np.asarray(Image.open(out / "colmap" / "images" / name).convert("RGB"), dtype=np.float32) / 255
        values.append(psnr(rasterizer.render(gaussians, camera), photo))
    return float(np.mean(values))


def test_the_reported_psnr_can_be_measured_again(result: Result, tmp_path: Path) -> None:
    options = parse_options("draft", [*SMALL, "train.use_all_photos=false"])
    result.run(tmp_path / "out", options)
    train = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes()).train
    assert train.held_out_joined_at_step is None
    measured = psnr_db_of(tmp_path / "out", result.scene, train.eval_views)
    # dB; the published parameters are those that were evaluated, only summation order may differ between threads
    assert measured == pytest.approx(train.psnr_db, abs=0.02)
    # dB; measured 20 and more for this short training. A splat that ignores the photos stands below 15.
    assert measured > 18


def test_the_published_splat_lacks_no_photo(result: Result) -> None:
    train = result.report.train
    assert train.held_out_joined_at_step == 460, "92 % of 500"
    # dB; 0.8 measured. Held-out photos are closer to the splat that was trained on them in the end.
    assert train.psnr_db is not None
    assert psnr_db_of(result.out, result.scene, train.eval_views) > train.psnr_db + 0.2


def test_poses_agree_with_the_ground_truth(result: Result) -> None:
    truth = {camera.name: camera for camera in load_ground_truth(ground_truth_path(result.photos))}
    rotation_deg, position_share = pose_errors(
        result.scene.cameras, [truth[camera.name] for camera in result.scene.cameras]
    )
    # The full demo's bar is 0.2° and 0.5 % of the extent; these photos have a third of its pixels.
    assert rotation_deg < 0.4
    assert position_share < 0.01


def test_the_page_shows_the_scene(result: Result, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        page.open((result.out / "index.html").as_uri() + "?noui")
        page.wait_for("window.spaceportViewer")
        shot = page.screenshot()
        assert page.errors == []
        page.open((result.out / "index.html").as_uri())
        page.wait_for("window.spaceportViewer")
        about = page.evaluate("document.querySelector('#about').innerText")
    [photo_set] = (result.workspace / "stages" / "photos").iterdir()
    [day] = {photo.taken_at[:10] for photo in PhotoSet.load(photo_set).photos if photo.taken_at}
    assert about == f"small flight\n{datetime.fromisoformat(day):%-d %B %Y} Report Fly-around"
    assert shot.std() > 20, "8-bit levels; an empty page has none"


def test_a_second_run_computes_nothing(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(publish, "write_preview", refuse)
    monkeypatch.setattr(publish, "write_fly_around", refuse)
    np.ones(2 * 2**30, np.uint8)  # gone at once: memory from before is not publishing's
    again = result.run(tmp_path / "again")
    assert again.cache_hits == ("photos", "sfm", "train", "compress")
    assert again.peak_memory_bytes is not None
    assert again.peak_memory_bytes < 2 * 2**30
    for picture in ("preview.jpg", "fly-around.webp"):
        assert (tmp_path / "again" / picture).read_bytes() == (result.out / picture).read_bytes()
    assert (tmp_path / "again" / "scene.sog").read_bytes() == (result.out / "scene.sog").read_bytes()


def test_a_result_that_is_already_there_is_not_published_again(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def changed_at() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    first = result.run(out)
    before = changed_at()
    second = result.run(out)
    assert (first.cached, second.cached) == (False, True)
    assert changed_at() == before
    assert second.seconds is None
    fields = {"place", "page", "report", "psnr_db", "num_gaussians", "sog_bytes", "degradations"}
    assert second.model_dump(include=fields) == first.model_dump(include=fields)
    runs = sorted((result.workspace / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    assert (runs[-1] / "pictures" / "preview.jpg").read_bytes() == (out / "preview.jpg").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "scene.ply").unlink(),
        lambda out: (out / "report.json").write_bytes(b"0" * (out / "report.json").stat().st_size),
    ],
)
def test_a_result_that_was_damaged_or_replaced_is_published_again(
    result: Result, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    result.run(out)
    damage(out)
    assert not result.run(out).cached
    assert (out / "scene.ply").read_bytes() == (result.out / "scene.ply").read_bytes()
    Report.model_validate_json((out / "report.json").read_bytes())
    assert result.run(out).cached


def test_the_page_in_files_is_published_without_code(result: Result, tmp_path: Path) -> None:
    in_files = parse_options("draft", [*SMALL, "publish.page=files"])
    assert result.run(tmp_path / "out", in_files).cache_hits == ("photos", "sfm", "train", "compress")
    for name in ("index.html", "report.html"):
        page = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert not re.search(r"<style|<script>|<script type=.module.>| style=| on\w+=|data:image", page), name
    assert {f"viewer/{path.name}" for path in (tmp_path / "out" / "viewer").iterdir()} > {*VIEWER_FILES}
    result.run(tmp_path / "out")
    assert not (tmp_path / "out" / "viewer").exists()


def test_a_run_without_an_estimate_ends_well(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise ZeroDivisionError("a bug in the estimate")

    monkeypatch.setattr("tasks.running.estimate.estimate_stages", fail)
    result.run(tmp_path / "out")
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.estimate is None


def test_other_compress_options_only_compress(result: Result, tmp_path: Path) -> None:
    options = parse_options(
        "draft",
        [
            *SMALL,
            # Colours from one direction only lose more than the default allows, and more bytes would not help
            *("compress.sh_degree=0", "compress.max_psnr_drop_db=3"),
        ],
    )
    again = result.run(tmp_path / "again", options)
    assert again.cache_hits == ("photos", "sfm", "train")
    assert read_sog(tmp_path / "again" / "scene.sog").sh_degree == 0
    assert again.sog_bytes < result.publication.sog_bytes


def test_pictures_of_training_and_full_logs_stay_with_the_run(result: Result) -> None:
    folder = result.run_folder
    views = sorted(path.name for path in (folder / "pictures").glob("view-*.jpg"))
    assert views[-1] == "view-0000460.jpg", "the last measurement, before held-out photos join"
    assert (folder / "pictures" / "curve-0000460.png").is_file()
    assert (folder / "pictures" / "preview.jpg").read_bytes() == (result.out / "preview.jpg").read_bytes()
    for stage in ("photos", "sfm", "train", "compress", "publish"):
        assert "100.0 %" in (folder / "logs" / f"{stage}.log").read_text().splitlines()[-1]


def test_a_stage_costs_its_time_and_one_from_the_workspace_nothing(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert result.report.cost_usd.total is None, "no price is known"
    monkeypatch.setenv("SPACEPORT_HOURLY_COST_USD", "3600")
    result.run(tmp_path / "out")
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.cost_usd.train is None
    assert report.seconds.publish is not None
    assert report.cost_usd.publish == report.cost_usd.total == pytest.approx(report.seconds.publish)


def test_a_colmap_model_enters_after_sfm(result: Result, tmp_path: Path) -> None:
    shutil.copytree(result.out / "colmap", tmp_path / "given")
    options = parse_options("draft", ["train.steps=60", "train.max_gaussians=8000", "train.max_image_size=320"])
    published = result.run(tmp_path / "out", options, photos=tmp_path / "given")
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.photos is None
    assert report.sfm.matcher == report.sfm.mapper == "given"
    assert report.sfm.registered == FLIGHT.photos
    assert published.num_gaussians > 0
    assert report.sfm.model_frame is not None
    assert ModelFrame.load(tmp_path / "out") == report.sfm.model_frame, "beside the splat"
    centers = np.stack([camera.center for camera in result.scene.cameras])
    back = np.array(report.sfm.model_frame.model_from_scene)
    [stored] = (result.workspace / "stages" / "sfm").glob(f"*/{MODEL_FRAME_FILE}")
    cameras = {camera.name: camera.center for camera in Scene.load(stored.parent).cameras}
    found = np.stack([cameras[camera.name] for camera in result.scene.cameras])
    np.testing.assert_allclose(found @ back[:3, :3].T + back[:3, 3], centers, atol=1e-6 * result.scene.extent)


def test_a_run_replaces_an_older_result_and_nothing_else(result: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "colmap" / "images").mkdir(parents=True)
    (out / "colmap" / "images" / "old.jpg").write_bytes(b"old")
    (out / "index.html").write_text("old")
    (out / CONTENTS_FILE).write_text(json.dumps(["index.html", "colmap/images/old.jpg"]))
    for name in ("notes.txt", "colmap/database.db"):
        (out / name).write_text("mine")
    result.run(out)
    assert (out / "notes.txt").read_text() == (out / "colmap" / "database.db").read_text() == "mine"
    assert not (out / "colmap" / "images" / "old.jpg").exists()
    assert (out / "index.html").read_bytes() == (result.out / "index.html").read_bytes()


def test_a_validation_looks_at_all_of_it(result: Result, tmp_path: Path) -> None:
    def failing(out: Path) -> set[str]:
        place = open_destination(str(out), open_workspace(str(result.workspace)))
        published = Published(place, place.link("index.html"), place.link("report.html"))
        findings = list(check_result(published, FLIGHT.photos))
        assert all(finding.fix for finding in findings)
        return {finding.part for finding in findings if not finding.ok}

    assert failing(result.out) == set()

    def broken(change: Callable[[Path], object]) -> set[str]:
        out = tmp_path / uuid4().hex
        shutil.copytree(result.out, out, ignore=shutil.ignore_patterns("colmap"))
        change(out)
        return failing(out)

    half = (result.out / "scene.sog").read_bytes()[:-2000]
    assert broken(lambda out: (out / "scene.sog").write_bytes(half)) == {"splat"}
    assert broken(lambda out: (out / "report.html").unlink()) == {"page's links", "report page"}
    assert broken(lambda out: (out / "report.json").write_text("{}")) == {"report.json"}
    empty = '<html><a href="report.html">Report</a>'
    assert broken(lambda out: (out / "index.html").write_text(empty)) == {"page's bytes"}
    poor = result.report.model_copy(update={"train": result.report.train.model_copy(update={"psnr_db": 12.0})})
    assert broken(lambda out: (out / "report.json").write_text(poor.model_dump_json())) == {"quality"}
    cached = result.report.model_copy(update={"seconds": result.report.seconds.model_copy(update={"sfm": None})})
    assert broken(lambda out: (out / "report.json").write_text(cached.model_dump_json())) == {"stages"}


def test_the_report_has_what_was_expected_beside_what_it_took(result: Result) -> None:
    estimate = result.report.estimate
    assert estimate is not None
    expected, took = estimate.seconds.model_dump(), result.report.seconds.model_dump()
    assert set(expected) == set(took)
    assert all(seconds is not None and seconds > 0 for seconds in expected.values())
    # Bytes; what is added to the process that runs the tests makes it larger than a run's own.
    assert 0.3e9 < estimate.peak_memory_bytes < 3e9


def test_everything_on_s3(
    result: Result, s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, workspace and result there; what this machine has computed before is put there first."""
    root = S3Folder(s3_environment.client(), s3_environment.new_bucket(), "field")
    monkeypatch.setenv("SPACEPORT_WORKSPACE", root.uri)
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    workspace = open_workspace(root.uri)
    for place in (result.workspace / "stages").glob("*/*"):
        stage, key = place.parent.name, place.name
        with workspace.new_output(stage, key) as folder:
            shutil.copytree(place, folder, dirs_exist_ok=True)
            (folder / MANIFEST_FILE).unlink()
            workspace.commit(folder, stage, key, verify_output(place))
    root.below("uploads/small flight").upload(result.photos, [path.name for path in result.photos.glob("*.[jJ]*")])

    options = parse_options("draft", [*SMALL, "compress.sh_degree=1"])
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "another machine"))
    published = reconstruct(f"{root.uri}/uploads/small flight/", options=options)
    assert published.cache_hits == ("sfm", "train"), (
        "photos are another place's, but the same; compress has new options"
    )
    assert published.place.startswith(f"{root.uri}/runs/small-flight-")
    for link in (published.page, published.report):
        with urllib.request.urlopen(link, timeout=STALL_SECONDS) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    report = open_destination(published.place, open_workspace(root.uri)).read("report.json")
    assert Report.model_validate_json(report).capture == "small flight"
    again = reconstruct(f"{root.uri}/uploads/small flight/", options=options)
    assert again.cache_hits == ("photos", "sfm", "train", "compress")


def pose_errors(cameras: tuple[Camera, ...], truth: list[Camera]) -> tuple[float, float]:
    """Greatest rotation error in degrees and position error as a share of the scene's extent, after alignment."""
    centers = np.stack([camera.center for camera in cameras])
    true_centers = np.stack([camera.center for camera in truth])
    scale, rotation, translation = similarity_from_points(centers, true_centers)
    aligned = scale * centers @ rotation.T + translation
    extent = 2 * np.linalg.norm(true_centers - true_centers.mean(axis=0), axis=1).max()
    errors = [
        rotation_angle_deg(ours.cam_from_world[:3, :3] @ rotation.T @ theirs.cam_from_world[:3, :3].T)
        for ours, theirs in zip(cameras, truth, strict=True)
    ]
    return float(np.max(errors)), float(np.linalg.norm(aligned - true_centers, axis=1).max() / extent)
