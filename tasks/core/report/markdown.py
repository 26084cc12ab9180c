"""Text and addresses that others chose, such as names of photos, on a page that is written in Markdown.

Prefect shows summaries and descriptions of artifacts as Markdown, with links and pictures that work.
"""

import re
from urllib.parse import quote

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
