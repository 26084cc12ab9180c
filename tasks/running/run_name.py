"""A run's name: the one that a person typed, else its folder's, made of its capture and the start of its id."""

import re
from functools import cache
from typing import Any

from coolname.data import config as coolname_lists
from prefect.runtime import flow_run

from tasks.photos import capture_name
from tasks.running.run_folder import folder_of_run

# Names with which the two *Run* forms fill *Run Name*: "Sleek-Lynx", "nu6-kuchiki", "alpha-canis-majoris-void".
_FORMS = re.compile(
    r"(?:Awesome|Rustic|Small|Gorgeous|Fantastic|Sleek|Intelligent|Unbranded|Refined|Licensed|Generic|Practical"
    r"|Ergonomic|Handcrafted|Tasty|Handmade|Incredible)-[A-Z][^-]{0,5}"
    r"|(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon"
    r"|phi|chi|psi|omega)\d*-[a-z-]+"
)


def name_of_run() -> str:
    """The name of the current flow run: the one it has when a person chose it, else the name of its folder."""
    given = str(flow_run.name or "")
    if given and not is_made_up(given):
        return given
    return folder_of_run(capture_name(flow_run.parameters["photos"]), str(flow_run.id))


def is_made_up(name: str) -> bool:
    """Whether Prefect made the name: its server for a run without one ("papaya-tortoise"), or one of its forms."""
    words = name.split("-")
    return _FORMS.fullmatch(name) is not None or (len(words) == 2 and _vocabulary().issuperset(words))


@cache
def _vocabulary() -> frozenset[str]:
    """The words that Prefect's server makes names of."""
    lists: dict[str, Any] = dict(coolname_lists)
    return frozenset(word for part in lists.values() for word in part.get("words", ()))
