"""Variables that a library reads while it is loaded, and at no other time: there is no argument to give it instead."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable_while_loading(name: str, value: str) -> Iterator[None]:
    """A variable for a library that reads it once, while it is loaded. What a person has set stays as it is.

    Afterwards it is gone again, so that processes which are started later do not inherit it.
    """
    chosen = os.environ.get(name)
    if not chosen:
        os.environ[name] = value
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[name]
        else:
            os.environ[name] = chosen
