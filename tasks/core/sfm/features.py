"""The database of one reconstruction: cameras, features, matches. Only the worker process touches it."""

import copy
import errno
import logging
import math
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pycolmap
from numpy.typing import NDArray

from tasks.core.machine_memory import available_memory_bytes
from tasks.core.photoset import IMAGES_FOLDER, Gps, Photo, is_believed_focal
from tasks.core.safe_names import printable
from tasks.core.sfm.appearance import Float32, photo_vectors
from tasks.core.sfm.evidence import is_fooled, no_depth, read_pairs
from tasks.core.sfm.feature_state import (
    FrameKind,
    end_progress,
    frame_kind,
    read_overlays,
    read_progress,
    write_overlays,
    write_progress,
)
from tasks.core.sfm.grey import GreyJob, contrast_of, features_image_size, scaled_size, write_all_grey
from tasks.core.sfm.lenses import largest_of_crops
from tasks.core.sfm.match_part import BLOCK, verification_options
from tasks.core.sfm.matching import in_tiles, match_pairs, processes_for
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.overlay import FEWEST_PHOTOS, FrameChanges, Mask, covers, for_features, reduction
from tasks.core.sfm.pairs import ESCALATED_AT_MOST, Pair, PairChoice
from tasks.core.sfm.similar import join_parts, match_similar
from tasks.core.sfm.zoom import find_zoomed, split_cameras

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 120  # of the scaled photo, in one extraction thread: 0.22 GB at 1600 px, measured; ×4 when doubled
# Of the features that a photo may have, in one matching process: 0.24 GB with 7,000 of them, measured.
MATCHING_BYTES_PER_FEATURE = 35_000
PAIRS_AT_RISK = 16 * BLOCK  # that a process matches before they are kept: a minute's work or two
GREY_AT_ONCE = 128  # small grey copies of photos on the disk, 2 MB each
MOST_COPIES = 8  # of the database while features are found, and while pairs are matched: many photos' is a gigabyte
STILL_PX = 4.0  # of the copy that features are looked for in: a match that moves less does not move
LOW_CONTRAST = 32.0  # grey levels of 255, a photo's deviation: sunlit places have 45 to 70
SAME_FOCAL = 0.02  # as a share; COLMAP rounds the diagonal of a 35 mm film
CONTRAST_PHOTOS = 12  # that are looked at for it
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # exFAT, and some network file systems


def _link(place: Path, photo: Path) -> None:
    """Make `place` a link to a photo, or a copy where the file system has no links. Raises OSError."""
    try:
        place.symlink_to(photo)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(photo, place)


