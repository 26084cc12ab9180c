"""Splats as other programs write them: 2DGS, antialiased, flat, without rotation, with damaged numbers, in parts."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from scipy.special import expit
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.ply import read_ply, write_ply
from tasks.core.sog.convert import convert, read_splat
from tasks.core.sog.reader import read_sog, read_sog_and_model
from tasks.core.sog.streamed import write_streamed
from tasks.core.sog.writer import write_sog
from tests.core.sog.splats import terrain


def with_columns(splat: Gaussians, path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A .ply whose columns were changed."""
    write_ply(splat, path)
    rows = PlyData.read(str(path), mmap=False)["vertex"].data
    columns = {name: np.array(rows[name]) for name in rows.dtype.names}
    change(columns)
    other = np.empty(len(rows), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        other[name] = column
    PlyData([PlyElement.describe(other, "vertex")], byte_order="<").write(str(path))
    return path


def with_comments(path: Path, *comments: bytes, end: bytes = b"\n") -> Path:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.rstrip(b"\n").split(b"\n")
    lines[2:2] = [b"comment " + comment for comment in comments]
    path.write_bytes(end.join([*lines, b"end_header", b""]) + body)
    return path


def in_order_of(back: Gaussians, source: Gaussians) -> Gaussians:
    """Each Gaussian's nearest: a SOG has another order."""
    distances = np.linalg.norm(source.means[:, None] - back.means, axis=2)
    nearest = distances.argmin(axis=1)
    assert len(set(nearest.tolist())) == len(source)
    return back.take(nearest)


def test_2dgs_is_read_stored_and_written_again(tmp_path: Path) -> None:
    """The official code writes scale_0 and scale_1 only: its Gaussians are discs."""
    splat = terrain(400, 1)
    source = with_columns(splat, tmp_path / "2dgs.ply", lambda columns: columns.pop("scale_2"))
    read = read_splat(source)
    assert read.model == "2dgs"
    assert np.isneginf(read.gaussians.log_scales[:, 2]).all()
    np.testing.assert_array_equal(read.gaussians.log_scales[:, :2], splat.log_scales[:, :2])
    convert(source, tmp_path / "a.sog")
    back, model = read_sog_and_model(tmp_path / "a.sog")
    assert model == "2dgs"
    back = in_order_of(back, splat)
    # as splat-transform: 20 below the least finite log scale
    np.testing.assert_allclose(back.log_scales[:, 2], splat.log_scales[:, :2].min() - 20, atol=1e-5)
    # the other axes lose no entry but that one: 255 over a range of 3
    assert np.abs(back.log_scales[:, :2] - splat.log_scales[:, :2]).max() < 0.03
    for origin in (source, tmp_path / "a.sog"):
        convert(origin, tmp_path / "b.ply")
        assert "scale_2" not in PlyData.read(str(tmp_path / "b.ply"))["vertex"].data.dtype.names
        assert read_splat(tmp_path / "b.ply").model == "2dgs"


def test_a_2dgs_splat_with_another_thin_axis_keeps_its_three_scales(tmp_path: Path) -> None:
    write_ply(terrain(50, 0), tmp_path / "a.ply", "2dgs")
    np.testing.assert_array_equal(read_ply(tmp_path / "a.ply").log_scales, terrain(50, 0).log_scales)
    assert read_splat(tmp_path / "a.ply").model == "2dgs"


@pytest.mark.parametrize(
    ("comments", "model"),
    [
        ([b"SplatRenderMode: mip"], "antialiased"),
        ([b"splatrendermode: Mip"], "antialiased"),
        ([b"SPLATRENDERMODE:MIP"], "antialiased"),
        ([b"SplatRenderMode: 2dgs"], "2dgs"),
        ([b"antialiased 1"], "antialiased"),
        ([b"Antialiased: True"], "antialiased"),
        ([b"antialiased 0"], "default"),
        ([b"train_flags antialiasing"], "antialiased"),
        ([b"rasterize_mode: antialiased"], "antialiased"),
        ([b"antialiased 1", b"SplatRenderMode: default"], "default"),
        ([b"SplatRenderMode: mip", b"SplatRenderMode: other"], "antialiased"),
        ([b"not antialiased at all"], "default"),
    ],
)
def test_comments_name_the_model_in_every_spelling(tmp_path: Path, comments: list[bytes], model: str) -> None:
    write_ply(terrain(40, 0), tmp_path / "a.ply")
    with_comments(tmp_path / "a.ply", *comments)
    convert(tmp_path / "a.ply", tmp_path / "a.sog")
    assert read_sog_and_model(tmp_path / "a.sog")[1] == model


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_comments_may_hold_any_bytes(tmp_path: Path, end: bytes) -> None:
    splat = terrain(40, 1)
    write_ply(splat, tmp_path / "a.ply")
    odd = [b"Stra\xdfe", "Gebäude 東京".encode(), b"end_header is near", b"\xff\xfe\x00", b"", b"antialiased 1"]
    odd += [] if end == b"\r" else [b"first\rsecond"]
    read = read_splat(with_comments(tmp_path / "a.ply", *odd, end=end))
    assert read.model == "antialiased"
    for name, array in vars(splat).items():
        np.testing.assert_array_equal(getattr(read.gaussians, name), array)


def test_a_text_ply_may_have_any_comment(tmp_path: Path) -> None:
    write_ply(terrain(5, 0), tmp_path / "a.ply")
    data = PlyData.read(str(tmp_path / "a.ply"), mmap=False)
    PlyData([data["vertex"]], text=True).write(str(tmp_path / "a.ply"))
    read = read_splat(with_comments(tmp_path / "a.ply", b"\xe9t\xe9", end=b"\r\n"))
    np.testing.assert_allclose(read.gaussians.means, terrain(5, 0).means, rtol=1e-6)


def test_an_axis_without_length_is_stored(tmp_path: Path) -> None:
    splat = terrain(1000, 0)
    scales = splat.log_scales.copy()
    scales[:50, 2] = -np.inf
    write_ply(replace(splat, log_scales=scales), tmp_path / "a.ply")
    assert convert(tmp_path / "a.ply", tmp_path / "a.sog").notes == ()
    back = in_order_of(read_sog(tmp_path / "a.sog"), splat)
    finite = scales[np.isfinite(scales)]
    np.testing.assert_allclose(back.log_scales[:50, 2], finite.min() - 20, atol=1e-5)
    assert np.abs(back.log_scales[50:] - scales[50:]).max() < 0.03  # as without the flat ones
    assert convert(tmp_path / "a.ply", tmp_path / "b.ply").count == 1000
    np.testing.assert_array_equal(read_ply(tmp_path / "b.ply").log_scales, scales)


def test_only_axes_without_length_are_stored(tmp_path: Path) -> None:
    splat = replace(terrain(9, 0), log_scales=np.full((9, 3), -np.inf, np.float32))
    write_sog(splat, tmp_path / "a.sog")
    np.testing.assert_array_equal(read_sog(tmp_path / "a.sog").log_scales, np.float32(-20))


def test_gaussians_without_rotation_are_drawn_unrotated_and_counted(tmp_path: Path) -> None:
    """Postshot 1.1.0 pads with rows of zeros."""
    splat = terrain(100, 0)
    quats = splat.quats.copy()
    quats[30:] = 0
    write_ply(replace(splat, quats=quats), tmp_path / "a.ply")
    said = convert(tmp_path / "a.ply", tmp_path / "a.sog")
    assert said.count == 100
    assert "70 of 100 Gaussians have no rotation" in said.notes[0]
    back = in_order_of(read_sog(tmp_path / "a.sog"), splat)
    # 8 bits of three components: the middle of 255 steps is half a step off
    np.testing.assert_allclose(back.quats[30:], np.tile([1, 0, 0, 0], (70, 1)), atol=0.003)
    dropped = convert(tmp_path / "a.ply", tmp_path / "b.ply", drop_invalid=True)
    assert dropped.count == 30
    assert "70 of 100 Gaussians were left out" in dropped.notes[0]
    np.testing.assert_array_equal(read_ply(tmp_path / "b.ply").quats, quats[:30])


@pytest.mark.parametrize("target", ["b.ply", "b.sog", "meta.json"])
@pytest.mark.parametrize(("column", "value"), [("x", np.nan), ("f_rest_2", np.nan), ("scale_1", np.inf)])
def test_damaged_numbers_are_refused_or_left_out(tmp_path: Path, target: str, column: str, value: float) -> None:
    def damage(columns: dict[str, np.ndarray]) -> None:
        columns[column][[3, 5, 8]] = value

    source = with_columns(terrain(60, 1), tmp_path / "a.ply", damage)
    with pytest.raises(FormatError, match=r"of 3 of 60 Gaussians .* number 3\); `spaceport convert --drop-invalid`"):
        convert(source, tmp_path / target)
    assert not (tmp_path / target).exists()
    said = convert(source, tmp_path / target, drop_invalid=True)
    assert (said.count, len(read_splat(tmp_path / target).gaussians)) == (57, 57)
    assert "3 of 60 Gaussians were left out" in said.notes[0]


def test_nothing_is_written_when_all_are_invalid(tmp_path: Path) -> None:
    splat = terrain(7, 0)
    write_ply(replace(splat, means=np.full((7, 3), np.nan, np.float32)), tmp_path / "a.ply")
    with pytest.raises(FormatError, match="none of the 7 Gaussians"):
        convert(tmp_path / "a.ply", tmp_path / "b.ply", drop_invalid=True)
    assert not (tmp_path / "b.ply").exists()


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    def damage(columns: dict[str, np.ndarray]) -> None:
        columns["y"][:2] = np.nan

    with_columns(terrain(20, 0), tmp_path / "a.ply", damage)
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "a.ply"), str(tmp_path / "b.ply"), "--drop-invalid"])
    assert done.exit_code == 0
    assert "2 of 20 Gaussians were left out" in done.output
    assert "18 Gaussians" in done.output


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_rgb_instead_of_harmonics_is_converted_and_said(tmp_path: Path, kind: str) -> None:
    """`ns-export gaussian-splat --ply-color-mode rgb`."""
    splat = terrain(300, 0)
    rgb = np.clip(0.5 + SH_C0 * splat.sh0[:, 0], 0, 1)
    most = {"u1": 255, "u2": 65535, "f4": 1}[kind]

    def paint(columns: dict[str, np.ndarray]) -> None:
        for channel, name in enumerate(("red", "green", "blue")):
            columns.pop(f"f_dc_{channel}")
            columns[name] = (rgb[:, channel] * most if kind == "f4" else np.rint(rgb[:, channel] * most)).astype(kind)

    with_columns(splat, tmp_path / "a.ply", paint)
    said = convert(tmp_path / "a.ply", tmp_path / "b.ply")
    assert "red, green and blue instead of f_dc" in said.notes[0]
    back = 0.5 + SH_C0 * read_ply(tmp_path / "b.ply").sh0[:, 0]
    assert np.abs(back - rgb).max() < 0.51 / 255  # half a step


