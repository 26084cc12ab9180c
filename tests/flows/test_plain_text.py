"""Text that others chose is printed as it is: no markup, no control characters, no emoji."""

import ast
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli import app as cli
from flows.cli.terminal import plain
from tasks.core.errors import PhotosError

FLOWS = sorted((Path(__file__).parents[2] / "flows").rglob("*.py"))
OWN_MARKUP = ("mark", "level")  # variables that hold nothing but our own
NUMERIC = ("d", "f", "g", "%", ",")


@pytest.mark.parametrize("path", ["flight [/old]", "site [drone] 1", "[/]", "a\\", "x[bold]y[/bold]", ":car:"])
def test_an_error_is_printed_with_its_names_as_they_are(
    path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise PhotosError(f"{path} does not exist.")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["spaceport"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"error {path} does not exist." in capfd.readouterr().err


def test_control_characters_do_not_reach_the_terminal() -> None:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=200).print(plain("a\x1b[2J\x07\rb\nc"), highlight=False)
    assert stream.getvalue() == "a\\x1b[2J\\x07\\rb\nc\n"


def told(call: ast.Call) -> bool:
    """Whether a call prints on a rich console, or updates its status."""
    if not isinstance(call.func, ast.Attribute) or not isinstance(call.func.value, ast.Name):
        return False
    return (call.func.value.id, call.func.attr) in {
        ("console", "print"),
        ("errors", "print"),
        ("status", "update"),
    }


def is_plain(node: ast.expr) -> bool:
    """Whether nothing in the text can be read as markup but what the code itself says."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.IfExp):
        return is_plain(node.body) and is_plain(node.orelse)
    if isinstance(node, ast.JoinedStr):
        return all(is_plain(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        spec = [part.value for part in ast.walk(node.format_spec or node) if isinstance(part, ast.Constant)]
        return (bool(node.format_spec) and str(spec[-1]).endswith(NUMERIC)) or is_plain(node.value)
    if isinstance(node, ast.Name):
        return node.id in OWN_MARKUP
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        safe = {"plain", "Text", "len"}
        return node.func.id in safe or (node.func.id == "Padding" and is_plain(node.args[0]))
    if isinstance(node, ast.Subscript):  # the beginning of a run's id
        return ast.unparse(node).endswith(".id)[:8]")
    return False


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_every_text_on_a_rich_console_is_plain_where_it_is_not_our_own(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and told(node) and node.args:
            assert is_plain(node.args[0]), f"{path.name}:{node.lineno}: {ast.unparse(node.args[0])} needs plain(…)"
