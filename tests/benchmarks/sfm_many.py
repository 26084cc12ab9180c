"""Cameras of many photos: what a photo costs by their number, and errors against the truth.

`python -m tests.benchmarks.sfm_many FLIGHT …` finds the cameras of folders with photos of generated flights, whose true
cameras are beside them; `--shuffled` also of a copy of each with names that say nothing, in random order and without
EXIF. `--simulated 200 800` maps flights whose features and matches are simulated, in one process and in parts.
`--pairs 1000 5000` chooses pairs and parts for so many photos, and prints time and peak memory.

Each run is a process of its own. CPU seconds are user + system of it and its children, peak memory is the greatest of
one process; checking the photos is included and undistorting them is not.
"""

import argparse
import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.demo.flight import ground_truth_path, load_ground_truth
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import Gps, Photo
from tasks.core.progress import ignore_progress
from tasks.core.sfm.options import SfmOptions
from tests.benchmarks.pose_agreement import Poses, agreement
from tests.benchmarks.sfm import bar

MODULE = "tests.benchmarks.sfm_many"
NAMES_FILE = "names.json"  # of a shuffled copy: the flight's name for each
METRE_DEG = 1 / 111_320

logger = logging.getLogger("bench-sfm-many")


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_gb() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


def shuffled(photos: Path, out: Path) -> Path:
    """Copy photos without EXIF under names in random order; the pixels of the JPEG files stay as they are."""
    out.mkdir(parents=True)
    order = random.Random(7)
    files = sorted(photos.iterdir())
    order.shuffle(files)
    names = {}
    for file in files:
        name = f"{order.getrandbits(48):012x}.jpg"
        with Image.open(file) as photo:
            photo.save(out / name, quality="keep", exif=b"")
        names[name] = file.name
    out.with_name(f"{out.name}-{NAMES_FILE}").write_text(json.dumps(names), encoding="utf-8")
    return out


def show_flight(flight: Path, photos: Path, options: SfmOptions) -> None:
    """Find the cameras of a flight's photos, or of a shuffled copy of them."""
    import pycolmap  # what the other runs do not import is no part of their cost

    from tasks.core.sfm.cameras import find_cameras
    from tasks.core.sfm.worker import CAMERAS_MODEL

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ingest(photos, Path(folder) / "photos", PhotosOptions(), ignore_progress)
        section = find_cameras(Path(folder) / "photos", Path(folder) / "cameras", options, ignore_progress)
        model = pycolmap.Reconstruction(Path(folder) / "cameras" / CAMERAS_MODEL)
    count = section.registered + len(section.unregistered)
    renamed = photos.with_name(f"{photos.name}-{NAMES_FILE}")
    names = json.loads(renamed.read_text(encoding="utf-8")) if renamed.is_file() else {}
    images = [model.image(i) for i in model.reg_image_ids()]
    ours: Poses = {
        names.get(image.name, image.name): (
            np.asarray(image.cam_from_world().rotation.matrix()),
            np.asarray(image.projection_center()),
        )
        for image in images
    }
    true: Poses = {c.name: (c.cam_from_world[:3, :3], c.center) for c in load_ground_truth(ground_truth_path(flight))}
    found = agreement(true, ours)
    for one in section.tries:
        logger.info("  %s: %s, %d pairs, %d placed, %s", one.rung, one.matcher, one.pairs, one.registered, one.note)
    for said in section.degradations:
        logger.info("  %s", said)
    cost = f"{cpu_seconds() / count:.3f} CPU-s a photo, {cpu_seconds():.0f} in all"
    logger.info("  %d photos: %s, %.0f s, %.2f GB", count, cost, time.monotonic() - started, peak_gb())
    logger.info("  %s", found)
    bar("registered share", section.registered / count, 0.95 if names else 0.99, least=True)
    bar("rotation median, deg", found.rotation_median_deg, 0.1)
    bar("position median, % of extent", found.position_median_percent, 0.1)
    bar("peak memory, GB", peak_gb(), 3)


