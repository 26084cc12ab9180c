"""The page where things are missing: code, style, WebGL, its files; and inside of another page."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.render.backends import rasterizer_for
from tasks.core.render.metrics import psnr
from tasks.core.sog.reader import read_sog
from tasks.core.sog.streamed import write_streamed
from tasks.core.sog.writer import write_sog
from tasks.core.viewer.bundle import VIEWER_FILES
from tasks.core.viewer.page import ViewerSettings, write_page
from tests.core.sog.splats import terrain
from tests.core.viewer.scenes import Z_UP, looking
from tests.core.viewer.test_page import shown, small
from tests.support.browser import Page, chromium
from tests.support.hoster import hoster

SIZE = (480, 300)
VIEW = ViewerSettings("Field", looking((4, -8, 5), (0, 0, 0.3), size=SIZE), np.array([0, 0, 0.3]), Z_UP)
PANEL = "document.querySelector('#trouble')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile"), *SIZE) as page:
        yield page


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page by itself, and one with files, each with the pictures beside it."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("single", "files"):
        (folder / name).mkdir()
        write_sog(terrain(4000, 2), folder / name / "scene.sog")
        Image.new("RGB", SIZE, (200, 200, 200)).save(folder / name / "preview.jpg")
    picture = folder / "single" / "preview.jpg"
    write_page(folder / "single" / "scene.sog", folder / "single" / "index.html", VIEW, picture, "fly-around.webp")
    write_files(folder / "files", "scene.sog", "index.html")
    return folder


def write_files(folder: Path, splat: str, page: str) -> None:
    write_page(splat, folder / page, VIEW, folder / "preview.jpg", "fly-around.webp", in_files=True)


def panel_text(browser: Page) -> str:
    """What the panel says; it is seen."""
    browser.wait_for(f"{PANEL}?.offsetHeight")
    return str(browser.evaluate(f"{PANEL}.innerText"))


def require_readable(browser: Page) -> None:
    """Light text on a dark panel, whatever picture is behind it."""
    box = browser.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({PANEL}.getBoundingClientRect())")
    x, y, width, height = (round(value) for value in box)
    assert x >= 0
    assert y >= 0
    assert x + width <= SIZE[0]
    assert y + height <= SIZE[1]
    levels = browser.screenshot()[y : y + height, x : x + width].max(axis=2)
    assert (levels < 60).mean() > 0.6
    assert 0.02 < (levels > 180).mean() < 0.3


@pytest.mark.parametrize("content", ["scene.sog", "lod/lod-meta.json"])
def test_the_page_in_files_obeys_a_strict_policy(browser: Page, results: Path, content: str) -> None:
    folder = results / "files"
    if content.startswith("lod"):
        write_streamed(read_sog(folder / "scene.sog"), folder / "lod", leaf_count=1500, coarsest_count=500)
    write_files(folder, content, "page.html")
    with hoster(folder) as url:
        picture = shown(browser, url + "page.html?noui")
        assert browser.errors == []
        assert all(request.startswith(url) for request in browser.requests)
        ours = rasterizer_for("cpu").render(read_sog(folder / "scene.sog"), VIEW.camera)
        assert psnr(small(picture), small(ours)) > 33  # as in test_page
        browser.open(url + "page.html")
        browser.wait_for("window.spaceportViewer && !location.search")
        assert browser.errors == []
        assert browser.evaluate("document.querySelector('#about').offsetHeight") < 60, "the style is missing"
        assert not browser.evaluate(f"{PANEL}.offsetHeight")


def test_the_page_in_files_contains_no_code_and_little_else(results: Path) -> None:
    page = (results / "files" / "index.html").read_text(encoding="utf-8")
    assert len(page) < 8000
    assert "<style" not in page
    assert {path.relative_to(results / "files").as_posix() for path in (results / "files" / "viewer").iterdir()} == {
        *VIEWER_FILES
    }


def test_a_page_whose_files_are_missing_says_so(browser: Page, results: Path, tmp_path: Path) -> None:
    for name in ("index.html", "preview.jpg", "viewer/early.js", "viewer/page.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((results / "files" / name).read_bytes())
    with hoster(tmp_path) as url:
        browser.open(url)
        assert "the files beside the page are missing" in panel_text(browser)
        require_readable(browser)


def test_a_page_of_files_opened_from_disk_names_a_web_server(browser: Page, results: Path) -> None:
    browser.open((results / "files" / "index.html").as_uri())
    assert "needs a web server" in panel_text(browser)


def test_under_a_strict_policy_the_single_page_is_readable_html(browser: Page, results: Path) -> None:
    with hoster(results / "single") as url:
        browser.open(url)
        assert "publish.page=files" in panel_text(browser)
        browser.wait_for(f"{PANEL}.querySelector('img').naturalWidth")
        links = browser.evaluate(f"[...{PANEL}.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
        assert links == ["preview.jpg", "fly-around.webp"]
        assert browser.evaluate("document.querySelector('#about').offsetHeight")


def test_where_only_scripts_are_refused_the_panel_is_readable(browser: Page, results: Path) -> None:
    with hoster(results / "single", "script-src 'self'") as url:
        browser.open(url)
        assert "Content-Security-Policy" in panel_text(browser)
        require_readable(browser)


def test_without_javascript_the_panel_is_readable(browser: Page, results: Path) -> None:
    browser.run_scripts(False)
    try:
        browser.open((results / "single" / "index.html").as_uri())
        assert "switched off" in panel_text(browser)
        require_readable(browser)
    finally:
        browser.run_scripts(True)


def test_without_webgl_the_panel_says_so(browser: Page, results: Path, tmp_path: Path) -> None:
    page = (results / "single" / "index.html").read_text(encoding="utf-8")
    refused = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script>"
    (tmp_path / "index.html").write_text(page.replace("<body>", "<body>" + refused), encoding="utf-8")
    browser.open((tmp_path / "index.html").as_uri())
    browser.wait_for(f"{PANEL}?.innerText.includes('WebGL 2')")
    assert "hardware acceleration" in panel_text(browser)
    require_readable(browser)


@pytest.mark.parametrize("width", [800, 400, 240])
def test_inside_another_page_title_and_brand_stay_apart(
    browser: Page, results: Path, tmp_path: Path, width: int
) -> None:
    """The viewer shows its name where the page around it is another site's; here that is done by hand."""
    page = (results / "single" / "index.html").read_text(encoding="utf-8")
    long = page.replace("<div>Field</div>", f"<div>{'A long name of a field ' * 5}</div>")
    (tmp_path / "page.html").write_text(long, encoding="utf-8")
    (tmp_path / "around.html").write_text(
        f"<body style='margin: 0'><iframe id='frame' src='page.html' width='{width}' height='300'></iframe>"
    )
    with hoster(tmp_path, "frame-ancestors 'self'") as url:
        browser.open(url + "around.html")
        inside = "document.getElementById('frame')?.contentDocument"
        browser.wait_for(f"document.getElementById('frame')?.contentWindow.spaceportViewer && {inside}.body")
        brand = f"{inside}.querySelector('.sse-viewerBranding')"
        browser.evaluate(f"{brand}.classList.remove('sse-hidden')")
        right = browser.evaluate(f"{inside}.querySelector('#about').getBoundingClientRect().right")
        left, end = browser.evaluate(f"(({{left, right}}) => [left, right])({brand}.getBoundingClientRect())")
    assert right <= left
    assert end <= width


def test_a_wish_for_little_motion_is_respected(browser: Page, results: Path) -> None:
    browser.resize(*SIZE, still=True)
    try:
        browser.open((results / "single" / "index.html").as_uri())
        browser.wait_for("window.spaceportViewer")
        assert browser.evaluate("getComputedStyle(document.querySelector('#poster')).transitionDuration") == "0s"
    finally:
        browser.resize(*SIZE)
