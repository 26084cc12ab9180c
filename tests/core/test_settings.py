"""Variables of the environment: what each value means, and one sentence for what means nothing."""

import json
from pathlib import Path

import pytest

from deployments.apply import plan_from_environment
from tasks.core.errors import OptionsError
from tasks.core.settings import DEFAULT_CACHE_GB, Settings

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
def test_what_means_nothing_is_refused_in_one_sentence(name: str, value: str, says: str) -> None:
    with pytest.raises(OptionsError, match=name) as refusal:
        Settings.from_environment({name: value})
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_value_is_taken() -> None:
    again = json.dumps({"train": {"capacity_provider": "on-demand"}})
    settings = Settings.from_environment(
        {
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
        }
    )
    assert settings.workspace == "s3://bucket/prefix"
    assert settings.home == Path("/home/of/state")
    assert settings.dispatch == {"sfm", "train"}
    assert settings.hourly_cost_usd == 0.53
    assert settings.cache_bytes == 500_000_000
    assert settings.metrics
    assert json.loads(settings.job_variables_again) == json.loads(again)
    assert (settings.cpu_slots, settings.gpu_slots, settings.gpu_pool) == (4, 2, "ec2-gpu")
    assert settings.upload_limits == '{"max_steps": 10}'
    assert settings.keep_days == 90


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    """A compose file hands on what is not filled in as an empty value."""
    names = [f"SPACEPORT_{name.upper()}" for name in Settings.model_fields] + ["SPACEPORT_CACHE_GB", "XDG_STATE_HOME"]
    assert Settings.from_environment(dict.fromkeys(names, "")) == Settings.from_environment({})
    assert Settings.from_environment({}).cache_bytes == DEFAULT_CACHE_GB * 10**9


def test_the_plan_of_another_server_is_read_from_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_CPU_SLOTS", "two")
    with pytest.raises(OptionsError, match="SPACEPORT_CPU_SLOTS"):
        plan_from_environment()
    monkeypatch.setenv("SPACEPORT_CPU_SLOTS", "5")
    monkeypatch.setenv("SPACEPORT_NOTIFY", "http://example.org/hook")
    plan = plan_from_environment()
    assert (plan.cpu_slots, plan.gpu_slots, plan.notify) == (5, 1, "http://example.org/hook")
