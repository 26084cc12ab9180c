"""The report with its style and pictures as files: the same to the eye, under a policy that forbids both inside."""

from pathlib import Path

import numpy as np

from tasks.core.report.html import write_report
from tasks.core.report.in_files import take_apart
from tests.core.report.reports import full_report, pictured_scene, save_renders
from tests.support.browser import chromium
from tests.support.hoster import hoster

DECODED = (
    "document.readyState === 'complete' && Promise.all([...document.images].map((image) => "
    "{ image.loading = 'eager'; return image.decode(); })).then((all) => all.length > 0)"
)


def test_a_report_in_files_looks_the_same_under_a_strict_policy(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene")
    held_out = tuple(camera.name for camera in scene.split()[1])
    renders = save_renders(scene, held_out, tmp_path / "held_out")
    for name in ("single", "files"):
        (tmp_path / name).mkdir()
        write_report(full_report(scene, held_out), scene, renders, tmp_path / name / "report.html")
    take_apart(tmp_path / "files" / "report.html", tmp_path / "files" / "viewer")
    page = (tmp_path / "files" / "report.html").read_text(encoding="utf-8")
    assert [part for part in ("<style", "<script", ' style="', "data:") if part in page] == []
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile", 900, 600) as browser, hoster(tmp_path / "files") as url:
        browser.open(url + "report.html")
        browser.wait_for(DECODED)
        in_files = browser.screenshot(full=True)
        assert browser.errors == []
        browser.open((tmp_path / "single" / "report.html").as_uri())
        browser.wait_for(DECODED)
        single = browser.screenshot(full=True)
    assert in_files.shape == single.shape
    assert (np.abs(in_files.astype(int) - single).max(axis=2) > 8).mean() < 1e-4  # edges of scaled pictures
