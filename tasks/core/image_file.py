"""Open untrusted pictures, in the formats of photos. Only this module opens pictures.

Pillow identifies a file by its first bytes, whatever its name is. Some formats start other programs (PostScript starts
Ghostscript) or have decoders that few people review. So only the formats in FORMATS are tried. HEIF is available in a
process that has loaded tasks/core/photos, because only incoming photos have this format.
"""

import errno
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import (  # these modules register their formats with Pillow
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from tasks.core.safe_names import printable

# Raised by Pillow when it reads or writes EXIF and chunks with values of the wrong types.
MALFORMED = (
    *(ValueError, TypeError, AttributeError, KeyError, IndexError, SyntaxError, OSError),
    *(ArithmeticError, struct.error),
)
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "HEIF", "AVIF")
MOST_PIXELS = 180_000_000  # the largest cameras have 150 million; a picture of this size takes 0.7 GB in memory
SHOWN_CHARACTERS = 160  # of a decoder's message, which may quote the file

# Pillow refuses pictures of more than twice its limit when it has read their size, and warns above the limit itself.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(Exception):
    """A file is not a usable picture; the text says why, without a full stop."""


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Read a picture's header, as `PIL.Image.open` does, in one of FORMATS and of at most MOST_PIXELS.

    Raises Pillow's errors: see `reading_image`.
    """
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


@contextmanager
def reading_image() -> Iterator[None]:
    """Turn all errors of Pillow and its decoders about a file into ImageError; errors of the system pass.

    For truncated or invalid bytes, decoders raise nearly any exception, and fuzzing finds new ones.
    """
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MOST_PIXELS / 1e6:.0f} megapixels; scale it down") from None
    except UnidentifiedImageError:
        raise ImageError("not an image, whatever its name says") from None
    except MemoryError:
        raise ImageError("more memory is needed than there is; scale it down") from None
    except Exception as error:
        # A decoder's own OSError has no number; a damaged file makes it seek to an impossible position (EINVAL).
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = printable(str(error) or type(error).__name__)[:SHOWN_CHARACTERS]
        raise ImageError(f"damaged or cut off ({said})") from None
