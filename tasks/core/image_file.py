"""Opening a picture that a stranger may have made: the one place that does, in the formats that photos come in.

Pillow takes a file for what its first bytes say, whatever its name is, and some formats start other programs (as
PostScript starts Ghostscript) or have decoders that few people look at. Only those of FORMATS are tried. HEIF is one of
them in a process that has loaded tasks/core/photos: photos come in it, and no stage passes it on.
"""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import (  # the modules make their formats known to Pillow
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

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "HEIF", "AVIF")
MOST_PIXELS = 180_000_000  # the largest cameras have 150 million; a picture of this size takes 0.7 GB in memory
SHOWN_CHARACTERS = 160  # of what a decoder says, which may quote the file

# Pillow refuses pictures of more than twice its limit when it has read their size, and warns beyond the limit itself.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(Exception):
    """A file is no picture that can be used; the text says why, without a full stop."""


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Read a picture's header, as `PIL.Image.open` does, in one of FORMATS and of at most MOST_PIXELS.

    Raises what Pillow raises: see `reading_image`.
    """
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


@contextmanager
def reading_image() -> Iterator[None]:
    """Turn everything that Pillow and its decoders raise for a file into ImageError; errors of the system pass.

    Decoders raise nearly any exception for bytes that stop early or make no sense, and fuzzing finds new ones.
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
        # A decoder's own OSError has no number; a damaged file makes it seek to where nothing can be (EINVAL).
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = printable(str(error) or type(error).__name__)[:SHOWN_CHARACTERS]
        raise ImageError(f"damaged or cut off ({said})") from None
