"""Files that are opened as pictures, and files that are not, independent of their names."""

import ast
import errno
import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tasks.core.image_file import MOST_PIXELS, ImageError, open_image, reading_image

REPOSITORY = Path(__file__).parents[2]
SOURCES = [path for top in ("flows", "tasks", "deployments") for path in (REPOSITORY / top).rglob("*.py")]
HOME = REPOSITORY / "tasks" / "core" / "image_file.py"


def opens_any_format(source: str) -> bool:
    """Whether a module has a way to open pictures in any of Pillow's formats."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    modules = {alias.asname or alias.name for alias in imports if alias.name in ("Image", "PIL.Image")} | {"PIL.Image"}
    named = [
        node
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and any(keyword.arg == "formats" for keyword in node.keywords)
    ]
    opened = {id(call.func) for call in named}
    return any(
        (
            isinstance(node, ast.Attribute)
            and node.attr == "open"
            and ast.unparse(node.value) in modules
            and id(node) not in opened
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "PIL.Image" and {a.name for a in node.names} & {"open"})
        for node in nodes
    )


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open(path)",
        "from PIL import Image as Picture\nwith Picture.open(path) as image: pass",
        "import PIL.Image\nPIL.Image.open(path)",
        "from PIL.Image import open as read",
        "from PIL import Image\nlist(map(Image.open, paths))",
    ],
)
def test_every_way_to_open_any_format_is_seen(source: str) -> None:
    assert opens_any_format(source)


def test_a_format_by_name_is_none_of_them() -> None:
    assert not opens_any_format("from PIL import Image\nImage.open(path, formats=['WEBP'])\npath.open()")


def test_pictures_are_opened_in_one_place_or_in_a_format_by_name() -> None:
    found = [path for path in SOURCES if path != HOME and opens_any_format(path.read_text(encoding="utf-8"))]
    assert found == [], "use tasks.core.image_file.open_image"


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((80, 70), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "ICNS", "DDS", "TGA", "PPM", "PCX", "JPEG2000", "SGI"])
def test_what_is_no_photo_is_not_decoded(kind: str, tmp_path: Path) -> None:
    try:
        (tmp_path / "DJI_0001.jpg").write_bytes(encoded(kind))
    except OSError as error:
        pytest.fail(f"this Pillow cannot write {kind}: {error}")
    with pytest.raises(ImageError, match="not an image, whatever its name says"), reading_image():
        open_image(tmp_path / "DJI_0001.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_photos_are_opened(kind: str) -> None:
    with open_image(io.BytesIO(encoded(kind))) as image:
        assert (image.format, image.size) == (kind, (80, 70))


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return encoded("PNG")[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + encoded("PNG")[33:]


def test_more_pixels_than_a_camera_has_are_refused_by_the_header() -> None:
    width = MOST_PIXELS // 1000
    with open_image(io.BytesIO(png_header(width, 1000))) as image:
        assert image.size == (width, 1000)
    with pytest.raises(ImageError, match="more than 180 megapixels"), reading_image():
        open_image(io.BytesIO(png_header(width + 1, 1000)))


@pytest.mark.parametrize(
    "raised",
    [
        *(AttributeError("x"), KeyError("x"), struct.error("x"), zlib.error("x"), RecursionError("x"), OSError("x")),
        *(AssertionError("x"), OSError(errno.EINVAL, "x"), UnicodeError("x"), ZeroDivisionError("x"), MemoryError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_is_the_files_fault(raised: Exception) -> None:
    with pytest.raises(ImageError), reading_image():
        raise raised


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_errors_of_the_disk_stay_what_they_are(code: int) -> None:
    with pytest.raises(OSError, match=os.strerror(code)), reading_image():
        raise OSError(code, os.strerror(code))


def test_what_a_decoder_says_is_shown_without_control_characters() -> None:
    with pytest.raises(ImageError) as found, reading_image():
        raise ValueError("\x1b[2J" + "x" * 1000)
    assert "\x1b" not in str(found.value)
    assert len(str(found.value)) < 200
