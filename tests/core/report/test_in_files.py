"""The report with its style and pictures as files: the same to the eye, under a policy that forbids both inside."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.report.html import write_report
from tasks.core.report.in_files import take_apart
from tests.core.report.reports import full_report, pictured_scene, save_renders
from tests.support.browser import Page, chromium
from tests.support.hoster import hoster


def whole_picture(browser: Page, url: str) -> NDArray[np.uint8]:
    """The full page once all its pictures are drawn."""
    browser.open(url)
    browser.wait_for(f"location.href === '{url}' && document.readyState === 'complete'")
    decoded = "[...document.images].map((image) => { image.loading = 'eager'; return image.decode(); })"
    laid_out = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    assert browser.evaluate(f"Promise.all({decoded}).then(() => {laid_out})")
    return browser.screenshot(full=True)


def test_a_report_in_files_looks_the_same_under_a_strict_policy(tmp_path: Path) -> None:
    scene = pictured_scene(tmp_path / "scene")
    held_out = tuple(camera.name for camera in scene.cameras[::8])
    renders = save_renders(scene, held_out, tmp_path / "held_out")
    for name in ("single", "files"):
        (tmp_path / name).mkdir()
        write_report(full_report(scene, held_out), scene, renders, tmp_path / name / "report.html")
    take_apart(tmp_path / "files" / "report.html", tmp_path / "files" / "viewer")
    page = (tmp_path / "files" / "report.html").read_text(encoding="utf-8")
    assert [part for part in ("<style", "<script", ' style="', "data:") if part in page] == []
    (tmp_path / "profile").mkdir()
    with chromium(tmp_path / "profile", 900, 600) as browser, hoster(tmp_path / "files") as url:
        in_files = whole_picture(browser, url + "report.html")
        assert browser.errors == []
        single = whole_picture(browser, (tmp_path / "single" / "report.html").as_uri())
    assert in_files.shape == single.shape
    assert (np.abs(in_files.astype(int) - single).max(axis=2) > 8).mean() < 1e-4  # edges of scaled pictures
