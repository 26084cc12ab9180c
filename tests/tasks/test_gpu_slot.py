"""One training at a time on a GPU, wherever the runs were started."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.concurrency import sync as prefect_concurrency
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

from tasks.running import gpu as module
from tasks.running.gpu import GPU_LIMIT, gpu_slot
from tests.support.patience import eventually


def on_the_server(call: str, *arguments: Any) -> Any:
    async def ask() -> Any:
        async with get_client() as client:
            return await getattr(client, call)(*arguments)

    return asyncio.run(ask())


def slots_taken() -> int:
    return int(on_the_server("read_global_concurrency_limit_by_name", GPU_LIMIT).active_slots)


@pytest.fixture
def limit(prefect_server: None) -> Iterator[None]:
    on_the_server("upsert_global_concurrency_limit_by_name", GPU_LIMIT, 1)
    yield
    on_the_server("delete_global_concurrency_limit_by_name", GPU_LIMIT)


@pytest.mark.usefixtures("limit")
def test_a_slot_is_held_for_the_block_and_returned_after_an_error() -> None:
    with gpu_slot("cuda"):
        assert slots_taken() == 1
    assert slots_taken() == 0
    with pytest.raises(ZeroDivisionError), gpu_slot("cuda"):
        raise ZeroDivisionError
    assert slots_taken() == 0


@pytest.mark.usefixtures("limit")
def test_a_second_training_waits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def second() -> None:
        with gpu_slot("cuda", poll_seconds=0.1):
            order.append("second")

    with caplog.at_level(logging.INFO), gpu_slot("cuda"):
        thread = threading.Thread(target=second)
        thread.start()
        eventually(lambda: "Waiting for the GPU" in caplog.text, "the line in the log")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.text.count("Waiting for the GPU") == 1
    assert slots_taken() == 0


@pytest.mark.usefixtures("limit")
def test_the_processor_needs_no_slot() -> None:
    with gpu_slot("cuda"), gpu_slot("cpu"):
        assert slots_taken() == 1


@pytest.mark.usefixtures("prefect_server")
def test_nothing_happens_on_a_server_without_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def training() -> str:
        with gpu_slot("cuda"):
            return "trained"

    assert training() == "trained"
    assert "do not exist" not in caplog.text, "Prefect's own warning"


@pytest.mark.usefixtures("limit")
def test_a_server_that_fails_keeps_no_run_from_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unable(*_: object, **__: object) -> None:
        raise ConcurrencySlotAcquisitionError("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(module, "concurrency", unable)
        with gpu_slot("cuda"):
            assert slots_taken() == 0
    assert "Training without a GPU slot" in caplog.text

    assert module.concurrency is prefect_concurrency.concurrency
    started = time.monotonic()
    with monkeypatch.context() as patch, gpu_slot("cuda"):
        patch.setattr("prefect.concurrency._sync.release_concurrency_slots_with_lease", unable)
    assert "could not be returned" in caplog.text
    assert time.monotonic() - started < 60
