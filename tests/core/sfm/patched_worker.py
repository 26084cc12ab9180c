"""A worker whose pycolmap does what a test wants: it imports a sitecustomize module before anything else."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest


def patch_worker(
    folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, modules: Sequence[str] = ("pipeline", "match_part")
) -> None:
    """Until the test ends, let `code` run first in every process `python -m tasks.core.sfm.<module>`."""
    names = {f"tasks.core.sfm.{module}" for module in modules}
    program = f"import sys\nif not {names!r}.isdisjoint(sys.orig_argv):\n    import pycolmap\n"
    (folder / "sitecustomize.py").write_text(program + textwrap.indent(code, "    "))
    monkeypatch.setenv("PYTHONPATH", str(folder))
