"""Environment variables that a library reads only while it is loaded, and for which it has no argument."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable_while_loading(name: str, value: str) -> Iterator[None]:
    """Set a variable while a library is loaded. A value that the user has set is kept.

    The variable is removed afterwards, so that processes started later do not inherit it.
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
