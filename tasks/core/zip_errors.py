"""Exceptions that zipfile raises for damaged archives. A damaged bz2 member raises a bare OSError beside them."""

import lzma
import zipfile
import zlib

DAMAGED_ZIP = (
    zipfile.BadZipFile,  # the directory, a member's header or a checksum is wrong
    zlib.error,  # damaged deflate
    lzma.LZMAError,  # damaged LZMA
    EOFError,  # a member ends too early
    RuntimeError,  # encrypted, or (NotImplementedError) packed by an unknown method
    ValueError,  # a name that is not in its encoding (UnicodeDecodeError), an offset outside of the file
)
