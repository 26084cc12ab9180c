"""A worker whose pycolmap does what a test wants: it imports a sitecustomize module before anything else."""

import textwrap
from pathlib import Path

import pytest


def patch_worker(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, module: str = "worker") -> None:
    """Until the test ends, let `code` run first in every process `python -m tasks.core.sfm.<module>`."""
    program = f"import sys\nif 'tasks.core.sfm.{module}' in sys.orig_argv:\n    import pycolmap\n"
    (folder / "sitecustomize.py").write_text(program + textwrap.indent(code, "    "))
    monkeypatch.setenv("PYTHONPATH", str(folder))