def test_the_filter_of_mip_splatting_is_applied_and_said(tmp_path: Path) -> None:
    """As its own create_fused_ply.py does."""
    splat = terrain(300, 0)
    widths = np.random.default_rng(0).uniform(0.01, 0.5, 300).astype(np.float32)
    source = with_columns(splat, tmp_path / "a.ply", lambda columns: columns.update(filter_3D=widths))
    said = convert(source, tmp_path / "b.ply")
    assert "filter_3D" in said.notes[0]
    read = read_splat(tmp_path / "b.ply")
    assert read.model == "antialiased"
    variances = np.exp(2 * splat.log_scales.astype(np.float64))
    wider = variances + widths[:, None].astype(np.float64) ** 2
    np.testing.assert_allclose(np.exp(2 * read.gaussians.log_scales), wider, rtol=1e-5)
    share = np.sqrt(variances.prod(axis=1) / wider.prod(axis=1))
    np.testing.assert_allclose(
        expit(read.gaussians.raw_opacities), expit(splat.raw_opacities.astype(np.float64)) * share, rtol=1e-4
    )


def test_a_point_cloud_is_called_one(tmp_path: Path) -> None:
    def cloud(columns: dict[str, np.ndarray]) -> None:
        for name in [name for name in columns if name not in "xyz"]:
            columns.pop(name)

    with_columns(terrain(9, 0), tmp_path / "a.ply", cloud)
    with pytest.raises(FormatError, match=r"a\.ply has points without .* a point cloud and not a splat"):
        convert(tmp_path / "a.ply", tmp_path / "b.sog")


