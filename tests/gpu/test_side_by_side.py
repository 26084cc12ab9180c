"""The programs of tests/gpu on the CPU: scene, comparison, report, and stock loop on the specification's numbers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.measurements import CurvePoint
from tasks.core.render import reference
from tasks.core.scene import Camera, Scene
from tasks.core.training.views import load_view
from tests.core.training.scenes import made_scene
from tests.gpu import demo, report, side_by_side, stock
from tests.gpu.comparison import Result, compared, table
from tests.gpu.flight_scene import POINT_NOISE_M, POINTS_PER_PHOTO, flight_scene


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return flight_scene(tmp_path_factory.mktemp("flight"), DemoOptions(photos=10, width=240, height=180))


def test_points_of_the_flight_lie_where_their_photo_shows_them(flight: Scene) -> None:
    """Camera convention, depth and colours, through each photo's own camera."""
    for index, camera in enumerate(flight.cameras):
        rows = slice(index * POINTS_PER_PHOTO, (index + 1) * POINTS_PER_PHOTO)
        xyz = flight.points.xyz[rows] @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
        assert (xyz[:, 2] > 1).all()
        shown = xyz[:, :2] / xyz[:, 2:] * camera.fx + [camera.cx, camera.cy]
        off_center = np.abs(shown % 1 - 0.5)  # pixels were chosen at their centres
        assert np.median(off_center) < 3 * POINT_NOISE_M * camera.fx / xyz[:, 2].min()
        with Image.open(flight.image_path(camera)) as image:
            smooth = np.asarray(image, int)
        x, y = np.clip(shown.astype(int).T, 0, [[camera.width - 1], [camera.height - 1]])
        assert np.median(np.abs(smooth[y, x] - flight.points.rgb[rows])) < 12  # of 255; JPEG and a pixel's neighbour


def test_the_flight_can_be_loaded_and_is_the_same_each_time(flight: Scene, tmp_path: Path) -> None:
    again = flight_scene(tmp_path, DemoOptions(photos=10, width=240, height=180))
    loaded = Scene.load(flight.folder)
    np.testing.assert_array_equal(loaded.points.xyz, again.points.xyz)
    assert [camera.name for camera in loaded.cameras] == [camera.name for camera in again.cameras]
    assert flight.image_path(flight.cameras[0]).read_bytes() == again.image_path(again.cameras[0]).read_bytes()


class Means2d:
    """Where gsplat's strategies look for the gradient of projected means [1, N, 2]."""

    def __init__(self, shifts: reference.ProjectedMeans) -> None:
        self._shifts = shifts

    def retain_grad(self) -> None:
        pass

    @property
    def grad(self) -> Tensor:
        grad = self._shifts.grad
        assert grad is not None
        return grad[None].float()

    @property
    def absgrad(self) -> Tensor | None:
        absgrad = self._shifts.absgrad
        return None if absgrad is None else absgrad[None].float()


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, near_plane: float, eps2d: float, sh_degree: int, packed: bool, backgrounds: Tensor,
    absgrad: bool = False,
) -> tuple[Tensor, None, dict[str, Any]]:  # fmt: skip
    """gsplat's signature, the specification's numbers."""
    k = Ks[0]
    camera = Camera("", width, height, *(float(k[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2))), viewmats[0].numpy())
    parameters = {
        "means": means, "quats": quats, "log_scales": scales.log(), "raw_opacities": torch.logit(opacities),
        "sh0": colors[:, :1], "shN": colors[:, 1:],
    }  # fmt: skip
    image, shifts, visible = reference.rasterize(parameters, camera, sh_degree, backgrounds[0])
    radii = visible[None, :, None].int().repeat(1, 1, 2)
    info = {"means2d": Means2d(shifts), "radii": radii, "width": width, "height": height, "n_cameras": 1}
    return image[None].float(), None, {**info, "gaussian_ids": None}


