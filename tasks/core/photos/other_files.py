"""Files beside the photos that are not read, counted by kind, for people who miss them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from tasks.core.safe_names import printable, storable

# The listener's files in the folder of an upload: they are none of the user's, and appear after the photos.
READY_FILE, DONE_FILE, FAILED_FILE = "READY.json", "DONE.json", "FAILED.json"
NO_EXTENSION = "no extension"
NAMED_KINDS = 8
LONGEST_KIND = 16  # characters of an extension that are shown
VIDEO_SUFFIXES = frozenset(
    [".mp4", ".mov", ".m4v", ".avi", ".mkv", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".webm", ".3gp", ".insv", ".360"]
)
PICTURE_SUFFIXES = frozenset(
    [".jxl", ".jp2", ".j2k", ".psd", ".psb", ".exr", ".hdr", ".xcf", ".svg", ".pdf", ".insp", ".jxr", ".tga", ".dcm"]
)


def kind_of_file(name: str) -> str:
    """Return the extension in lower case, or that there is none."""
    suffix = printable(storable(PurePosixPath(name).suffix.lower()))
    return (suffix if len(suffix) <= LONGEST_KIND else f"{suffix[:LONGEST_KIND]}…") or NO_EXTENSION


def count_kinds(names: Iterable[str]) -> dict[str, int]:
    """Return the number of files of each kind, the most frequent first. The listener's files do not count."""
    counts = Counter(kind_of_file(name) for name in names if name not in (READY_FILE, DONE_FILE, FAILED_FILE))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def other_files_notes(kinds: dict[str, int]) -> list[str]:
    """Return sentences on files that were not read: none if there are none."""
    if not kinds:
        return []
    count, named = sum(kinds.values()), list(kinds.items())
    said = ", ".join(f"{kind} ({number:,})" for kind, number in named[:NAMED_KINDS])
    more = f" and {len(named) - NAMED_KINDS} more kinds" if len(named) > NAMED_KINDS else ""
    notes = [f"{count:,} other file{' was' if count == 1 else 's were'} not read: {said}{more}."]
    pictures = [kind for kind in kinds if kind in PICTURE_SUFFIXES]
    if pictures:
        notes.append(f"Pictures in {', '.join(pictures)} cannot be read: export them as JPEG.")
    return notes + videos_note(kinds)


def videos_note(kinds: Iterable[str]) -> list[str]:
    """Return a sentence on how a video becomes photos, if there is one."""
    videos = [kind for kind in kinds if kind in VIDEO_SUFFIXES]
    if not videos:
        return []
    return [
        f"Videos ({', '.join(videos)}) are not read: extract their frames first, as with ffmpeg -i FILM{videos[0]} "
        "-vf fps=2 frame_%05d.jpg."
    ]
