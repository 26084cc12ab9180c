"""A run that cannot end well fails before its first stage, with its sentence as the state's message."""

import zipfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from flows.reconstruct import reconstruct
from flows.stages import compress_flow
from tasks.core.errors import (
    DestinationError,
    FormatError,
    InputError,
    MissingPartError,
    OptionsError,
    PhotosError,
    SpaceportError,
)
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.storage import open_s3_folder
from tasks.running import preflight
from tasks.running.preflight import CHECK, check_run
from tests.support.pictures import save_textured
from tests.support.s3_server import S3Server

Change = Callable[[Path], dict[str, Any]]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """What `check_run` accepts."""
    for i in range(4):
        save_textured(tmp_path / "photos" / f"{i}.jpg", i)
    return {
        "photos": str(tmp_path / "photos"),
        "destination": str(tmp_path / "out"),
        "options": ReconstructOptions(),
        "workspace": str(tmp_path / "workspace"),
    }


def below_a_file(folder: Path) -> dict[str, Any]:
    (folder / "file").touch()
    return {"destination": str(folder / "file" / "out")}


def workspace_below_a_file(folder: Path) -> dict[str, Any]:
    (folder / "file").touch()
    return {"workspace": str(folder / "file" / "workspace")}


def inside_the_photos(folder: Path) -> dict[str, Any]:
    return {"destination": str(folder / "photos" / "out")}


def workspace_inside_the_photos(folder: Path) -> dict[str, Any]:
    return {"workspace": str(folder / "photos" / "spaceport-data")}


def over_the_photos(folder: Path) -> dict[str, Any]:
    (folder / "photos").rename(folder / "colmap")
    return {"photos": str(folder / "colmap"), "destination": str(folder)}


def model_whose_images_are_a_link(folder: Path, images: Path) -> Path:
    (folder / "model/sparse/0").mkdir(parents=True)
    for part in ("cameras", "images", "points3D"):
        (folder / f"model/sparse/0/{part}.txt").touch()
    (folder / "model/images").symlink_to(images)
    return folder / "model"


def inside_the_images_of_a_model(folder: Path) -> dict[str, Any]:
    model = model_whose_images_are_a_link(folder, folder / "photos")
    return {"photos": str(model), "destination": str(folder / "photos")}


def over_the_images_of_a_model(folder: Path) -> dict[str, Any]:
    (folder / "project").mkdir()
    (folder / "photos").rename(folder / "project/colmap")
    model = model_whose_images_are_a_link(folder, folder / "project/colmap")
    return {"photos": str(model), "destination": str(folder / "project")}


def over_a_page(folder: Path) -> dict[str, Any]:
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("mine")
    return {"destination": str(folder / "site")}


def over_a_model(folder: Path) -> dict[str, Any]:
    (folder / "project/colmap/sparse/0").mkdir(parents=True)
    (folder / "project/colmap/sparse/0/cameras.bin").write_text("mine")
    return {"destination": str(folder / "project")}


def over_pictures(folder: Path) -> dict[str, Any]:
    (folder / "project/colmap/images/flight").mkdir(parents=True)
    (folder / "project/colmap/images/flight/x.jpg").write_text("mine")
    return {"destination": str(folder / "project")}


def over_a_streamed_splat(folder: Path) -> dict[str, Any]:
    (folder / "project/lod/0").mkdir(parents=True)
    (folder / "project/lod/0/means.webp").write_text("mine")
    return {"destination": str(folder / "project")}


def over_a_page_of_their_own(folder: Path) -> dict[str, Any]:
    (folder / "project").mkdir(parents=True)
    (folder / "project/stream.html").write_text("mine")
    return {"destination": str(folder / "project")}


def through_a_link(folder: Path) -> dict[str, Any]:
    (folder / "project").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "project/lod").symlink_to(folder / "elsewhere")
    return {"destination": str(folder / "project")}


def over_a_folder(folder: Path) -> dict[str, Any]:
    (folder / "project/scene.sog").mkdir(parents=True)
    (folder / "project/spaceport-files.json").write_text('["scene.sog"]')
    return {"destination": str(folder / "project")}


def without_a_name(_: Path) -> dict[str, Any]:
    return {"photos": ""}


def photos_of_nobody(_: Path) -> dict[str, Any]:
    return {"photos": "~no-such-user/photos"}


def out_of_nobody(_: Path) -> dict[str, Any]:
    return {"destination": "~no-such-user/out"}


