"""The includes of native/src follow the drawing: a line includes only lines below it, never its own.

    surface      the SQL functions, and what the server calls when it loads the library
    processes    launcher and worker, which meet only in the slot
    desk         what processes do to jobs and records: read them, write them
    readiness    workers and records before their instant
    chains       runs that follow from runs of other jobs
    rules        the decisions of the core, executed on runs
    runs         what the launcher has under way
    world        what the processes do to tables, to each other and to the server
    panel        shared memory, where processes and sessions meet
    bridges      what world and core have in common: a job, its zone, which extension we are
    core         schedules and decisions: plain C, without the server
    leaves       settings, clocks, bulk insert: for every line above
    ground       the differences between PostgreSQL versions

The core is one piece: its files may include each other, and nothing else of ours.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.house.sources import ROOT, walk

SOURCES = ROOT / "native" / "src"

DRAWING: list[tuple[str, tuple[str, ...]]] = [
    ("surface", ("module", "api*")),
    ("processes", ("launcher", "worker")),
    ("desk", ("backlog", "bookkeeping", "job_sync", "job_identity", "own_record", "run_control", "trim")),
    ("readiness", ("start_ahead",)),
    ("chains", ("run_after",)),
    ("rules", ("run_policy",)),
    ("runs", ("run_list",)),
    (
        "world",
        (
            "catalog",
            "job_rows",
            "run_log",
            "run_settings",
            "acl",
            "run_request",
            "execute",
            "home_drop",
            "job_list",
            "job_options",
            "schedule_check",
            "after_check",
            "session",
            "reuse",
            "neighbours",
        ),
    ),
    ("panel", ("shmem",)),
    ("bridges", ("zone", "extension", "job")),
    ("core", ("core/*",)),
    ("leaves", ("guc", "clock", "server", "bulk_insert")),
    ("ground", ("compat",)),
]
LINES = [line for line, _ in DRAWING]

# The C library without any of the server; the fuzzer and Python compile the core as it is.
SERVER_HEADERS = re.compile(r'#\s*include\s+["<](postgres|c\.h|fmgr|utils/|storage/|access/|miscadmin|nodes/|pgtime)')
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCES).with_suffix("").as_posix()


def line_of(name: str) -> str:
    for line, patterns in DRAWING:
        if any(fnmatch(name, pattern) for pattern in patterns):
            return line
    raise AssertionError(f"{name} has no place in the drawing: give it one in {Path(__file__).name}")


def find_includes(path: Path) -> set[str]:
    """The files of ours that a file includes, its own header left out."""
    found = set()
    for header in INCLUDE.findall(path.read_text()):
        # As the compiler looks: beside the file first, then from the root of the sources.
        for candidate in (path.parent / header, SOURCES / header):
            if candidate.exists():
                found.add(name_of(candidate.resolve()))
                break
    return found - {name_of(path)}


def find_faults(name: str, includes: set[str]) -> list[str]:
    """The includes that the drawing does not allow."""
    line = line_of(name)
    lower = LINES[LINES.index(line) + 1 :]
    if line == "core":
        lower = ["core"]
    return [f"{name} ({line}) includes {other} ({line_of(other)})" for other in includes if line_of(other) not in lower]


FILES = [path for path in walk(SOURCES) if path.suffix in (".c", ".h")]
CORE_FILES = [path for path in FILES if path.parent.name == "core"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_line_includes_only_lines_below_it(path: Path) -> None:
    assert find_faults(name_of(path), find_includes(path)) == []


@pytest.mark.parametrize("path", CORE_FILES, ids=name_of)
def test_the_core_knows_nothing_of_the_server(path: Path) -> None:
    assert SERVER_HEADERS.findall(path.read_text()) == []


def test_faults_are_noticed() -> None:
    assert find_faults("launcher", {"shmem", "clock", "core/due_heap"}) == []
    assert find_faults("launcher", {"worker"}) == ["launcher (processes) includes worker (processes)"]
    assert find_faults("shmem", {"launcher"}) == ["shmem (panel) includes launcher (processes)"]
    assert find_faults("core/due_heap", {"clock"}) == ["core/due_heap (core) includes clock (leaves)"]
    with pytest.raises(AssertionError, match="no place in the drawing"):
        line_of("nowhere")
