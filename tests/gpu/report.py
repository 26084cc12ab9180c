"""Gathers what run.sh left in its folders into report.json and report.txt: `python -m tests.gpu.report OUT --work DIR`.

A part that did not run, or did not end well, is named; the exit status is 1 then.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.gpu.comparison import Result, table

PARTS = ("parity", "side_by_side", "demo")  # in the order of their importance


def parity(path: Path) -> dict[str, object] | None:
    """Of pytest's JUnit file; None when there is none, or no test ran."""
    if not path.is_file():
        return None
    cases = list(ET.parse(path).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    if not cases:
        return None
    return {"tests": len(cases), "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed]}


def _json(*paths: Path) -> dict[str, object] | None:
    """The first that is there."""
    for path in paths:
        if path.is_file():
            content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
            return content
    return None


def gathered(out: Path, work: Path) -> dict[str, object]:
    """Everything. Null is what did not run; side by side and parity can be there in part."""
    demo = _json(work / "demo" / "report.json", work / "demo" / "train.json")
    return {
        "machine": _json(work / "machine.json"),
        "parity": parity(work / "parity.xml"),
        "side_by_side": _json(out / "side_by_side.json"),
        "demo": demo if demo is None else demo.get("train", demo),
        "parts": {name: _json(work / "parts" / f"{name}.json") for name in PARTS},
    }


def as_text(report: dict[str, object]) -> str:
    """For people."""
    lines = []
    machine, checks, contest, demo = (report[name] for name in ("machine", "parity", "side_by_side", "demo"))
    if isinstance(machine, dict):
        lines.append(", ".join(f"{key} {value}" for key, value in machine.items() if value is not None))
    if isinstance(checks, dict):
        lines.append(f"parity: {checks['tests']} tests, {len(checks['failed'])} failed")
        lines += [f"  {name}" for name in checks["failed"]]
    if isinstance(contest, dict):
        lines.append(table([Result.model_validate(result) for result in contest["results"]]))
    if isinstance(demo, dict):
        quality = "not measured" if demo["psnr_db"] is None else f"{demo['psnr_db']:.2f} dB"
        lines.append(f"demo scene: backend {demo['backend']}, {demo['num_gaussians']:,} Gaussians, PSNR {quality}")
        lines += [f"  {text}" for text in (*demo["decisions"], *demo["degradations"])]
    ends = report["parts"]
    assert isinstance(ends, dict)
    lines += [f"{name}: {end['seconds']} s, status {end['status']}" for name, end in ends.items() if end is not None]
    lines += [f"NOT DONE: {name}" for name in not_done(report)]
    return "\n".join(lines) + "\n"


def not_done(report: dict[str, object]) -> list[str]:
    """Parts that are missing or failed, and trainings for which no time was left."""
    ends, contest = report["parts"], report["side_by_side"]
    assert isinstance(ends, dict)
    missing = [name for name in PARTS if report[name] is None or ends[name] is None or ends[name]["status"] != 0]
    if isinstance(contest, dict):
        results = [Result.model_validate(result) for result in contest["results"]]
        missing += [f"{result.name} at {result.steps:,} steps" for result in results if not result.begun]
    return missing


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="run.sh's --out; receives report.json and report.txt")
    parser.add_argument("--work", type=Path, required=True, help="run.sh's --work")
    arguments = parser.parse_args(argv)
    report = gathered(arguments.out, arguments.work)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    text = as_text(report)
    (arguments.out / "report.txt").write_text(text, encoding="utf-8")
    print(text)
    sys.exit(1 if not_done(report) else 0)


if __name__ == "__main__":
    main()
