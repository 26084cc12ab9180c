"""Sources of photos: a local folder or .zip, or photos on S3, which are listed first and downloaded when needed."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError, StorageError, UnsafeNameError, UnstorableNameError
from tasks.core.paths import local_path
from tasks.core.photos.files import is_hidden, is_photo_name, no_photos, offered_photos
from tasks.core.photos.flight_log import log_among, require_log_size
from tasks.core.photoset import RejectedPhoto
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.safe_names import TakenNames, below, printable, shown, storable
from tasks.core.sfm.given_places import model_among
from tasks.core.storage import S3Folder, StoredObject, Workspace, hash_file, hash_files
from tasks.places.workspace import open_folder, open_workspace

UNNAMED_CAPTURE = "capture"


@dataclass(frozen=True)
class RemotePhotos:
    """The content of a place on S3 at the time it was listed."""

    uri: str
    place: S3Folder  # the folder or the archive that the URI names
    objects: tuple[StoredObject, ...]  # the photos of the folder, or the one archive
    flight_log: StoredObject | None = None  # beside the photos of a folder
    others: tuple[str, ...] = ()  # names of objects in the folder that are not read

    @property
    def needed(self) -> tuple[StoredObject, ...]:
        """All objects that the stage reads."""
        return (*self.objects, self.flight_log) if self.flight_log else self.objects

    @property
    def digest(self) -> str:
        """The sha256 over names, sizes and ETags. It changes when any photo changes."""
        lines = "".join(f"{found.etag} {found.size} {found.name}\n" for found in self.needed)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def rejected(self) -> list[RejectedPhoto]:
        """Photos whose keys cannot be file names on this machine."""
        return local_names(self.uri, self.objects)[1]

    def download(self, target: Path, on_progress: ProgressCallback) -> Path:
        """Download all but `rejected` into the folder `target`; returns the local folder or archive.

        Raises StorageError if the objects change meanwhile, PhotosError, DiskFullError.
        """
        paths, _ = local_names(self.uri, self.needed)
        if not set(self.objects) & set(paths):
            first = self.rejected[0]
            raise PhotosError(f"No photo at {self.uri} can be used; {first.name}: {first.reason}.")
        if self.flight_log and self.flight_log not in paths:
            raise PhotosError(f"The flight log {shown(self.flight_log.name)} has a name that no file can have.")
        needed = sum(found.size for found in paths)

        def report(moved: int) -> None:
            on_progress(Progress(moved, needed, f"downloaded {moved / 1e6:.0f} of {needed / 1e6:.0f} MB"))

        folder = self.place.parent if is_archive(self.uri) else self.place
        folder.download(
            [(found, below(target, path)) for found, path in paths.items()],
            needed_bytes=needed,
            on_bytes=report,
        )
        flight_log = self.flight_log.name if self.flight_log else ""
        if list_photos(self.uri, self.place, flight_log).digest != self.digest:
            raise StorageError(
                f"The photos at {self.uri} changed while they were downloaded; is an upload still running?"
            )
        return below(target, paths[self.objects[0]]) if is_archive(self.uri) else target


def find_photos(uri: str, workspace: Workspace, flight_log: str = "") -> RemotePhotos:
    """List the photos at `s3://bucket/folder` or `s3://bucket/name.zip`, with one call per 1000 photos.

    `flight_log` names a file next to the photos of a folder. In an archive it is found when the archive is unpacked.

    Raises PhotosError if the place does not exist, access is denied, or it has no photos or no such flight log;
    StorageError if S3 cannot be reached.
    """
    if not uri.startswith("s3://"):
        raise PhotosError(f"{uri} cannot be read: give a folder or a .zip, on this machine or as s3://bucket/name.")
    return list_photos(uri, open_folder(uri, workspace, refused=PhotosError), flight_log)


def list_photos(uri: str, place: S3Folder, flight_log: str = "") -> RemotePhotos:
    """As `find_photos`, for a place that is already open."""
    if is_archive(uri):
        found = place.parent.head(PurePosixPath(place.prefix).name)
        if found is None:
            raise PhotosError(f"There is no {uri}: upload the archive first, or correct its name.")
        return RemotePhotos(uri, place, (found,))
    objects = [found for found in place.objects() if found.name and not found.name.endswith("/")]
    if (model := model_among(found.name for found in objects)) is not None:
        raise PhotosError(
            f"{uri} contains a model with cameras ({printable(model)}), which is only used from a folder on this "
            "machine: download it and name its folder, or leave the model out."
        )
    photos = tuple(found for found in objects if is_photo_name(found.name))
    if not objects:
        raise PhotosError(f"There is nothing at {uri}: upload photos there, or correct the name.")
    if not photos:
        raise PhotosError(no_photos(f"{len(objects)} objects at {uri}", [found.name for found in objects]))
    log = _flight_log(uri, objects, flight_log) if flight_log else None
    read = {*photos, log}
    others = tuple(found.name for found in objects if found not in read and not is_hidden(found.name))
    return RemotePhotos(uri, place, photos, log, others)


def _flight_log(uri: str, objects: list[StoredObject], wanted: str) -> StoredObject:
    name = log_among(wanted, [found.name for found in objects])
    if name is None:
        raise PhotosError(f"There is no flight log {shown(wanted)} at {uri}: upload it there, or correct its name.")
    log = next(found for found in objects if found.name == name)
    require_log_size(log.name, log.size)
    return log


def is_archive(uri: str) -> bool:
    """Whether a URI names a .zip and not a folder."""
    return uri.lower().endswith(".zip")


def local_names(uri: str, objects: tuple[StoredObject, ...]) -> tuple[dict[StoredObject, str], list[RejectedPhoto]]:
    """Map objects to unique paths below a local folder; objects whose keys cannot be file names are rejected.

    Raises PhotosError for a key that leads out of the folder.
    """
    taken = TakenNames()
    names: dict[StoredObject, str] = {}
    rejected: list[RejectedPhoto] = []
    for found in objects:
        try:
            names[found] = taken.take(storable(found.name.lstrip("/")))  # an empty folder in a key means nothing
        except UnstorableNameError as error:
            rejected.append(RejectedPhoto(name=printable(found.name), reason=str(error).removesuffix(".")))
        except UnsafeNameError as error:
            raise PhotosError(f"{uri} cannot be downloaded: {error} Rename that object.") from error
    return names, rejected


def is_remote_source(source: str) -> bool:
    """Whether the photos are on another machine."""
    return "://" in source


def open_source(source: str, workspace: str, flight_log: str = "") -> Path | RemotePhotos:
    """Check the source that the caller named, without decoding or downloading anything, and return it.

    `flight_log` is looked for among photos on S3. Raises PhotosError if the place does not exist, cannot be read, or
    has no photos.
    """
    if is_remote_source(source):
        return find_photos(source, open_workspace(workspace), flight_log)
    path = local_source(source)
    if path.is_dir():
        offered_photos(path)
    return path


def local_source(source: str) -> Path:
    """The absolute path of a local source. Raises PhotosError when it cannot be read."""
    path = local_path(source)
    if not path.exists():
        raise PhotosError(f"{source} does not exist; give a folder or a .zip of photos.")
    if not path.is_dir() and not path.is_file():  # reading a pipe may never end
        raise PhotosError(f"{source} is neither a folder nor a regular file; give a folder or a .zip of photos.")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PhotosError(f"{source} cannot be read: its owner has to permit it.")
    resolved = path.resolve()
    try:
        str(resolved).encode()
    except UnicodeEncodeError:  # it is passed on as text; names below it may have any bytes
        raise PhotosError(
            f"The path {printable(storable(str(resolved)))} is not in UTF-8: rename that folder or archive."
        ) from None
    return resolved


def digest_of(source: Path, files: Iterable[Path]) -> str:
    """The sha256 over names and bytes of files below the source, or of the source itself if it is a file.

    Raises PhotosError for a file that cannot be read.
    """
    try:
        return hash_file(source) if source.is_file() else hash_files(source, filter(Path.is_file, files))
    except OSError as error:
        raise PhotosError(f"{error.filename} cannot be read ({error.strerror}): allow it, or take it away.") from error


def capture_name(source: str | Path) -> str:
    """The capture's name for people: that of the folder or archive, or of its parent if it is `images` or the like.

    The default output folder gets this name, so it is never empty or `..` (the stem of `...zip`). An archive that no
    longer exists has the same name as before, so that the run's folder can be found.
    """
    if isinstance(source, str) and is_remote_source(source):
        path = PurePosixPath(source.partition("://")[2])
        is_archive = path.suffix.lower() == ".zip"
    else:
        local = local_path(str(source)).absolute()
        path = PurePosixPath(local)
        is_archive = path.suffix.lower() == ".zip" and not local.is_dir()
    path = path.parent if path.suffix.lower() == ".json" else path  # a transforms.json: its folder has the name
    name = path.stem if is_archive else path.name
    name = path.parent.name if name.lower() in {"images", "photos", "input"} and path.parent.name else name
    return printable(name) if name.strip(".") else UNNAMED_CAPTURE
