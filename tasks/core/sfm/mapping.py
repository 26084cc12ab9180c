"""From matches to cameras: incremental mapping, the global mapper as its rescue, and reasons for what is left out."""

import logging
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.machine_memory import oom_kills
from tasks.core.sfm.evidence import LEAST_MATCHES, evidence_of, without_impossible_cameras
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.map_part import GROWTH, GROWTH_OF_MANY, incremental_options
from tasks.core.sfm.mapping_parts import WHOLE_AT_MOST, map_in_parts
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.worker import ending, how_it_ended
from tasks.core.transforms import Float64, rotation_angle_deg

logger = logging.getLogger(__name__)

GOOD_SHARE = 0.95  # below it, or with more than one model, try the other mapper
# Photos up to which the mapper works in one thread. In several, sums come in another order each time: one run in thirty
# of nine small photos ended 1e-7 beside the others, and every run of fifty. Two cores gain no time with these fifty.
ONE_THREAD_AT_MOST = 100
MAX_DISAGREEMENT_DEG = 5.0  # median; two good solutions differ by 0.2°, a wrong global one was 20° off
FEWEST_POINTS = 30  # of a photo that one mapper alone has placed: pycolmap's abs_pose_min_num_inliers
FEW_FEATURES = 100  # a sharp photo has thousands
DOUBTFUL_WORTH = 0.5
CLEARLY_LESS = 0.9  # of a reprojection error: a focal length more, which is not needed, takes some hundredths off
COMMON_SHARE = 0.5  # of the smaller model's photos, that tells whether two models agree
FEWEST_COMMON = 3  # photos, the same


@dataclass(frozen=True)
class Mapped:
    """The largest model, and how many there were. `model` is None when nothing could be placed."""

    mapper: str
    model: pycolmap.Reconstruction | None
    models: int
    note: str = ""  # on the other mapper, where both were tried
    doubt: str = ""  # what speaks against the model by its own numbers, a phrase
    problems: tuple[str, ...] = ()  # phrases on parts of many photos that are not in the model

    @property
    def registered(self) -> int:
        """How many photos the model holds."""
        return 0 if self.model is None else int(self.model.num_reg_images())

    @property
    def error_px(self) -> float:
        """Mean reprojection error in px of the photos; NaN without points."""
        if self.model is None or not self.model.num_points3D():
            return float("nan")
        return float(self.model.compute_mean_reprojection_error())

    def is_better_than(self, other: "Mapped") -> bool:
        """Whether to prefer this model: for more photos, or for as many by clearer evidence."""
        if self.worth != other.worth:
            return self.worth > other.worth
        only_other_is_global = other.mapper == "global" and self.mapper != "global"
        return only_other_is_global or self.error_px < CLEARLY_LESS * other.error_px

    def is_good(self, photos: int) -> bool:
        """Whether nothing is left to rescue."""
        return self.models == 1 and self.registered >= GOOD_SHARE * photos and not self.doubt

    @property
    def worth(self) -> float:
        """Of two models the one with more photos is better, where those of a doubtful model count half."""
        return self.registered * (DOUBTFUL_WORTH if self.doubt else 1.0)


def map_photos(database: FeatureDatabase, folder: Path, options: SfmOptions) -> Mapped:
    """Place the photos with the mapper that the options name.

    `auto` falls back to the global mapper when the incremental result is poor, and keeps the better one. What the
    global mapper alone has found must be believable by its own numbers.
    """
    photos = len(database.names)
    logger.info("phase mapping %d", photos)
    if options.mapper == "global":
        return _judged(map_globally(database, folder / "global", options), database)
    incremental = _judged(_map_one_after_the_other(database, folder, options), database)
    if options.mapper == "incremental" or incremental.is_good(photos) or database.has_crops:
        return incremental
    logger.info("incremental: %d of %d in %d models; trying global", incremental.registered, photos, incremental.models)
    rescue = _judged(map_globally(database, folder / "global", options), database)
    if comparable(incremental, rescue) and agree(incremental, rescue):
        leave_out_strangers(rescue, incremental)
    found = f"global: {rescue.registered} in {rescue.models} models"
    if rescue.worth <= incremental.worth:
        return replace(incremental, note=rescue.note or found)
    if rescue.doubt and incremental.model is not None:
        return replace(incremental, note=f"{found}, but {rescue.doubt}")
    if comparable(incremental, rescue) and not agree(incremental, rescue):
        return replace(incremental, note=f"global: {rescue.registered}, but turned otherwise")
    return replace(rescue, note=f"incremental: {incremental.registered} in {incremental.models} models")


