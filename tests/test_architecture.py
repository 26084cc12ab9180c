"""The walls of docs/architecture.md: who may import whom, and the traps of Prefect's flow loader."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(path for top in ("flows", "tasks", "deployments") for path in (REPOSITORY / top).rglob("*.py"))

# Below tasks/core, from the top down: a module may import its own room and rooms of later rows.
CORE_LAYERS = (
    {"estimate"},
    {"options"},
    {"photos", "sfm", "training", "sog", "viewer", "report", "demo"},
    {"render"},
    {"scene", "gaussians", "ply", "storage", "refs", "photoset", "measurements", "settings"},
    {"stage_code", "kernel_cache", "peak_memory", "image_file"},
    {"georeference", "machine_memory", "option_model", "paths", "progress", "safe_names", "source_digest"},
    {"transforms", "errors"},
)
# Rooms of one row that may see each other, each with a reason.
NEIGHBOURS = {
    ("report", "viewer"),  # the preview picture is taken from the viewer's start view
    ("viewer", "report"),
    ("scene", "photoset"),
    ("ply", "gaussians"),
    ("measurements", "photoset"),
}
HOMES = {  # a package and the only places that may import it
    "prefect": ("flows", "tasks/*.py", "tasks/running", "tasks/reporting", "tasks/places", "deployments"),
    "pycolmap": ("tasks/core/sfm",),
    "gsplat": ("tasks/core/render/cuda.py",),
    "boto3": ("tasks/core/storage", "deployments"),
}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def room(module: str) -> str | None:
    """`tasks.core.render.cpu` -> `render`."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["tasks", "core"] and len(parts) > 2 else None


def layer(name: str) -> int:
    found = [i for i, names in enumerate(CORE_LAYERS) if name in names]
    assert found, f"tasks/core/{name} stands in no layer of tests/test_architecture.py"
    return found[0]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    for name in imported(path):
        if parts[0] == "tasks":
            assert not name.startswith("flows"), f"{relative(path)} imports {name}"
        if parts[:2] == ("tasks", "core") and len(parts) > 2 and parts[2] != "__init__":
            assert not (name.startswith("tasks.") and room(name) is None and name != "tasks.core"), (
                f"{relative(path)} imports {name}"
            )
            here, there = parts[2], room(name)
            if there is not None and here != there:
                below = layer(there) > layer(here)
                assert below or (here, there) in NEIGHBOURS, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_packages_stay_in_their_homes(path: Path) -> None:
    for name in imported(path):
        homes = HOMES.get(name.split(".")[0])
        if homes is None:
            continue
        inside = any(
            path.relative_to(REPOSITORY).match(home) if "*" in home else relative(path).startswith(home)
            for home in homes
        )
        assert inside, f"{relative(path)} imports {name}; it may be imported in {', '.join(homes)}"


def test_the_specification_knows_no_fast_kernel() -> None:
    names = imported(REPOSITORY / "tasks/core/render/reference.py")
    fast = ("tasks.core.render.cpu", "tasks.core.render.cuda", "tasks.core.render.kernels")
    assert not {name for name in names if name.startswith(fast)}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_kernels_are_compiled_through_the_cache_that_knows_their_sources(path: Path) -> None:
    if relative(path) != "tasks/core/kernel_cache.py":
        assert not {"numba.njit", "numba.jit", "numba.vectorize", "numba.guvectorize"} & imported(path)
        assert ".njit(" not in path.read_text(encoding="utf-8")


# Files that touch the process's environment today. The list may shrink and never grow: what a module needs to know is a
# field of Settings, which it is given.
TOUCH_THE_ENVIRONMENT = {
    "tasks/core/settings.py",
    "tasks/core/render/kernels/__init__.py",  # for GNU OpenMP, which reads its variable when it is loaded
    "flows/cli/server.py",
    "flows/cli/connection.py",
    "flows/cli/local_run.py",
    "flows/cli/validate.py",
    "flows/cli/validate_here.py",
    "deployments/blocks.py",
    "deployments/aws/runtime/gpu_host.py",
    "deployments/aws/runtime/infrastructure.py",
    "deployments/local/server.py",
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}  # of the module os


def touches_environment(source: str) -> bool:
    """Whether a module reads or writes environment variables by any way that `os` has, under whatever name."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules = {alias.asname or alias.name for alias in imports if alias.name in ("os", "posix")}
    return any(
        (
            isinstance(node, ast.ImportFrom)
            and node.module in ("os", "posix")
            and {alias.name for alias in node.names} & {*ENVIRONMENT, "*"}
        )
        or (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) in modules)
        for node in nodes
    )


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os\nos.environ.get('A')",
        "import os\nos.getenv('A')",
        "import os\nos.putenv('A', 'b')",
        "import os as system\ndef f(e=system.environ): pass",
        "def f():\n    from os import environ as variables",
        "from os import *",
    ],
)
def test_every_way_to_the_environment_is_seen(source: str) -> None:
    assert touches_environment(source)


def test_a_word_about_the_environment_is_none() -> None:
    assert not touches_environment('"""Like os.environ."""\nimport os\nos.cpu_count()\nself.environ = environ = 3')


def test_only_settings_reads_the_environment() -> None:
    found = {relative(path) for path in SOURCES if touches_environment(path.read_text(encoding="utf-8"))}
    assert found - TOUCH_THE_ENVIRONMENT == set(), "take it from Settings"
    assert TOUCH_THE_ENVIRONMENT - found == set(), "they no longer do: take them off the list"


def test_core_prints_nothing() -> None:
    for path in SOURCES:
        if not relative(path).startswith("tasks/core"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            assert called != "print", f"{relative(path)}:{getattr(node, 'lineno', 0)} prints"


FLOW_FILES = [path for path in (REPOSITORY / "flows").glob("*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("path", FLOW_FILES, ids=relative)
def test_no_flow_file_hides_a_module(path: Path) -> None:
    """Prefect puts the flow file's folder first on sys.path, so its name would shadow a module of that name."""
    tops = {"flows", "tasks", "tests", "deployments", "docker"}
    assert path.stem not in sys.stdlib_module_names | tops


@pytest.mark.parametrize("path", FLOW_FILES, ids=relative)
def test_flow_files_can_be_loaded_by_prefect(path: Path) -> None:
    """A flow file is loaded as `reconstruct`, not `flows.reconstruct`: a type defined in it would exist twice.

    Postponed annotations hide the parameters' types from Prefect's form.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defines_flow = any(
        isinstance(node, ast.FunctionDef)
        and any("flow" in ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list)
        for node in ast.walk(tree)
    )
    assert "annotations" not in {name.rpartition(".")[2] for name in imported(path) if name.startswith("__future__")}
    if defines_flow:
        assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_docker_folder_holds_no_python() -> None:
    """A package named docker at the top would shadow the Docker SDK, which Prefect imports."""
    assert not list((REPOSITORY / "docker").rglob("*.py"))
