"""Does the splat lie on the surface? `make bench-geometry`, or `python -m tests.benchmarks.geometry [options]`.

Trains on the demo flight, whose true surface is known, with and without the depths of sparse points, in turn. Prints
for each training, beside its held-out PSNR:

- depth: how far the depth of held-out renders is from the true one, in cm, the median and the 90th percentile over
  pixels. Crowns of leaves are left out, whose surface is not one;
- floaters: Gaussians more opaque than 0.05 that stand at least 1 m, and 3 % of the depth, before the true surface in
  nine tenths of the photos that have them in frame, and in two at least; and the light in held-out renders that is
  theirs.

Cameras and points come from our own structure from motion, brought onto the truth by the similarity that fits the
cameras best.
"""

import argparse
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from tasks.core.demo.flight import ground_truth_path, load_ground_truth
from tasks.core.demo.place import CROWN
from tasks.core.demo.rays import FAR, GROUND, trace
from tasks.core.demo.world import World, build_world
from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.ply import read_ply
from tasks.core.progress import ignore_progress
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.interface import Image
from tasks.core.render.warmup import compile_kernels
from tasks.core.scene import Camera, Scene
from tasks.core.training.coverage import project
from tasks.core.training.held_out import split_views
from tasks.core.training.options import TRAIN_PRESETS
from tasks.core.training.trainer import train
from tasks.core.transforms import Float64, similarity_from_points
from tests.benchmarks.train import HOLD_OUT_EVERY, SMALL_PIXELS_PER_GAUSSIAN, SMALL_PX, scene_of

LEAST_OPACITY = 0.05
BEFORE_M, BEFORE_SHARE = 1.0, 0.03  # of the depth
IN_FRONT_OF = 0.9  # of the photos that have a Gaussian in frame
FEWEST_PHOTOS = 2
LEAST_LIGHT = 0.5  # of a pixel, for it to have a depth


@dataclass(frozen=True)
class Truth:
    """A camera and the true depths of its pixels, in the scene's units."""

    camera: Camera
    depths: Float64  # [H, W], infinite for the sky
    leaves: NDArray[np.bool_]  # [H, W]


@dataclass(frozen=True)
class Alignment:
    """From the scene's world to the true one."""

    scale: float
    rotation: Float64
    shift: Float64

    @classmethod
    def of(cls, scene: Scene, truth: dict[str, Camera]) -> "Alignment":
        """The similarity that takes the cameras onto the true ones."""
        found = np.stack([camera.center for camera in scene.cameras])
        return cls(*similarity_from_points(found, np.stack([truth[camera.name].center for camera in scene.cameras])))

    def truth_of(self, camera: Camera, world: World) -> Truth:
        """Cast a ray through the middle of every pixel."""
        y, x = np.mgrid[: camera.height, : camera.width] + 0.5
        rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)], axis=-1)
        directions = rays.reshape(-1, 3) @ camera.cam_from_world[:3, :3] @ self.rotation.T
        lengths = np.linalg.norm(directions, axis=1)
        distances, kinds = np.empty(len(directions)), np.empty(len(directions), np.int64)
        origin = self.scale * self.rotation @ camera.center + self.shift
        cast(world, origin, directions / lengths[:, None], distances, kinds)
        depths = np.where(distances < FAR, distances / lengths / self.scale, np.inf)
        return Truth(camera, depths.reshape(x.shape), (kinds >= CROWN).reshape(x.shape))


@njit(parallel=True)
def cast(
    world: World, origin: Float64, directions: Float64, distances: Float64, kinds: NDArray[np.int64]
) -> None:  # pragma: no cover  # compiled
    """The distance along each ray [R, 3] to what it meets, and the kind of that; GROUND for the ground."""
    for ray in prange(len(directions)):
        dx, dy, dz = directions[ray]
        distances[ray], found = trace(world, origin[0], origin[1], origin[2], dx, dy, dz)
        kinds[ray] = GROUND if found == GROUND else world.kinds[found]


def colored(gaussians: Gaussians, red: NDArray[np.floating]) -> Gaussians:
    """The same Gaussians, with these values [N] as red and 1 as green."""
    colors = np.ones((len(gaussians), 1, 3), np.float32)
    colors[:, 0, 0] = red
    return dataclasses.replace(gaussians, sh0=(colors - 0.5) / SH_C0, shN=np.zeros((len(gaussians), 0, 3), np.float32))


