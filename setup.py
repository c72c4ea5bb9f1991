"""Builds the native extension; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("native")
COMPILE_ARGS = ["-std=c++20", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]


def files(folder: Path, pattern: str) -> list[str]:
    """Files of a folder, in a stable order."""
    return sorted(str(path) for path in folder.glob(pattern))


class ParallelBuild(build_ext):
    """Compiles the files of an extension side by side, and only those that are older than what they are made of."""

    def build_extensions(self) -> None:
        compile_all = self.compiler.compile
        headers_of = {source: ext.depends for ext in self.extensions for source in ext.sources}

        def is_current(source: str, output_dir: str) -> str | None:
            (name,) = self.compiler.object_filenames([source], output_dir=output_dir)
            target = Path(name)
            newest = max(Path(part).stat().st_mtime for part in [source, *headers_of[source]])
            return name if target.exists() and target.stat().st_mtime > newest and not self.force else None

        def compile_one(source: str, output_dir: str, arguments: dict[str, Any]) -> list[str]:
            current = is_current(source, output_dir)
            return [current] if current else compile_all([source], output_dir=output_dir, **arguments)

        def compile_parallel(sources: list[str], output_dir: str, **arguments: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                objects = threads.map(lambda source: compile_one(source, output_dir, arguments), sources)
            return [name for names in objects for name in names]

        self.compiler.compile = compile_parallel
        super().build_extensions()


core = Extension(
    "sabot_native._native",
    sources=[str(NATIVE / "sabot_native" / "_native.pyx"), *files(NATIVE / "src", "*.cpp")],
    include_dirs=[str(NATIVE / "include"), str(NATIVE / "sabot_native")],
    depends=[
        *files(NATIVE / "include", "**/*.hpp"),
        *files(NATIVE / "src", "*.hpp"),
        *files(NATIVE / "sabot_native", "*.[hp][px][pd]"),
    ],
    extra_compile_args=COMPILE_ARGS,
    language="c++",
)

# The soname carries pyarrow's minor version. Links by file name: pyarrow ships no libarrow.so for the linker to find.
ARROW = [
    f"-l:lib{name}.so.{pa.cpp_version_info.major * 100 + pa.cpp_version_info.minor}"
    for name in ("arrow", "arrow_flight")
]

flight = Extension(
    "sabot_native._flight",
    sources=[str(NATIVE / "sabot_native" / "_flight.pyx"), *files(NATIVE / "flight", "*.cpp")],
    include_dirs=[str(NATIVE / "include"), str(NATIVE / "flight"), pa.get_include()],
    library_dirs=pa.get_library_dirs(),
    depends=[*files(NATIVE / "flight", "*.hpp"), *files(NATIVE, "sabot_native/transport.pxd")],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=[*ARROW, "-Wl,-rpath,$ORIGIN/../pyarrow"],
    language="c++",
)

setup(
    ext_modules=cythonize([core, flight], include_path=[str(NATIVE)], build_dir="build/cython"),
    cmdclass={"build_ext": ParallelBuild},
)
