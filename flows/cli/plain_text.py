"""Text that others chose, such as paths and names of photos, on a rich console."""

from rich.markup import escape

from tasks.core.safe_names import printable_lines


def plain(text: object) -> str:
    """The text as it is where rich reads markup, without control characters but line ends and tabs."""
    return escape(printable_lines(str(text)))
