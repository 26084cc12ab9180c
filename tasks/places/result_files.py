"""The files of a result: their names, and the list that distinguishes ours from those of others."""

from collections.abc import Iterable

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.core.errors import UnsafeNameError
from tasks.core.georeference import GEOREFERENCE_FILE
from tasks.core.model_frame import MODEL_FRAME_FILE
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name
from tasks.core.scene import IMAGES_FOLDER, MODEL_FOLDER
from tasks.core.sog.layout import LOD_FOLDER
from tasks.core.viewer.bundle import VIEWER_FILES, VIEWER_FOLDER

PAGE_FILE = "index.html"
REPORT_FILE = "report.html"
REPORT_DATA_FILE = "report.json"
SPLAT_FILE, PLY_FILE = "scene.sog", "scene.ply"
PREVIEW_FILE, FLY_AROUND_FILE, STREAM_PAGE_FILE = "preview.jpg", "fly-around.webp", "stream.html"
COLMAP_FOLDER = "colmap"
RESULT_FOLDERS = (COLMAP_FOLDER, LOD_FOLDER, VIEWER_FOLDER)
SOMETIMES_WRITTEN = (STREAM_PAGE_FILE, *VIEWER_FILES)
ALWAYS_WRITTEN = (
    *(PAGE_FILE, REPORT_FILE, REPORT_DATA_FILE, SPLAT_FILE, PLY_FILE, PREVIEW_FILE, FLY_AROUND_FILE, GEOREFERENCE_FILE),
    *(f"{COLMAP_FOLDER}/{MODEL_FOLDER}/{part}.bin" for part in ("cameras", "images", "points3D")),
)
SOMETIMES_WRITTEN = (STREAM_PAGE_FILE, MODEL_FRAME_FILE)  # for a large splat, and for a given model
# Folders whose file names depend on the photos and on the splat, and the kinds of these files.
PARTS_FOLDERS = (f"{COLMAP_FOLDER}/{MODEL_FOLDER}", f"{COLMAP_FOLDER}/{IMAGES_FOLDER}", LOD_FOLDER, VIEWER_FOLDER)
PARTS_SUFFIXES = (".bin", ".css", ".js", ".json", ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
CONTENTS_FILE = "spaceport-files.json"  # lists the files that we wrote there; the next result removes those it lacks
_CONTENTS = TypeAdapter(list[str])  # paths below the destination, posix


class _ReportVersions(BaseModel):
    """A part of every report of ours. It identifies results that are older than the lists of files."""

    versions: dict[str, str]


def written_list(names: Iterable[str]) -> bytes:
    """Return the list as the content of a file."""
    return _CONTENTS.dump_json(sorted(names), indent=1)


def read_list(content: bytes) -> set[str]:
    """Return the names in a list; none if it is not ours. It is not trusted, because others may have written it."""
    try:
        return {name for name in _CONTENTS.validate_json(content) if is_name_within(name)}
    except ValidationError:
        return set()


def is_part(name: str) -> bool:
    """Whether a path below the destination, in one of PARTS_FOLDERS, may be part of a result."""
    return is_name_within(name) and name.lower().endswith(PARTS_SUFFIXES)


def is_name_within(name: str) -> bool:
    """Whether a name stays inside the folder."""
    try:
        return safe_name(name, MAX_KEY_BYTES) == name
    except UnsafeNameError:
        return False


def is_report_of_ours(content: bytes) -> bool:
    """Whether report.json was written by this product."""
    try:
        return "spaceport" in _ReportVersions.model_validate_json(content).versions
    except ValidationError:
        return False
