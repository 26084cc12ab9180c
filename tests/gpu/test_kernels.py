"""Kernels compiled on one machine for another, as far as that needs no compiler."""

import json
from pathlib import Path

import pytest
import torch

from tests.gpu import kernels


def test_rasterizers_keep_the_channels_of_photos_and_lose_the_rest() -> None:
    csrc = kernels.gsplat_folder() / "cuda" / "csrc"
    found = {}
    for source in [*csrc.glob("*.cu"), *csrc.glob("*.cpp")]:
        text = source.read_text(encoding="utf-8")
        found[source.name] = [
            [int(instance) for instance in kernels.INSTANCE.findall(version)]
            for version in (text, kernels.with_few_channels(text))
        ]
        assert kernels.INSTANCE.sub("", text) == kernels.INSTANCE.sub("", kernels.with_few_channels(text))
    rasterizers = {name: both for name, both in found.items() if both[0]}
    assert len(rasterizers) == 7
    for name, (before, after) in rasterizers.items():
        assert max(before) == 513, name
        assert sorted(set(after)) == [1, 2, 3, 4], name
        assert len(after) * 19 == len(before) * 4, name


def test_a_library_for_another_torch_or_gpu_is_refused_with_both_versions(tmp_path: Path) -> None:
    made = kernels.described("9.0")
    assert made["gsplat"] == "1.5.3"
    (tmp_path / kernels.DESCRIPTION_FILE).write_text(json.dumps(made), encoding="utf-8")
    assert kernels.misfit(tmp_path, "9.0") is None
    assert kernels.misfit(tmp_path, None) is None  # a rehearsal without a GPU
    other = kernels.misfit(tmp_path, "7.5")
    assert other is not None
    assert "architecture 9.0, here 7.5" in other
    (tmp_path / kernels.DESCRIPTION_FILE).write_text(json.dumps({**made, "torch": "2.1.0"}), encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"torch 2\.1\.0, here {torch.__version__.replace('+', '.')}"):
        kernels.main(["bind", str(tmp_path)])


def test_a_build_has_to_be_told_the_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        kernels.main(["build", str(tmp_path)])
    assert exit_.value.code == 2
    assert "--arch" in capsys.readouterr().err
