"""States as people write them, and as Prefect has them."""

import inspect

import prefect.states
import pytest
from prefect.client.schemas.objects import State
from prefect.server.schemas import states as server_states

from flows.cli.flow_runs import STATES, state_named
from tasks.core.errors import InputError


@pytest.mark.parametrize("name", STATES)
def test_every_way_to_write_a_state_means_it(name: str) -> None:
    spaced = "".join(f"-{letter}" if letter.isupper() else letter for letter in name).strip("-")
    for text in (name, name.lower(), name.upper(), spaced, spaced.replace("-", " "), spaced.replace("-", "_").lower()):
        assert state_named(text) == name


@pytest.mark.parametrize("text", ["Bogus", "", "Runnin", "-"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"There is no state {text!r}; the states are Scheduled"):
        state_named(text)


def test_no_state_of_prefect_is_missing() -> None:
    """Those that Prefect has functions for; the rest are written in its source as names."""
    makers = [
        value
        for module in (prefect.states, server_states)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if name[0].isupper() and name not in ("Paused", "Suspended", "AwaitingRetry", "Late", "Scheduled")
    ]
    made = [maker() for maker in makers if "cls" in inspect.signature(maker).parameters]
    names = {state.name for state in made if isinstance(state, State) or hasattr(state, "name")}
    assert len(names) > 8
    assert names <= set(STATES)