def workspace_of_nobody(_: Path) -> dict[str, Any]:
    return {"workspace": "~no-such-user/out"}


def no_photos(folder: Path) -> dict[str, Any]:
    return {"photos": str(folder / "nothing")}


def no_photos_in_the_archive(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("notes.txt", b"x")
    return {"photos": str(folder / "photos.zip")}


def broken_archive(folder: Path) -> dict[str, Any]:
    (folder / "photos.zip").write_bytes(b"PK")
    return {"photos": str(folder / "photos.zip")}


def a_model_in_the_archive(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "photos/0.jpg", "flight/images/0.jpg")
        for part in ("cameras", "images", "points3D"):
            archive.writestr(f"flight/sparse/0/{part}.bin", b"x")
    return {"photos": str(folder / "photos.zip")}


def a_model_of_other_photos(folder: Path) -> dict[str, Any]:
    (folder / "model/sparse/0").mkdir(parents=True)
    (folder / "photos").rename(folder / "model/images")
    (folder / "model/sparse/0/cameras.txt").write_text("1 PINHOLE 64 48 60 60 32 24\n")
    lines = "".join(f"{i} 1 0 0 0 {i} 0 0 1 other {i}.jpg\n\n" for i in range(1, 5))
    (folder / "model/sparse/0/images.txt").write_text(lines)
    (folder / "model/sparse/0/points3D.txt").touch()
    return {"photos": str(folder / "model")}


def half_a_model(folder: Path) -> dict[str, Any]:
    (folder / "model" / "sparse" / "0").mkdir(parents=True)
    for part in ("cameras", "images"):
        (folder / "model" / "sparse" / "0" / f"{part}.bin").touch()
    return {"photos": str(folder / "model")}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (below_a_file, DestinationError, "cannot be written"),
        (workspace_below_a_file, DestinationError, r"The workspace .* cannot be written \(Not a directory\)"),
        (inside_the_photos, DestinationError, "destination .* is inside the photo folder"),
        (workspace_inside_the_photos, DestinationError, "workspace .* is inside the photo folder"),
        (over_the_photos, DestinationError, "where the result's folder colmap would go"),
        (inside_the_images_of_a_model, DestinationError, "is inside the photo folder"),
        (over_the_images_of_a_model, DestinationError, "where the result's folder colmap would go"),
        (over_a_page, DestinationError, "would replace index.html in .*/site, which no earlier result has put there"),
        (over_a_model, DestinationError, "would replace colmap/sparse/0/cameras.bin in"),
        (over_pictures, DestinationError, "would replace colmap/images/flight/x.jpg in"),
        (over_a_streamed_splat, DestinationError, "would replace lod/0/means.webp in"),
        (over_a_page_of_their_own, DestinationError, "would replace stream.html in"),
        (through_a_link, DestinationError, "would replace lod in"),
        (over_a_folder, DestinationError, "would replace scene.sog in"),
        (without_a_name, InputError, "is empty: write its path"),
        (photos_of_nobody, InputError, "a user whom this machine does not know"),
        (out_of_nobody, InputError, "a user whom this machine does not know"),
        (workspace_of_nobody, InputError, "a user whom this machine does not know"),
        (no_photos, PhotosError, "does not exist"),
        (no_photos_in_the_archive, PhotosError, "No photos among 1 files"),
        (broken_archive, PhotosError, "not a complete .zip"),
        (half_a_model, FormatError, "no complete COLMAP model"),
        (a_model_of_other_photos, FormatError, r"4 of the model's 4 images are not in .*: other 1\.jpg, other 2\.jpg"),
        (a_model_in_the_archive, PhotosError, r"contains a model with cameras \(flight/sparse/0\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_end_well_is_refused(
    given: dict[str, Any], tmp_path: Path, change: Change, error: type[SpaceportError], says: str
) -> None:
    check_run(**given)
    before = sorted(tmp_path.rglob("*"))
    changed = {**given, **change(tmp_path)}
    made = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=says):
        check_run(**changed)
    assert sorted(tmp_path.rglob("*")) == made, "a trial leaves nothing"
    assert len(before) == 5


