"""Read Gaussians from a SOG, bundled or as a folder, in both versions of the format.

Everything in the file is checked before use.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.ply import SplatModel, require_regular
from tasks.core.ply_header import MAX_GAUSSIANS
from tasks.core.safe_names import DAMAGED_ZIP, reason
from tasks.core.sog import attributes, layout
from tasks.core.sog.pictures import Pixels, ReadMember

_MAX_META_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks 4 kB of other methods to gigabytes in one go

_ZIP_ERRORS = (*DAMAGED_ZIP, OSError)


def read_sog(path: Path, max_gaussians: int = MAX_GAUSSIANS) -> Gaussians:
    """Read a .sog, a folder with meta.json, or a meta.json, whose name may have something in front.

    Memory is bounded by `max_gaussians`, whatever the file says: 250 bytes for each Gaussian that the file claims to
    have. Raises FormatError that names the wrong field or file.
    """
    return read_sog_and_model(path, max_gaussians)[0]


def read_sog_and_model(path: Path, max_gaussians: int = MAX_GAUSSIANS) -> tuple[Gaussians, SplatModel]:
    """As `read_sog`, with the model that says how to draw the splat."""
    with _members(path) as read:
        meta = _read_meta(read(layout.META_FILE, _MAX_META_BYTES), path.name)
        if meta.count > max_gaussians:
            raise FormatError(f"{path.name}: count is {meta.count:,}; at most {max_gaussians:,} Gaussians can be read.")
        pixels = Pixels(read, meta.count, path.name)
        if isinstance(meta, layout.Meta1):
            return decode_version_1(meta, pixels, path.name), "default"
        return decode(meta, pixels, path.name), meta.drawn_as


@contextmanager
def _members(path: Path) -> Iterator[ReadMember]:
    """A function that reads members of a bundle or folder, never more bytes than asked for."""
    if layout.is_meta(path) or path.is_dir():
        folder, meta = (path, path / layout.META_FILE) if path.is_dir() else (path.parent, path)
        yield lambda name, limit: read_bounded(meta if name == layout.META_FILE else folder / name, limit)
        return
    try:
        require_regular(path)
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist.") from None
    except _ZIP_ERRORS as error:
        raise FormatError(f"{path.name} is not a .sog bundle (a zip file): {reason(error)}.") from error
    with archive:
        yield lambda name, limit: _read_zipped(archive, path.name, name, limit)


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises FormatError."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FormatError(f"{path.name} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise FormatError(_too_large(path.name, limit))
    return data


def _read_zipped(archive: zipfile.ZipFile, bundle: str, name: str, limit: int) -> bytes:
    try:
        found = archive.getinfo(name)
        if found.compress_type not in _METHODS:
            raise FormatError(
                f"{name} in {bundle} is packed by method {found.compress_type}; a .sog is stored or deflated: pack it "
                "again as an ordinary .zip."
            )
        if found.file_size > limit:
            raise FormatError(_too_large(f"{name} in {bundle}", limit))
        with archive.open(found) as member:
            data = member.read(limit + 1)
    except KeyError:
        raise FormatError(f"{bundle} has no {name}.") from None
    except _ZIP_ERRORS as error:
        raise FormatError(f"{name} in {bundle} cannot be read: {reason(error)}. The file is damaged.") from error
    if len(data) > limit:
        raise FormatError(_too_large(f"{name} in {bundle}", limit))
    return data


def _too_large(what: str, limit: int) -> str:
    return f"{what} is larger than {limit:,} bytes, more than its content can need."


def _read_meta(data: bytes, name: str) -> layout.Meta | layout.Meta1:
    try:
        meta = layout.AnyMeta.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # the first part is the version that the file was taken for
        where = ".".join(str(part) for part in first["loc"][1:]) or layout.META_FILE
        raise FormatError(f"{name}: {where} of meta.json is wrong: {first['msg']}.") from error
    for part in _bounded_parts(meta):
        bounds = zip(np.atleast_1d(part.mins), np.atleast_1d(part.maxs), strict=True)
        for channel, (low, high) in enumerate(bounds):
            if low > high:
                raise FormatError(
                    f"{name}: {part.field}.mins of meta.json is above {part.field}.maxs in channel {channel} "
                    f"({low} > {high})."
                )
    return meta


def _bounded_parts(meta: layout.Meta | layout.Meta1) -> Iterator[layout.BoundedPart]:
    yield meta.means
    if isinstance(meta, layout.Meta1):
        yield from (meta.scales, meta.sh0)
        if meta.shN is not None:
            yield meta.shN


def decode(meta: layout.Meta, pixels: Pixels, bundle: str) -> Gaussians:
    """Gaussians of version 2."""
    base = pixels.of_gaussians(meta.sh0.files[0])
    return Gaussians(
        means=_positions(meta.means, pixels),
        quats=attributes.decode_quats(pixels.of_gaussians(meta.quats.files[0])),
        log_scales=_look_up(meta.scales.codebook, pixels.of_gaussians(meta.scales.files[0])[:, :3]),
        raw_opacities=attributes.decode_opacities(base[:, 3]),
        sh0=_look_up(meta.sh0.codebook, base[:, None, :3]),
        shN=_view_dependence(meta, pixels, bundle),
    )


def decode_version_1(meta: layout.Meta1, pixels: Pixels, bundle: str) -> Gaussians:
    """Gaussians of version 1, where bytes are even steps between bounds instead of entries of codebooks."""
    base = _between(meta.sh0.mins, meta.sh0.maxs, pixels.of_gaussians(meta.sh0.files[0]))
    rest = np.zeros((meta.count, 0, 3), np.float32)
    if meta.shN is not None:
        centroids, coefficients = pixels.of_palette(meta.shN.files[0])
        palette = _between(meta.shN.mins, meta.shN.maxs, centroids[:, :3]).reshape(-1, coefficients, 3)
        rest = _chosen(palette, len(palette), meta.shN.files[1], pixels, bundle)
    return Gaussians(
        means=_positions(meta.means, pixels),
        quats=attributes.decode_quats(pixels.of_gaussians(meta.quats.files[0])),
        log_scales=_between(meta.scales.mins, meta.scales.maxs, pixels.of_gaussians(meta.scales.files[0])[:, :3]),
        raw_opacities=np.ascontiguousarray(base[:, 3]),
        sh0=np.ascontiguousarray(base[:, None, :3]),
        shN=rest,
    )


def _positions(means: layout.MeansPart, pixels: Pixels) -> Float32:
    low, high = (pixels.of_gaussians(name)[:, :3].astype(np.uint16) for name in means.files)
    return attributes.decode_positions((low | high << 8).astype(np.uint16), np.array(means.mins), np.array(means.maxs))


def _look_up(codebook: tuple[float, ...], indices: NDArray[np.uint8]) -> Float32:
    looked_up: Float32 = np.array(codebook, np.float32)[indices]
    return looked_up


def _between(mins: float | tuple[float, ...], maxs: float | tuple[float, ...], values: NDArray[np.uint8]) -> Float32:
    """Bytes [N, C] as numbers between mins and maxs, [C] each or one number for all."""
    low, high = np.asarray(mins, np.float32), np.asarray(maxs, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # bounds near the end of float32: the writers refuse infinities
        return (low + (high - low) * (values / np.float32(255))).astype(np.float32)


def _view_dependence(meta: layout.Meta, pixels: Pixels, bundle: str) -> Float32:
    if meta.shN is None:
        return np.zeros((meta.count, 0, 3), np.float32)
    count, bands = meta.shN.count, meta.shN.bands
    if count is None or bands is None:
        centroids, coefficients = pixels.of_palette(meta.shN.files[0])
        if bands is not None and coefficients != SH_COEFFICIENTS[bands] - 1:
            raise FormatError(
                f"{bundle}: {meta.shN.files[0]} has {coefficients} coefficients an entry, which does not fit the "
                f"{bands} bands of shN in meta.json."
            )
        count = count or len(centroids) // coefficients
    else:
        coefficients = SH_COEFFICIENTS[bands] - 1
        centroids = pixels.of_size(meta.shN.files[0], layout.palette_size(count, coefficients))
    palette = _look_up(meta.shN.codebook, centroids[:, :3]).reshape(-1, coefficients, 3)
    return _chosen(palette, min(count, len(palette)), meta.shN.files[1], pixels, bundle)


def _chosen(palette: Float32, count: int, labels_file: str, pixels: Pixels, bundle: str) -> Float32:
    label_pixels = pixels.of_gaussians(labels_file)
    labels = label_pixels[:, 0].astype(np.int32) | label_pixels[:, 1].astype(np.int32) << 8
    if labels.max() >= count:
        raise FormatError(f"{bundle}: {labels_file} points to entry {labels.max()}; shN.count is {count}.")
    chosen: Float32 = palette[labels]
    return chosen
