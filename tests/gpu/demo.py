"""The demo scene through our trainer alone, for machines without pycolmap: `python -m tests.gpu.demo --out DIR`.

Writes scene.ply, train.json (the report's section on training) and view.jpg, a held-out photo beside its render.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.options import Preset, ReconstructOptions
from tasks.core.render.backends import rasterizer_for
from tasks.core.report.preview import side_by_side
from tasks.core.scene import SCENE_FILE, Scene
from tasks.core.training.trainer import EvaluatedView, train
from tests.gpu.flight_scene import flight_scene


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--scene", type=Path, help="a Scene folder made elsewhere; else the demo flight is made here")
    p.add_argument("--preset", choices=get_args(Preset), default="standard")
    p.add_argument("--steps", type=int, help="instead of the preset's")
    p.add_argument("--backend", choices=("cuda", "cpu"), default="cuda")
    arguments = p.parse_args(argv)
    if arguments.scene is not None and not (arguments.scene / SCENE_FILE).is_file():
        p.error(f"--scene {arguments.scene} holds no {SCENE_FILE}")
    rasterizer_for(arguments.backend)  # says what is missing, before anything is made
    arguments.out.mkdir(parents=True, exist_ok=True)
    scene = Scene.load(arguments.scene) if arguments.scene else flight_scene(arguments.out / "scene", DemoOptions())
    changes = {"backend": arguments.backend} | ({"steps": arguments.steps} if arguments.steps else {})
    chosen = ReconstructOptions.model_validate({"preset": arguments.preset, "train": changes})
    options = chosen.train_on(arguments.backend, len(scene.cameras))

    def show(evaluated: EvaluatedView) -> None:
        print(f"step {evaluated.point.step:6} {evaluated.point.seconds:7.1f} s {evaluated.point.psnr_db:6.2f} dB")
        (arguments.out / "view.jpg").write_bytes(side_by_side(evaluated.photo, evaluated.image))

    section = train(scene, arguments.out, options, lambda _: None, show)
    (arguments.out / "train.json").write_text(section.model_dump_json(indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