def _map_one_after_the_other(database: FeatureDatabase, folder: Path, options: SfmOptions) -> Mapped:
    """Map few photos in one process, and many in parts; of these the whole, if the parts leave too many out."""
    photos = len(database.names)
    if photos <= WHOLE_AT_MOST:
        return map_incrementally(database, folder / "incremental", options)
    found = map_in_parts(database, folder / "parts", folder.parent, options)
    in_parts = Mapped("incremental", found.model, 1, f"mapped in {found.parts} parts", problems=found.problems)
    if in_parts.registered >= GOOD_SHARE * photos:
        return in_parts
    logger.info("%d parts: %d of %d photos; mapping the whole", found.parts, in_parts.registered, photos)
    whole = map_incrementally(database, folder / "incremental", options)
    if whole.worth <= in_parts.worth:
        return in_parts
    return replace(whole, note=f"in {found.parts} parts: {in_parts.registered}")


def _judged(mapped: Mapped, database: FeatureDatabase) -> Mapped:
    """Take out cameras that no lens makes, and note what speaks against the rest."""
    if mapped.model is None:
        return mapped
    lost = without_impossible_cameras(mapped.model)
    if lost:
        logger.warning("%s: %d photos had impossible focal lengths", mapped.mapper, lost)
    doubt = evidence_of(mapped.model, database.scale).doubt(mapped.models)
    if lost > mapped.registered:
        doubt = f"{lost} photos have focal lengths that no lens has"
    if doubt:
        logger.warning("%s: %s", mapped.mapper, doubt)
    return replace(mapped, doubt=doubt)


def comparable(first: Mapped, second: Mapped) -> bool:
    """Return whether the two models have enough photos in common for `agree` to tell."""
    if first.model is None or second.model is None:
        return False
    common = rotations(first.model).keys() & rotations(second.model).keys()
    return len(common) >= max(FEWEST_COMMON, COMMON_SHARE * min(first.registered, second.registered))


def map_incrementally(database: FeatureDatabase, folder: Path, options: SfmOptions) -> Mapped:
    """Register one photo after the other."""
    few = len(database.names) <= ONE_THREAD_AT_MOST
    growth = GROWTH if few else GROWTH_OF_MANY
    pipeline = incremental_options(options.random_seed, growth=growth, fixed_lenses=database.has_crops)
    if few:
        pipeline.num_threads = 1
    folder.mkdir(parents=True, exist_ok=True)
    models = pycolmap.incremental_mapping(database.path, database.images, folder, pipeline)
    return _largest("incremental", list(models.values()))


