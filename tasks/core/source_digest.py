"""A digest of the code that computes an output, instead of a version number that is bumped by hand.

It covers a module and all modules of this project that it imports, directly or not. Comments, docstrings, layout, and
the titles and descriptions of options do not count: sources are compared as syntax trees without them.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "tasks"
# Modules, and packages with all their modules, that many others import but that do not affect any byte of an output.
WITHOUT_INFLUENCE = (
    "tasks.core.errors",  # classes of errors; their messages are where they are raised
    "tasks.core.kernel_cache",  # where compiled code is kept
    "tasks.core.library_loading",  # how many threads a library starts
    "tasks.core.progress",  # for people
    "tasks.core.source_digest",
    "tasks.core.storage",  # the storage of outputs
)
PROSE = frozenset({"title", "description"})  # arguments of pydantic's Field that only people read


def source_digest(*modules: str) -> str:
    """Return the sha256, hexadecimal, over the sources of modules and all their imports from this project.

    Raises ModuleNotFoundError for a module that is not part of this project.
    """
    digest = hashlib.sha256()
    for name in sorted(source_modules(*modules)):
        digest.update(f"{name}\0{_normalised(name)}\0".encode())
    return digest.hexdigest()


def file_digest(*names: str) -> str:
    """The sha256, hexadecimal, over the bytes of files, named from the project's root. Raises OSError."""
    lines = (f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()} {name}\n" for name in sorted(names))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def source_modules(*modules: str) -> frozenset[str]:
    """The modules that `source_digest` covers, by their dotted names."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or _is_without_influence(name):
            continue
        found.add(name)
        waiting.extend(_imported(name))
        package = name.rpartition(".")[0]
        if package:  # its __init__ runs first
            waiting.append(package)
    return frozenset(found)


def _is_without_influence(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in WITHOUT_INFLUENCE)


def imported_libraries(*modules: str) -> frozenset[str]:
    """Return the top-level names of all packages that the sources of `source_digest` import from elsewhere."""
    names: set[str] = set()
    for name in source_modules(*modules):
        names.update(found.partition(".")[0] for found in _names_imported(_tree(name)))
    return frozenset(names - {PACKAGE})


def _file_of(module: str) -> Path | None:
    """The source of a module of this project, or None where there is no such module."""
    place = ROOT.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = _file_of(module)
    if path is None:
        raise ModuleNotFoundError(f"There is no module {module} below {ROOT}.", name=module)
    tree = ast.parse(path.read_bytes())
    _WithoutProse().visit(tree)
    return tree


@cache
def _normalised(module: str) -> str:
    return ast.unparse(_tree(module))


@cache
def _imported(module: str) -> frozenset[str]:
    """The modules of this project that a module imports, at any depth of its code."""
    names = {name for name in _names_imported(_tree(module)) if name.partition(".")[0] == PACKAGE}
    return frozenset(name for name in names if _file_of(name) is not None)


def _names_imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


class _WithoutProse(ast.NodeTransformer):
    """Removes code without effect: docstrings, imports for type checkers, and the prose of options."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Drop docstrings, and all other statements that consist of a string."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Drop `if TYPE_CHECKING:`, whose imports never run."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Drop titles and descriptions of `Field(…)`."""
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in PROSE]
        return self.generic_visit(node)
