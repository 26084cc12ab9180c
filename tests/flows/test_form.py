"""The *Run* form: the schema that it is drawn from, and what Prefect's server refuses before a run starts."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.reconstruct import reconstruct
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.training.options import TRAIN_PRESETS
from tests.flows.test_form_in_browser import PAYLOADS

GROUPS = ("photos", "sfm", "train", "compress", "publish")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return reconstruct.parameters.model_dump()


@pytest.fixture(scope="module")
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="module")
def deployment(prefect_server: None) -> UUID:
    applied = reconstruct.to_deployment(name="form").apply()
    assert isinstance(applied, UUID)
    return applied


def group(schema: dict[str, Any], name: str) -> dict[str, Any]:
    options = schema["definitions"]["ReconstructOptions"]["properties"]
    return dict(schema["definitions"][options[name]["$ref"].rpartition("/")[2]])


def test_every_parameter_says_what_it_is(schema: dict[str, Any]) -> None:
    assert list(schema["properties"]) == ["photos", "destination", "options", "fresh"]
    for name, parameter in schema["properties"].items():
        assert len(parameter["description"]) > 20, name
        assert "anyOf" not in parameter, f"{name} would be shown as tabs, one for each type"
    assert schema["required"] == ["photos"]


def test_the_preset_comes_first_and_options_are_grouped_by_stage(schema: dict[str, Any]) -> None:
    options = schema["definitions"]["ReconstructOptions"]["properties"]
    assert list(options) == ["preset", *GROUPS]
    assert options["preset"]["enum"] == ["draft", "standard", "high"]
    for name in GROUPS:
        assert group(schema, name)["additionalProperties"] is False
        for option, field in group(schema, name)["properties"].items():
            assert field["title"], f"{name}.{option}"
            assert len(field["description"]) > 20, f"{name}.{option}"
            assert "anyOf" not in field, f"{name}.{option} would be shown as tabs, one for each type"
            bounded = (
                field["type"] == "boolean"
                or "enum" in field
                or {"maximum", "exclusiveMaximum", "maxLength"} & set(field)
            )
            assert bounded, f"{name}.{option} has no bounds"


def test_the_form_shows_what_every_preset_says_and_is_empty_where_they_differ(schema: dict[str, Any]) -> None:
    default = schema["properties"]["options"]["default"]
    assert default["train"] == {}
    for name, field in group(schema, "train")["properties"].items():
        values = [getattr(preset, name) for preset in TRAIN_PRESETS.values()]
        if len(set(values)) > 1:
            assert "default" not in field, f"{name} would be sent back, against the other presets"
            assert all(
                f"{preset} {getattr(options, name)}" in field["description"]
                for preset, options in TRAIN_PRESETS.items()
            )
        else:
            assert field.get("default") == values[0], name
        if field["type"] == "boolean":
            assert "default" in field, f"{name}: a form sends an untouched switch as off"
    for name in ("photos", "sfm", "compress"):
        assert set(default[name]) == set(group(schema, name)["properties"])


@pytest.mark.parametrize("preset", ["draft", "standard", "high"])
def test_a_form_sent_back_with_another_preset_gets_that_preset(schema: dict[str, Any], preset: str) -> None:
    """The form sends back every value that it shows, and null for a number that was typed and taken back."""
    sent = {**schema["properties"]["options"]["default"], "preset": preset, "train": {"steps": None}}
    assert ReconstructOptions.model_validate(sent).train == TRAIN_PRESETS[preset]


def test_a_run_can_be_taken_up_again_with_another_preset() -> None:
    parameters = reconstruct.serialize_parameters({"options": parse_options("draft", ["train.steps=70"])})
    assert parameters["options"]["train"] == {"steps": 70}
    again = ReconstructOptions.model_validate({**parameters["options"], "preset": "high"})
    assert again.train == TRAIN_PRESETS["high"].model_copy(update={"steps": 70})
    assert again.spelled_out()["train"]["steps"] == 70
    assert again.spelled_out()["train"].keys() == type(again.train).model_fields.keys()


@pytest.mark.parametrize("preset", ["draft", "standard", "high"])
@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_an_untouched_form_is_the_terminals_run(ui: str, preset: str) -> None:
    """Exactly the same options have the same cache keys, and so the same splat; test_form_in_browser.py records."""
    sent = json.loads(PAYLOADS.read_text(encoding="utf-8"))[ui]
    assert sent.keys() == {"photos", "destination", "options", "fresh"}
    sent["options"]["preset"] = preset
    given = reconstruct.validate_parameters(sent)
    options, typed = given["options"], parse_options(preset, [])
    assert options == typed
    assert options.train_on("cuda", 100) == typed.train_on("cuda", 100)
    assert options.model_dump_json() == typed.model_dump_json()
    assert (given["destination"], given["fresh"]) == ("", False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"train": {"steps": 5}}, "5 is less than the minimum of 10"),
        ({"train": {"hold_out_every": 1}}, "hold_out_every"),
        ({"compress": {"sh_degree": 4}}, "4 is greater than the maximum of 3"),
        ({"sfm": {"matcher": "psychic"}}, "'psychic' is not one of"),
        ({"preset": "best"}, "'best' is not one of"),
        ({"train": {"iterations": 3000}}, "'iterations' was unexpected"),
        ({"train": {"steps": "many"}}, "'many' is not"),
    ],
)
def test_the_server_refuses_a_wrong_value_before_a_run_exists(
    client: SyncPrefectClient, deployment: UUID, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(deployment, parameters={"photos": "/photos", "options": options})
    assert refused.value.response.status_code == 409
    assert reason in refused.value.response.text


def test_the_server_takes_what_the_form_sends(
    client: SyncPrefectClient, deployment: UUID, schema: dict[str, Any]
) -> None:
    sent = {"photos": "/photos", "destination": "", "options": schema["properties"]["options"]["default"]}
    sent["options"]["train"] = {"steps": None, "max_image_size": 320}
    run = client.create_flow_run_from_deployment(deployment, parameters=sent)
    assert run.parameters["options"]["train"]["max_image_size"] == 320
    client.delete_flow_run(run.id)
