"""The compress stage's core: files in place, and a loss that is measured on what a viewer gets."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.measurements import held_out_picture
from tasks.core.ply import write_ply
from tasks.core.progress import Progress
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.metrics import psnr
from tasks.core.sog.compress import compress
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.reader import read_sog
from tests.core.report.reports import pictured_scene
from tests.core.sog.splats import terrain


def test_compress_writes_the_splat_and_measures_its_loss(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene", 3)
    splat = terrain(1500, 1)
    write_ply(splat, tmp_path / "scene.ply")
    out = tmp_path / "out"
    out.mkdir()
    rasterizer, seen = rasterizer_for("cpu"), list[Progress]()
    names = [camera.name for camera in scene.cameras[:2]]
    options = CompressOptions(stream_above=1000)
    section = compress(tmp_path / "scene.ply", scene, names, out, options, rasterizer, seen.append)

    assert section.bytes == (out / "scene.sog").stat().st_size
    assert section.ply_bytes == (tmp_path / "scene.ply").stat().st_size
    assert section.sh_bands == 1
    lod = out / "lod"
    assert json.loads((lod / "lod-meta.json").read_text())["counts"] == [1500]
    assert section.streamed_bytes == sum(path.stat().st_size for path in lod.rglob("*") if path.is_file())
    decoded, drops = read_sog(out / "scene.sog"), []
    for camera in scene.cameras[:2]:
        photo = scene.image(camera) / 255
        render = rasterizer.render(decoded, camera).copy()
        drops.append(psnr(rasterizer.render(splat, camera), photo) - psnr(render, photo))
        with Image.open(out / "held_out" / held_out_picture(camera.name)) as picture:
            # JPEG of quality 92 over smooth pictures
            assert psnr(np.asarray(picture) / 255, render) > 35
    assert section.psnr_drop_db == pytest.approx(np.mean(drops), abs=1e-4)
    assert 0 < section.psnr_drop_db < 0.5  # the product's bound; the photos here are as sharp as the splat itself
    assert not (out / "held_out" / held_out_picture(scene.cameras[2].name)).exists()
    shares = [progress.done / progress.total for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_more_bytes_are_spent_until_the_loss_is_within_bounds(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene", 3)
    splat, rasterizer = terrain(3000, 3), rasterizer_for("cpu")
    write_ply(splat, tmp_path / "scene.ply")
    names = [camera.name for camera in scene.cameras[:2]]
    for camera in scene.cameras[:2]:  # photos of this very splat, so that every error of compression is a loss
        image = np.clip(rasterizer.render(splat, camera), 0, 1)
        Image.fromarray((255 * image).astype(np.uint8)).save(scene.image_path(camera), quality=98)

    def loss_and_bytes(limit_db: float) -> tuple[float, int]:
        out = tmp_path / f"out{limit_db}"
        out.mkdir()
        options = CompressOptions(max_psnr_drop_db=limit_db)
        section = compress(tmp_path / "scene.ply", scene, names, out, options, rasterizer)
        assert section.psnr_drop_db is not None
        assert bool(section.degradations) == (section.psnr_drop_db > limit_db)  # what cannot be reached is said
        return section.psnr_drop_db, section.bytes

    loose_db, loose_bytes = loss_and_bytes(10.0)
    assert loose_db < 10
    tight_db, tight_bytes = loss_and_bytes(0.0)
    assert tight_db < loose_db
    assert tight_bytes > 1.3 * loose_bytes  # all as many palette entries as Gaussians against a quarter
    between_db, between_bytes = loss_and_bytes(loose_db * 0.99)
    assert between_db <= loose_db * 0.99
    assert loose_bytes < between_bytes <= tight_bytes


def test_without_held_out_views_the_loss_is_null(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene", 1)
    write_ply(terrain(300, 1), tmp_path / "scene.ply")
    section = compress(tmp_path / "scene.ply", scene, (), tmp_path, CompressOptions(sh_degree=0), rasterizer_for("cpu"))
    assert section.psnr_drop_db is None
    assert section.streamed_bytes is None
    assert section.sh_bands == 0
    assert list((tmp_path / "held_out").iterdir()) == []


def test_memory_does_not_grow_with_the_held_out_photos(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene", 16)
    write_ply(terrain(200, 0), tmp_path / "scene.ply")
    width, height = scene.cameras[0].width, scene.cameras[0].height
    photo_bytes = 4 * 3 * width * height

    def peak_of(held_out: int, out: Path) -> int:
        out.mkdir()
        names = [camera.name for camera in scene.cameras[:held_out]]
        tracemalloc.start()
        compress(tmp_path / "scene.ply", scene, names, out, CompressOptions(sh_degree=0), rasterizer_for("cpu"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_of(2, tmp_path / "first")  # whatever is loaded once
    # by less than one photo: 14 more are read one after the other
    assert peak_of(16, tmp_path / "many") - peak_of(2, tmp_path / "few") < photo_bytes
