"""The frame of a scene: metres, east-north-up, where GPS allows it, else upright, centred and of unit size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from tasks.core.georeference import Georeference, GpsResidual, latitude_longitude, moved, nvectors
from tasks.core.measurements import FrameSection
from tasks.core.photoset import Gps, Photo
from tasks.core.safe_names import printable
from tasks.core.sfm.gps_fit import INLIER_M, LEAST_PLACES, Fit, fit_to_places, fits_mirrored
from tasks.core.sfm.up import Uprightness, hypotheses, points_of, undecided
from tasks.core.transforms import Float64, rotation_between

MAX_RESIDUAL_SHARE = 0.25  # of the GPS positions' spread: beyond it, noise decides where north is
ONE_PLACE_M = 0.5  # spread of positions that are all the same
ZERO_IS_NONE_M = 30.0  # an altitude of exactly 0 beside others that are higher than this is a missing one
BELIEVED_ALTITUDES_M = 10.0  # error of altitudes beyond which they are left out
SKYWARD, UPSIDE_DOWN = 0.7, -0.2  # mean height of views and of images' up that no capture has
COINCIDENT_SHARE = 1e-3  # camera spread over distance to the points, below which the points give the scale
ORIGIN_STEPS = 4
NAMED_PHOTOS = 5
# Beginnings of EXIF's make and model. Hasselblad makes DJI's cameras of these models.
DRONE_MAKERS = ("DJI", "Autel", "Parrot", "SKYDIO", "Skydio", "senseFly", "Yuneec", "Hasselblad L")
UNCERTAIN_SCALE = 0.02  # standard deviation beyond which the report says it


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

    def uprights(self, photos: Mapping[str, Photo], points: Float64) -> tuple[list[Uprightness], list[str]]:
        """Hypotheses of up, the likeliest first, and what is not believed. `photos` are by image name."""
        taken = [photos.get(name) for name in self.names]
        gimbal = {row: photo.up_in_camera for row, photo in enumerate(taken) if photo and photo.up_in_camera}
        drones = sum(photo is not None and (photo.camera or "").startswith(DRONE_MAKERS) for photo in taken)
        return hypotheses(self.centers, self.forwards, self.ups, gimbal, points, drone=2 * drones > len(taken))


@dataclass(frozen=True)
class Placement:
    """The georeference, if there is one, and what up, scale and place rest on."""

    georeference: Georeference | None
    frame: FrameSection
    degradations: tuple[str, ...] = ()  # what the user would expect and does not get


class _NoPlaceError(Exception):
    """The reason why GPS gives no georeference, as the end of a sentence."""


def place_in_frame(model: pycolmap.Reconstruction, photos: Sequence[Photo], random_seed: int) -> Placement:
    """Move the model into its frame, with z up: by the photos' GPS and angles, or normalised."""
    known = {photo.name: photo for photo in photos}
    views = Views.of(model)
    uprights, doubts = views.uprights(known, points_of(model))
    located = {name: photo.gps for name, photo in known.items() if photo.gps is not None}
    try:
        georeference, fit, more = _georeferenced(model, views, located, uprights, random_seed)
    except _NoPlaceError as reason:
        normalise(model, uprights)
        unsure = undecided([(upright.cost, upright.takes_for, upright.up) for upright in uprights])
        not_placed = f"The scene is not georeferenced, because {reason}." if located else ""
        return Placement(
            None,
            FrameSection(
                up=_up_rests_on(uprights[0].basis),
                scale=f"The scale is arbitrary, because {reason}.",
                place="The scene has no place on Earth.",
                not_believed=tuple(doubts),
            ),
            tuple(filter(None, (not_placed, unsure))),
        )
    described = _described(georeference, fit, [*doubts, *more])
    return Placement(georeference, described, tuple(filter(None, (fit.undecided,))))


def _up_rests_on(basis: Sequence[str]) -> str:
    return f"Up rests on {' and '.join(basis)}."


