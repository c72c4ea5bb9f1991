"""Builds the native extension; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
        headers = [Path(name).stat().st_mtime for ext in self.extensions for name in ext.depends]

        def is_current(source: str, output_dir: str) -> str | None:
            (name,) = self.compiler.object_filenames([source], output_dir=output_dir)
            target = Path(name)
            newest = max([Path(source).stat().st_mtime, *headers])
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
    depends=[*files(NATIVE, "**/*.hpp"), *files(NATIVE, "**/*.pxd")],
    extra_compile_args=COMPILE_ARGS,
    language="c++",
)

setup(
    ext_modules=cythonize([core], include_path=[str(NATIVE)], build_dir="build/cython"),
    cmdclass={"build_ext": ParallelBuild},
)
