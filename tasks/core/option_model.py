"""The base of every stage's option model: frozen, unknown keys are errors, every field explains itself."""

from pydantic import BaseModel, ConfigDict


class OptionModel(BaseModel):
    """Options of one stage.

    Every field has a title, a description (with the unit) and bounds: the command line's help and Prefect's *Run*
    form are made from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