def show_mapping(photos: int, *, in_parts: bool) -> None:
    """Map a flight of which features and matches are simulated."""
    import pycolmap

    from tasks.core.sfm import mapping_parts
    from tasks.core.sfm.features import FeatureDatabase
    from tasks.core.sfm.mapping import map_incrementally
    from tests.core.sfm.simulated_flight import write_simulated_flight

    pycolmap.logging.minloglevel = 2
    with tempfile.TemporaryDirectory() as folder:
        flight = write_simulated_flight(Path(folder) / "flight", photos)
        taken = tuple(Photo(name=name, width=640, height=480, sha256="") for name in flight.names)
        database = FeatureDatabase(Path(folder) / "first", flight.database.parent, taken, SfmOptions())
        flight.database.replace(database.path)
        for name in flight.names:  # the mapper takes colours from them
            (database.images / name).unlink()
            Image.new("L", (640, 480)).save(database.images / name)
        before, started = cpu_seconds(), time.monotonic()
        if in_parts:
            model = mapping_parts.map_in_parts(database, Path(folder) / "parts", Path(folder), SfmOptions()).model
        else:
            model = map_incrementally(database, Path(folder) / "whole", SfmOptions()).model
        used = cpu_seconds() - before
    assert model is not None
    images = [model.image(i) for i in model.reg_image_ids()]
    ours: Poses = {
        i.name: (np.asarray(i.cam_from_world().rotation.matrix()), np.asarray(i.projection_center())) for i in images
    }
    true: Poses = dict(zip(flight.names, zip(flight.rotations, flight.centers, strict=True), strict=True))
    how = "in parts" if in_parts else "whole"
    cost = f"{used / photos:.3f} CPU-s a photo, {used:.0f} in all"
    logger.info("  %d photos %s: %s, %.0f s, %.2f GB", photos, how, cost, time.monotonic() - started, peak_gb())
    logger.info("  %s", agreement(true, ours))


def show_pairs(count: int) -> None:
    """Pairs by GPS, pairs by likeness and parts, for a flight without pixels."""
    from tasks.core.sfm.appearance import similar_pairs
    from tasks.core.sfm.division import divide
    from tasks.core.sfm.pairs import choose_pairs
    from tasks.core.sfm.view_graph import ViewGraph

    wide = round(count**0.5)
    photos = tuple(
        Photo(
            name=f"{i}.jpg",
            width=4000,
            height=3000,
            sha256="",
            gps=Gps(latitude_deg=46 + 16 * METRE_DEG * (i // wide), longitude_deg=7 + 12 * METRE_DEG * (i % wide)),
        )
        for i in range(count)
    )
    loaded_gb, begun = peak_gb(), cpu_seconds()
    pairs = choose_pairs(photos, SfmOptions()).pairs
    by_gps = cpu_seconds() - begun
    vectors = np.random.default_rng(0).normal(size=(count, 3072)).astype(np.float32)
    begun = cpu_seconds()
    alike = similar_pairs(vectors, 8)
    by_likeness = cpu_seconds() - begun
    begun = cpu_seconds()
    parts = divide(ViewGraph(count, dict.fromkeys(pairs, 100)), 250)
    divided = cpu_seconds() - begun
    logger.info("  %d photos: %d pairs by GPS, %.1f CPU-s", count, len(pairs), by_gps)
    logger.info(
        "  %d pairs by likeness, %.1f CPU-s; %d parts, %.1f CPU-s", len(alike), by_likeness, len(parts), divided
    )
    logger.info("  %.2f GB more than before, with 12 kB a photo for likeness", peak_gb() - loaded_gb)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("flights", nargs="*", type=Path, help="folders with photos of generated flights")
    arguments.add_argument("--shuffled", action="store_true")
    arguments.add_argument("--simulated", nargs="*", type=int, default=[], help="numbers of photos")
    arguments.add_argument("--pairs", nargs="*", type=int, default=[], help="numbers of photos")
    arguments.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if chosen.child:
        what, *rest = chosen.child
        if what == "flight":
            show_flight(Path(rest[0]), Path(rest[1]), SfmOptions())
        elif what == "pairs":
            show_pairs(int(rest[0]))
        else:
            show_mapping(int(rest[0]), in_parts=what == "parts")
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [["pairs", str(count)] for count in chosen.pairs]
        runs += [[how, str(count)] for count in chosen.simulated for how in ("whole", "parts")]
        for number, flight in enumerate(chosen.flights):
            sets = [flight, *([shuffled(flight, Path(folder) / f"shuffled-{number}")] if chosen.shuffled else [])]
            runs += [["flight", str(flight.resolve()), str(photos.resolve())] for photos in sets]
        for run in runs:
            logger.info("%s", " ".join(run))
            subprocess.run([sys.executable, "-m", MODULE, "--child", *run], check=True)


if __name__ == "__main__":
    main()
