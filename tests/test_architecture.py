"""The walls of docs/architecture.md: who may import whom, and the traps of Prefect's flow loader."""

import ast
import sys
from pathlib import Path

import pytest

from tasks.core.stages import PARTS, STAGES

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(path for top in ("flows", "tasks", "deployments") for path in (REPOSITORY / top).rglob("*.py"))
FLOW_FILES = [path for path in (REPOSITORY / "flows").glob("*.py") if path.name != "__init__.py"]

# Below tasks/core, from the top down: a module may import its own room and rooms of later rows.
CORE_LAYERS = (
    {"estimate"},
    {"options"},
    {"photos", "sfm", "training", "sog", "viewer", "report", "demo"},
    {"render"},
    {"scene", "gaussians", "ply", "storage", "refs", "photoset", "measurements", "pixels"},
    {"stage_code", "kernel_cache", "usage", "image_file"},
    {
        "georeference",
        "library_loading",
        "machine_memory",
        "model_frame",
        "option_model",
        "paths",
        "ply_header",
        "progress",
        "safe_names",
        "source_digest",
        "stages",
    },
    {"transforms", "errors", "words"},
)
# Rooms of one row that may see each other, each with a reason.
NEIGHBOURS = {
    ("report", "viewer"),  # the preview picture is taken from the viewer's start view
    ("viewer", "report"),
    ("scene", "photoset"),
    ("ply", "gaussians"),
    ("measurements", "photoset"),
}
REPOSITORY_TOPS = {"flows", "tasks", "deployments", "tests"}
# What each folder may import of the others, by the start of a module's name; the innermost folder's list counts.
# `tasks` imports none of them, and `deployments` only the flows themselves.
MAY_IMPORT = {
    "tasks": (),
    "deployments": ("tasks", "flows.reconstruct", "flows.stages"),
    "flows": ("tasks",),
    "flows/cli": (
        "tasks",
        "deployments.findings",
        "deployments.settings",
        "deployments.local",  # `up`, `down`, `status`, and a server for a run in a terminal
        "deployments.validation",
        "deployments.aws.runtime",  # what a run takes there, and what an account holds
    ),
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
        top = name.partition(".")[0]
        if top in REPOSITORY_TOPS and top != parts[0]:
            folder = max((each for each in MAY_IMPORT if relative(path).startswith(f"{each}/")), key=len)
            assert name.startswith(MAY_IMPORT[folder]), f"{relative(path)} imports {name}"
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


def test_the_page_has_the_layers_of_this_test() -> None:
    rows = "\n".join(" ".join(sorted(names)) for names in CORE_LAYERS)
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```\n{rows}\n```" in page, f"docs/architecture.md should have these rows:\n{rows}"


def test_every_layer_is_there() -> None:
    there = {path.stem for path in (REPOSITORY / "tasks" / "core").iterdir()} - {"__init__", "__pycache__"}
    assert set().union(*CORE_LAYERS) == there


def test_the_specification_knows_no_fast_kernel() -> None:
    names = imported(REPOSITORY / "tasks/core/render/reference.py")
    fast = ("tasks.core.render.cpu", "tasks.core.render.cuda", "tasks.core.render.kernels")
    assert not {name for name in names if name.startswith(fast)}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_kernels_are_compiled_through_the_cache_that_knows_their_sources(path: Path) -> None:
    if relative(path) != "tasks/core/kernel_cache.py":
        assert not {"numba.njit", "numba.jit", "numba.vectorize", "numba.guvectorize"} & imported(path)
        assert ".njit(" not in path.read_text(encoding="utf-8")


# Files that touch the process's environment. The list may shrink and never grow: what a module needs to know is a field
# of Settings, which it is given.
TOUCH_THE_ENVIRONMENT = {
    "tasks/running/settings.py",  # reads it, for all others
    "tasks/core/library_loading.py",  # for libraries that read a variable when they are loaded
    "tasks/core/render/kernels/__init__.py",  # for GNU OpenMP, which reads its variable when numba loads it
    "flows/cli/prefect_variables.py",  # for Prefect, which reads its variables when it is imported
    "flows/cli/connection.py",  # likewise: which server Prefect's client talks to
    "deployments/local/server.py",  # likewise, and for the processes that it starts
    "deployments/aws/runtime/gpu_host.py",  # for the worker that it starts
    "deployments/blocks.py",  # AWS's own variables, as boto3 reads them
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


# Files that do something while they are imported, beside defining names. Most set a library up, which looks at it once
# or has one setting for all of the process.
ACT_WHEN_IMPORTED = {
    "flows/cli/__main__.py",  # it is the command
    "flows/cli/app.py",  # adds the commands to the command line
    "tasks/core/image_file.py",  # Pillow's bound for the size of a picture
    "tasks/core/kernel_cache.py",  # where numba keeps compiled kernels
    "tasks/core/photos/pixels.py",  # HEIF for Pillow
    "tasks/core/render/kernels/__init__.py",  # which threads numba uses, and how they wait
    "tasks/core/sog/quick_start.py",  # numpy and numba without what a short process has no use for
}


def acts_when_imported(source: str) -> bool:
    """Whether a module does more than import, define and name things; `if __name__ == "__main__"` is no import."""

    def acts(statement: ast.stmt) -> bool:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return False
            case ast.Expr(value=ast.Constant(value=str())):
                return False
            case ast.Assign(targets=targets):
                return not all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
            case ast.AnnAssign(target=target):
                return not isinstance(target, ast.Name)
            case ast.If(test=test) if ast.unparse(test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
                return any(map(acts, statement.orelse))
        return True

    return any(map(acts, ast.parse(source).body))


@pytest.mark.parametrize(
    "source",
    [
        "import gc\ngc.disable()",
        "import numba\nnumba.config.THREADS = 1",
        "with open('x') as file: pass",
        "for i in range(3): pass",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
    ],
)
def test_every_act_of_an_import_is_seen(source: str) -> None:
    assert acts_when_imported(source)


def test_definitions_are_no_acts() -> None:
    assert not acts_when_imported(
        '"""Doc."""\nimport re\nA, B = 1, re.compile("a")\nC: int = 2\n"""Of C."""\n@cache\ndef f(): g()\n'
        "class D:\n    x = f()\nif TYPE_CHECKING:\n    import os\nif __name__ == '__main__':\n    f()"
    )


def test_imports_do_nothing_else() -> None:
    found = {relative(path) for path in SOURCES if acts_when_imported(path.read_text(encoding="utf-8"))}
    assert found - ACT_WHEN_IMPORTED == set(), "let a function do it, which is called where it is needed"
    assert ACT_WHEN_IMPORTED - found == set(), "they no longer do: take them off the list"


def is_flow(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).split("(")[0] == "flow" for decorator in function.decorator_list)


def test_every_flow_reads_the_settings_of_its_machine_first() -> None:
    """Tests run flows with settings that are read anew, so that none would miss them."""
    flows = 0
    stage_flow = REPOSITORY / "tasks" / "running" / "stage.py"  # which flows/stages.py makes all of its flows with
    for path in (*FLOW_FILES, stage_flow):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and (is_flow(function) or function.name == "run"):
                flows += 1
                has_docstring = ast.get_docstring(function) is not None
                first = ast.unparse(function.body[int(has_docstring)])
                assert first == "read_settings_of_run()", f"{relative(path)}: {function.name}"
    assert flows == 2
    made = ast.parse((REPOSITORY / "flows" / "stages.py").read_text(encoding="utf-8"))
    values = [ast.unparse(each.value) for each in made.body if isinstance(each, ast.Assign)]
    assert len(values) == len((*STAGES, *PARTS))
    assert all(value.endswith(".as_flow()") for value in values)


def test_core_prints_nothing() -> None:
    for path in SOURCES:
        if not relative(path).startswith("tasks/core"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            assert called != "print", f"{relative(path)}:{getattr(node, 'lineno', 0)} prints"


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
