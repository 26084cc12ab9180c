"""The frame of a scene: metres, east-north-up, where GPS allows it, else upright, centred and of unit size."""

import logging
from dataclasses import dataclass

import numpy as np
import pycolmap

from tasks.core.georeference import Georeference, GpsResidual, latitude_longitude, moved, nvectors
from tasks.core.photoset import Gps
from tasks.core.safe_names import printable
from tasks.core.transforms import Float64

logger = logging.getLogger(__name__)

MIN_GPS_PHOTOS = 3
GPS_INLIER_M = 10.0  # consumer GPS errs by 2 to 5 m
MIN_FLATNESS = 0.05  # second over first standard deviation of camera centres: on a line, turning about it is free
MAX_RESIDUAL_SHARE = 0.25  # of the GPS positions' spread: beyond it, noise decides where north is
COINCIDENT_SHARE = 1e-3  # camera spread over distance to the points, below which the points give the scale
NADIR_ALIGNMENT = 0.9  # cosine
UP_ITERATIONS = 10
ORIGIN_STEPS = 4


@dataclass(frozen=True)
class Views:
    """Registered cameras as arrays."""

    names: tuple[str, ...]
    centers: Float64  # [N, 3]
    forwards: Float64  # [N, 3] unit
    ups: Float64  # [N, 3] unit

    @classmethod
    def of(cls, model: pycolmap.Reconstruction) -> "Views":
        """The registered images of a model, by image number."""
        images = [model.image(i) for i in sorted(model.reg_image_ids())]
        rotations = np.stack([image.cam_from_world().rotation.matrix() for image in images])
        centers = np.stack([image.projection_center() for image in images])
        return cls(tuple(image.name for image in images), centers, rotations[:, 2], -rotations[:, 1])


def place_in_frame(model: pycolmap.Reconstruction, gps: dict[str, Gps], random_seed: int) -> Georeference | None:
    """Move the model into its frame, with z up. `gps` by image name; returns None when it was normalised."""
    georeference = georeference_model(model, gps, random_seed)
    if georeference is None:
        normalise(model)
    return georeference


def georeference_model(model: pycolmap.Reconstruction, gps: dict[str, Gps], random_seed: int) -> Georeference | None:
    """Move the model to metres east, north and up of its mean GPS position; None, and unmoved, without enough GPS."""
    views = Views.of(model)
    located = [(i, gps[name]) for i, name in enumerate(views.names) if name in gps and gps[name].altitude_m is not None]
    if len(located) < MIN_GPS_PHOTOS:
        return None
    rows = [i for i, _ in located]
    centers = views.centers[rows]
    deviations = np.linalg.svd(centers - centers.mean(axis=0), compute_uv=False)
    if deviations[1] < MIN_FLATNESS * deviations[0]:
        logger.info("no georeference: the %d photos with GPS stand on a line", len(located))
        return None
    lat_lon_alt = np.array([[g.latitude_deg, g.longitude_deg, g.altitude_m] for _, g in located], dtype=np.float64)
    origin = _middle(lat_lon_alt)
    positions_m = np.asarray(_wgs84().ellipsoid_to_enu(lat_lon_alt, *origin))
    ransac = pycolmap.RANSACOptions(max_error=GPS_INLIER_M, random_seed=random_seed)
    names = [views.names[i] for i in rows]
    metric_from_model = pycolmap.align_reconstruction_to_locations(model, names, positions_m, MIN_GPS_PHOTOS, ransac)
    if metric_from_model is None:
        logger.info("no georeference: GPS and cameras do not fit within %.0f m", GPS_INLIER_M)
        return None
    moved = np.asarray(metric_from_model.matrix())
    offsets_m = centers @ moved[:, :3].T + moved[:, 3] - positions_m  # [N, 3]
    residuals_m = np.linalg.norm(offsets_m, axis=1)
    spread_m = np.linalg.norm(positions_m - np.median(positions_m, axis=0), axis=1)
    if np.median(residuals_m) > MAX_RESIDUAL_SHARE * np.median(spread_m):
        logger.info(
            "no georeference: GPS errs by %.1f m over a spread of %.1f m", np.median(residuals_m), np.median(spread_m)
        )
        return None
    fitted = residuals_m <= GPS_INLIER_M
    if fitted.sum() < MIN_GPS_PHOTOS:
        logger.info("no georeference: GPS fits %d cameras within %.0f m", fitted.sum(), GPS_INLIER_M)
        return None
    model.transform(metric_from_model)
    for name, residual_m in zip(names, residuals_m, strict=True):
        if residual_m > GPS_INLIER_M:
            logger.info("GPS of %s is %.0f m from its camera, and left out of the fit", printable(name), residual_m)
    latitude, longitude, altitude = origin
    return Georeference(
        latitude_deg=latitude,
        longitude_deg=longitude,
        altitude_m=altitude,
        residual_rms_m=float(np.sqrt((residuals_m[fitted] ** 2).mean())),
        residual_median_m=float(np.median(residuals_m)),
        left_out=tuple(name for name, fits in zip(names, fitted, strict=True) if not fits),
        residuals=tuple(
            GpsResidual(name=name, east_m=east, north_m=north, up_m=up)
            for name, (east, north, up) in zip(names, offsets_m.tolist(), strict=True)
        ),
    )


