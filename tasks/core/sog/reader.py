"""SOG v2, bundled or as a folder, to Gaussians. Nothing in the file is believed before it is checked."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.sog import attributes, layout
from tasks.core.sog.webp import BYTES_PER_PIXEL, HEADROOM_BYTES, decode_webp, webp_size

MAX_GAUSSIANS = 20_000_000  # about 5 GB decoded at degree 3
_MAX_META_BYTES = 1 << 20

ReadMember = Callable[[str, int], bytes]  # (name, greatest size in bytes) -> content


def read_sog(path: Path, max_gaussians: int = MAX_GAUSSIANS) -> Gaussians:
    """Read a .sog, a folder with meta.json, or that meta.json.

    What it allocates is bounded by `max_gaussians`, whatever the file promises. Raises FormatError naming the field
    or file that is wrong.
    """
    with _members(path) as read:
        meta = _read_meta(read(layout.META_FILE, _MAX_META_BYTES), path.name)
        if meta.count > max_gaussians:
            raise FormatError(f"{path.name}: count is {meta.count:,}; at most {max_gaussians:,} Gaussians can be read.")
        return _decode(meta, _pixel_reader(read, meta.count, path.name), path.name)


@contextmanager
def _members(path: Path) -> Iterator[ReadMember]:
    """A way to read members of a bundle or folder, never more bytes than asked for."""
    if path.name == layout.META_FILE:
        path = path.parent
    if path.is_dir():
        yield lambda name, limit: _read_file(path / name, limit)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist.") from None
    except _ZIP_ERRORS as error:
        raise FormatError(f"{path.name} is not a .sog bundle (a zip file): {error}.") from error
    with archive:
        yield lambda name, limit: _read_zipped(archive, path.name, name, limit)


# What the zip module raises on damaged bytes: unknown methods, encrypted flags, wrong offsets, bad deflate streams.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FormatError(f"{path.name} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise FormatError(f"{path.name} is larger than {limit:,} bytes, more than its content can need.")
    return data


def _read_zipped(archive: zipfile.ZipFile, bundle: str, name: str, limit: int) -> bytes:
    try:
        with archive.open(name) as member:
            data = member.read(limit + 1)
    except KeyError:
        raise FormatError(f"{bundle} has no {name}.") from None
    except _ZIP_ERRORS as error:
        raise FormatError(f"{name} in {bundle} cannot be read: {error}. The file is damaged.") from error
    if len(data) > limit:
        raise FormatError(f"{name} in {bundle} is larger than {limit:,} bytes, more than its content can need.")
    return data


def _read_meta(data: bytes, name: str) -> layout.Meta:
    try:
        meta = layout.Meta.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or layout.META_FILE
        note = " Files without a version are SOG v1, which is not read." if where == "version" else ""
        raise FormatError(f"{name}: {where} of meta.json is wrong: {first['msg']}.{note}") from error
    for axis, low, high in zip("xyz", meta.means.mins, meta.means.maxs, strict=True):
        if low > high:
            raise FormatError(f"{name}: means.mins of meta.json is above means.maxs in {axis} ({low} > {high}).")
    return meta


def _pixel_reader(
    read: ReadMember, count: int, bundle: str
) -> Callable[[str, tuple[int, int] | None], attributes.UInt8]:
    """Reads a picture as RGBA pixels [M, 4]: of a given size, or else one pixel for each Gaussian (then M = count)."""
    # other writers choose other shapes, but none wastes more than a few rows
    most_pixels = 2 * count + 4096

    def pixels(name: str, size: tuple[int, int] | None = None) -> attributes.UInt8:
        limit = most_pixels if size is None else size[0] * size[1]
        data = read(name, limit * BYTES_PER_PIXEL + HEADROOM_BYTES)
        width, height = webp_size(data, name)
        if size is not None and (width, height) != size:
            raise FormatError(f"{bundle}: {name} is {width} x {height} px, meta.json asks for {size[0]} x {size[1]}.")
        if size is None and not count <= width * height <= limit:
            raise FormatError(
                f"{bundle}: {name} is {width} x {height} px, which does not fit the count of {count:,} in meta.json."
            )
        decoded = decode_webp(data, name)
        if decoded.shape[:2] != (height, width):
            raise FormatError(
                f"{bundle}: {name} holds {decoded.shape[1]} x {decoded.shape[0]} px, its header says less."
            )
        flat = decoded.reshape(-1, 4)
        return flat if size is not None else flat[:count]

    return pixels


def _decode(
    meta: layout.Meta, pixels: Callable[[str, tuple[int, int] | None], attributes.UInt8], bundle: str
) -> Gaussians:
    low, high = (pixels(name, None)[:, :3].astype(np.uint16) for name in meta.means.files)
    base = pixels(meta.sh0.files[0], None)
    scale_indices = pixels(meta.scales.files[0], None)[:, :3]
    return Gaussians(
        means=attributes.decode_positions(
            (low | high << 8).astype(np.uint16), np.array(meta.means.mins), np.array(meta.means.maxs)
        ),
        quats=attributes.decode_quats(pixels(meta.quats.files[0], None)),
        log_scales=_look_up(meta.scales.codebook, scale_indices),
        raw_opacities=attributes.decode_opacities(base[:, 3]),
        sh0=_look_up(meta.sh0.codebook, base[:, None, :3]),
        shN=_decode_sh(meta, pixels, bundle),
    )


def _look_up(codebook: tuple[float, ...], indices: NDArray[np.uint8]) -> Float32:
    looked_up: Float32 = np.array(codebook, np.float32)[indices]
    return looked_up


def _decode_sh(
    meta: layout.Meta, pixels: Callable[[str, tuple[int, int] | None], attributes.UInt8], bundle: str
) -> Float32:
    if meta.shN is None:
        return np.zeros((meta.count, 0, 3), np.float32)
    coefficients = SH_COEFFICIENTS[meta.shN.bands] - 1
    centroids_file, labels_file = meta.shN.files
    centroids = pixels(centroids_file, layout.palette_size(meta.shN.count, coefficients))[:, :3]
    palette = _look_up(meta.shN.codebook, centroids).reshape(-1, coefficients, 3)
    label_pixels = pixels(labels_file, None).astype(np.int32)
    labels = label_pixels[:, 0] | label_pixels[:, 1] << 8
    if labels.max() >= meta.shN.count:
        raise FormatError(f"{bundle}: {labels_file} points to entry {labels.max()}; shN.count is {meta.shN.count}.")
    chosen: Float32 = palette[labels]
    return chosen
