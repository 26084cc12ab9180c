"""`spaceport view` of what has no page of its own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from flows.cli.view import folder_with_page
from tasks.core.errors import FormatError, InputError
from tasks.core.ply import write_ply
from tasks.core.sog.streamed import write_streamed
from tasks.core.sog.writer import write_sog
from tasks.core.viewer.serve import serve
from tasks.places.result_files import CONTENTS_FILE
from tests.core.sog.splats import terrain


def start_of(place: Path) -> np.ndarray:
    """Where the page's first view looks from, relative to its target, in the viewer's y-up frame."""
    with folder_with_page(place) as (folder, page):
        html = (folder / page).read_text(encoding="utf-8")
        assert 'id="sog"' in html
        assert "report.html" not in html
    found = re.search(r'id="settings">(.*?)</script>', html)
    assert found
    pose = json.loads(found[1])["settings"]["cameras"][0]["initial"]
    return np.subtract(pose["position"], pose["target"])


@pytest.mark.parametrize("name", ["a.sog", "meta.json", "lod", "lod/lod-meta.json", "a.ply"])
def test_a_splat_without_a_page_gets_one_and_is_seen_from_above(tmp_path: Path, name: str) -> None:
    splat = terrain(900, 0)
    write_sog(splat, tmp_path / "a.sog")
    write_sog(splat, tmp_path / "meta.json")
    write_streamed(splat, tmp_path / "lod", leaf_count=400, coarsest_count=300)
    write_ply(splat, tmp_path / "a.ply")
    offset = start_of(tmp_path / name)
    assert np.linalg.norm(offset) == pytest.approx(6)
    assert offset[1] > 2


def test_levels_of_detail_of_a_result_are_shown_by_the_results_page(tmp_path: Path) -> None:
    write_streamed(terrain(900, 0), tmp_path / "lod", leaf_count=400, coarsest_count=300)
    for name in ("stream.html", "index.html", CONTENTS_FILE):
        (tmp_path / name).write_text("")
    for place in (tmp_path / "lod", tmp_path / "lod" / "lod-meta.json"):
        with folder_with_page(place) as found:
            assert found == (tmp_path, "stream.html")


def test_what_is_no_splat_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FormatError, match=r"a\.txt: only \.ply"), folder_with_page(tmp_path / "a.txt"):
        pass
    with (
        folder_with_page(tmp_path) as (folder, page),
        pytest.raises(InputError, match=r"no index\.html"),
        serve(folder, 0, page),
    ):
        pass
