"""The base of every stage's option model: frozen, with documented fields and errors for unknown keys."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class OptionModel(BaseModel):
    """Options of one stage.

    Every field has a title, a description (with the unit) and bounds, from which the command line's help and Prefect's
    *Run* form are made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilledInByPreset:
    """Annotates a model whose fields a preset fills in: its JSON schema only has defaults that all presets share.

    A form sends every default back, and it would then count as chosen and override a preset's different value. A form
    also sends an untouched switch, as off unless the schema says on, so a boolean must be the same in all presets.
    """

    def __init__(
        self, presets: Mapping[str, OptionModel], elsewhere: Mapping[str, Mapping[str, Mapping[str, object]]]
    ) -> None:
        """Take values by preset, and other values of some options by machine, preset and name."""
        self._presets = {name: preset.model_dump(mode="json") for name, preset in presets.items()}
        self._elsewhere = elsewhere

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema without null: forms do not send empty fields. Descriptions name the presets' values."""
        reference = handler(core_schema)
        model = handler.resolve_ref_schema(reference)
        for name, field in model["properties"].items():
            field.pop("default", None)
            variants = [variant for variant in field.pop("anyOf", []) if variant.get("type") != "null"]
            for variant in variants:
                field.update(variant)
            values = {preset: options[name] for preset, options in self._presets.items()}
            first = next(iter(values.values()))
            if all(value == first for value in values.values()):
                field.update({} if first is None else {"default": first})
            else:
                decided = [f"Left empty, the preset decides: {_listed(values)}"]
                for machine, presets in self._elsewhere.items():
                    others = {preset: options[name] for preset, options in presets.items() if name in options}
                    decided += [f"on {machine} {_listed(others)}"] if others else []
                field["description"] = f"{field['description']} {'; '.join(decided)}."
        return reference


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{preset} {value}" for preset, value in values.items())
