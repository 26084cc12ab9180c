"""Names that follow from measurements."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import UnsafeNameError
from tasks.core.measurements import held_out_picture
from tasks.core.safe_names import safe_name
from tests.core.test_safe_names import names


@settings(max_examples=300, deadline=None)
@given(st.lists(names, max_size=6))
def test_each_camera_has_a_picture_of_its_own_in_the_folder(wanted: list[str]) -> None:
    cameras = set()
    for name in wanted:
        try:
            cameras.add(safe_name(name))
        except UnsafeNameError:
            with pytest.raises(UnsafeNameError):
                held_out_picture(name)
    pictures = [held_out_picture(camera) for camera in cameras]
    assert len(set(pictures)) == len(cameras)
    assert all("/" not in picture and safe_name(picture) == picture for picture in pictures)


def test_names_that_would_be_one_are_told_apart() -> None:
    assert held_out_picture("a/b.jpg") == "a__b.jpg.render.jpg"
    assert held_out_picture("a__b.jpg") != "a__b.jpg.render.jpg"
    assert len(held_out_picture("/".join(["x" * 250] * 3)).encode()) < 255