def test_what_cannot_be_part_of_a_result_is_no_trouble(given: dict[str, Any], tmp_path: Path) -> None:
    """Nor what an earlier result has put there."""
    out = tmp_path / "out"
    for name in ("colmap/images/.DS_Store", "colmap/images/notes.txt", "lod/README", "colmap/database.db"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    (out / "colmap/images/ours.jpg").write_text("ours")
    (out / "spaceport-files.json").write_text('["colmap/images/ours.jpg"]')
    check_run(**given)


def test_pictures_of_others_on_s3_are_refused(given: dict[str, Any], s3_environment: S3Server) -> None:
    place = open_s3_folder(f"s3://{s3_environment.new_bucket()}/out")
    place.write("colmap/images/x.jpg", b"mine")
    with pytest.raises(DestinationError, match=r"would replace colmap/images/x\.jpg in s3://"):
        check_run(**{**given, "destination": place.uri})
    place.write("spaceport-files.json", b'["colmap/images/x.jpg"]')
    check_run(**{**given, "destination": place.uri})


def test_a_gpu_is_asked_for_only_where_training_runs_in_this_process(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.render.cuda.why_unavailable", lambda: "No GPU here.")
    options = parse_options("draft", ["train.backend=cuda"])
    with pytest.raises(MissingPartError, match=r"No GPU here\. Or choose the CPU"):
        check_run(**{**given, "options": options})
    monkeypatch.setenv("SPACEPORT_DISPATCH", "train")
    monkeypatch.setattr(preflight, "get_client", lambda **options: nullcontext())
    asked: list[str] = []
    monkeypatch.setattr(preflight, "_check_pool", lambda client, stage: asked.append(stage))
    check_run(**{**given, "options": options})
    assert asked == ["train", "cells", "cell"], "parts of training need deployments too"
    asked.clear()
    check_run(**{**given, "options": parse_options("draft", ["train.backend=cuda", "train.cells=1"])})
    assert asked == ["train"]


def test_what_is_said_of_machines_is_checked(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_MACHINES", '{"train": {"name": "elsewhere", "cores": "many"}}')
    with pytest.raises(OptionsError, match=r"SPACEPORT_MACHINES is not what it has to be: train\.cores: "):
        check_run(**given)


def test_a_bucket_that_is_not_there(given: dict[str, Any], s3_environment: S3Server) -> None:
    with pytest.raises(DestinationError, match="There is no bucket for s3://no-such-bucket/x"):
        check_run(**{**given, "destination": "s3://no-such-bucket/x"})
    with pytest.raises(DestinationError, match="There is no bucket for s3://no-such-bucket/workspace"):
        check_run(**{**given, "workspace": "s3://no-such-bucket/workspace"})
    bucket = s3_environment.new_bucket()
    with pytest.raises(DestinationError, match="is inside the photo folder"):
        check_run(**{**given, "photos": f"s3://{bucket}/flight/", "destination": f"s3://{bucket}/flight/out"})


def failed_run(parameters: dict[str, Any]) -> tuple[FlowRun, list[str]]:
    """A run that fails, as the server has it, and the names of its task runs."""
    state = reconstruct(**parameters, return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
        in_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        return run, [task_run.name for task_run in client.read_task_runs(flow_run_filter=in_run)]


def without_deployment(stage: str) -> None:
    """Take a stage's deployment off the server, where a test before this one may have put it."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"{stage}/{stage}").id)


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_fails_with_the_sentence_and_no_stage_runs(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACEPORT_WORKSPACE", given.pop("workspace"))
    monkeypatch.setenv("SPACEPORT_DISPATCH", "sfm")
    without_deployment("sfm")
    parameters = {**given, **below_a_file(tmp_path)}
    with pytest.raises(DestinationError) as refused:
        check_run(**parameters, workspace=str(tmp_path / "workspace"))
    run, tasks = failed_run(parameters)
    assert run.state_name == "Failed"
    assert run.state is not None
    assert str(run.state.message).endswith(f"DestinationError: {refused.value}")
    assert tasks == [CHECK]
    assert not (tmp_path / "workspace" / "stages").exists()

    run, tasks = failed_run(given)
    assert run.state is not None
    assert "MissingPartError: There is no deployment sfm/sfm on this Prefect server" in str(run.state.message)
    assert tasks == [CHECK]


@pytest.mark.usefixtures("prefect_server")
def test_a_deployment_without_a_pool_is_none(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_DISPATCH", "compress")
    # A deployment that has a pool keeps it when it is applied without one.
    without_deployment("compress")
    deployment = compress_flow.to_deployment(name="compress").apply()
    assert isinstance(deployment, UUID)
    with pytest.raises(MissingPartError, match="compress/compress names no work pool"):
        check_run(**given)
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment)
    with pytest.raises(MissingPartError, match="There is no deployment compress/compress"):
        check_run(**given)
