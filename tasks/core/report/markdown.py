"""A run in one screen of Markdown: its result, where it is, and what it took; or why it failed.

Text and addresses that others chose, such as names of photos, are escaped: Prefect shows summaries and descriptions of
artifacts as Markdown, with links and pictures that work.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from tasks.core.errors import InputError, SpaceportError
from tasks.core.safe_names import printable

LONGEST_TEXT = 2_000  # characters of one text on a page
_INLINE = re.compile(r"[\\`*_\[\]<>&!|~$#^]")
_AT_START = re.compile(r"[-+=]|[0-9]+[.)]")
# Some renderers make links of what looks like an address even where it is escaped, so a space without width parts it.
_ADDRESS = re.compile(r"(?:(?<=http:)|(?<=https:)|(?<=ftp:))(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_KEPT_IN_URL = "%:/?#[]@!$&'*+,;=~"  # as RFC 3986 has them, without the brackets that end a link


def plain_markdown(text: str) -> str:
    """The text as one line that shows as it is: no links, pictures, headings or marks; cut where it is very long."""
    shown = _INLINE.sub(r"\\\g<0>", _ADDRESS.sub("\u200b", printable(_cut(text).strip())))
    start = _AT_START.match(shown)
    return f"{shown[: start.end() - 1]}\\{shown[start.end() - 1 :]}" if start else shown


def quoted_markdown(text: str) -> str:
    """The text as a block quote, line for line."""
    return "\n>\n".join(f"> {plain_markdown(line)}" for line in _cut(text).split("\n") if line.strip())


def code_markdown(text: str) -> str:
    """The text as code within a line, where marks mean nothing."""
    shown = printable(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def link_markdown(text: str, url: str) -> str:
    """A link whose address ends where it is meant to."""
    return f"[{plain_markdown(text)}]({quote(url, safe=_KEPT_IN_URL)})"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


@dataclass(frozen=True)
class StageLine:
    """One row of the table. None is what was not measured, or what a stage from the workspace did not cost."""

    stage: str
    seconds: float | None
    cost_usd: float | None
    peak_memory_bytes: int | None
    where: str  # "in this process", "pool gpu", "from the workspace"
    expected_seconds: float | None = None  # before the run


@dataclass(frozen=True)
class RunSummary:
    """The content of a finished run's page. The URLs are None where nothing serves the place to a browser."""

    capture: str
    registered: int
    usable: int | None  # None for a user's own COLMAP model
    psnr_db: float | None
    ssim: float | None
    gmsd: float | None
    detail: float | None
    num_gaussians: int
    sog_bytes: int
    total_seconds: float
    stages: tuple[StageLine, ...]
    degradations: tuple[str, ...]
    place: str  # where the files are
    page_url: str | None
    report_url: str | None
    preview_url: str | None
    log_urls: tuple[tuple[str, str], ...]  # (stage, URL)
    expected_seconds: float | None = None  # of the whole run with nothing in the workspace, before it began


def summary_markdown(run: RunSummary) -> str:
    """The page of a run that ended well."""
    links = [("Open the splat", run.page_url), ("Report", run.report_url)]
    shown = [link_markdown(text, url) for text, url in links if url is not None]
    parts = [
        f"# {plain_markdown(run.capture)}",
        f"**{run_facts(run)}**",
        " · ".join([*shown, f"files in {code_markdown(run.place)}"]),
    ]
    if run.preview_url is not None:
        parts.append("!" + link_markdown("The splat from its first view", run.preview_url))
    if run.degradations:
        parts.append(
            "**Done worse than asked for**\n\n" + "\n".join(f"- {plain_markdown(text)}" for text in run.degradations)
        )
    parts.append(_table(run))
    if run.log_urls:
        parts.append(_logs(run.log_urls))
    if run.page_url is None and run.preview_url is None:
        parts.append(
            "No pictures and links here, because no web server shows the place of the files to a browser: "
            "`spaceport up` starts one, or set SPACEPORT_PAGES_URL to the address of yours."
        )
    return "\n\n".join(parts) + "\n"