@pytest.mark.parametrize("kind", ["default", "default-repaired"])
def test_the_stock_loop_trains_refines_and_resets_only_where_repaired(
    kind: stock.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = made_scene(tmp_path / "made", cameras=6, width=48, height=36, gaussians=150, points=80)
    views = [load_view(scene, camera, 48) for camera in scene.cameras]
    resets: list[float] = []

    def reset(params: dict[str, torch.nn.Parameter], value: float, **_: object) -> None:
        resets.append(value)

    monkeypatch.setattr(stock, "reset_opa", reset)
    strategy = stock.strategy_of(kind, stock.PUBLISHED_STEPS, 500)
    strategy.refine_start_iter, strategy.refine_every, strategy.refine_stop_iter, strategy.reset_every = 5, 8, 30, 6
    monkeypatch.setattr(stock, "strategy_of", lambda *_: strategy)

    def psnr_db(gaussians: stock.Gaussians) -> float:
        image, photo = reference.ReferenceRasterizer().render(gaussians, scene.cameras[0]), views[0].photos[0] / 255
        return float(-10 * np.log10(np.mean((image - photo) ** 2)))

    result = stock.train_stock(scene, views, kind, 60, 500, 0, psnr_db, rasterization, device="cpu")
    assert [point.step for point in result.curve] == [14, 60]
    assert result.curve[1].psnr_db > result.curve[0].psnr_db
    assert result.curve[1].seconds >= result.curve[0].seconds > 0
    assert len(result.gaussians) != 80  # refined
    assert resets == ([] if kind == "default" else [0.01] * 4)


def test_milestones_go_with_the_steps() -> None:
    short, published = (stock.strategy_of("mcmc", steps, 77) for steps in (3000, 30_000))
    assert (published.refine_start_iter, published.refine_stop_iter, published.refine_every) == (500, 25_000, 100)
    assert (short.refine_start_iter, short.refine_stop_iter, short.refine_every) == (50, 2500, 10)
    assert short.cap_max == 77


OURS = Result(
    name="ours", steps=100, psnr_db=30.5, ssim=0.9, seconds=30.0, num_gaussians=500, peak_gpu_bytes=int(15e9),
    curve=(
        CurvePoint(step=50, seconds=14.0, psnr_db=29.0),
        CurvePoint(step=80, seconds=20.0, psnr_db=30.1),
        CurvePoint(step=100, seconds=30.0, psnr_db=30.5),
    ),
)  # fmt: skip


def test_ratios_and_bars() -> None:
    default = Result(name="default", steps=30_000, psnr_db=30.0, ssim=0.9, seconds=100.0, num_gaussians=1000)
    better = Result(name="mcmc", steps=30_000, psnr_db=31.0, ssim=0.9, seconds=60.0, num_gaussians=500)
    broken = Result(name="default-repaired", steps=30_000, notes=("out of GPU memory: 1 GiB",))
    first, second = compared([default, OURS, better, broken])
    assert (first.against, first.time, first.gaussians) == ("default", 0.3, 0.5)
    assert (first.seconds_to_their_psnr, first.time_to_their_psnr) == (20.0, 0.2)
    assert list(first.meets.values()) == [True, True, True, False]
    assert second.psnr_difference_db == pytest.approx(-0.5)
    assert second.time_to_their_psnr is None
    assert list(second.meets.values()) == [False, False, False, False]
    text = table([default, OURS, better, broken])
    assert "out of GPU memory" in text
    assert "never" in text
    assert "missed" in text


def test_nothing_is_compared_with_what_was_not_measured() -> None:
    assert compared([OURS]) == []
    assert compared([OURS.model_copy(update={"psnr_db": None}), OURS.model_copy(update={"name": "mcmc"})]) == []
    no_gpu = OURS.model_copy(update={"peak_gpu_bytes": None})
    [ratios] = compared([no_gpu, OURS.model_copy(update={"name": "mcmc", "steps": 30_000})])
    assert list(ratios.meets.values())[-1] is None


def test_contenders_meet_within_their_round_and_bars_are_those_of_long_trainings() -> None:
    later = [OURS.model_copy(update={"round": 1, "steps": 900, "seconds": 90.0, "psnr_db": 33.0})]
    later.append(Result(name="default", round=1, steps=900, psnr_db=32.0, seconds=60.0, num_gaussians=1000))
    first = Result(name="default", steps=100, psnr_db=30.0, seconds=10.0, num_gaussians=1000)
    ratios = compared([OURS, first, *later])
    assert [(r.steps, r.their_steps, r.time, r.meets) for r in ratios] == [(100, 100, 3.0, {}), (900, 900, 1.5, {})]
    text = table([OURS, first, *later])
    assert "ours (900 steps) against default (900): +1.00 dB" in text
    assert "300.00" in text  # ms a step
    assert Result.model_validate(OURS.model_dump()) == OURS


def test_what_would_not_end_in_time_is_not_begun(flight: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    options = side_by_side.OURS_OPTIONS.model_copy(update={"backend": "cpu", "max_image_size": 64, "steps": 100})
    contest = side_by_side.Contest(flight, options, 1000, 0)
    clock = iter((0.0, 10.0))  # a tenth of a second for each step
    monkeypatch.setattr(side_by_side, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(contest, "_ours", lambda: OURS)
    assert contest.result_of("ours", 100, 0.1).begun  # nothing is known of it yet
    contest.options = options.model_copy(update={"steps": 1000})
    left_out = contest.result_of("ours", 1000, 110.0)
    assert (left_out.begun, left_out.steps, left_out.psnr_db) == (False, 1000, None)
    assert "120 s" in left_out.notes[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backend", "cpu"], "need a GPU"),
        (["--scene", "nowhere"], "holds no scene.json"),
        (["--ours", "steps"], "NAME=VALUE"),
        (["--ours", "no_such=1"], "no_such"),
        (["--ours", "sh_degree=9"], "sh_degree"),
        (["--steps", "3"], "--steps 3"),
        (["--steps", "60", "90"], "--equal-steps"),
        (["--contenders", "theirs"], "theirs"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        side_by_side.main(["--out", str(tmp_path / "out"), *arguments])
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_whole_path_on_the_cpu_with_ours_alone(flight: Scene, tmp_path: Path) -> None:
    """From the scene through training and measuring to the report, which then says what is missing."""
    out, work = tmp_path / "out", tmp_path / "work"
    side_by_side.main(
        ["--out", str(out), "--scene", str(flight.folder), "--backend", "cpu", "--size", "96", "--contenders", "ours",
         "--steps", "30", "60", "--equal-steps", "--ours", "max_gaussians=4000", "sh_degree=1"]
    )  # fmt: skip
    written = json.loads((out / "side_by_side.json").read_text(encoding="utf-8"))
    first, ours = written["results"]
    assert ours["psnr_db"] > 14  # of 60 steps; black everywhere gives less than 10
    assert (ours["peak_gpu_bytes"], written["ratios"]) == (None, [])
    assert [(result["round"], result["steps"]) for result in (first, ours)] == [(0, 30), (1, 60)]
    assert ours["ms_per_step"] == pytest.approx(1000 * ours["seconds"] / 60)

    demo.main(["--out", str(work / "demo"), "--scene", str(flight.folder), "--backend", "cpu", "--steps", "20"])
    assert (work / "demo" / "scene.ply").is_file()
    assert (work / "demo" / "view.jpg").is_file()

    with pytest.raises(SystemExit) as missing:
        report.main([str(out), "--work", str(work)])
    assert missing.value.code == 1
    text = (out / "report.txt").read_text(encoding="utf-8")
    assert "demo scene: backend cpu" in text
    assert "NOT DONE: parity" in text

    (work / "parity.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="b"/><testcase classname="a" name="c"><failure/>'
        "</testcase></testsuite></testsuites>",
        encoding="utf-8",
    )
    (work / "parts").mkdir()
    for status in (1, 0):
        for part in report.PARTS:
            end = {"status": status if part == "parity" else 0, "seconds": 7}
            (work / "parts" / f"{part}.json").write_text(json.dumps(end), encoding="utf-8")
        with pytest.raises(SystemExit) as done:
            report.main([str(out), "--work", str(work)])
        assert done.value.code == status
    gathered = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert gathered["parity"] == {"tests": 2, "failed": ["a::c"]}
    assert gathered["machine"] is None
    assert "parity: 7 s, status 0" in (out / "report.txt").read_text(encoding="utf-8")

    written["results"].append(Result(name="mcmc", steps=60, round=1, notes=("not begun: …",), begun=False).model_dump())
    (out / "side_by_side.json").write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(SystemExit) as left_out:
        report.main([str(out), "--work", str(work)])
    assert left_out.value.code == 1
    assert "NOT DONE: mcmc at 60 steps" in (out / "report.txt").read_text(encoding="utf-8")
