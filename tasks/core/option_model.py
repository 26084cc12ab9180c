"""The base of every stage's option model: frozen, unknown keys are errors, every field explains itself."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class OptionModel(BaseModel):
    """Options of one stage.

    Every field has a title, a description (with the unit) and bounds: the command line's help and Prefect's *Run*
    form are made from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilledInByPreset:
    """Annotates a model whose fields a preset fills in: in its JSON schema no field has a default.

    A form sends every default back, and a default that was sent back would count as chosen, against the preset.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The model's schema without defaults, and without null: what is left empty is not sent."""
        reference = handler(core_schema)
        model = handler.resolve_ref_schema(reference)
        for field in model["properties"].values():
            field.pop("default", None)
            variants = [variant for variant in field.pop("anyOf", []) if variant.get("type") != "null"]
            for variant in variants:
                field.update(variant)
            field["description"] = f"{field['description']} Left empty, the preset decides."
        return reference
