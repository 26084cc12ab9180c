"""Adjust a large model to GPS: photos far apart see nothing in common, so small errors add up to a bend.

Matches hold neighbours together to a pixel; GPS errs by metres, but as much at one end of a flight as at the other. Its
weight is what it proves to have: the scatter of GPS around the model, east and north and up apart. Barometers that
wander by 30 m hence bend nothing, and a place that is wrong hardly counts (Cauchy's loss).
"""

import logging
from collections.abc import Mapping

import numpy as np
import pycolmap

from tasks.core.photoset import Gps
from tasks.core.sfm.frame import middle_place, wgs84
from tasks.core.transforms import Float64

logger = logging.getLogger(__name__)

FEWEST_PLACES = 10  # photos with latitude, longitude and altitude
INLIER_M = 10.0  # consumer GPS errs by 2 to 5 m
LEAST_SHARE = 0.5  # of the places that must agree with the model, or GPS is not used
LEAST_SIGMA_M = 0.1, 0.1, 0.2  # east, north, up
MAD_TO_SIGMA = 1.4826  # of a normal distribution
CAUCHY_SCALE = 2.0  # standard deviations
ITERATIONS, TOLERANCE = 30, 1e-6


def adjust_to_gps(model: pycolmap.Reconstruction, places: Mapping[str, Gps], seed: int) -> bool:
    """Move the model into metres and adjust it with its photos' places; returns whether GPS was used.

    `places` are by image name. Without enough places that agree with the model nothing is changed.
    """
    images = [model.image(i) for i in sorted(model.reg_image_ids())]
    located = [image for image in images if image.name in places and places[image.name].altitude_m is not None]
    if len(located) < FEWEST_PLACES:
        return False
    degrees = [places[image.name] for image in located]
    lat_lon_alt = np.array([(p.latitude_deg, p.longitude_deg, p.altitude_m) for p in degrees], np.float64)
    places_m = np.asarray(wgs84().ellipsoid_to_enu(lat_lon_alt, *middle_place(lat_lon_alt)), np.float64)
    ransac = pycolmap.RANSACOptions()
    ransac.max_error, ransac.random_seed = INLIER_M, seed
    names = [image.name for image in located]
    to_metres = pycolmap.align_reconstruction_to_locations(model, names, places_m, FEWEST_PLACES, ransac)
    if to_metres is None:
        return False
    centers = np.stack([to_metres * image.projection_center() for image in located])
    offsets_m = places_m - centers
    if np.mean(np.linalg.norm(offsets_m[:, :2], axis=1) <= INLIER_M) < LEAST_SHARE:
        logger.warning("GPS does not agree with the cameras, and is not used to adjust them")
        return False
    model.transform(to_metres)
    scatter = MAD_TO_SIGMA * np.median(np.abs(offsets_m - np.median(offsets_m, axis=0)), axis=0)
    sigma_m = np.maximum(scatter, LEAST_SIGMA_M)
    logger.info("adjusting to GPS, which scatters by %.2f m east, %.2f m north and %.2f m up", *sigma_m)
    _adjust(model, located, places_m, sigma_m)
    return True


def _adjust(model: pycolmap.Reconstruction, located: list[pycolmap.Image], places_m: Float64, sigma_m: Float64) -> None:
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    priors = []
    for image, place in zip(located, places_m, strict=True):
        prior = pycolmap.PosePrior(position=place, coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN)
        prior.corr_data_id = image.data_id
        prior.position_covariance = np.diag(sigma_m**2)
        priors.append(prior)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.max_num_iterations = ITERATIONS
    options.ceres.solver_options.function_tolerance = TOLERANCE
    with_gps = pycolmap.PosePriorBundleAdjustmentOptions()
    with_gps.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
    with_gps.ceres.prior_position_loss_scale = CAUCHY_SCALE
    pycolmap.create_pose_prior_bundle_adjuster(options, with_gps, config, priors, model).solve()
    model.update_point_3d_errors()
