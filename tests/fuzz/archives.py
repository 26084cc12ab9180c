"""Archives with bytes changed and members of any name: photos, or one PhotosError, and nothing beside the folder."""

import io
import random
import zipfile
from functools import cache
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.photos.archive import check_archive
from tasks.core.photos.headers import read_headers
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.safe_names import printable
from tests.core.photos.test_ingest import encoded
from tests.fuzz.photos import damaged

SUITE_ROUNDS = 300
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
PARTS = [
    *("a", "A", "ä", "a\u0308", "..", ".", "", "C:", "a" * 250, "x" * 300, "con", "\\", "\\..\\", "\n", "\x1b[2J", "~"),
    *("a.jpg", "A.JPG", "__MACOSX", ".hidden", "\u202e", "\U0001f6f0"),
]
ENDINGS = [".jpg", ".jpg", ".png", ".txt", "", "/"]


@cache
def photos() -> list[bytes]:
    """A few whole photos, and what is none."""
    return [*(encoded(i) for i in range(4)), encoded(5, "PNG"), b"", b"text", bytes(5000)]


def _archive(chance: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for _ in range(chance.randint(0, 7)):
            member = zipfile.ZipInfo()
            whole = chance.random() < 0.7
            parts = chance.choices("abcd" if whole else PARTS, k=chance.randint(1, 3))
            member.filename = "/".join(parts) + chance.choice(ENDINGS)  # which ZipInfo itself would have tidied up
            member.compress_type = chance.choice(METHODS[:4] if whole else METHODS)
            if not whole:
                member.external_attr = chance.choice([0, 0o120777, 0o010666, 0o040755]) << 16
            archive.writestr(member, chance.choice(photos()))
    return buffer.getvalue()


def _round(chance: random.Random, folder: Path) -> None:
    content = _archive(chance)
    if chance.random() < 0.6:
        content = damaged(chance, content, photos()[:5])
    home = folder / "home"
    home.mkdir()
    path = home / "photos.zip"
    path.write_bytes(content)
    options = PhotosOptions()
    for read in (
        lambda: check_archive(path, options),
        lambda: read_headers(path, options),
        lambda: ingest(path, home / "out", options, ignore_progress),
    ):
        try:
            read()
        except PhotosError as error:
            said = str(error)
            assert said == printable(said)
    assert set(folder.iterdir()) == {home}
    assert set(home.iterdir()) <= {path, home / "out"}
    assert path.read_bytes() == content


ROUND = _round
