"""A small drone flight over a textured floor with two boxes, ray cast with numpy: its cameras are known in metres."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD

WIDTH, HEIGHT, FOCAL_PX = 480, 360, 430.0
ORIGIN = (46.5, 7.25, 400.0)  # latitude, longitude in degrees, altitude in metres
SEMI_MAJOR_M, FLATTENING = 6378137.0, 1 / 298.257223563  # WGS84
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Face:
    """A textured parallelogram."""

    corner: NDArray[np.float64]
    edges: NDArray[np.float64]  # [2, 3]
    texture: NDArray[np.float64]  # [T, T, 3]


def texture(seed: int, size: int) -> NDArray[np.float64]:
    """Noise at several scales: SIFT finds corners of all sizes in it."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8)).resize((size, size)), dtype=float
        )
        for cells in (size // 32, size // 12, size // 5)
    ]
    return np.clip(np.mean(layers, axis=0) * 2 - 128, 0, 255)


def faces() -> list[Face]:
    floor = Face(np.array([-30.0, -30, 0]), np.array([[60.0, 0, 0], [0, 60, 0]]), texture(0, 1024))
    sides = []
    for seed, (x, y, size, top) in enumerate(((-8.0, -6.0, 6.0, 5.0), (3.0, 2.0, 7.0, 8.0)), start=1):
        for k, (corner, u, v) in enumerate(
            (
                ((x, y, top), (size, 0, 0), (0, size, 0)),
                ((x, y, 0), (size, 0, 0), (0, 0, top)),
                ((x, y + size, 0), (size, 0, 0), (0, 0, top)),
                ((x, y, 0), (0, size, 0), (0, 0, top)),
                ((x + size, y, 0), (0, size, 0), (0, 0, top)),
            )
        ):
            sides.append(Face(np.array(corner, float), np.array([u, v], float), texture(10 * seed + k, 256)))
    return [floor, *sides]


def true_cameras(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [N, 3] in metres and world-to-camera rotations [N, 3, 3] on a climbing arc that looks at the boxes."""
    turn = np.radians(np.linspace(-50, 50, count))
    centers = np.stack([24 * np.sin(turn), -24 * np.cos(turn), np.linspace(16, 22, count)], axis=1)
    forward = np.array([0.0, 0, 2]) - centers
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return centers, np.stack([right, np.cross(forward, right), forward], axis=1)


def render(center: NDArray[np.float64], rotation: NDArray[np.float64], scene: list[Face]) -> Image.Image:
    width, height = WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING
    x = (np.arange(width) + 0.5) / SUPERSAMPLING - WIDTH / 2
    y = (np.arange(height) + 0.5) / SUPERSAMPLING - HEIGHT / 2
    rays = np.stack([*np.meshgrid(x, y), np.full((height, width), FOCAL_PX)], axis=-1) @ rotation
    nearest = np.full((height, width), np.inf)
    pixels = np.full((height, width, 3), 200.0)
    for face in scene:
        normal = np.cross(*face.edges)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = ((face.corner - center) @ normal) / (rays @ normal)
            hit = center + distance[..., None] * rays - face.corner
            u, v = (hit @ edge / (edge @ edge) for edge in face.edges)
            seen = (distance > 0) & (distance < nearest) & (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        size = len(face.texture)
        nearest[seen] = distance[seen]
        pixels[seen] = face.texture[(v[seen] * size).astype(int), (u[seen] * size).astype(int)]
    return Image.fromarray(pixels.astype(np.uint8)).reduce(SUPERSAMPLING)


def geodetic(east_m: float, north_m: float, up_m: float) -> tuple[float, float, float]:
    """WGS84 of a point near ORIGIN, by the radii of curvature there: right to millimetres within 100 m."""
    latitude, longitude, altitude = ORIGIN
    squared = FLATTENING * (2 - FLATTENING)
    bulge = 1 - squared * np.sin(np.radians(latitude)) ** 2
    meridian, normal = SEMI_MAJOR_M * (1 - squared) / bulge**1.5, SEMI_MAJOR_M / bulge**0.5
    return (
        latitude + float(np.degrees(north_m / (meridian + altitude))),
        longitude + float(np.degrees(east_m / ((normal + altitude) * np.cos(np.radians(latitude))))),
        altitude + up_m,
    )


def sexagesimal(degrees: float) -> tuple[float, float, float]:
    minutes = degrees % 1 * 60
    return float(int(degrees)), float(int(minutes)), round(minutes % 1 * 60, 6)


def write_flight(folder: Path, count: int, *, gps: bool) -> None:
    """Photos `strip a/view 1.jpg`, …, with GPS of the true camera where wanted."""
    scene = faces()
    centers, rotations = true_cameras(count)
    (folder / "strip a").mkdir(parents=True)
    for i, (center, rotation) in enumerate(zip(centers, rotations, strict=True), start=1):
        exif = Image.Exif()
        if gps:
            latitude, longitude, altitude = geodetic(*center)
            position = exif.get_ifd(IFD.GPSInfo)
            position[GPS.GPSLatitudeRef], position[GPS.GPSLatitude] = "N", sexagesimal(latitude)
            position[GPS.GPSLongitudeRef], position[GPS.GPSLongitude] = "E", sexagesimal(longitude)
            position[GPS.GPSAltitudeRef], position[GPS.GPSAltitude] = b"\x00", round(altitude, 4)
        render(center, rotation, scene).save(folder / "strip a" / f"view {i}.jpg", quality=95, exif=exif)
