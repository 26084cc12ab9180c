"""A user's own COLMAP model, binary and text: a scene with finite numbers comes of it, or one sentence.

The reading and writing of the worker process is played in this one. What its native code does to the process is noticed
by the runner.
"""

import random
import shutil
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tasks.core.errors import InputError
from tasks.core.scene import IMAGES_FOLDER, Scene
from tasks.core.sfm.importer import import_in_worker
from tasks.core.sfm.worker import WORK_FOLDER, ImportJob
from tests.core.sfm.given_model import PARAMETERS, write_given

SUITE_ROUNDS = 100
LONGEST_MESSAGE = 2_000  # characters
NUMBERS = (0.0, -1.0, 1e300, -1e300, 1e-300, float("nan"), float("inf"), 1e10, 3.0)
COUNTS = (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
WORDS = (
    *(b"nan", b"inf", b"-1", b"0", b"1e300", b"1e-300", b"99999999999999999999", b"", b"x", b"\xff", b"\0", b"1e999"),
    *(b"..", b"../../escaped.jpg", b"/tmp/escaped.jpg", b"1.jpg", b"PINHOLE", b"OPENCV_FISHEYE", b"NONE", b"#"),
)


def damage_model(chance: random.Random, folder: Path) -> None:
    """One round: a model with some of its bytes, numbers or words replaced."""
    text = chance.random() < 0.5
    given = folder / "given"
    shutil.copytree(_whole(chance.choice(list(PARAMETERS)), text).name, given)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice([path for path in sorted((given / "sparse/0").iterdir()) if path.stat().st_size])
        path.write_bytes((_damaged_text if text else _damaged_binary)(chance, path.read_bytes()))
    out = folder / "out"
    (out / WORK_FOLDER).mkdir(parents=True)
    job = ImportJob(source=given, out=out, image_size=chance.choice([64, 32]))
    refused: InputError | None = None
    try:
        section = import_in_worker(job)
    except InputError as error:
        refused = error
    assert {path.name for path in folder.iterdir()} == {"given", "out"}, "something was written elsewhere"
    if refused is not None:
        assert len(str(refused)) <= LONGEST_MESSAGE, "a message without an end"
        return
    scene = Scene.load(out)
    assert section.registered == len(scene.cameras) >= 3
    for camera in scene.cameras:
        numbers = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.cam_from_world.ravel()]
        assert np.isfinite(numbers).all(), "a camera that is none"
        assert camera.fx > 0
        assert camera.fy > 0
        assert 0 < max(camera.width, camera.height) <= job.image_size
        assert (out / IMAGES_FOLDER / camera.name).resolve().is_relative_to(out.resolve())
    assert np.isfinite(scene.points.xyz).all(), "a point that is none"


ROUND = damage_model


@cache
def _whole(camera_model: str, text: bool) -> TemporaryDirectory[str]:
    """A folder that is removed when the process ends."""
    folder = TemporaryDirectory(prefix="fuzz-model-")
    write_given(Path(folder.name), text=text, camera_model=camera_model)
    return folder


def _damaged_binary(chance: random.Random, data: bytes) -> bytes:
    kind = chance.choice(["byte", "double", "count", "cut", "more"])
    at = chance.randrange(len(data))
    if kind == "cut":
        return data[:at]
    if kind == "more":
        return data[:at] + chance.randbytes(chance.randint(1, 9)) + data[at:]
    new = {
        "byte": bytes([chance.randrange(256)]),
        "double": struct.pack("<d", chance.choice(NUMBERS)),
        "count": struct.pack("<Q", chance.choice(COUNTS)),
    }[kind]
    return data[:at] + new + data[at + len(new) :]


def _damaged_text(chance: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    words = lines[at].split(b" ")
    kind = chance.choice(["word", "word", "word", "no line", "twice", "joined"])
    if kind == "word":
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        lines[at] = b" ".join(words)
    elif kind == "no line":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    else:
        lines[at] = lines[at].replace(b" ", b"", 1)
    return b"\n".join(lines)