def _middle(lat_lon_alt: Float64) -> tuple[float, float, float]:
    """Latitude, longitude and altitude of the median position [N, 3] east, north and up; right at 180° and the poles.

    pycolmap's way back from metres to degrees errs by metres at a pole itself, so the origin is moved by degrees of a
    sphere until the median is there: each step leaves 0.5 % of what was left.
    """
    latitude, longitude = latitude_longitude(np.median(nvectors(lat_lon_alt[:, 0], lat_lon_alt[:, 1]), axis=0))
    altitude = float(np.median(lat_lon_alt[:, 2]))
    for _ in range(ORIGIN_STEPS):
        offsets_m = np.asarray(_wgs84().ellipsoid_to_enu(lat_lon_alt, latitude, longitude, altitude))
        east_m, north_m, up_m = (float(value) for value in np.median(offsets_m, axis=0))
        latitude, longitude = moved(latitude, longitude, east_m, north_m)
        altitude += up_m
    return latitude, longitude, altitude


def _wgs84() -> pycolmap.GPSTransform:
    return pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)


def enu_position(gps: Gps, georeference: Georeference | None) -> tuple[float, float, float] | None:
    """Return where a photo was taken, in the scene's frame [m]; None if scene or photo lack the information."""
    if georeference is None or gps.altitude_m is None:
        return None
    place = np.array([[gps.latitude_deg, gps.longitude_deg, gps.altitude_m]], dtype=np.float64)
    origin = georeference.latitude_deg, georeference.longitude_deg, georeference.altitude_m
    [(east, north, up)] = _wgs84().ellipsoid_to_enu(place, *origin)
    return float(east), float(north), float(up)


def normalise(model: pycolmap.Reconstruction) -> Float64:
    """Turn up to +z, put the cameras' centroid at the origin, and their median distance from it at 1.

    Returns the similarity [3, 4] that the model was moved by.
    """
    views = Views.of(model)
    centroid = views.centers.mean(axis=0)
    unit = float(np.median(np.linalg.norm(views.centers - centroid, axis=1)))
    points = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    if len(points):
        depth = float(np.median(np.linalg.norm(points - centroid, axis=1)))
        unit = depth if unit < COINCIDENT_SHARE * depth else unit
    rotation = rotation_between(estimate_up(views), np.array([0.0, 0.0, 1.0]))
    scale = 1 / max(unit, 1e-12)
    matrix = np.column_stack([scale * rotation, -scale * rotation @ centroid])
    model.transform(pycolmap.Sim3d(matrix))
    return matrix


def estimate_up(views: Views) -> Float64:
    """Unit vector to the sky: the images' common up, or against the view where all look down from one level.

    Photos straight down have no meaningful common up. They are recognised by their centres: those are in one plane, and
    all photos look along its normal.
    """
    _, deviations, axes = np.linalg.svd(views.centers - views.centers.mean(axis=0))
    forward = views.forwards.mean(axis=0)
    planar = len(views.names) >= 4 and deviations[1] > 0.2 * deviations[0] and deviations[2] < 0.3 * deviations[1]
    if planar and abs(axes[2] @ forward) > NADIR_ALIGNMENT:
        return np.asarray(-np.sign(axes[2] @ forward) * axes[2])
    up = views.ups.mean(axis=0)
    for _ in range(UP_ITERATIONS):  # towards the geometric median, so that a few photos on their side do not matter
        up /= max(float(np.linalg.norm(up)), 1e-12)
        weights = 1 / np.maximum(np.linalg.norm(views.ups - up, axis=1), 0.05)
        up = weights @ views.ups
    length = float(np.linalg.norm(up))
    if length < 1e-9:
        return np.asarray(views.ups[0])
    return np.asarray(up / length)


def rotation_between(source: Float64, target: Float64) -> Float64:
    """The smallest rotation [3, 3] that turns one unit vector [3] into another."""
    axis, cosine = np.cross(source, target), float(source @ target)
    if cosine < -1 + 1e-9:  # opposite: half a turn about anything square to it
        square = np.cross(source, np.eye(3)[int(np.argmin(np.abs(source)))])
        square /= np.linalg.norm(square)
        return np.asarray(2 * np.outer(square, square) - np.eye(3))
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1 + cosine))  # Rodrigues
