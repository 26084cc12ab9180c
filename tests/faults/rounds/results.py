"""Results as their readers find them, and which one of several a place holds."""

from pathlib import Path
from typing import Any

from tasks.core.storage.folder_switch import VERSIONS_FOLDER
from tasks.places.result_files import CONTENTS_FILE, PAGE_FILE, REPORT_DATA_FILE, REPORT_FILE

Result = dict[str, bytes]
TIMED = (REPORT_FILE, REPORT_DATA_FILE)  # contain times and dates
TRANSFER_NAMES = (VERSIONS_FOLDER, "spaceport-")


def in_folder(folder: Path) -> Result:
    """The files of a result, as a reader finds them who knows nothing of how it came there."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: (folder / name).read_bytes() for name in files if not is_of_transfer(name)}


def on_s3(client: Any, bucket: str, prefix: str) -> Result:
    """The files of a result as those find them who begin at its page."""
    objects = {name.removeprefix(prefix): name for name in keys(client, bucket, prefix)}
    page = client.get_object(Bucket=bucket, Key=objects[PAGE_FILE])["Body"].read() if PAGE_FILE in objects else b""
    versions = {name.split("/")[0] for name in objects if is_of_transfer(name) and name != CONTENTS_FILE}
    shown = next((f"{version}/" for version in versions if f'<base href="{version}/">'.encode() in page), "")
    found = {name.removeprefix(shown): key for name, key in objects.items() if name.startswith(shown)}
    return {
        name: client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for name, key in found.items()
        if not is_of_transfer(name)
    }


def keys(client: Any, bucket: str, prefix: str = "") -> list[str]:
    """The names of all objects below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", [])]


def is_of_transfer(name: str) -> bool:
    """Whether a name belongs to an exchange of one result for another, and not to a result."""
    return name.startswith((".", *TRANSFER_NAMES))


def shows(found: Result, result: Result) -> bool:
    """Whether a reader finds all of a result, whatever there is beside it."""
    return all(name in found and (name in TIMED or found[name] == result[name]) for name in result)


def difference(found: Result, result: Result) -> str:
    """Say in which files a place differs from a result; empty where it does not."""
    lacks = sorted(set(result) - set(found))
    more = sorted(set(found) - set(result))
    other = sorted(name for name in set(found) & set(result) if name not in TIMED and found[name] != result[name])
    parts = (("lacks", lacks), ("has too many", more), ("has other bytes in", other))
    return "; ".join(f"{what} {', '.join(names[:3])} ({len(names)})" for what, names in parts if names)
