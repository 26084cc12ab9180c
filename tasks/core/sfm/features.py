"""The database of one reconstruction: cameras, features, matches. Only the worker process touches it."""

import copy
import errno
import logging
import os
import shutil
from itertools import groupby
from pathlib import Path

import numpy as np
import psutil
import pycolmap

from tasks.core.machine_memory import available_memory_bytes
from tasks.core.photoset import IMAGES_FOLDER, Photo, is_believed_focal
from tasks.core.safe_names import printable
from tasks.core.sfm.grey import features_image_size, scaled_size, write_all_grey
from tasks.core.sfm.match_part import BLOCK
from tasks.core.sfm.matching import in_tiles, match_pairs, processes_for
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import PairChoice

logger = logging.getLogger(__name__)

BYTES_PER_PIXEL = 120  # of the scaled photo, in one extraction thread: 0.22 GB at 1600 px, measured; ×4 when doubled
# Of the features that a photo may have, in one matching process: 0.24 GB with 7,000 of them, measured.
MATCHING_BYTES_PER_FEATURE = 35_000
PAIRS_AT_RISK = 16 * BLOCK  # that a process matches before they are kept: a minute's work or two
GREY_AT_ONCE = 128  # small grey copies of photos on the disk, 2 MB each
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
        self._photos = photos
        self._options = options
        self._image_size = features_image_size(photos, options.max_features_image_size)
        self.images.mkdir(parents=True)
        for name, photo in zip(self.names, photos, strict=True):
            _link(self.images / name, photos_folder / IMAGES_FOLDER / photo.name)
        pycolmap.set_random_seed(options.random_seed)
        pycolmap.Database.open(self.path).close()

    def user_name(self, name: str) -> str:
        """The photo's own name from the name of its link."""
        return self._photos[self.names.index(name)].name

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
        logger.info("features of %d photos and what was matched of them, kept from an earlier run", len(self._photos))
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

        for _, group in groupby(sorted(range(len(self._photos)), key=intrinsics), key=intrinsics):
            first, *others = (self.names[i] for i in group)
            pycolmap.import_images(self.path, self.images, pycolmap.CameraMode.SINGLE, [first])
            with pycolmap.Database.open(self.path) as database:
                like = database.read_image_with_name(first)
                assert like is not None
                _correct_focal_length(database, like.camera_id, self._photos[self.names.index(first)])
                frame = database.read_frame(like.frame_id)
                for name in others:
                    image = pycolmap.Image(name=name, camera_id=like.camera_id)
                    image.image_id = database.write_image(image)
                    own = pycolmap.Frame(rig_id=frame.rig_id)
                    own.add_data_id(image.data_id)
                    database.write_frame(own)

    def extract(self, *, doubled: bool = False) -> None:
        """Find SIFT features in all photos. `doubled` uses twice the resolution: 4 × the time and memory."""
        logger.info("phase features %d", len(self._photos))
        options = pycolmap.FeatureExtractionOptions()
        options.max_image_size = self._image_size
        options.use_gpu = False
        options.num_threads = self._threads(doubled)
        options.sift.max_num_features = self._options.max_features
        options.sift.first_octave = -1 if doubled else 0
        for begin in range(0, len(self.names), GREY_AT_ONCE):
            logger.info("features after %d photos", begin)
            self._extract_some(range(begin, min(begin + GREY_AT_ONCE, len(self.names))), options)

    def _extract_some(self, numbers: range, options: pycolmap.FeatureExtractionOptions) -> None:
        """Features of some photos, found in small grey copies. Database and caller see the photos' own pixels only."""
        grey = self.path.with_name("grey")
        grey.mkdir()
        # an image keeps its name in the database, so the copies bear the photos' names; their bytes say what they are
        jobs = [(self.images / self.names[i], grey / self.names[i]) for i in numbers]
        write_all_grey(jobs, options.max_image_size, options.num_threads)
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

    def match(self, choice: PairChoice, kept: Path | None = None) -> None:
        """Match the pairs and verify them; pairs that are done already cost nothing.

        `kept` gets a snapshot of the database after every some thousand pairs, and at the end.
        """
        pairs = in_tiles(choice.pairs)
        logger.info("phase matching %d", -(-len(pairs) // BLOCK))
        logger.info("%d pairs of %d photos, %s", len(pairs), len(self._photos), choice.matcher)
        processes = processes_for(len(pairs), self._fitting(MATCHING_BYTES_PER_FEATURE * self._options.max_features))
        part = PAIRS_AT_RISK * processes
        for begin in range(0, len(pairs), part):
            logger.info("matching after %d blocks", begin // BLOCK)
            some = [(self.names[a], self.names[b]) for a, b in pairs[begin : begin + part]]
            match_pairs(self.path, some, self._options.random_seed, processes)
            if kept is not None:
                self.snapshot(kept)

    def _threads(self, doubled: bool) -> int:
        """All cores for finding features, unless memory is short."""
        limit = self._image_size
        pixels = max(p.width * p.height * min(1.0, limit / max(p.width, p.height)) ** 2 for p in self._photos)
        return self._fitting(pixels * BYTES_PER_PIXEL * (4 if doubled else 1))

    def _fitting(self, needed_bytes: float) -> int:
        """Return how many threads or processes that need so much memory each this machine can run."""
        return max(1, min(_cores(), int(available_memory_bytes() * 0.8 / needed_bytes)))


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1


def _correct_focal_length(database: pycolmap.Database, camera_id: int, photo: Photo) -> None:
    """Count digital zoom; and drop a focal length from EXIF that is not believed.

    pycolmap reads the 35 mm equivalent itself, also from EXIF that the photos stage cannot read, and knows no digital
    zoom.
    """
    camera = database.read_camera(camera_id)
    if photo.digital_zoom > 1 and photo.focal_px is not None and camera.has_prior_focal_length:
        camera.focal_length = photo.focal_px
        database.update_camera(camera)
        return
    believed = is_believed_focal(camera.mean_focal_length(), camera.width, camera.height)
    if not camera.has_prior_focal_length or (believed and not photo.focal_doubted):
        return
    logger.info("the focal length in EXIF of %s is not believed", printable(photo.name))
    camera.has_prior_focal_length = False
    camera.focal_length = pycolmap.ImageReaderOptions().default_focal_length_factor * max(camera.width, camera.height)
    database.update_camera(camera)
