"""Photos that lie on S3: a folder of them, or a .zip. Known by their listing, downloaded only when they are needed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError, StorageError
from tasks.core.photos.files import is_photo_name
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.storage import S3Folder, StoredObject, Workspace
from tasks.workspace import open_folder


@dataclass(frozen=True)
class RemotePhotos:
    """What lay at a place when it was listed."""

    uri: str
    place: S3Folder  # what the URI names: a folder, or the archive
    objects: tuple[StoredObject, ...]  # the photos of the folder, or the one archive

    @property
    def digest(self) -> str:
        """The sha256 over names, sizes and ETags: another one when any photo is another."""
        lines = "".join(f"{found.etag} {found.size} {found.name}\n" for found in self.objects)
        return hashlib.sha256(lines.encode()).hexdigest()

    def download(self, target: Path, on_progress: ProgressCallback) -> Path:
        """Get everything below the folder `target`; gives the local folder or archive.

        Raises StorageError when the objects change meanwhile, PhotosError, DiskFullError.
        """
        paths = local_names(self.uri, self.objects)
        needed = sum(found.size for found in self.objects)

        def report(moved: int) -> None:
            on_progress(Progress(moved, needed, f"downloaded {moved / 1e6:.0f} of {needed / 1e6:.0f} MB"))

        folder = self.place.parent if is_archive(self.uri) else self.place
        folder.download(
            [(found, target / path) for found, path in zip(self.objects, paths, strict=True)],
            needed_bytes=needed,
            on_bytes=report,
        )
        if list_photos(self.uri, self.place).digest != self.digest:
            raise StorageError(f"The photos at {self.uri} changed while they were downloaded; is an upload going on?")
        return target / paths[0] if is_archive(self.uri) else target


def find_photos(uri: str, workspace: Workspace) -> RemotePhotos:
    """List the photos at `s3://bucket/folder` or `s3://bucket/name.zip`; one call for 1000 of them.

    Raises PhotosError when the place does not exist, is denied, or holds no photos; StorageError when S3 is away.
    """
    if not uri.startswith("s3://"):
        raise PhotosError(f"{uri} cannot be read: give a folder or a .zip, on this machine or as s3://bucket/name.")
    return list_photos(uri, open_folder(uri, workspace, refused=PhotosError))


def list_photos(uri: str, place: S3Folder) -> RemotePhotos:
    """What `find_photos` gives, once the place is open."""
    if is_archive(uri):
        found = place.parent.head(PurePosixPath(place.prefix).name)
        if found is None:
            raise PhotosError(f"There is no {uri}: upload the archive first, or correct its name.")
        return RemotePhotos(uri, place, (found,))
    objects = [found for found in place.objects() if found.name and not found.name.endswith("/")]
    photos = tuple(found for found in objects if is_photo_name(found.name))
    if not objects:
        raise PhotosError(f"There is nothing at {uri}: upload photos there, or correct the name.")
    if not photos:
        kinds = ", ".join(sorted({PurePosixPath(found.name).suffix.lower() or "no extension" for found in objects})[:6])
        raise PhotosError(
            f"No photos among {len(objects)} objects at {uri} (found: {kinds}): give JPEG, PNG, HEIC, WebP or TIFF."
        )
    return RemotePhotos(uri, place, photos)


def is_archive(uri: str) -> bool:
    """Whether a URI names a .zip and not a folder."""
    return uri.lower().endswith(".zip")


def local_names(uri: str, objects: tuple[StoredObject, ...]) -> list[PurePosixPath]:
    """Where objects go below a local folder, which they never leave.

    Raises PhotosError for names that S3 holds side by side and a folder cannot.
    """
    paths = [PurePosixPath(*(part for part in found.name.split("/") if part)) for found in objects]
    taken = {folder for path in paths for folder in path.parents}
    for path in paths:
        if path in taken:
            raise PhotosError(f"{uri} holds {path} twice, as a file and a folder or with two slashes: rename one.")
        taken.add(path)
    return paths
