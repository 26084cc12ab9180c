"""A disk that fills up in the middle of a stage: one sentence, nothing half-written, nothing stored is lost."""

import os
import sys
from pathlib import Path

from tests.support.patience import finished

# In a mount namespace of its own, so that the small disk needs no rights and is gone with the process.
SCRIPT = """
set -u
mount -t tmpfs -o size=$SIZE tmpfs "$DISK"
"$PYTHON" -m flows.cli run "$PHOTOS" --out "$OUT" --workspace "$DISK/workspace" $OPTIONS; echo "status $?"
find "$DISK" -name '*.partial*' -printf 'left over %p\\n'
find "$DISK" -name manifest.json -printf 'stored %h\\n'
mount -o remount,size=500m "$DISK"
"$PYTHON" -m flows.cli run "$PHOTOS" --out "$OUT" --workspace "$DISK/workspace" $OPTIONS; echo "status $?"
"""
OPTIONS = "--preset draft --set train.steps=20 --set train.max_gaussians=5000 --set train.max_image_size=320"


def test_a_full_disk(flight: Path, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    photos_bytes = sum(file.stat().st_size for file in flight.iterdir())
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "SIZE": str(int(1.25 * photos_bytes)),  # the photos fit, what structure from motion makes of them does not
        "DISK": str(disk),
        "OUT": str(out),
        "PHOTOS": str(flight),
        "PYTHON": sys.executable,
        "OPTIONS": OPTIONS,
        "COLUMNS": "300",
    }
    done = finished(["unshare", "--map-root-user", "--mount", "bash", "-c", SCRIPT], env=environment)
    said = done.stdout + done.stderr
    first, second = said.split("status", 1)[0], done.stdout.split("status")[-1]
    assert "status 1" in done.stdout, said
    assert "left over" not in done.stdout, said
    assert done.stdout.count("stored") == 1, said
    assert "stages/photos" in done.stdout, said
    assert "Traceback" not in said, said
    assert "disk" in first.lower() or "disk" in done.stderr.lower(), said
    assert second.split()[0] == "0", said
    assert (out / "index.html").is_file()
