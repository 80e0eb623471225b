"""Watching the launcher from outside: its processor time, its log, and what runs at the same time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.server.support.jobs import Connection, Run, launcher_pid
from tests.support.servers import Server
from tests.support.waiting import wait_until


def processor_seconds(pid: int) -> float:
    """The processor time that a process of this machine has used."""
    # The command name, in parentheses, may itself hold spaces and parentheses.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakeups(pid: int) -> int:
    """How often a process of this machine has woken from a wait."""
    (line,) = [
        s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("voluntary_ctxt_switches")
    ]
    return int(line.split()[1])


def sample(seconds: float, look: Callable[[], Any], pause: float = 0.03) -> list[Any]:
    """Look again and again for a while, and return all that was seen."""
    seen = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.append(look())
        time.sleep(pause)
    return seen


def most_at_once(found: Iterable[Run]) -> int:
    """The largest number of runs whose intervals in the history overlap."""
    edges = []
    for run in found:
        if run.start_time and run.end_time:
            edges += [(run.start_time, 1), (run.end_time, -1)]
    most = now = 0
    # An end comes before a start of the same instant.
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def wait_for_launcher(conn: Connection, *, other_than: int | None = None) -> int:
    """The launcher's process, once there is one (and it is a new one)."""

    def found() -> int | None:
        pid = launcher_pid(conn)
        return pid if pid != other_than else None

    pid = wait_until(found, 15, "a launcher")
    assert pid is not None
    return pid


def log_since(server: Server, length: int) -> str:
    """What was logged after the log was that long."""
    return server.log()[length:]
