"""Plain English in the first line of every module: a verb or a noun opens it, not a question."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
QUESTION = re.compile(r"(What|How|Which|Where|Whether|Who|Whoever)\b")


def questions(*tops: str) -> list[str]:
    """Modules whose docstring opens with a question word, as `path: first line`."""
    found = []
    for path in sorted(path for top in tops for path in (REPOSITORY / top).rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if QUESTION.match(text):
            found.append(f"{path.relative_to(REPOSITORY)}: {text.splitlines()[0]}")
    return found


@pytest.mark.parametrize(("tops", "most"), [(("flows", "tasks", "deployments"), 5), (("tests",), 0)])
def test_modules_open_with_a_verb_or_a_noun(tops: tuple[str, ...], most: int) -> None:
    found = questions(*tops)
    assert len(found) <= most, "\n".join(found)