def _georeferenced(
    model: pycolmap.Reconstruction,
    views: Views,
    gps: Mapping[str, Gps],
    uprights: Sequence[Uprightness],
    random_seed: int,
) -> tuple[Georeference, Fit, list[str]]:
    """Move the model to metres east, north and up of its median GPS position.

    Raises _NoPlaceError, and then moves nothing.
    """
    rows = [row for row, name in enumerate(views.names) if name in gps]
    if len(rows) < LEAST_PLACES:
        have = f"{len(rows)} of the {len(views.names)} placed photos {'has' if len(rows) == 1 else 'have'} GPS"
        raise _NoPlaceError(f"{have}, and {LEAST_PLACES} are needed" if rows else "no photo has GPS")
    names = [views.names[row] for row in rows]
    places = [gps[name] for name in names]
    doubts: list[str] = []
    altitudes_m = _altitudes(places, doubts)
    degrees = np.array([[place.latitude_deg, place.longitude_deg] for place in places])
    known = np.isfinite(altitudes_m)
    middle_m = float(np.median(altitudes_m[known])) if known.any() else 0.0
    lat_lon_alt = np.column_stack([degrees, np.where(known, altitudes_m, middle_m)])
    origin = middle_place(lat_lon_alt)
    places_m = np.asarray(wgs84().ellipsoid_to_enu(lat_lon_alt, *origin), dtype=np.float64)
    places_m[~known, 2] = np.nan
    level = np.linalg.norm(places_m[:, :2], axis=1)
    if np.median(level) < ONE_PLACE_M and np.mean(level < ONE_PLACE_M) > 0.5:
        raise _NoPlaceError(f"GPS says the same place for {int((level < ONE_PLACE_M).sum())} of {len(rows)} photos")
    centers = views.centers[rows]
    assumed = sum(place.hemisphere_assumed for place in places)
    fit = fit_to_places(centers, places_m, uprights, random_seed)
    if fit is None or (reason := _contradiction(fit, views, places_m)):
        why = f"GPS and cameras do not fit within {INLIER_M:.0f} m" if fit is None else reason
        if any(fits_mirrored(centers, places_m, upright.up, random_seed) for upright in uprights):
            why = "GPS fits the photos only when it is mirrored"
        if assumed:
            why += f": EXIF of {assumed} photos lacks the letters N, S, E or W, and N and E were assumed"
        raise _NoPlaceError(why)
    if assumed:
        doubts.append(f"EXIF of {assumed} photos lacks the letters N, S, E or W; N and E are assumed.")
    model.transform(pycolmap.Sim3d(np.column_stack([fit.scale * fit.rotation, fit.translation])))
    return _georeference(fit, names, origin, has_altitude=bool(known.any())), fit, doubts


def _altitudes(places: Sequence[Gps], doubts: list[str]) -> Float64:
    """Altitudes [N] in metres; NaN where there is none, and where it is 0 and the others say that this means none."""
    found = np.array([np.nan if place.altitude_m is None else place.altitude_m for place in places], dtype=np.float64)
    zero = found == 0
    others = found[np.isfinite(found) & ~zero]
    if zero.any() and (not len(others) or abs(float(np.median(others))) > ZERO_IS_NONE_M):
        found[zero] = np.nan
        doubts.append(f"The altitude of {int(zero.sum())} of {len(places)} photos is 0, which is taken for none.")
    missing = int(np.isnan(found).sum()) - int(zero.sum() if np.isnan(found[zero]).any() else 0)
    if missing:
        doubts.append(f"{missing} of {len(places)} photos with GPS have no altitude.")
    return found


def _contradiction(fit: Fit, views: Views, places_m: Float64) -> str:
    """Return why the fit cannot be, as the end of a sentence; empty if it can."""
    spread_m = float(np.median(np.linalg.norm(places_m[:, :2] - np.median(places_m[:, :2], axis=0), axis=1)))
    error_m = float(np.median(fit.horizontal_m))
    fitted = int((fit.horizontal_m <= INLIER_M).sum())
    if fitted < LEAST_PLACES:
        return f"GPS fits only {fitted} of {len(places_m)} cameras within {INLIER_M:.0f} m"
    if error_m > MAX_RESIDUAL_SHARE * spread_m:
        return f"GPS errs by {error_m:.1f} m over a spread of {spread_m:.1f} m"
    sky = fit.rotation[2]
    if float((views.forwards @ sky).mean()) > SKYWARD or float((views.ups @ sky).mean()) < UPSIDE_DOWN:
        return "GPS would turn the scene upside down, so that the cameras look at the sky"
    return ""


def _georeference(
    fit: Fit, names: Sequence[str], origin: tuple[float, float, float], *, has_altitude: bool
) -> Georeference:
    believed = has_altitude and _believes_altitudes(fit)
    heights = np.where(np.isfinite(fit.vertical_m), fit.vertical_m, 0.0)
    off = np.abs(heights) > max(INLIER_M, 3 * fit.sigma_m[1]) if believed else np.zeros(len(names), bool)
    fitted = (fit.horizontal_m <= INLIER_M) & ~off
    measured = fitted & np.isfinite(fit.vertical_m)
    horizontal = float(np.sqrt(np.square(fit.horizontal_m[fitted]).mean()))
    vertical = float(np.sqrt(np.square(heights[measured]).mean())) if believed and measured.any() else None
    lengths = np.hypot(fit.horizontal_m, heights) if believed else fit.horizontal_m
    latitude, longitude, altitude = origin
    return Georeference(
        latitude_deg=latitude,
        longitude_deg=longitude,
        altitude_m=altitude if has_altitude else None,
        residual_rms_m=float(np.sqrt(np.square(lengths[fitted]).mean())),
        horizontal_rms_m=horizontal,
        vertical_rms_m=vertical,
        residual_median_m=float(np.median(lengths)),
        left_out=tuple(name for name, fits in zip(names, fitted, strict=True) if not fits),
        residuals=tuple(
            GpsResidual(name=name, east_m=east, north_m=north, up_m=up if np.isfinite(up) else None)
            for name, (east, north, up) in zip(names, fit.offsets_m.tolist(), strict=True)
        ),
    )


