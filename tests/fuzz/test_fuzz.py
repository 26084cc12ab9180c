"""The suite's rounds of every target, each in a process of its own, which may crash, hang or grow."""

import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.fuzz.rounds import FaultError, for_rounds, play, targets


@pytest.mark.parametrize("target", targets())
def test_no_round_is_at_fault(target: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_a_fault_names_its_round_which_can_be_played_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    chances: list[float] = []

    def third_fails(chance: random.Random, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        chances.append(chance.random())
        if len(chances) in (3, 4):
            raise ValueError("a fault")

    broken = ModuleType("broken")
    monkeypatch.setattr(broken, "ROUND", third_fails, raising=False)
    monkeypatch.setitem(sys.modules, "tests.fuzz.broken", broken)
    with pytest.raises(FaultError, match=r"ValueError: a fault; again with: .* broken --seed 5 --first 2 --rounds 1"):
        play("broken", 5, 0, for_rounds(9))
    with pytest.raises(FaultError):
        play("broken", 5, 2, for_rounds(1))
    assert chances[2] == chances[3]
    assert len(set(chances)) == 3
