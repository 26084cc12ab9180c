"""Options of the publish stage."""

from typing import Literal

from pydantic import Field

from tasks.core.option_model import OptionModel


class PublishOptions(OptionModel):
    """How the result is put together."""

    page: Literal["single", "files"] = Field(
        default="single",
        title="Page",
        description="single: index.html contains viewer and splat, and opens by double-click. files: script, style "
        "and the report's pictures are files in the folder viewer, and the splat is loaded beside the page; for web "
        "servers whose Content-Security-Policy forbids code inside pages. Such a page does not open by double-click.",
    )