def _believes_altitudes(fit: Fit) -> bool:
    return fit.slopes_believed and fit.sigma_m[1] <= BELIEVED_ALTITUDES_M


def _described(georeference: Georeference, fit: Fit, doubts: Sequence[str]) -> FrameSection:
    said = list(doubts)
    if georeference.altitude_m is not None and not fit.slopes_believed:
        rise = float(np.linalg.norm(fit.slope))
        said.append(
            f"The altitudes of GPS rise against the scene by {100 * rise:.0f} m for each 100 m on the ground, so they "
            "are not used for up."
        )
    elif georeference.altitude_m is not None and not _believes_altitudes(fit):
        said.append(f"The altitudes of GPS differ from the scene's by {fit.sigma_m[1]:.0f} m, so they are hardly used.")
    far = georeference.misplaced
    if far:
        named = ", ".join(f"{printable(one.name)} ({_distance(one.length_m)})" for one in far[:NAMED_PHOTOS])
        more = f" and {len(far) - NAMED_PHOTOS} more" if len(far) > NAMED_PHOTOS else ""
        of = "1 photo" if len(far) == 1 else f"{len(far)} photos"
        said.append(f"GPS of {of} is not where the scene says that it was taken: {named}{more}.")
    used = len(georeference.residuals) - len(far)
    height = "" if georeference.vertical_rms_m is None else f", {georeference.vertical_rms_m:.2f} m in height"
    uncertain = f", so the scale is right within {2 * fit.scale_error:.0%}" if fit.scale_error > UNCERTAIN_SCALE else ""
    level = f"{georeference.horizontal_rms_m or 0.0:.2f} m rms on the ground"
    altitude = "" if georeference.altitude_m is not None else " Its altitude is not known."
    return FrameSection(
        up=_up_rests_on(fit.basis),
        scale=f"Metres, by GPS of {used} photos ({level}{height}){uncertain}.",
        place=f"East, north and up of {georeference.latitude_deg:.6f}, {georeference.longitude_deg:.6f}.{altitude}",
        not_believed=tuple(said),
    )


def _distance(meters: float) -> str:
    return f"{meters:.0f} m" if meters < 10_000 else f"{meters / 1000:,.0f} km"


def middle_place(lat_lon_alt: Float64) -> tuple[float, float, float]:
    """Latitude, longitude and altitude of the median position [N, 3] east, north and up; right at 180° and the poles.

    pycolmap's way back from metres to degrees errs by metres at a pole itself, so the origin is moved by degrees of a
    sphere until the median is there: each step leaves 0.5 % of what was left.
    """
    latitude, longitude = latitude_longitude(np.median(nvectors(lat_lon_alt[:, 0], lat_lon_alt[:, 1]), axis=0))
    altitude = float(np.median(lat_lon_alt[:, 2]))
    for _ in range(ORIGIN_STEPS):
        offsets_m = np.asarray(wgs84().ellipsoid_to_enu(lat_lon_alt, latitude, longitude, altitude))
        east_m, north_m, up_m = (float(value) for value in np.median(offsets_m, axis=0))
        latitude, longitude = moved(latitude, longitude, east_m, north_m)
        altitude += up_m
    return latitude, longitude, altitude


def wgs84() -> pycolmap.GPSTransform:
    """The ellipsoid of GPS."""
    return pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)


def enu_position(gps: Gps, georeference: Georeference | None) -> tuple[float, float, float] | None:
    """Return where a photo was taken, in the scene's frame [m]; None if scene or photo lack the information."""
    if georeference is None or (gps.altitude_m is None and georeference.altitude_m is not None):
        return None
    altitude_m = georeference.altitude_m or 0.0
    own_m = altitude_m if georeference.altitude_m is None or gps.altitude_m is None else gps.altitude_m
    place = np.array([[gps.latitude_deg, gps.longitude_deg, own_m]], dtype=np.float64)
    origin = georeference.latitude_deg, georeference.longitude_deg, altitude_m
    [(east, north, up)] = wgs84().ellipsoid_to_enu(place, *origin)
    return float(east), float(north), float(up)


def normalise(model: pycolmap.Reconstruction, uprights: Sequence[Uprightness] | None = None) -> Float64:
    """Turn up to +z, put the cameras' centroid at the origin, and their median distance from it at 1.

    Returns the similarity [3, 4] that the model was moved by.
    """
    views = Views.of(model)
    centroid = views.centers.mean(axis=0)
    unit = float(np.median(np.linalg.norm(views.centers - centroid, axis=1)))
    points = points_of(model)
    if len(points):
        depth = float(np.median(np.linalg.norm(points - centroid, axis=1)))
        unit = depth if unit < COINCIDENT_SHARE * depth else unit
    [best, *_] = uprights or views.uprights({}, points)[0]
    rotation = rotation_between(best.up, np.array([0.0, 0.0, 1.0]))
    scale = 1 / max(unit, 1e-12)
    matrix = np.column_stack([scale * rotation, -scale * rotation @ centroid])
    model.transform(pycolmap.Sim3d(matrix))
    return matrix