def changed_meta(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A .sog with another meta.json."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(members["meta.json"])
    change(meta)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"meta.json": json.dumps(meta).encode()}).items():
            archive.writestr(name, data)


@pytest.mark.parametrize("missing", [["count"], ["bands"], ["count", "bands"]])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_palette_without_its_size_is_read(tmp_path: Path, degree: int, missing: list[str]) -> None:
    write_sog(terrain(300, degree), tmp_path / "a.sog")
    whole = read_sog(tmp_path / "a.sog")
    changed_meta(tmp_path / "a.sog", lambda meta: [meta["shN"].pop(name) for name in missing])
    np.testing.assert_array_equal(read_sog(tmp_path / "a.sog").shN, whole.shN)


def test_the_first_version_of_the_antialiased_mark_is_kept(tmp_path: Path) -> None:
    """`"antialias": true`, as the specification of 2025 had it; `model` is the mark of today and stronger."""
    write_sog(terrain(50, 0), tmp_path / "a.sog")
    changed_meta(tmp_path / "a.sog", lambda meta: meta.update(antialias=True))
    convert(tmp_path / "a.sog", tmp_path / "b.sog")
    assert read_sog_and_model(tmp_path / "b.sog")[1] == "antialiased"
    changed_meta(tmp_path / "a.sog", lambda meta: meta.update(model="2dgs"))
    assert read_sog_and_model(tmp_path / "a.sog")[1] == "2dgs"


