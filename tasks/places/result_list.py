"""The list of a result's files, which tells ours from those of others."""

from collections.abc import Iterable

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.core.errors import UnsafeNameError
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name

CONTENTS_FILE = "spaceport-files.json"  # lists the files that we have put there; the next result removes those it lacks
_CONTENTS = TypeAdapter(list[str])  # paths below the destination, posix


class _ReportVersions(BaseModel):
    """A part of every report of ours: it tells a result from before there were lists of files."""

    versions: dict[str, str]


def written_list(names: Iterable[str]) -> bytes:
    """The list as a file."""
    return _CONTENTS.dump_json(sorted(names), indent=1)


def read_list(content: bytes) -> set[str]:
    """The names in a list; none where it is no list of ours. It is not trusted: others may have written it."""
    try:
        return {name for name in _CONTENTS.validate_json(content) if is_name_within(name)}
    except ValidationError:
        return set()


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
