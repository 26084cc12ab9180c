"""The installed viewer package: its version, licence and style, and its script with our changes."""

import json
import re
from pathlib import Path

from tasks.core.errors import MissingPartError

_PACKAGE = Path(__file__).parent / "npm" / "node_modules" / "@playcanvas" / "supersplat-viewer"
_EXPORT = "export { createViewer };"  # the line of the bundle that the start script relies on

# The viewer has no limits to zooming and turning, nor an option for them, so the page adds its own limits here.
_LIMITS = {
    "this.controller.zoomRange = new Vec2(0.01, Infinity);": "this.controller.zoomRange = "
    "new Vec2(...(globalThis.spaceportLimits?.zoom ?? [0.01, Infinity]));",
    "this.controller.pitchRange = new Vec2(-90, 90);": "this.controller.pitchRange = "
    "new Vec2(...(globalThis.spaceportLimits?.pitchDeg ?? [-90, 90]));",
}

# The engine makes the worker that sorts Gaussians from text, which needs `worker-src blob:`; it can be a file instead.
_WORKER_BEFORE = "(${UnifiedSortWorker.toString()})()\n"
_WORKER = (
    'new Worker(URL.createObjectURL(new Blob([workerSource], {\n\t\t\t\ttype: "application/javascript"\n\t\t\t})));'
)
_SORTING = ("let GSplatSortBinWeights$1 = class GSplatSortBinWeights {", "function UnifiedSortWorker() {")
# Handlers inside HTML are code inside a page too; the start script adds them again.
_HANDLERS = re.compile(r' on(?:pointerdown|wheel)=\\"event\.stopPropagation\(\)\\"')

VIEWER_FOLDER = "viewer"  # beside a page that contains no code: its files
SCRIPT_FILE, STYLE_FILE, EARLY_FILE, SORTER_FILE = "page.js", "page.css", "early.js", "sorter.js"
VIEWER_FILES = tuple(f"{VIEWER_FOLDER}/{name}" for name in (SCRIPT_FILE, STYLE_FILE, EARLY_FILE, SORTER_FILE))


def viewer_version() -> str:
    """Version of the installed viewer package; MissingPartError when it is absent."""
    return str(json.loads(_package_file("package.json"))["version"])


def viewer_license() -> str:
    """Text of the package's licence. Raises MissingPartError."""
    return _package_file("LICENSE")


def viewer_style() -> str:
    """The package's style sheet. Raises MissingPartError."""
    return _package_file("public/index.css")


def viewer_script() -> str:
    """The package's module with our limits; it ends with the export of createViewer.

    Raises MissingPartError when the package is not installed, or is another version than the pinned one.
    """
    bundle = _package_file("public/index.js")
    _require_once(bundle, _EXPORT, *_LIMITS)
    for old, new in _LIMITS.items():
        bundle = bundle.replace(old, new)
    return _HANDLERS.sub("", bundle).replace("//# sourceMappingURL=index.js.map", "")


def with_sorter_file(script: str) -> tuple[str, str]:
    """The module with its worker in a file beside it, and that file's content. Raises MissingPartError."""
    _require_once(script, _WORKER_BEFORE, *_SORTING)
    weights, sort = (_definition(script, begin) for begin in _SORTING)
    before, after = script.split(_WORKER_BEFORE)
    if _WORKER not in after:
        raise _other_version()
    loaded = after.replace(_WORKER, f'new Worker(new URL("{SORTER_FILE}", import.meta.url));', 1)
    name = "GSplatSortBinWeights"
    return before + _WORKER_BEFORE + loaded, f"const {name} = {weights.split(' = ', 1)[1]}\n({sort})();\n"


def _definition(script: str, begin: str) -> str:
    """A definition at the outermost level, which ends with the first brace at a line's begin."""
    start = script.index(begin)
    end = script.index("\n}", start) + len("\n}")
    return script[start:end] + (";" if script[end] == ";" else "")


def _require_once(script: str, *parts: str) -> None:
    if any(script.count(part) != 1 for part in parts):
        raise _other_version()


def _other_version() -> MissingPartError:
    return MissingPartError(
        f"supersplat-viewer {viewer_version()} is not the version this program was written for; run `make setup`."
    )


def _package_file(name: str) -> str:
    try:
        return (_PACKAGE / name).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingPartError(
            "The viewer package is not installed; run `make setup` (or `npm ci --prefix tasks/core/viewer/npm`)."
        ) from error
