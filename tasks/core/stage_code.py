"""The code that computes a stage's output. It is part of the output's name, so changed code never finds old outputs."""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cached_property

from tasks.core.source_digest import file_digest, imported_libraries, source_digest, source_modules

# Code that is known to make the same outputs as earlier code: digest of the sources now -> digest of the earlier
# sources, and their commit. For refactorings only; tests/core/test_compatible_code.py computes a small scene with both.
COMPATIBLE: dict[str, tuple[str, str]] = {}

# Packages by the name they are imported by; some come as one of several distributions, as for CUDA.
DISTRIBUTIONS = {
    "PIL": ("pillow",),
    "pillow_heif": ("pillow-heif",),
    "pycolmap": ("pycolmap", "pycolmap-cuda12"),
}
# Imported packages that do not affect any byte of an output: they store, check or pass on the results of others.
WITHOUT_INFLUENCE = frozenset({"jinja2", "markupsafe", "plyfile", "psutil", "pydantic", "pydantic_core"})


@dataclass(frozen=True)
class StageCode:
    """The modules and files of this project and the libraries that compute a stage's output."""

    modules: tuple[str, ...]  # where the computation starts; what they import is followed
    libraries: tuple[str, ...]  # names of packages as they are imported
    files: tuple[str, ...] = ()  # templates and the like, from the project's root; their bytes count

    @cached_property
    def sources(self) -> str:
        """The digest of all sources, or of earlier sources that made the same outputs."""
        digest = source_digest(*self.modules)
        if self.files:
            digest = hashlib.sha256(f"{digest} {file_digest(*self.files)}".encode()).hexdigest()
        while digest in COMPATIBLE:
            digest, _ = COMPATIBLE[digest]
        return digest

    @cached_property
    def library_versions(self) -> dict[str, str]:
        """The installed version of each library, without the suffix of its build, such as `+cpu`."""
        return {name: installed_version(name).partition("+")[0] for name in self.libraries}

    @cached_property
    def version(self) -> str:
        """A short name of sources and libraries together."""
        text = repr((self.sources, sorted(self.library_versions.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def covered_modules(self) -> frozenset[str]:
        """All modules of this project whose sources count."""
        return source_modules(*self.modules)

    @property
    def imported(self) -> frozenset[str]:
        """All packages, Python's own included, that those modules import."""
        return imported_libraries(*self.modules)


def installed_version(library: str) -> str:
    """The version of a package, by the name it is imported by or its distribution's. Raises PackageNotFoundError."""
    distributions = DISTRIBUTIONS.get(library, (library,))
    for name in distributions[:-1]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return importlib.metadata.version(distributions[-1])