def failure_markdown(
    capture: str, stage: str | None, error: BaseException, log_urls: tuple[tuple[str, str], ...]
) -> str:
    """The page of a run that failed: what, why, and what to do."""
    title = f"# {plain_markdown(capture)}: failed" + (f" in {stage}" if stage else "")
    reason = str(error) or type(error).__name__
    parts = [
        title,
        quoted_markdown(reason if isinstance(error, SpaceportError) else f"{type(error).__name__}: {reason}"),
    ]
    parts.append(f"**What to do.** {_advice(error)}")
    if log_urls:
        parts.append(_logs(log_urls))
    return "\n\n".join(parts) + "\n"


def ended_markdown(capture: str, how: str, reason: str) -> str:
    """The page of a run that was ended from outside: how ("cancelled", "crashed"), why, and how to go on."""
    parts = [f"# {plain_markdown(capture)}: {how}"]
    if reason:
        parts.append(quoted_markdown(reason))
    parts.append(
        "**What to do.** Start the same run again to continue. Stages that ended well are not computed again, and "
        "training resumes from its last checkpoint."
    )
    return "\n\n".join(parts) + "\n"


def _advice(error: BaseException) -> str:
    kept = "Stages that ended well are not computed again."
    if isinstance(error, InputError):
        return f"Change what the sentence above names, and start the run again. {kept}"
    if isinstance(error, SpaceportError) and error.retryable:
        return f"This was tried several times and can pass: start the run again, a while later. {kept}"
    if isinstance(error, SpaceportError):
        return f"Follow the sentence above, and start the run again. {kept}"
    return f"This error is a fault of the program; the stage's log has its traceback. {kept}"


def run_facts(run: RunSummary) -> str:
    """The run in one line."""
    registered = f"{run.registered:,} photos" if run.usable is None else f"{run.registered:,} of {run.usable:,} photos"
    quality = "quality not measured" if run.psnr_db is None else f"held-out PSNR {run.psnr_db:.2f} dB"
    facts = [f"{registered} registered", quality]
    if run.ssim is not None:
        facts.append(f"SSIM {run.ssim:.3f}")
    if run.gmsd is not None:
        facts.append(f"GMSD {run.gmsd:.3f}")
    if run.detail is not None:
        facts.append(f"{run.detail:.0%} of the photos' detail")
    facts += [f"{run.num_gaussians:,} Gaussians", f"{run.sog_bytes / 1e6:.1f} MB", _duration(run.total_seconds)]
    return " · ".join(facts)


def _table(run: RunSummary) -> str:
    lines = ["| stage | expected | took | cost | peak memory | where |", "| --- | --- | --- | --- | --- | --- |"]
    for line in run.stages:
        seconds = "–" if line.seconds is None else _duration(line.seconds)
        memory = "–" if line.peak_memory_bytes is None else f"{line.peak_memory_bytes / 1e9:.2f} GB"
        expected = _expected(line.expected_seconds)
        where = plain_markdown(line.where)
        lines.append(f"| {line.stage} | {expected} | {seconds} | {_dollars(line.cost_usd)} | {memory} | {where} |")
    costs = [line.cost_usd for line in run.stages if line.cost_usd is not None]
    memories = [line.peak_memory_bytes for line in run.stages if line.peak_memory_bytes is not None]
    memory = f"{max(memories) / 1e9:.2f} GB" if memories else "–"
    total = _dollars(sum(costs) if costs else None)
    expected = _expected(run.expected_seconds)
    lines.append(f"| **whole run** | {expected} | {_duration(run.total_seconds)} | {total} | {memory} | |")
    return "\n".join(lines)


def _logs(log_urls: tuple[tuple[str, str], ...]) -> str:
    return "Full logs: " + " · ".join(link_markdown(stage, url) for stage, url in log_urls)


def _dollars(value: float | None) -> str:
    return "–" if value is None else f"${value:.4f}"


def _expected(seconds: float | None) -> str:
    return "–" if seconds is None else f"about {_duration(seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
