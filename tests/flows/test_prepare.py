"""The parts that set-up prepares, and where they are kept."""

import pytest

from flows.cli import prepare
from tasks.core.errors import OptionsError


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were prepared, without the minutes that it takes."""
    parts: list[str] = []
    for name in prepare.PARTS:
        monkeypatch.setitem(prepare.PARTS, name, lambda name=name: parts.append(name))
    return parts


def test_everything_unless_parts_are_named(done: list[str]) -> None:
    prepare.prepare()
    assert done == ["kernels", "database"]
    prepare.prepare(["kernels"])
    assert done[2:] == ["kernels"]


def test_kernels_need_nothing_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make test` prepares: neither settings are read nor Prefect's folder is made."""
    monkeypatch.setattr(prepare, "configure_prefect", lambda settings: pytest.fail("the user's state is touched"))
    prepared: list[str] = []
    monkeypatch.setattr("tasks.core.kernel_cache.ensure_compiled", lambda warm_up, *_: prepared.append(warm_up))
    for room in ("demo.flight", "sog"):
        monkeypatch.setattr(f"tasks.core.{room}.compile_kernels", lambda *_, room=room: prepared.append(room))
    prepare.prepare(["kernels"])
    assert sorted(prepared) == ["demo.flight", "sog", "tasks.core.render.warmup"]


def test_an_unknown_part_is_named(done: list[str]) -> None:
    with pytest.raises(OptionsError, match="called databse to prepare; name kernels or database"):
        prepare.prepare(["databse"])
    assert done == []
