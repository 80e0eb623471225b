"""What pyproject.toml cannot say: the compiled schedule core, and C sources and SQL that travel in the wheel.

The core (native/src/core) is compiled for Python's limited API: one build serves
every Python from 3.11 on. The extension itself is not compiled here, because it
belongs to one PostgreSQL and not to one Python; its sources are carried in
`scheduler/_ext`, where `clockwork install` finds them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CORE = "scheduler/cron/_build.py"
CARRIED = ("Makefile", "native", "sql", "migrations", "LICENSE")


class BuildWithSources(build_py):
    """Carry the extension's sources into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "scheduler", "_ext")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        leave_out = shutil.ignore_patterns("*.o", "*.so", "*.bc", "__pycache__")
        for name in CARRIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=leave_out)
            elif source.exists():
                shutil.copy2(source, target / name)


class LimitedApiWheel(bdist_wheel):
    """Name the wheel for every Python that it serves."""

    def finalize_options(self) -> None:
        if HAS_CORE:
            self.py_limited_api = "cp311"
        super().finalize_options()


HAS_CORE = (ROOT / CORE).exists()

setup(
    cffi_modules=[f"{CORE}:ffibuilder"] if HAS_CORE else [],
    cmdclass={"build_py": BuildWithSources, "bdist_wheel": LimitedApiWheel},
)
