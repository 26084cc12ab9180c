"""Names of the real stages' outputs: all code that changes an output counts, and no other."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from tasks import compress, photos, publish, sfm, train
from tasks.core import source_digest, stage_code
from tasks.core.stage_code import WITHOUT_INFLUENCE, StageCode, installed_version
from tests.core.test_source_digest import copy_sources, forget

STAGES = {
    **{stage.name: stage.code for stage in (photos.PHOTOS, sfm.CAMERAS, sfm.SFM, train.TRAIN, compress.COMPRESS)},
    **{stage.name: stage.code for stage in (train.CELLS, train.CELL)},
    "import": sfm.IMPORT.code,
    "merge": train.MERGE.code,
}
OUTPUTS = {**STAGES, **{stage.name: stage.code for stage in (publish.PICTURES, publish.PUBLISH)}}

# Modules in the stages' rooms that compute no stage's output, each with a reason.
COMPUTE_NO_OUTPUT = {
    "tasks.core.photos.headers",  # estimates, from EXIF alone
    "tasks.core.render.warmup",  # runs kernels to have them compiled
    "tasks.core.sog.convert",  # `spaceport convert`
    "tasks.core.sog.streamed_reader",  # `spaceport convert`
    "tasks.core.training.cells.count",  # chooses between outputs
}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sources that digests are taken of."""
    copy_sources(tmp_path)
    monkeypatch.setattr(source_digest, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def versions() -> dict[str, str]:
    forget()
    return {name: StageCode(code.modules, code.libraries).version for name, code in STAGES.items()}


@pytest.mark.parametrize(
    ("file", "old", "new", "concerned"),
    [
        ("render/interface.py", "EPS2D = 0.3", "EPS2D = 0.4", {"train", "cells", "cell", "merge", "compress"}),
        ("sog/layout.py", "PALETTE_COLUMNS = 64", "PALETTE_COLUMNS = 32", {"compress"}),
        ("training/schedule.py", '"means": 6e-3', '"means": 7e-3', {"train", "cells", "cell", "merge"}),
        ("training/cells/seams.py", "import ", "import sys\nimport ", {"merge"}),
        ("training/cells/divide.py", "MARGIN = 0.2", "MARGIN = 0.3", {"cells"}),
        ("sfm/mapping.py", "import ", "import sys\nimport ", {"cameras", "sfm"}),
        ("sfm/mapping.py", "FEW_FEATURES = 100", "FEW_FEATURES = 90", {"cameras", "sfm"}),
        ("sfm/process.py", "POLL_SECONDS = 0.1", "POLL_SECONDS = 0.2", {"cameras", "sfm", "import"}),
        ("sfm/undistort.py", "import ", "import sys\nimport ", {"sfm", "import"}),
        ("sfm/undistort.py", "JPEG_QUALITY = 96", "JPEG_QUALITY = 95", {"sfm", "import"}),
        ("sfm/scene_writer.py", "GRID_ERROR_PX = 0.03", "GRID_ERROR_PX = 0.02", {"sfm", "import"}),
        ("sfm/importer.py", "import ", "import sys\nimport ", {"import"}),
        ("photos/pixels.py", "import ", "import sys\nimport ", {"photos"}),
        ("training/schedule.py", "# Training ends early when", "# Training is ended early when", set()),
        ("training/trainer.py", '"""How training is going, after each step."""', '"""How training goes."""', set()),
        ("storage/local.py", "import ", "import sys\nimport ", set()),
    ],
)
def test_a_change_concerns_the_stages_that_it_changes(
    copy: Path, file: str, old: str, new: str, concerned: set[str]
) -> None:
    before = versions()
    path = copy / "tasks" / "core" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = versions()
    assert {name for name in STAGES if before[name] != after[name]} == concerned


@pytest.mark.parametrize("stage", OUTPUTS)
def test_every_library_that_a_stage_uses_is_named(stage: str) -> None:
    code = OUTPUTS[stage]
    used = {name for name in code.imported if name not in sys.stdlib_module_names} - WITHOUT_INFLUENCE
    assert used == set(code.libraries)


def test_no_module_of_the_stages_rooms_is_forgotten() -> None:
    covered = frozenset[str]().union(*(code.covered_modules for code in OUTPUTS.values())) | COMPUTE_NO_OUTPUT
    rooms = ("photos", "sfm", "render", "training", "sog")
    files = [path for room in rooms for path in (source_digest.ROOT / "tasks" / "core" / room).rglob("*.py")]
    modules = {".".join(path.relative_to(source_digest.ROOT).with_suffix("").parts) for path in files}
    assert not {module.removesuffix(".__init__") for module in modules} - covered


def test_another_version_of_a_library_is_another_version_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    before = StageCode(("tasks.core.scene",), ("numpy",)).version
    monkeypatch.setattr(stage_code, "installed_version", lambda name: "0.0.1")
    assert StageCode(("tasks.core.scene",), ("numpy",)).version != before


def test_the_part_of_a_version_that_names_a_build_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_code, "installed_version", lambda name: "2.13.0+cpu")
    cpu = StageCode(("tasks.core.scene",), ("torch",)).version
    monkeypatch.setattr(stage_code, "installed_version", lambda name: "2.13.0+cu130")
    assert StageCode(("tasks.core.scene",), ("torch",)).version == cpu


def test_a_package_that_comes_as_one_of_several_distributions_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stage_code.DISTRIBUTIONS, "numpy", ("numpy-for-another-machine", "numpy"))
    assert installed_version("numpy") == numpy.__version__


def test_code_that_gives_the_same_has_the_name_of_the_code_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = StageCode(("tasks.core.scene",), ("numpy",)).version
    monkeypatch.setitem(stage_code.COMPATIBLE, source_digest.source_digest("tasks.core.scene"), ("1" * 64, "commit"))
    monkeypatch.setitem(stage_code.COMPATIBLE, "1" * 64, ("0" * 64, "commit"))
    then = StageCode(("tasks.core.scene",), ("numpy",))
    assert then.sources == "0" * 64
    assert then.version != now
