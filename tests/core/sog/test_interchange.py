"""Files of the format's reference program, @playcanvas/splat-transform 3.7.0.

Made with `terrain(120, 1, seed=9)` as a.ply: `splat-transform -g cpu a.ply splat_transform.sog`, and decoded again by
the same program: `splat-transform splat_transform.sog splat_transform.ply`. The other direction, that program reading
ours, is part of `make bench-sog`.
"""

from pathlib import Path

import numpy as np

from tasks.core.ply import read_ply
from tasks.core.sog.reader import read_sog
from tests.core.sog.splats import terrain

GOLDEN = Path(__file__).parent / "golden"


def test_we_read_the_reference_programs_file_as_it_does_itself() -> None:
    ours, theirs = read_sog(GOLDEN / "splat_transform.sog"), read_ply(GOLDEN / "splat_transform.ply")
    assert len(ours) == 120
    assert ours.sh_degree == 1
    for name in ("log_scales", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    # float32 results of exp, log and sqrt, rounded once in one program and twice in the other
    np.testing.assert_allclose(ours.means, theirs.means, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.raw_opacities, theirs.raw_opacities, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.quats, theirs.quats, atol=1e-6)


def test_the_file_holds_what_it_was_made_from() -> None:
    """Against the source: a decoding that both programs get wrong would show here."""
    source, back = terrain(120, 1, seed=9), read_sog(GOLDEN / "splat_transform.sog")
    distance = np.linalg.norm(source.means[:, None] - back.means, axis=2)
    match = distance.argmin(axis=1)
    # that writer truncates: one step of 1/65535 of a range of 3.6 in log positions, up to 6 times that in scene units
    assert distance.min(axis=1).max() < 6e-4 * np.sqrt(3)
    assert np.abs(back.sh0[match] - source.sh0).max() < 0.05  # 256 entries over a range of 4
    unit = source.quats / np.linalg.norm(source.quats, axis=1, keepdims=True)
    assert np.abs((unit * back.quats[match]).sum(axis=1)).min() > np.cos(np.radians(2.2 / 2))  # truncated to 8 bits
