"""gsplat's CUDA kernels, compiled on one machine for another: `python -m tests.gpu.kernels build|bind --help`.

Almost all of gsplat's compile time is in sources that know nothing of Python. `build` makes a library of them, without
a GPU and with any Python, where torch and nvcc are those of the GPU machine. `bind` runs there: it compiles the one
file that is left, the bindings, for the Python that is there, and puts both where gsplat looks for them.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

LIBRARY = "libgsplat_kernels"
LIBRARY_FILE, DESCRIPTION_FILE = f"{LIBRARY}.so", "kernels.json"
# gsplat instantiates its rasterizers for 19 numbers of colour channels up to 513, which is most of its compile time.
# Photos have 3.
MOST_CHANNELS = 4
INSTANCE = re.compile(r"^[ \t]*__(?:INS|LAUNCH_KERNEL)__\((\d+)\)[ \t]*\n", re.MULTILINE)
NVCC_FLAGS = ["-O3", "-use_fast_math", "-diag-suppress", "20012,186"]  # gsplat's own; the last silences its headers


def gsplat_folder() -> Path:
    """The package's folder, without importing it, which would start a compilation."""
    found = importlib.util.find_spec("gsplat")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("kernels: gsplat is not installed")
    return Path(found.submodule_search_locations[0])


def with_few_channels(source: str) -> str:
    """The source without instances for more than MOST_CHANNELS channels."""
    return INSTANCE.sub(lambda line: line[0] if int(line[1]) <= MOST_CHANNELS else "", source)


def described(architecture: str) -> dict[str, str]:
    """What a library depends on, and so what has to be the same on both machines."""
    return {
        "gsplat": importlib.metadata.version("gsplat"),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "architecture": architecture,
    }


def _load(
    name: str, sources: list[Path], build_folder: Path, cuda: Path, optimise: str, link: list[str], *, python: bool
) -> None:
    """Compile into `build_folder/name.so` and load it, which finds what the linker did not."""
    build_folder.mkdir(parents=True, exist_ok=True)
    load(
        name=name,
        sources=[str(source) for source in sources],
        extra_include_paths=[str(cuda / "include"), str(cuda / "csrc" / "third_party" / "glm")],
        extra_cflags=[optimise],
        extra_cuda_cflags=NVCC_FLAGS,
        extra_ldflags=link,
        build_directory=str(build_folder),
        with_cuda=True,
        verbose=True,
        is_python_module=python,
    )


def build(out: Path, architecture: str) -> None:
    """Compile all but the bindings and write library and description into a folder."""
    os.environ["TORCH_CUDA_ARCH_LIST"] = architecture
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cuda = Path(shutil.copytree(gsplat_folder() / "cuda", Path(folder) / "cuda"))
        sources = sorted([*cuda.glob("csrc/*.cu"), *cuda.glob("csrc/*.cpp")])
        for source in sources:
            source.write_text(with_few_channels(source.read_text(encoding="utf-8")), encoding="utf-8")
        built = Path(folder) / "built"
        _load(LIBRARY, sources, built, cuda, "-O3", ["-s"], python=False)
        shutil.copyfile(built / LIBRARY_FILE, out / LIBRARY_FILE)
    (out / DESCRIPTION_FILE).write_text(json.dumps(described(architecture), indent=1), encoding="utf-8")


def misfit(kit: Path, architecture: str | None) -> str | None:
    """Why a library cannot be used here, as a sentence; None when it can. Without a GPU any architecture will do."""
    made_for: dict[str, str] = json.loads((kit / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    here = described(architecture or made_for["architecture"])
    differing = [f"{name} {made_for[name]}, here {here[name]}" for name in here if made_for[name] != here[name]]
    return f"{kit / LIBRARY_FILE} was made for {'; '.join(differing)}." if differing else None


def bind(kit: Path, architecture: str | None) -> None:
    """Compile the bindings for this Python and put them, and the library, into the gsplat package."""
    reason = misfit(kit, architecture)
    if reason is not None:
        raise SystemExit(f"kernels: {reason}")
    made_for = json.loads((kit / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    os.environ["TORCH_CUDA_ARCH_LIST"] = made_for["architecture"]  # torch would ask the GPU, and there may be none
    package = gsplat_folder()
    shutil.copyfile(kit / LIBRARY_FILE, package / LIBRARY_FILE)
    with tempfile.TemporaryDirectory() as folder:
        link = [str(package / LIBRARY_FILE), f"-Wl,-rpath,{package}"]
        _load("csrc", [package / "cuda" / "ext.cpp"], Path(folder), package / "cuda", "-O1", link, python=True)
        shutil.copyfile(Path(folder) / "csrc.so", package / "csrc.so")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "bind"))
    parser.add_argument("folder", type=Path, help=f"that receives, or holds, {LIBRARY_FILE} and {DESCRIPTION_FILE}")
    parser.add_argument("--arch", help="of the GPU, as 9.0; bind: the one that is here, none without a GPU")
    arguments = parser.parse_args(argv)
    if arguments.action == "bind":
        bind(arguments.folder, arguments.arch)
    elif arguments.arch is None:
        parser.error("build needs --arch: there is no GPU to ask")
    else:
        build(arguments.folder, arguments.arch)


if __name__ == "__main__":
    main()
