"""Lines for CloudWatch: as its format demands, where they are asked for, and nowhere else."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.aws.stacks import monitoring
from tasks.compress import COMPRESS
from tasks.core.errors import OptionsError, PhotosError
from tasks.core.measurements import SogSection
from tasks.core.options import ReconstructOptions
from tasks.core.refs import RunContext
from tasks.core.usage import GpuUsage
from tasks.reporting import metrics
from tasks.reporting.metrics import GpuTeller, emf_line, tell_run, tell_stage
from tasks.reporting.run_page import run_page
from tasks.running.settings import Settings
from tasks.running.stage import run_stage

MEASURED = SogSection(bytes=1000, ply_bytes=9000, psnr_drop_db=None, sh_bands=0)


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_METRICS", "emf")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_follows_the_specification() -> None:
    """Every metric declared has its value at the root, and so has every dimension."""
    line = json.loads(emf_line({"Seconds": 1.5, "Gaussians": 1000}, "train", now=1_700_000_000.25))
    assert line["_aws"]["Timestamp"] == 1_700_000_000_250, "milliseconds"
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == monitoring.NAMESPACE == metrics.NAMESPACE
    assert directive["Dimensions"] == [["Stage"]]
    assert line["Stage"] == "train"
    assert {each["Name"]: each["Unit"] for each in directive["Metrics"]} == {"Seconds": "Seconds", "Gaussians": "Count"}
    assert {each["Name"]: line[each["Name"]] for each in directive["Metrics"]} == {"Seconds": 1.5, "Gaussians": 1000}


def test_what_is_not_a_number_is_no_line() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        emf_line({"PsnrDb": float("nan")}, "train", now=time.time())


def test_a_metric_without_a_unit_is_an_error() -> None:
    with pytest.raises(KeyError):
        emf_line({"Nonsense": 1.0}, None, now=time.time())


@pytest.mark.usefixtures("asked_for")
def test_a_stage_tells_what_it_took_and_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACEPORT_HOURLY_COST_USD", "3.6")
    context = RunContext(workspace=str(tmp_path), run="test")

    def compute(folder: Path) -> SogSection:
        (folder / "scene.sog").write_bytes(b"0" * 1000)
        return MEASURED

    for _ in range(2):  # the second time from the workspace, which is no measurement
        run_stage(COMPRESS, context, inputs=["x"], compute=compute)
    (line,) = lines(capsys)
    assert line["Stage"] == "compress"
    assert line["SogBytes"] == 1000
    assert line["OutputBytes"] > 1000
    assert line["CostUsd"] == pytest.approx(line["Seconds"] / 1000)
    assert "PsnrDropDb" not in line, "it was not measured"


@pytest.mark.usefixtures("asked_for")
@pytest.mark.parametrize("drop", [float("nan"), float("inf")])
def test_what_is_no_number_costs_no_output(capsys: pytest.CaptureFixture[str], tmp_path: Path, drop: float) -> None:
    """Equal pictures have an infinite PSNR, and infinity less infinity is no number."""
    context = RunContext(workspace=str(tmp_path), run="test")
    measured = MEASURED.model_copy(update={"psnr_drop_db": drop})

    def compute(folder: Path) -> SogSection:
        (folder / "scene.sog").write_bytes(b"0")
        return measured

    output = run_stage(COMPRESS, context, inputs=["x"], compute=compute)
    assert Path(output.uri, "scene.sog").is_file()
    (line,) = lines(capsys)
    assert "PsnrDropDb" not in line
    assert line["SogBytes"] == 1000


def test_nothing_is_written_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    tell_run(completed=True)
    tell_stage("compress", MEASURED, seconds=1, cost_usd=1, peak_memory_bytes=1, output_bytes=1)
    assert capsys.readouterr().out == ""


def test_a_misspelt_wish_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_METRICS", "yes")
    with pytest.raises(OptionsError, match="SPACEPORT_METRICS"):
        Settings()


@pytest.mark.usefixtures("asked_for")
def test_the_end_of_a_run_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_run(completed=True)
    tell_run(completed=False)
    assert [(line["RunsCompleted"], line["RunsFailed"]) for line in lines(capsys)] == [(1, 0), (0, 1)]


@pytest.mark.usefixtures("asked_for")
def test_a_run_leaves_its_end_to_the_watch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Which sees every end: told by both, it would count twice."""
    context = RunContext(workspace=str(tmp_path), run="test")
    with run_page("meadow", ReconstructOptions(), context):
        pass
    with pytest.raises(PhotosError), run_page("meadow", ReconstructOptions(), context):
        raise PhotosError("none")
    assert lines(capsys) == []


@pytest.mark.usefixtures("asked_for")
def test_the_gpu_is_told_of_once_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("tasks.reporting.metrics.time.monotonic", lambda: now)
    teller = GpuTeller("train")
    for _ in range(130):
        teller.tell(GpuUsage(allocated_bytes=1, used_bytes=2_000_000, utilisation_percent=93, temperature_celsius=None))
        now += 1
    teller.tell(None)
    told = lines(capsys)
    assert [line["GpuUtilisation"] for line in told] == [93, 93, 93]
    assert told[0]["GpuMemoryBytes"] == 2_000_000


def test_the_dashboard_and_the_lines_speak_of_the_same_metrics() -> None:
    source = Path(monitoring.__file__).read_text(encoding="utf-8")
    for name in ("RunsCompleted", "RunsFailed", "CostUsd", "PsnrDb", "Seconds", "Gaussians", "SogBytes"):
        assert f'"{name}"' in source
        assert name in metrics._UNITS
