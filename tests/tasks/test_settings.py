"""Variables of the environment: what each value means, and one sentence for what means nothing."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.apply import plan_of
from deployments.settings import DeploymentSettings
from tasks.core.errors import OptionsError
from tasks.core.estimate.machine import Machine
from tasks.running import settings as module
from tasks.running.settings import (
    DEFAULT_CACHE_GB,
    ProcessSettings,
    Settings,
    read_settings_of_run,
    settings_in_use,
    use_settings,
    variable,
)

REFUSED = [
    ("SPACEPORT_HOURLY_COST_USD", "0,53", "0.53"),
    ("SPACEPORT_HOURLY_COST_USD", "nan", "0.53"),
    ("SPACEPORT_HOURLY_COST_USD", "inf", "0.53"),
    ("SPACEPORT_HOURLY_COST_USD", "-1", "0.53"),
    ("SPACEPORT_CACHE_GB", "many", "gigabytes"),
    ("SPACEPORT_CACHE_GB", "-1", "gigabytes"),
    ("SPACEPORT_CACHE_GB", "nan", "gigabytes"),
    ("SPACEPORT_METRICS", "yes", "off or emf"),
    ("SPACEPORT_DISPATCH", "sfm,trian", "names trian; the stages are photos, sfm, train, compress, publish"),
    ("SPACEPORT_CPU_SLOTS", "two", "whole number"),
    ("SPACEPORT_CPU_SLOTS", "0", "1 or more"),
    ("SPACEPORT_GPU_SLOTS", "1.5", "whole number"),
    ("SPACEPORT_GPU_SLOTS", "²", "whole number"),
    ("SPACEPORT_GPU_POOL", "gpu", "ecs-gpu or ec2-gpu"),
    ("SPACEPORT_KEEP_DAYS", "0", "from 1 to 3650"),
    ("SPACEPORT_KEEP_DAYS", "for ever", "from 1 to 3650"),
    ("SPACEPORT_KEEP_DAYS", "36500000000000", "from 1 to 3650"),
    ("SPACEPORT_MACHINES", '{"train": ', "no JSON"),
    ("SPACEPORT_MACHINES", '{"trian": {"name": "x", "cores": 1}}', "names trian"),
    ("SPACEPORT_MACHINES", "[]", "JSON object"),
    ("SPACEPORT_JOB_VARIABLES_AGAIN", "{train: 1}", "no JSON"),
    ("SPACEPORT_JOB_VARIABLES_AGAIN", '{"train": 1}', "an object for each stage"),
]


@pytest.mark.parametrize(("name", "value", "says"), REFUSED)
def test_what_means_nothing_is_refused_in_one_sentence(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(OptionsError, match=name) as refusal:
        DeploymentSettings()
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_value_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    again = json.dumps({"train": {"capacity_provider": "on-demand"}})
    variables = {
        "SPACEPORT_WORKSPACE": "s3://bucket/prefix",
        "SPACEPORT_HOME": "/home/of/state",
        "SPACEPORT_DISPATCH": "sfm, train,",
        "SPACEPORT_HOURLY_COST_USD": "0.53",
        "SPACEPORT_CACHE_GB": "0.5",
        "SPACEPORT_METRICS": "emf",
        "SPACEPORT_JOB_VARIABLES_AGAIN": again,
        "SPACEPORT_CPU_SLOTS": "4",
        "SPACEPORT_GPU_SLOTS": "2",
        "SPACEPORT_GPU_POOL": "ec2-gpu",
        "SPACEPORT_KEEP_DAYS": "90",
        "SPACEPORT_UPLOAD_LIMITS": '{"max_steps": 10}',
        "SPACEPORT_MACHINES": '{"train": {"name": "g4dn", "cores": 4, "gpu": true}}',
        "SPACEPORT_INFRASTRUCTURE": "/spaceport/infrastructure",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = DeploymentSettings()
    assert settings.workspace == "s3://bucket/prefix"
    assert settings.home == Path("/home/of/state")
    assert settings.dispatch == {"sfm", "train"}
    assert settings.hourly_cost_usd == 0.53
    assert settings.cache_bytes == 500_000_000
    assert settings.metrics
    assert settings.job_variables_again == json.loads(again)
    assert settings.machines == {"train": Machine(name="g4dn", cores=4, gpu=True)}
    assert settings.infrastructure == "/spaceport/infrastructure"
    assert (settings.cpu_slots, settings.gpu_slots, settings.gpu_pool) == (4, 2, "ec2-gpu")
    assert settings.upload_limits == '{"max_steps": 10}'
    assert settings.keep_days == 90


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file hands on what is not filled in as an empty value."""
    monkeypatch.delenv("XDG_STATE_HOME")
    unset = DeploymentSettings()
    for name in [*map(variable, DeploymentSettings.model_fields), "XDG_STATE_HOME"]:
        monkeypatch.setenv(name, "")
    assert DeploymentSettings() == unset
    assert unset.cache_bytes == DEFAULT_CACHE_GB * 10**9


def test_the_plan_of_another_server_is_read_from_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_CPU_SLOTS", "two")
    with pytest.raises(OptionsError, match="SPACEPORT_CPU_SLOTS"):
        plan_of(DeploymentSettings())
    monkeypatch.setenv("SPACEPORT_CPU_SLOTS", "5")
    monkeypatch.setenv("SPACEPORT_NOTIFY", "http://example.org/hook")
    plan = plan_of(DeploymentSettings())
    assert (plan.cpu_slots, plan.gpu_slots, plan.notify) == (5, 1, "http://example.org/hook")


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process begins that is no test."""
    monkeypatch.setattr(module, "PROCESS", ProcessSettings())


@pytest.mark.usefixtures("new_process")
def test_settings_that_were_not_read_are_an_error_of_the_program() -> None:
    with pytest.raises(RuntimeError, match="were not read"):
        settings_in_use()


@pytest.mark.usefixtures("new_process")
def test_a_flow_reads_them_once_and_its_threads_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_WORKSPACE", "first")
    read = read_settings_of_run()
    assert read.workspace == "first"
    monkeypatch.setenv("SPACEPORT_WORKSPACE", "second")
    assert settings_in_use() is read
    with ThreadPoolExecutor() as pool:
        assert pool.submit(settings_in_use).result() is read
    assert read_settings_of_run().workspace == "second", "another flow in this process begins anew"


@pytest.mark.usefixtures("new_process")
def test_what_a_command_has_chosen_holds_for_its_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_WORKSPACE", "of the environment")
    chosen = use_settings(Settings(workspace="of --workspace"))
    assert read_settings_of_run() is chosen
    assert settings_in_use() is chosen


DOCUMENTED = re.compile(r"^\| `(SPACEPORT_[A-Z_]+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def test_the_page_of_settings_has_every_field_in_its_words_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = {name: (meaning, default) for name, meaning, default, _ in DOCUMENTED.findall(page)}
    fields = {variable(name): field for name, field in DeploymentSettings.model_fields.items()}
    assert list(rows) == list(fields)
    for name, field in fields.items():
        meaning, default = rows[name]
        assert meaning == field.description
        if name not in ("SPACEPORT_HOME", "SPACEPORT_METRICS"):  # made when it is asked for; two words for a flag
            empty = field.default in (None, frozenset(), {}, "{}")
            assert default == ("none" if empty else f"`{field.default}`"), name