def floaters(gaussians: Gaussians, truths: list[Truth], scale: float) -> NDArray[np.bool_]:
    """Which Gaussians [N] float before the surface."""
    in_frame, before = np.zeros((2, len(gaussians)), int)
    for truth in truths:
        seen = project(gaussians.means.astype(np.float64), truth.camera)
        columns, rows = np.where(seen.inside[:, None], seen.pixels, 0).astype(int).T
        least = np.maximum(BEFORE_M / scale, BEFORE_SHARE * seen.depths)
        in_frame += seen.inside
        before += seen.inside & (truth.depths[rows, columns] - seen.depths > least)
    opaque = 1 / (1 + np.exp(-gaussians.raw_opacities)) > LEAST_OPACITY
    return np.asarray(opaque & (before >= FEWEST_PHOTOS) & (before >= IN_FRONT_OF * in_frame))


def measure(gaussians: Gaussians, held_out: list[Truth], all_photos: list[Truth], scale: float) -> str:
    """What the module says, as a line."""
    rasterizer = rasterizer_for("cpu")
    floating = floaters(gaussians, all_photos, scale)
    errors, light = [], []
    for truth in held_out:
        pose = truth.camera.cam_from_world
        depths = gaussians.means @ pose[2, :3] + pose[2, 3]
        image: Image = rasterizer.render(colored(gaussians, depths.clip(0)), truth.camera)
        told = (image[..., 1] > LEAST_LIGHT) & np.isfinite(truth.depths) & ~truth.leaves
        errors.append(np.abs(image[told, 0] / image[told, 1] - truth.depths[told]) * scale * 100)
        light.append(rasterizer.render(colored(gaussians, floating), truth.camera)[..., 0].mean())
    median, most = np.percentile(np.concatenate(errors), [50, 90])
    return (
        f"depth {median:6.1f} cm, 90 % within {most:6.1f} cm, {int(floating.sum()):5} floaters of "
        f"{len(gaussians)} Gaussians, {100 * float(np.mean(light)):5.2f} % of the light"
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = TRAIN_PRESETS["standard"].depth_weight
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, default], help=f"default: 0 {default:g}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--steps", type=int, default=TRAIN_PRESETS["standard"].steps)
    parser.add_argument("--scenes", type=Path, help="folder that keeps the scene for the next call")
    arguments = parser.parse_args()

    compile_kernels(ignore_progress)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.scenes or Path(temporary)
        scene = scene_of("demo", folder, SMALL_PX)
        true_cameras = {camera.name: camera for camera in load_ground_truth(ground_truth_path(folder / "demo-flight"))}
        alignment, world = Alignment.of(scene, true_cameras), build_world()
        small = [
            camera.resized(SMALL_PX, round(SMALL_PX * camera.height / camera.width))
            for camera in split_views(scene, HOLD_OUT_EVERY)[1]
        ]
        held_out = [alignment.truth_of(camera, world) for camera in small]
        everywhere = [
            alignment.truth_of(camera.resized(camera.width // 4, camera.height // 4), world) for camera in scene.cameras
        ]
        for seed in arguments.seeds:
            for weight in arguments.weights:
                options = TRAIN_PRESETS["standard"].model_copy(
                    update={
                        "max_image_size": SMALL_PX,
                        "pixels_per_gaussian": SMALL_PIXELS_PER_GAUSSIAN,
                        "steps": arguments.steps,
                        "hold_out_every": HOLD_OUT_EVERY,
                        "use_all_photos": False,
                        "depth_weight": weight,
                        "random_seed": seed,
                    }
                )
                started = time.process_time()
                section = train(scene, Path(temporary), options, lambda stats: None)
                found = measure(read_ply(Path(temporary) / "scene.ply"), held_out, everywhere, alignment.scale)
                print(
                    f"seed {seed:3}, depth_weight {weight:5g}: {section.psnr_db:.2f} dB, detail {section.detail:.3f}, "
                    f"{time.process_time() - started:5.0f} CPU-s, {found}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
