"""Figures of the GPU's driver, with a driver of the test's own."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from tasks.core import usage
from tasks.core.training.trainer import TrainingStats
from tasks.reporting.training_board import row_of

UUID = "11111111-2222-3333-4444-555555555555"
STATS = TrainingStats(10, 100, 0.1, 5000, 2.0, None, None, 18.0)


class Driver:
    """Takes the place of `pynvml`."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, installed: bool = True, temperature: int | None = 61) -> None:
        self.installed = installed
        self.temperature = temperature

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.installed:
            raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == f"GPU-{UUID}"
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=3_500_000_000)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        if self.temperature is None:
            raise self.NVMLError
        return self.temperature


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    usage._nvml.cache_clear()
    yield
    usage._nvml.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, answer in {
        "is_available": True,
        "is_initialized": True,
        "memory_allocated": 2_000_000_000,
        "current_device": 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=UUID))
    return monkeypatch


def with_driver(patch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    patch.setitem(sys.modules, "pynvml", driver)  # None: the import fails


def test_a_row_of_the_board_on_a_gpu(gpu: pytest.MonkeyPatch) -> None:
    with_driver(gpu, Driver())
    row = row_of(STATS, 5.0, usage.gpu_usage())
    assert row["GPU memory (GB)"] == 2.0
    assert row["GPU memory of all (GB)"] == 3.5
    assert row["GPU (%)"] == 97
    assert row["GPU (°C)"] == 61


@pytest.mark.parametrize("driver", [Driver(installed=False), None], ids=["no driver", "no package"])
def test_without_a_driver_torch_still_says_what_it_holds(gpu: pytest.MonkeyPatch, driver: Driver | None) -> None:
    with_driver(gpu, driver)
    assert usage.gpu_usage() == usage.GpuUsage(2_000_000_000, None, None, None)


def test_what_a_card_does_not_say_is_none(gpu: pytest.MonkeyPatch) -> None:
    with_driver(gpu, Driver(temperature=None))
    assert usage.gpu_usage() == usage.GpuUsage(2_000_000_000, 3_500_000_000, 97, None)


def test_without_a_gpu_a_row_has_no_word_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not [name for name in row_of(STATS, 5.0, usage.gpu_usage()) if name.startswith("GPU")]
