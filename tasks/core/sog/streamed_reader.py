"""Read a streamed SOG: of each box the finest level that it has, and the environment, as one splat.

Everything in the file is checked before use, as in `reader`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.core.errors import FormatError, UnsafeNameError
from tasks.core.gaussians import Gaussians
from tasks.core.ply import SplatModel
from tasks.core.ply_header import MAX_GAUSSIANS
from tasks.core.safe_names import below, shown
from tasks.core.sog.layout import LOD_META_FILE, META_FILE, is_meta
from tasks.core.sog.reader import read_bounded, read_sog_and_model

_MAX_META_BYTES = 1 << 26  # a box of a leaf takes about 300 bytes
_Count = Annotated[int, Field(ge=0, le=MAX_GAUSSIANS)]


class _Range(BaseModel):
    """A part of a file: `count` Gaussians from `offset` on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: int = Field(ge=0)
    offset: _Count = 0
    count: _Count


class _Node(BaseModel):
    """A box of the tree: a leaf has ranges by level, a branch has children."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lods: dict[Annotated[str, Field(pattern=r"^\d{1,3}$")], _Range] = {}
    children: list[Any] = []  # checked one by one, so that a deep tree fills no stack


class _LodMeta(BaseModel):
    """lod-meta.json; keys that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] | None = None  # early writers had none
    environment: str | None = None
    filenames: list[str]
    tree: Any


def read_streamed(path: Path, max_gaussians: int = MAX_GAUSSIANS) -> tuple[Gaussians, SplatModel]:
    """Read a lod-meta.json: its finest Gaussians, and how to draw them.

    A box without Gaussians of the finest level contributes its finest ones. Raises FormatError that names the wrong
    field or file, or says that there are more than `max_gaussians`.
    """
    try:
        meta = _LodMeta.model_validate_json(read_bounded(path, _MAX_META_BYTES))
        ranges = _finest(meta.tree)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the tree"
        raise FormatError(f"{path.name}: {where} of {LOD_META_FILE} is wrong: {first['msg']}.") from error
    total = sum(part.count for part in ranges)
    if not total:
        raise FormatError(f"{path.name}: the tree has no Gaussians.")
    if total > max_gaussians:
        raise FormatError(f"{path.name}: the finest level has {total:,}; at most {max_gaussians:,} can be read.")
    parts: list[Gaussians] = []
    models: list[SplatModel] = []
    by_file: dict[int, list[_Range]] = {}
    for part in ranges:
        by_file.setdefault(part.file, []).append(part)
    for file, wanted in sorted(by_file.items()):
        if file >= len(meta.filenames):
            raise FormatError(f"{path.name}: the tree names file {file}; filenames has {len(meta.filenames)}.")
        splat, model = _read_part(path, meta.filenames[file], max_gaussians)
        models.append(model)
        for part in wanted:
            if part.offset + part.count > len(splat):
                raise FormatError(
                    f"{path.name}: the tree wants Gaussians {part.offset:,} to {part.offset + part.count:,} of "
                    f"{shown(meta.filenames[file])}, which has {len(splat):,}."
                )
            parts.append(splat.take(np.arange(part.offset, part.offset + part.count)))
    if meta.environment:
        splat, _ = _read_part(path, meta.environment, max_gaussians)
        parts.append(splat)
    return _joined(parts), models[0]


def _finest(tree: Any) -> list[_Range]:
    """The range of the finest level of every leaf, in the tree's order. Raises ValidationError."""
    found, waiting = [], [tree]
    while waiting:
        node = _Node.model_validate(waiting.pop())
        waiting.extend(reversed(node.children))
        filled = [level for level, part in node.lods.items() if part.count]
        if filled:
            found.append(node.lods[min(filled, key=int)])
    return found


def _read_part(meta: Path, name: str, max_gaussians: int) -> tuple[Gaussians, SplatModel]:
    """Read a file that lod-meta.json names. Raises FormatError."""
    try:
        place = below(meta.parent, name)
    except UnsafeNameError as error:
        raise FormatError(f"{meta.name}: {error}") from error
    if not is_meta(place) and place.suffix.lower() != ".sog":
        raise FormatError(f"{meta.name}: {shown(name)} is neither a {META_FILE} nor a .sog.")
    try:
        return read_sog_and_model(place, max_gaussians)
    except FormatError as error:
        raise FormatError(f"{shown(name)} of {meta.name}: {error}") from error


def _joined(parts: list[Gaussians]) -> Gaussians:
    """All Gaussians as one splat. Those of a lower degree get coefficients of 0."""
    rest = max(part.shN.shape[1] for part in parts)
    padded = [np.pad(part.shN, ((0, 0), (0, rest - part.shN.shape[1]), (0, 0))) for part in parts]
    names = ("means", "quats", "log_scales", "raw_opacities", "sh0")
    return Gaussians(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        shN=np.concatenate(padded),
    )
