"""`spaceport estimate`, and where its photos may lie."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.cli.estimate
from flows.cli.app import app
from tasks.core.errors import InputError, OptionsError
from tasks.core.measurements import EstimateSection, SecondsSection
from tasks.core.refs import RunContext
from tasks.core.stages import STAGES
from tasks.core.storage import S3Folder
from tasks.running.estimate import capture_at, expecting, machines_of_run
from tests.support.pictures import save_textured
from tests.support.s3_server import S3Server

SIZES = ((320, 240), (320, 240), (240, 320), (640, 480))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, size in enumerate(SIZES):
        save_textured(tmp_path / "photos" / f"{i}.jpg", i, size)
    return tmp_path / "photos"


def test_a_folder_on_s3_is_as_one_here(
    photos: Path, s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    bucket = S3Folder(s3_environment.client(), s3_environment.new_bucket())
    bucket.below("flight").upload(photos, [path.name for path in photos.iterdir()])
    bucket.write("flight/empty.jpg", b"")
    bucket.write("flight/READY.json", b"{}")
    there = capture_at(f"s3://{bucket.bucket}/flight", str(tmp_path))
    assert there == capture_at(str(photos), str(tmp_path))
    assert tuple((photo.width, photo.height) for photo in there.photos) == SIZES
    with pytest.raises(InputError, match="name a copy on this machine"):
        capture_at(f"s3://{bucket.bucket}/flight.zip", str(tmp_path))


def test_json_has_every_stage_here_and_in_an_account(photos: Path) -> None:
    ended = CliRunner().invoke(app, ["estimate", str(photos), "--preset", "draft", "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.output)
    assert found["photos"] == len(SIZES)
    here, aws = found["this_machine"], found["aws"]
    assert [stage["stage"] for stage in here["stages"]] == list(STAGES)
    assert here["seconds"] > sum(stage["seconds"] for stage in here["stages"])
    assert aws["on_demand_usd"] > aws["spot_usd"] > 0
    assert found["options"]["train"]["steps"] == 1500


def test_tables_say_that_aws_was_not_measured(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_HOURLY_COST_USD", "0.5")
    monkeypatch.setattr("os.getloadavg", lambda: (100.0, 0.0, 0.0))
    text = CliRunner().invoke(app, ["estimate", str(photos)]).output
    for said in ("4 photos", "on demand", "spot", "g4dn.xlarge", "Nothing of this was measured on AWS"):
        assert said in text, said
    assert "This machine is busy (load 100.0" in text
    assert "price" in text


def test_a_fleet_is_simulated_where_it_is_asked_for(photos: Path) -> None:
    text = CliRunner().invoke(app, ["estimate", str(photos), "--fleet"]).output
    for said in ("On a fleet of g4dn.xlarge", "instances", "nothing of this ran on AWS or on a fleet"):
        assert said in text, said
    assert "On a fleet" not in CliRunner().invoke(app, ["estimate", str(photos)]).output
    found = json.loads(CliRunner().invoke(app, ["estimate", str(photos), "--fleet", "--json"]).output)["fleet"]
    assert [row["instances"] for row in found["rows"]] == [1, 4, 16]
    assert (found["blocks"], found["cells"]) == (1, 1)


def test_a_fleet_is_simulated_for_many_photos(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.cli.estimate, "WORTH_A_FLEET", len(SIZES))
    assert json.loads(CliRunner().invoke(app, ["estimate", str(photos), "--json"]).output)["fleet"] is None
    monkeypatch.setattr(flows.cli.estimate, "WORTH_A_FLEET", len(SIZES) - 1)
    assert json.loads(CliRunner().invoke(app, ["estimate", str(photos), "--json"]).output)["fleet"] is not None


def test_stages_are_expected_to_take_what_the_estimate_says() -> None:
    context = RunContext(workspace="/workspace", run="fox-1")
    seconds = SecondsSection(sfm=20.0, train=60.0, total=85.0)
    estimate = EstimateSection(seconds=seconds, peak_memory_bytes=1)
    assert expecting(context, estimate).expected_seconds == {"sfm": 20.0, "train": 60.0}
    assert expecting(context, None) == context


def test_a_place_without_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no photo")
    ended = CliRunner().invoke(app, ["estimate", str(tmp_path)])
    assert isinstance(ended.exception, InputError)
    assert "has a header that can be read" in str(ended.exception)


def test_what_machines_are_said_to_be_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_MACHINES", '{"train": {"cores": "many"}}')
    with pytest.raises(OptionsError, match="SPACEPORT_MACHINES"):
        machines_of_run()
