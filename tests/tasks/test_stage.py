"""The frame of all stage tasks: a stage is computed once for the same input, options and version."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.core.errors import PhotosError, StorageError
from tasks.core.refs import Ref, RunContext
from tasks.core.stage_code import StageCode
from tasks.core.storage import verify_output
from tasks.running.gpu import Computing
from tasks.running.stage import Stage, open_output, run_stage

CODE = StageCode(("tasks.core.scene",), ("numpy",))
OTHER_CODE = StageCode(("tasks.core.ply",), ("numpy",))


class Measured(BaseModel):
    value: int


TRAIN = Stage("train", CODE, Measured)


class Counted:
    """A stage that counts how often it is computed."""

    def __init__(self, workspace: Path) -> None:
        self.context, self.computed = RunContext(workspace=str(workspace), run="test"), 0

    def compute(self, folder: Path) -> Measured:
        self.computed += 1
        (folder / "result").write_text("result")
        return Measured(value=self.computed)

    def run(
        self,
        *,
        digest: str = "a",
        steps: int = 1,
        code: StageCode = CODE,
        backend: Computing | None = None,
        fresh: bool = False,
    ) -> Ref:
        return run_stage(
            Stage("train", code, Measured),
            self.context.model_copy(update={"fresh": fresh}),
            inputs=[digest],
            options={"steps": steps},
            compute=self.compute,
            backend=backend,
        )


def test_the_same_is_computed_once(tmp_path: Path) -> None:
    stage = Counted(tmp_path)
    first, second = stage.run(), stage.run()
    assert stage.computed == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.digest == second.digest
    assert first.seconds is not None
    assert second.seconds is None
    assert TRAIN.measured(second, stage.context).value == 1


@pytest.mark.parametrize("change", [{"digest": "b"}, {"steps": 2}, {"code": OTHER_CODE}, {"backend": "cuda"}])
def test_another_input_option_code_or_backend_is_computed(tmp_path: Path, change: dict[str, Any]) -> None:
    stage = Counted(tmp_path)
    stage.run()
    assert not stage.run(**change).cached
    assert stage.computed == 2


def test_fresh_computes_anew(tmp_path: Path) -> None:
    stage = Counted(tmp_path)
    stage.run()
    again = stage.run(fresh=True)
    assert not again.cached
    assert stage.computed == 2
    assert TRAIN.measured(again, stage.context).value == 2, "the new output took the old one's place"
    assert open_output(again, stage.context) == Path(again.uri)


def test_a_damaged_output_is_computed_anew(tmp_path: Path) -> None:
    stage = Counted(tmp_path)
    output = stage.run()
    (Path(output.uri) / "result").write_text("RESULT")
    with pytest.raises(StorageError, match="missing or altered"):
        open_output(output, stage.context)
    assert not stage.run().cached
    assert open_output(output, stage.context) == Path(output.uri)


def test_a_failed_stage_stores_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> Measured:
        (folder / "half").write_text("half")
        raise PhotosError("no")

    stage = Counted(tmp_path)
    kept = stage.run()
    with pytest.raises(PhotosError):
        run_stage(TRAIN, stage.context, inputs=["x"], compute=fail)
    assert [entry.name for entry in (tmp_path / "stages" / "train").iterdir()] == [Path(kept.uri).name]


def test_a_stage_is_not_charged_with_the_memory_of_those_before_it(tmp_path: Path) -> None:
    def hungry(folder: Path) -> Measured:
        (folder / "result").write_bytes(bytes(bytearray(b"x") * (300 * 2**20))[:1])
        return Measured(value=1)

    stage = Counted(tmp_path)
    before = run_stage(Stage("sfm", CODE, Measured), stage.context, inputs=["x"], compute=hungry).peak_memory_bytes
    after = stage.run().peak_memory_bytes
    assert before is not None
    assert after is not None
    assert before - after > 250 * 2**20


def test_the_manifest_says_what_made_the_output(tmp_path: Path) -> None:
    output = Counted(tmp_path).run(backend="cpu")
    manifest = verify_output(Path(output.uri))
    assert manifest.code_version.endswith(f"/{CODE.sources[:16]}")
    assert manifest.library_versions == CODE.library_versions
    assert manifest.backend == "cpu"
    assert output.code_version == manifest.code_version


@pytest.mark.parametrize("computed_by", ["cpu", "cuda"])
def test_what_another_machine_computed_is_found_whichever_backend_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed_by: Computing
) -> None:
    stage = Counted(tmp_path)
    elsewhere = stage.context.model_copy(update={"dispatched": True})

    def run_elsewhere(name: str, context: RunContext, changed: object) -> None:
        run_stage(TRAIN, elsewhere, inputs=["a"], compute=stage.compute, backend=computed_by)

    monkeypatch.setattr("tasks.running.stage.run_elsewhere", run_elsewhere)
    monkeypatch.setenv("SPACEPORT_DISPATCH", "train")
    asked = {"inputs": ["a"], "options": {}, "compute": stage.compute, "backend": "cpu"}
    output = run_stage(TRAIN, stage.context, **asked)
    assert verify_output(Path(output.uri)).backend == computed_by
    assert not output.cached
    assert stage.computed == 1


def test_an_output_of_another_run_is_not_taken_for_what_this_one_had_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Counted(tmp_path)
    stage.context = stage.context.model_copy(update={"run": "earlier"})
    stage.run(backend="cuda")
    monkeypatch.setattr("tasks.running.stage.run_elsewhere", lambda name, context, changed: None)
    monkeypatch.setenv("SPACEPORT_DISPATCH", "train")
    with pytest.raises(StorageError, match="another workspace"):
        run_stage(
            TRAIN,
            stage.context.model_copy(update={"run": "later"}),
            inputs=["a"],
            options={"steps": 1},
            compute=stage.compute,
            backend="cpu",
        )
