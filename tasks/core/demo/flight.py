"""Fly the demo's drone over the hamlet or a generated town, and write the photos and the truth about them.

The photos are JPEG files with EXIF, as a drone writes them. `<photos>_ground_truth.json` next to their folder contains
the true cameras, `<photos>_heights.npz` the true surface.
"""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from tasks.core.demo import place
from tasks.core.demo.camera_film import expose
from tasks.core.demo.flight_plan import FOCAL_35MM_EQUIVALENT, DemoOptions, look_at, plan
from tasks.core.demo.heights import heights_path, raster_width_m, save_heights, surface_heights
from tasks.core.demo.place import Position, position_from_enu
from tasks.core.demo.world import World, build_world
from tasks.core.errors import DestinationError, FormatError
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.scene import Camera
from tasks.core.transforms import Float64

MAKE, MODEL = "Spaceport", "Simulated Drone"
JPEG_QUALITY = 94
_SENSOR_WIDTH_MM = 13.2  # of a 1-inch sensor, so that the real focal length differs from its 35 mm equivalent

_NUMBERS = ("width", "height", "fx", "fy", "cx", "cy")
TAKE_OFF = datetime(2026, 6, 14, 15, 20)  # noqa: DTZ001 - EXIF times are local, without a zone
SECONDS_BETWEEN_PHOTOS = 4


def _rational(value: float, denominator: int) -> IFDRational:
    return IFDRational(round(value * denominator), denominator)


def _sexagesimal(angle_deg: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes, seconds; seconds to 1e-6, which is 0.03 mm on the ground."""
    millionths = round(abs(angle_deg) * 3600 * 1_000_000)
    minutes, seconds = divmod(millionths, 60 * 1_000_000)
    return IFDRational(minutes // 60, 1), IFDRational(minutes % 60, 1), IFDRational(seconds, 1_000_000)


def jpeg_bytes(
    rgb: NDArray[np.uint8], taken_at: datetime, position: Position, focal_35mm: int, focal_per_width: float
) -> bytes:
    """A JPEG of pixels [height, width, 3] with EXIF.

    Args:
        rgb: sRGB pixels.
        taken_at: local time of the shot.
        position: the camera's position as GPS reports it.
        focal_35mm: focal length of a full-frame camera with the same view.
        focal_per_width: focal length over the image's longer side.
    """
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = MAKE, MODEL
    exif[Base.Orientation] = 1
    stamp = taken_at.strftime("%Y:%m:%d %H:%M:%S")
    exif[Base.DateTime] = stamp
    details = exif.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = stamp
    details[Base.FocalLength] = _rational(focal_per_width * _SENSOR_WIDTH_MM, 100)
    details[Base.FocalLengthIn35mmFilm] = focal_35mm
    details[Base.ExifImageWidth], details[Base.ExifImageHeight] = rgb.shape[1], rgb.shape[0]
    gps = exif.get_ifd(IFD.GPSInfo)
    gps[GPS.GPSVersionID] = b"\x02\x03\x00\x00"
    gps[GPS.GPSLatitudeRef] = "N" if position.latitude_deg >= 0 else "S"
    gps[GPS.GPSLatitude] = _sexagesimal(position.latitude_deg)
    gps[GPS.GPSLongitudeRef] = "E" if position.longitude_deg >= 0 else "W"
    gps[GPS.GPSLongitude] = _sexagesimal(position.longitude_deg)
    gps[GPS.GPSAltitudeRef] = b"\x00" if position.altitude_m >= 0 else b"\x01"
    gps[GPS.GPSAltitude] = _rational(abs(position.altitude_m), 1000)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=exif)
    return buffer.getvalue()


def ground_truth_path(photos: Path) -> Path:
    """The file of a photo folder's true cameras: next to the folder, so that it is never taken for a photo."""
    return photos.parent / f"{photos.name}_ground_truth.json"


def save_ground_truth(path: Path, cameras: tuple[Camera, ...], origin: Position) -> None:
    """Write the true cameras, in flight order."""
    described = [
        {
            "name": camera.name,
            **{key: getattr(camera, key) for key in _NUMBERS},
            "cam_from_world": camera.cam_from_world.tolist(),
        }
        for camera in cameras
    ]
    path.write_text(json.dumps({"origin": vars(origin), "cameras": described}, indent=1), encoding="utf-8")


def load_ground_truth(path: Path) -> tuple[Camera, ...]:
    """Read the true cameras, in flight order.

    Raises:
        FormatError: the file was not written by `save_ground_truth`.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Camera(
                name=camera["name"],
                **{key: camera[key] for key in _NUMBERS},
                cam_from_world=np.array(camera["cam_from_world"], np.float64).reshape(4, 4),
            )
            for camera in described["cameras"]
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path.name} does not describe a demo flight ({error}); fly again to write it anew."
        ) from error


def compile_kernels(world: World | None = None) -> None:
    """Compile the ray caster, if it is not compiled yet: about 15 seconds of one core, once for a machine."""
    view = look_at(np.array([0.0, 0.0, 40.0]), np.zeros(3), 0.0)
    expose(world or build_world(), Camera("", 4, 3, 3.0, 3.0, 2.0, 1.5, view))


def fly(out: Path, options: DemoOptions, on_progress: ProgressCallback) -> None:
    """Take the photos of the demo flight.

    Writes `DEMO_0001.JPG` … into `out`, with EXIF: time, focal length, and the GPS position, which is the true position
    plus a seeded error of 0.3 m standard deviation per axis. Writes the true cameras to `ground_truth_path(out)`
    and the true surface to `heights_path(out)`. The same options give the same bytes.

    Args:
        out: the photos' folder; made if missing.
        options: number and size of the photos, extent of the place, seed.
        on_progress: called after every photo; the unit is photos.

    Raises:
        DestinationError: `out` holds other files, or cannot be written.
    """
    cameras, gps = plan(options)
    _prepare(out, {camera.name for camera in cameras})
    world = build_world(options.extent_m, options.seed)
    compile_kernels(world)  # here, before several threads would do it at the same time

    def shoot(number: int, camera: Camera, reported: Float64) -> None:
        photo = jpeg_bytes(
            expose(world, camera).rgb,
            TAKE_OFF + timedelta(seconds=SECONDS_BETWEEN_PHOTOS * number),
            position_from_enu(reported, place.ORIGIN),
            FOCAL_35MM_EQUIVALENT,
            camera.fx / max(camera.width, camera.height),
        )
        (out / camera.name).write_bytes(photo)

    with ThreadPoolExecutor(os.cpu_count()) as drones:
        shots = drones.map(shoot, range(len(cameras)), cameras, gps)
        for done, _ in enumerate(shots, start=1):
            on_progress(Progress(done, len(cameras), f"photo {done}/{len(cameras)}"))
        heights = surface_heights(world, raster_width_m(options.extent_m), drones.map)
    save_ground_truth(ground_truth_path(out), cameras, place.ORIGIN)
    save_heights(heights_path(out), heights)


def _prepare(out: Path, expected: set[str]) -> None:
    """Make the folder. It may exist if it is empty, or has only photos of this flight, which are then overwritten."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in expected)
    except OSError as error:
        raise DestinationError(f"The demo photos cannot be written to {out}: {error.strerror}.") from error
    if others:
        raise DestinationError(
            f"{out} holds {len(others)} other files ({others[0]} …), which would be taken for "
            "photos of the demo flight; name an empty folder."
        )
