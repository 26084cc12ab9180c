"""Free memory within a container."""

from pathlib import Path

import psutil
import pytest

from tasks.core import machine_memory
from tasks.core.machine_memory import available_memory_bytes, oom_kills, total_memory_bytes


def container(folder: Path, limit: str, used: int, files: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nfile 7\ninactive_file {files // 2}\nactive_file {files // 2}\n")
    return folder


def test_copies_of_files_in_memory_are_no_memory_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "CONTAINER", container(tmp_path, "10000", used=9000, files=6000))
    assert available_memory_bytes() == 7000
    assert total_memory_bytes() == 10_000


def test_without_a_limit_it_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "CONTAINER", container(tmp_path, "max", used=9000, files=6000))
    assert 10_000 < available_memory_bytes() <= psutil.virtual_memory().total == total_memory_bytes()


def test_kills_for_want_of_memory_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "KERNEL_COUNTS", tmp_path / "vmstat")
    assert oom_kills() is None, "another system"
    (tmp_path / "vmstat").write_text("pgfault 7\n")
    assert oom_kills() is None, "a kernel that does not count them"
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    assert oom_kills() == 3