def test_a_codebook_without_its_first_entry_is_read_as_viewers_do(tmp_path: Path) -> None:
    write_sog(terrain(3000, 0), tmp_path / "a.sog")
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        book = json.loads(archive.read("meta.json"))["scales"]["codebook"]
    changed_meta(tmp_path / "a.sog", lambda meta: meta["scales"]["codebook"].__setitem__(0, None))
    assert read_sog(tmp_path / "a.sog").log_scales.min() == np.float32(book[1] + (book[1] - book[255]) / 255)


def test_levels_of_detail_are_read_at_their_finest(tmp_path: Path) -> None:
    splat = terrain(1500, 2)
    write_streamed(splat, tmp_path / "lod", leaf_count=400, coarsest_count=200, model="antialiased")
    for source in (tmp_path / "lod" / "lod-meta.json", tmp_path / "lod"):
        convert(source, tmp_path / "a.ply")
        read = read_splat(tmp_path / "a.ply")
        assert read.model == "antialiased"
        back = in_order_of(read.gaussians, splat)
        np.testing.assert_allclose(back.means, splat.means, atol=1e-3)  # 16 bits of log positions
        np.testing.assert_allclose(back.log_scales, splat.log_scales, atol=0.05)


def test_a_meta_may_have_the_scenes_name_in_front(tmp_path: Path) -> None:
    """As PlayCanvas' assets have."""
    write_sog(terrain(60, 1), tmp_path / "meta.json")
    (tmp_path / "meta.json").rename(tmp_path / "Church.meta.json")
    assert convert(tmp_path / "Church.meta.json", tmp_path / "a.ply").count == 60
    write_streamed(terrain(300, 0), tmp_path / "lod", leaf_count=200, coarsest_count=100)
    (tmp_path / "lod" / "lod-meta.json").rename(tmp_path / "lod" / "church.LOD-meta.json")
    assert convert(tmp_path / "lod" / "church.LOD-meta.json", tmp_path / "b.ply").count == 300


def edited_lod(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    meta = json.loads((folder / "lod-meta.json").read_text())
    change(meta)
    (folder / "lod-meta.json").write_text(json.dumps(meta))
    return folder


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node] if "lods" in node else [leaf for child in node["children"] for leaf in leaves(child)]


def test_parts_of_files_the_environment_and_boxes_without_the_finest_level_are_read(tmp_path: Path) -> None:
    splat = terrain(1500, 1)
    write_streamed(splat, tmp_path, leaf_count=400, coarsest_count=200)
    whole = len(read_splat(tmp_path).gaussians)
    write_sog(terrain(40, 0), tmp_path / "far" / "meta.json")

    def change(meta: dict[str, Any]) -> None:
        first, second = leaves(meta["tree"])[:2]
        first["lods"]["0"] |= {"offset": 10, "count": first["lods"]["0"]["count"] - 10}
        self_lost.append(second["lods"].pop("0")["count"] - second["lods"]["1"]["count"])
        meta["environment"] = "far/meta.json"
        del meta["version"]

    self_lost: list[int] = []
    read = read_splat(edited_lod(tmp_path, change)).gaussians
    assert len(read) == whole - 10 - self_lost[0] + 40
    assert read.sh_degree == 1
    assert not read.shN[-40:].any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda meta: meta.update(version=2), "version"),
        (lambda meta: meta.update(filenames=["../meta.json"] * 99), "'../meta.json'"),
        (lambda meta: meta.update(filenames=["https://example.org/meta.json"] * 99), "example.org"),
        (lambda meta: meta.update(filenames=["0_0/means_l.webp"] * 99), "neither"),
        (lambda meta: meta.update(filenames=[]), "filenames has 0"),
        (lambda meta: meta.update(tree={}), "no Gaussians"),
        (lambda meta: meta.update(tree=[]), "tree"),
        (lambda meta: leaves(meta["tree"])[0]["lods"]["0"].update(count=10**12), "count"),
        (lambda meta: leaves(meta["tree"])[0]["lods"]["0"].update(count=19_000_000), "which has"),
    ],
)
def test_a_lying_list_of_levels_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    write_streamed(terrain(900, 0), tmp_path, leaf_count=400, coarsest_count=900)
    edited_lod(tmp_path, change)
    with pytest.raises(FormatError, match=says.replace(".", r"\.")):
        read_splat(tmp_path)


def test_a_folder_without_a_splat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no meta\.json and no lod-meta\.json"):
        read_splat(tmp_path)