def map_globally(database: FeatureDatabase, folder: Path, options: SfmOptions) -> Mapped:
    """Place all photos at once, in a process of its own: the global mapper can abort, and another result may exist.

    Raises:
        StageError: it failed, and no other mapper is wanted; one of those of `ending`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [str(database.path), str(database.images), str(folder), str(options.random_seed)]
    oom_kills_before = oom_kills()
    ended = subprocess.run([sys.executable, "-m", __name__, *arguments], check=False)
    if ended.returncode != 0:
        logger.warning("the global mapper %s", how_it_ended(ended.returncode))
        if options.mapper == "global":
            more = "Some sets of photos end it so: use sfm.mapper=auto or incremental."
            raise ending("The global mapper", ended.returncode, oom_kills_before, more)
        return Mapped("global", None, 0, f"global: {how_it_ended(ended.returncode)}")
    models = [pycolmap.Reconstruction(path.parent) for path in sorted(folder.glob("*/cameras.bin"))]
    return _largest("global", models)


def agree(first: Mapped, second: Mapped) -> bool:
    """Return whether two models turn their common photos alike.

    Reprojection errors do not show a wrong global solution.
    """
    if first.model is None or second.model is None:
        return True
    apart_deg = list(_turned_otherwise_deg(first.model, second.model).values())
    if len(apart_deg) < 2:
        return True
    disagreement_deg = float(np.median(apart_deg))
    logger.info("the mappers differ by %.2f deg (median of %d photos)", disagreement_deg, len(apart_deg))
    return disagreement_deg <= MAX_DISAGREEMENT_DEG


def _turned_otherwise_deg(first: pycolmap.Reconstruction, second: pycolmap.Reconstruction) -> dict[str, float]:
    """How far the common photos are turned against each other, by name, in worlds turned to agree; needs two."""
    ours, theirs = rotations(first), rotations(second)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) < 2:
        return {}
    between = np.stack([ours[name].T @ theirs[name] for name in common])  # the same matrix for each, if they agree
    u, _, vt = np.linalg.svd(np.median(between, axis=0))
    mean = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return dict(zip(common, rotation_angle_deg(between @ mean.T).tolist(), strict=True))


def leave_out_strangers(rescue: Mapped, incremental: Mapped) -> None:
    """Take out of a rescue what nothing supports.

    Those are photos that the other model turns otherwise, and photos that only the rescue has, with fewer points than
    the incremental mapper asks for.
    """
    if rescue.model is None or incremental.model is None:
        return
    apart_deg = _turned_otherwise_deg(incremental.model, rescue.model)
    placed = rotations(incremental.model).keys()
    images = [rescue.model.image(i) for i in rescue.model.reg_image_ids()]
    strange = {
        image.frame_id
        for image in images
        if apart_deg.get(image.name, 0.0) > MAX_DISAGREEMENT_DEG
        or (image.name not in placed and image.num_points3D < FEWEST_POINTS)
    }
    for frame in sorted(strange):
        rescue.model.deregister_frame(frame)
    if strange:
        logger.warning("global: %d photos are left out that nothing supports", len(strange))


def rotations(model: pycolmap.Reconstruction) -> dict[str, Float64]:
    """World-to-camera rotations [3, 3] by image name."""
    images = (model.image(i) for i in model.reg_image_ids())
    return {image.name: np.asarray(image.cam_from_world().rotation.matrix()) for image in images}


def _largest(mapper: str, models: list[pycolmap.Reconstruction]) -> Mapped:
    if not models:
        return Mapped(mapper, None, 0)
    return Mapped(mapper, max(models, key=lambda model: (model.num_reg_images(), model.num_points3D())), len(models))


def _run_global(database: Path, images: Path, folder: Path, seed: int) -> None:
    pycolmap.logging.logtostderr = True  # as in the process that has started this one
    pipeline = pycolmap.GlobalPipelineOptions()
    pipeline.random_seed = seed
    pipeline.mapper.random_seed = seed
    pipeline.mapper.rotation_averaging.random_seed = seed
    pipeline.mapper.global_positioning.random_seed = seed
    pycolmap.set_random_seed(seed)
    pycolmap.global_mapping(database, images, folder, pipeline)


def reasons(database: FeatureDatabase, mapped: Mapped) -> dict[str, str]:
    """One phrase for each photo that the model lacks, by the user's name for it."""
    placed = set() if mapped.model is None else {int(i) for i in mapped.model.reg_image_ids()}
    with pycolmap.Database.open(database.path) as known:
        names = {int(image.image_id): image.name for image in known.read_all_images()}
        features = {i: int(known.num_keypoints_for_image(i)) for i in names}
        pairs, counts = known.read_two_view_geometry_num_inliers()
    shared: dict[int, dict[int, int]] = {i: {} for i in names}  # photo: other photo: points in common
    for pair, count in zip(pairs, counts, strict=True):
        first, second = (int(i) for i in pycolmap.pair_id_to_image_pair(pair))
        if count >= LEAST_MATCHES:
            shared[first][second] = shared[second][first] = int(count)
    return {
        database.user_name(names[i]): _reason(features[i], shared[i], placed) for i in sorted(names.keys() - placed)
    }


def _reason(features: int, shared: dict[int, int], placed: set[int]) -> str:
    if features < FEW_FEATURES:
        return f"only {features} features: blurred, dark or without texture"
    if not shared:
        return "shares no points with any other photo it was compared with: too little overlap, or another place"
    to_scene = [count for other, count in shared.items() if other in placed]
    if not to_scene:
        return f"shares points with {len(shared)} photos, none of which is in the scene: a separate part"
    return (
        f"shares points with {len(to_scene)} photos of the scene, at most {max(to_scene)} with one: "
        "too few of them in three photos to place it"
    )


if __name__ == "__main__":
    _run_global(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
