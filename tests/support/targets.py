"""Which PostgreSQLs the server tests run on.

A target is one of them: a pg_config of this machine, or a container image. The
option `--pg` (or the variable PG_TARGETS) names them, separated by commas:

    auto            $PG_CONFIG, else the PostgreSQL that came as a Python wheel (the default)
    PATH            a pg_config
    17              that major: from the cache of tests/matrix, the wheel, or this machine
    18-cassert      that major with assertions: from the cache of tests/matrix
    all             every supported major that can be found
    docker:IMAGE    a container of that image

What cannot be had is still a target, with its reason: its tests are skipped, or
fail where CI asked for it, so that nothing is left out silently.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.cluster import Installation
from scheduler.errors import ClockworkError, ClusterError
from scheduler.packaging import find_embedded

MAJORS = (15, 16, 17, 18, 19)
DOCKER = "docker:"
CASSERT = "-cassert"


@dataclass(frozen=True, slots=True)
class Target:
    """One PostgreSQL to test on, or the reason why it cannot be had."""

    label: str
    pg_config: Path | None = None
    image: str = ""
    missing: str = ""

    @property
    def description(self) -> str:
        if self.missing:
            return f"{self.label} (not here: {self.missing})"
        return f"{self.label} ({self.image or self.pg_config})"


def parse_targets(text: str) -> list[Target]:
    """The targets that `--pg` names, each once."""
    targets = {target.label: target for word in text.split(",") if word.strip() for target in _parse(word.strip())}
    return list(targets.values())


def _parse(word: str) -> Iterator[Target]:
    if word.startswith(DOCKER):
        image = word.removeprefix(DOCKER)
        yield Target(label=word, image=image, missing=_why_no_engine())
    elif word == "auto":
        yield _automatic()
    elif word == "all":
        yield from (_of_major(major) for major in MAJORS)
    elif word.isdigit():
        yield _of_major(int(word))
    elif word.removesuffix(CASSERT).isdigit():
        yield _of_cassert(word)
    else:
        yield _of_pg_config(word)


def _why_no_engine() -> str:
    reason = find_no_engine()
    return f"no container engine answers: {reason}" if reason else ""


def _automatic() -> Target:
    if chosen := os.environ.get("PG_CONFIG"):
        return _of_pg_config(chosen)
    try:
        return _of_pg_config(find_embedded())
    except ClockworkError as exc:
        found = shutil.which("pg_config")
        return _of_pg_config(found) if found else Target(label="pg", missing=exc.message)


def _of_major(major: int) -> Target:
    for pg_config in _places(major):
        if pg_config.exists():
            return _of_pg_config(pg_config)
    return Target(label=f"pg{major}", missing=f"no PostgreSQL {major}: get it with tests/matrix fetch {major}")


def _of_cassert(word: str) -> Target:
    pg_config = cache_directory() / word / "bin/pg_config"
    if not pg_config.exists():
        return Target(label=f"pg{word}", missing=f"no PostgreSQL {word}: get it with tests/matrix fetch {word}")
    # Its label is its own: an ordinary build of the same version may be a target too.
    target = _of_pg_config(pg_config)
    return replace(target, label=f"{target.label}{CASSERT}")


def _places(major: int) -> Iterator[Path]:
    yield cache_directory() / str(major) / "usr/lib/postgresql" / str(major) / "bin/pg_config"
    with contextlib.suppress(ClockworkError):
        yield find_embedded(major)
    yield Path(f"/usr/lib/postgresql/{major}/bin/pg_config")
    yield Path(f"/usr/pgsql-{major}/bin/pg_config")


def cache_directory() -> Path:
    """Where tests/matrix keeps what it fetched."""
    if chosen := os.environ.get("PG_CLOCKWORK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pg_clockwork")


def _of_pg_config(pg_config: str | os.PathLike[str]) -> Target:
    try:
        installation = Installation.of(pg_config)
    except ClusterError as exc:
        return Target(label=f"pg:{os.fspath(pg_config)}", missing=exc.message)
    return Target(label=f"pg{installation.version}", pg_config=installation.pg_config)


@functools.cache
def find_no_engine() -> str:
    """Why no container engine answers; empty when one does."""
    try:
        import docker

        docker.from_env(timeout=3).ping()
    except Exception as exc:  # no client library, no engine, no permission: all mean the same here
        return f"{type(exc).__name__}: {exc}".splitlines()[0][:120]
    return ""
