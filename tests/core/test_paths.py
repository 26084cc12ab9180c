"""Names of files and folders, as people write them."""

from pathlib import Path

import pytest

from tasks.core.errors import InputError
from tasks.core.paths import local_path


def test_the_home_folder_is_found() -> None:
    assert local_path("~/a b") == Path.home() / "a b"
    assert local_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "is empty"), (" ", "is empty"), ("~no-such-user/a", "whom this machine does not know")],
)
def test_what_names_no_place_is_refused(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        local_path(name)