class FeatureDatabase:
    """Photos are numbered in capture order and linked as 000001.jpg, …: COLMAP's lists of pairs split at spaces."""

    def __init__(self, folder: Path, photos_folder: Path, photos: tuple[Photo, ...], options: SfmOptions) -> None:
        self.path = folder / "database.db"
        self.images = folder / "images"
        self.names = tuple(f"{i:06d}{Path(photo.name).suffix.lower()}" for i, photo in enumerate(photos, start=1))
        self._photo_of = dict(zip(self.names, photos, strict=True))
        self._photos_folder = photos_folder
        self._photos = photos
        self._options = options
        cropped = largest_of_crops(photos)
        self.has_crops = any(photo.camera in cropped for photo in photos if photo.focal_px is not None)
        self._image_size = features_image_size(photos, options.max_features_image_size)
        self.overlays: dict[FrameKind, Mask] = {}  # what never changes in the photos of one camera
        self.still_points_count = True  # matches that do not move between their photos
        self.images.mkdir(parents=True)
        for name, photo in zip(self.names, photos, strict=True):
            _link(self.images / name, photos_folder / IMAGES_FOLDER / photo.name)
        pycolmap.set_random_seed(options.random_seed)
        pycolmap.Database.open(self.path).close()

    def user_name(self, name: str) -> str:
        """The photo's own name from the name of its link."""
        return self._photo_of[name].name

    def gps_by_name(self) -> dict[str, Gps]:
        """Where photos were taken, by their names in the database; without those that do not know it."""
        return {name: photo.gps for name, photo in self._photo_of.items() if photo.gps is not None}

    def overlay_of(self, photo: Photo) -> Mask | None:
        """What never changes in this photo and all others of its camera; None where everything does."""
        return self.overlays.get(frame_kind(photo))

    @property
    def scale(self) -> float:
        """The px of the largest photo's copy that features are looked for in, for one px of the photo."""
        return min(1.0, self._image_size / max(max(photo.width, photo.height) for photo in self._photos))

    @property
    def still_px(self) -> float:
        """The distance in px of the photos below which a point is at the same place in two of them."""
        return STILL_PX / self.scale

    def _numbered(self) -> dict[int, Photo]:
        """The photos by their number in the database."""
        with closing(sqlite3.connect(self.path)) as connection:
            images = connection.execute("select image_id, name from images").fetchall()
        return {number: self._photo_of[name] for number, name in images}

    def _sizes(self) -> dict[int, tuple[int, int]]:
        return {number: (photo.width, photo.height) for number, photo in self._numbered().items()}

    def has_low_contrast(self) -> bool:
        """Whether the photos are as pale as those taken under water, in snow or at dusk: the median of some."""
        some = self.names[:: -(-len(self.names) // CONTRAST_PHOTOS)]
        return float(np.median([contrast_of(self.images / name) for name in some])) < LOW_CONTRAST

    def no_depth(self) -> str:
        """How the camera failed to move, if all pairs that agree show that; see `evidence.no_depth`."""
        return no_depth(read_pairs(self.path), self._sizes())

    def is_fooled(self) -> bool:
        """Whether many pairs agree by points that do not move; see `evidence.is_fooled`."""
        return self.still_points_count and is_fooled(self.path, self.still_px)

    def has_pair_between(self, some: Collection[str], others: Collection[str]) -> bool:
        """Whether any of some photos agrees with any of the others, all by the user's names."""
        numbered = self._numbered()
        names = ((numbered[a].name, numbered[b].name) for a, b in read_pairs(self.path).images)
        return any((a in some and b in others) or (b in some and a in others) for a, b in names)

    def snapshot(self, file: Path) -> None:
        """Copy the database to a file, which appears whole. No handle is open: all that was written is in the file.

        A disk without room for the copy is a warning: this run does not need it.
        """
        partial = file.with_suffix(".partial")
        try:
            shutil.copyfile(self.path, partial)
            partial.replace(file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            logger.warning("features and matches could not be copied for a later run (%s)", error)

    def restore(self, file: Path) -> bool:
        """Continue from the snapshot of the same photos and options, if it exists."""
        if not file.is_file():
            return False
        shutil.copyfile(file, self.path)
        self.overlays = read_overlays(self.path)
        done, _ = read_progress(self.path, len(self.names))
        logger.info("features of %d photos and what was matched of them, kept from an earlier run", done)
        return True

    def add_cameras(self) -> None:
        """Enter the photos; those of the same size, camera and focal length share intrinsics.

        Without EXIF the size alone decides: frames of a video then share one camera, which registers more of them.
        pycolmap reads the focal length from the EXIF of the first photo of each camera, and decodes it for that; the
        others are entered unread. A focal length that no lens has is dropped, and digital zoom is counted. Image
        numbers follow from the order of entry, and with them everything that depends on numbers, so that a run can be
        repeated.
        """

        def intrinsics(i: int) -> tuple[int, int, str, float]:
            photo = self._photos[i]
            return photo.width, photo.height, photo.camera or "", round(photo.focal_px or 0.0)

        largest_px = largest_of_crops(self._photos)
        for _, group in groupby(sorted(range(len(self._photos)), key=intrinsics), key=intrinsics):
            first, *others = (self.names[i] for i in group)
            pycolmap.import_images(self.path, self.images, pycolmap.CameraMode.SINGLE, [first])
            with pycolmap.Database.open(self.path) as database:
                like = database.read_image_with_name(first)
                assert like is not None
                _settle_focal_length(database, like.camera_id, self._photo_of[first], largest_px)
                frame = database.read_frame(like.frame_id)
                for name in others:
                    image = pycolmap.Image(name=name, camera_id=like.camera_id)
                    image.image_id = database.write_image(image)
                    own = pycolmap.Frame(rig_id=frame.rig_id)
                    own.add_data_id(image.data_id)
                    database.write_frame(own)

    def extract(self, *, doubled: bool = False, equalised: bool = False, kept: Path | None = None) -> None:
        """Find SIFT features in all photos that have none yet, except in what never changes in photos of one camera.

        `doubled` uses twice the resolution: 4 × the time and memory. `equalised` raises low contrast first. `kept` gets
        a snapshot of the database after every block of photos, and at the end.
        """
        done, changes = read_progress(self.path, len(self.names))
        if done == len(self.names):
            return
        logger.info("phase features %d", len(self._photos))
        options = pycolmap.FeatureExtractionOptions()
        options.max_image_size = self._image_size
        options.use_gpu = False
        options.num_threads = self._threads(doubled)
        options.sift.max_num_features = self._options.max_features
        options.sift.first_octave = -1 if doubled else 0
        if not done:
            kinds = Counter(map(frame_kind, self._photos))
            changes = {kind: FrameChanges() for kind, count in kinds.items() if count >= FEWEST_PHOTOS}
        at_risk = max(GREY_AT_ONCE, len(self.names) // MOST_COPIES)
        last_kept = done
        for begin in range(done, len(self.names), GREY_AT_ONCE):
            logger.info("features after %d photos", begin)
            if kept is not None and begin - last_kept >= at_risk:
                write_progress(self.path, begin, changes)
                self.snapshot(kept)
                last_kept = begin
            some = range(begin, min(begin + GREY_AT_ONCE, len(self.names)))
            self._extract_some(some, options, changes, equalised)
        end_progress(self.path)
        found = {kind: of_kind.unchanging() for kind, of_kind in changes.items()}
        self.overlays = {kind: mask for kind, mask in found.items() if mask is not None}
        if self.overlays:
            self._leave_out_overlays()
        if kept is not None:
            self.snapshot(kept)

    def _extract_some(
        self,
        numbers: range,
        options: pycolmap.FeatureExtractionOptions,
        changes: dict[FrameKind, FrameChanges],
        equalised: bool,
    ) -> None:
        """Features of some photos, found in small grey copies. Database and caller see the photos' own pixels only."""
        grey = self.path.with_name("grey")
        grey.mkdir()
        # an image keeps its name in the database, so the copies bear the photos' names; their bytes say what they are
        kinds = [frame_kind(self._photos[i]) for i in numbers]
        jobs = [
            GreyJob(
                self.images / self.names[i],
                grey / self.names[i],
                equalised,
                reduction(*scaled_size(*kind[:2], options.max_image_size)) if kind in changes else None,
            )
            for i, kind in zip(numbers, kinds, strict=True)
        ]
        small_copies = write_all_grey(jobs, options.max_image_size, options.num_threads)
        for kind, pixels in zip(kinds, small_copies, strict=True):
            if pixels is not None:
                changes[kind].add(pixels)
        with pycolmap.Database.open(self.path) as database:
            entered = {image.name: image for image in database.read_all_images()}
            images = [entered[self.names[i]] for i in numbers]
            cameras = {image.camera_id: database.read_camera(image.camera_id) for image in images}
            for camera in cameras.values():
                small = copy.deepcopy(camera)
                small.rescale(*scaled_size(camera.width, camera.height, options.max_image_size))
                database.update_camera(small)
        names = [self.names[i] for i in numbers]
        pycolmap.extract_features(self.path, grey, names, extraction_options=options)
        with pycolmap.Database.open(self.path) as database:
            for camera in cameras.values():
                database.update_camera(camera)
            for image in images:
                camera = cameras[image.camera_id]
                width, height = scaled_size(camera.width, camera.height, options.max_image_size)
                keypoints = np.array(database.read_keypoints(image.image_id))  # x, y and a 2x2 shape [K, 6]
                x, y = camera.width / width, camera.height / height
                database.update_keypoints(image.image_id, keypoints * np.array([x, y, x, x, y, y], dtype=np.float32))
        shutil.rmtree(grey)

    def _leave_out_overlays(self) -> None:
        """Remove the features in what never changes, and store the masks with the rest."""
        grown = {kind: for_features(mask) for kind, mask in self.overlays.items()}
        photos = self._numbered()
        with closing(sqlite3.connect(self.path)) as connection:
            for number, photo in photos.items():
                if frame_kind(photo) not in grown:
                    continue
                keypoints = _read_rows(connection, "keypoints", number, np.float32)
                kept = ~covers(grown[frame_kind(photo)], keypoints[:, :2], photo.width, photo.height)
                for table, values in (
                    ("keypoints", keypoints),
                    ("descriptors", _read_rows(connection, "descriptors", number, np.uint8)),
                ):
                    change = f"update {table} set rows = ?, data = ? where image_id = ?"
                    connection.execute(change, (int(kept.sum()), values[kept].tobytes(), number))
            write_overlays(connection, self.overlays)
            connection.commit()

    def match(self, choice: PairChoice, kept: Path | None = None) -> tuple[Pair, ...]:
        """Match the pairs of a choice and verify them; pairs that are done already cost nothing.

        `kept` gets a snapshot of the database after every some thousand pairs, and at the end. Returns what was
        compared: also the pairs that photos alike have led to, or that join parts of many photos.
        """
        seed = self._options.random_seed

        def compare(pairs: Sequence[Pair]) -> None:
            self._match(pairs, choice.matcher, kept)

        def vectors() -> Float32:
            return photo_vectors(self.path, self.names, seed)

        if choice.similar:
            return match_similar(self.path, self.names, choice, compare, vectors())
        compare(choice.pairs)
        if len(self.names) <= ESCALATED_AT_MOST:
            return choice.pairs
        return join_parts(
            self.path, self.names, choice.pairs, compare, lambda: photo_vectors(self.path, self.names, seed)
        )

    def _match(self, chosen: Sequence[Pair], matcher: str, kept: Path | None) -> None:
        pairs = in_tiles(chosen)
        logger.info("phase matching %d", -(-len(pairs) // BLOCK))
        logger.info("%d pairs of %d photos, %s", len(pairs), len(self._photos), matcher)
        processes = processes_for(len(pairs), self.fitting(MATCHING_BYTES_PER_FEATURE * self._options.max_features))
        part = max(PAIRS_AT_RISK * processes, len(pairs) // MOST_COPIES)
        for begin in range(0, len(pairs), part):
            logger.info("matching after %d blocks", begin // BLOCK)
            some = [(self.names[a], self.names[b]) for a, b in pairs[begin : begin + part]]
            match_pairs(self.path, some, self._options.random_seed, processes, self._least_move_px)
            if kept is not None:
                self.snapshot(kept)

    @property
    def _least_move_px(self) -> float | None:
        return None if self.still_points_count and not self.overlays else self.still_px

    def with_zoomed_apart(self, folder: Path) -> "FeatureDatabase | None":
        """A copy in which zoomed photos have a camera of their own; None where there are none, see zoom.py."""
        zoomed = find_zoomed(self.path)
        if not zoomed:
            return None
        apart = FeatureDatabase(folder, self._photos_folder, self._photos, self._options)
        shutil.copyfile(self.path, apart.path)
        apart.overlays, apart.still_points_count = self.overlays, self.still_points_count
        split_cameras(apart.path, zoomed, verification_options(self._options.random_seed, self._least_move_px))
        return apart

    def leave_out_still_points(self) -> None:
        """Verify all pairs again, without matches that do not move between their photos."""
        self.still_points_count = False
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("delete from two_view_geometries")
            connection.commit()
        options = verification_options(self._options.random_seed, self.still_px)
        pycolmap.geometric_verification(self.path, two_view_geometry_options=options)

    def _threads(self, doubled: bool) -> int:
        """All cores for finding features, unless memory is short."""
        limit = self._image_size
        pixels = max(p.width * p.height * min(1.0, limit / max(p.width, p.height)) ** 2 for p in self._photos)
        return self.fitting(pixels * BYTES_PER_PIXEL * (4 if doubled else 1))

    def fitting(self, needed_bytes: float) -> int:
        """Return how many threads or processes that need so much memory each this machine can run."""
        return max(1, min(_cores(), int(available_memory_bytes() * 0.8 / needed_bytes)))


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1


Kind = TypeVar("Kind", bound=np.generic)


def _read_rows(connection: sqlite3.Connection, table: str, image: int, kind: type[Kind]) -> NDArray[Kind]:
    find = f"select rows, cols, data from {table} where image_id = ?"
    rows, columns, data = connection.execute(find, (image,)).fetchone()
    return np.frombuffer(data or b"", kind).reshape(rows, columns)


def _settle_focal_length(
    database: pycolmap.Database, camera_id: int, photo: Photo, largest_px: dict[str, float]
) -> None:
    """Correct the focal length that pycolmap has read from EXIF.

    pycolmap reads the 35 mm equivalent itself, also from EXIF that the photos stage cannot read, and knows nothing of
    digital zoom. Without one that is believed, the camera is that of a photo without EXIF. `largest_px`: diagonals of
    the largest photos of cameras whose photos were cropped.
    """
    camera = database.read_camera(camera_id)
    if not camera.has_prior_focal_length:
        return
    believed = is_believed_focal(camera.mean_focal_length(), camera.width, camera.height)
    if not believed or photo.focal_doubted:
        logger.info("the focal length in EXIF of %s is not believed", printable(photo.name))
        camera.has_prior_focal_length = False
        factor = pycolmap.ImageReaderOptions().default_focal_length_factor
        camera.focal_length = factor * max(camera.width, camera.height)
        database.update_camera(camera)
        return
    focal_px = camera.mean_focal_length()
    if photo.focal_px is not None and abs(photo.focal_px / focal_px - 1) > SAME_FOCAL:
        focal_px = photo.focal_px
    if photo.camera in largest_px:
        focal_px *= largest_px[photo.camera] / math.hypot(photo.width, photo.height)
    if focal_px != camera.mean_focal_length():
        camera.focal_length = focal_px
        database.update_camera(camera)
