"""Checks of a published result, each with the fix."""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from deployments.findings import Finding
from deployments.validation.ways import Published, fetch
from tasks.core.errors import SpaceportError
from tasks.core.measurements import Report
from tasks.core.sog.reader import read_sog

# dB on held-out views. The capture of `spaceport validate` reaches 20 and more; a splat that ignores photos, below 15.
PSNR_FLOOR_DB = 18.0
REGISTERED_SHARE = 0.9
RUN_AGAIN = (
    "Run `spaceport validate --keep` and look at the run's logs (`spaceport logs`, or the log group in CloudWatch)."
)
LINKS_FIX = (
    "Links of S3 are signed with the publisher's credentials and end with them: look at the run's role, or at the "
    "public address of results."
)
RELATIVE_LINK = re.compile(r'<a[^>]*\shref="([^"#:?]+)"')

Says = tuple[bool, str]


def check_result(published: Published, photos: int) -> Iterator[Finding]:
    """Check everything that a run over so many photos publishes."""
    page = _Page(published)
    yield _ask("page", lambda: page.opens(published.page, "the page"), LINKS_FIX)
    yield _ask("page's links", page.links, RUN_AGAIN)
    yield _ask("report page", lambda: page.opens(published.report, "the report"), LINKS_FIX)
    try:
        report = Report.model_validate_json(published.place.read("report.json"))
    except (SpaceportError, ValidationError) as error:
        yield Finding("report.json", False, _first_line(error), RUN_AGAIN)
        return
    yield _ask("stages", lambda: _stages(report), RUN_AGAIN)
    yield _ask("photos", lambda: _photos(report, photos), "Photos were lost on their way: compare upload and stage.")
    yield _ask("quality", lambda: _quality(report), RUN_AGAIN)
    yield _ask("splat", lambda: _splat(published, report), RUN_AGAIN)
    yield _ask("page's bytes", lambda: page.holds_splat(report), RUN_AGAIN)


class _Page:
    """The viewer page, fetched once."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._content = b""

    def opens(self, link: str, what: str) -> Says:
        found = fetch(link)
        if link == self._published.page:
            self._content = found.content
        if found.kind not in ("", "text/html"):
            return False, f"{what} is sent as {found.kind}, which a browser does not open"
        if b"<html" not in found.content[:2000].lower():
            return False, f"{what} is no HTML: {len(found.content):,} bytes"
        return True, f"{len(found.content) / 1e6:.1f} MB of HTML"

    def links(self) -> Says:
        names = sorted(set(RELATIVE_LINK.findall(self._content.decode(errors="replace"))))
        if not names:
            return False, "there are none: not our page"
        sizes = [f"{name} {len(self._published.place.read(name)):,} B" for name in names]
        return True, ", ".join(sizes)

    def holds_splat(self, report: Report) -> Says:
        needed = report.sog.bytes * 4 // 3  # in base64
        return len(self._content) > needed, f"{len(self._content):,}, of which {needed:,} are the splat's"


def _stages(report: Report) -> Says:
    seconds = report.seconds.model_dump()
    missing = [name for name, value in seconds.items() if value is None]
    if missing:
        return False, f"not computed by this run: {', '.join(missing)}"
    if report.degradations:
        return False, "; ".join(report.degradations)
    expected = "" if report.estimate is None else f", {report.estimate.seconds.total:.0f} expected"
    return True, f"all computed, {report.seconds.total:.0f} s in all{expected}"


def _photos(report: Report, photos: int) -> Says:
    found = 0 if report.photos is None else report.photos.usable
    registered = report.sfm.registered
    return (
        found == photos and registered >= REGISTERED_SHARE * photos,
        f"{found} of {photos} arrived, {registered} registered",
    )


def _quality(report: Report) -> Says:
    psnr = report.train.psnr_db
    if psnr is None:
        return False, "PSNR was not measured"
    return psnr >= PSNR_FLOOR_DB, f"held-out PSNR {psnr:.2f} dB, the floor is {PSNR_FLOOR_DB:g}"


def _splat(published: Published, report: Report) -> Says:
    content = fetch(published.place.link("scene.sog")).content
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.sog"
        file.write_bytes(content)
        count = len(read_sog(file))
    expected = report.train.num_gaussians
    return count == expected, f"{count:,} Gaussians in {len(content) / 1e6:.1f} MB, the report says {expected:,}"


def _ask(part: str, question: Callable[[], Says], fix: str) -> Finding:
    try:
        ok, says = question()
    except SpaceportError as error:
        return Finding(part, False, str(error), fix)
    return Finding(part, ok, says, fix)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
