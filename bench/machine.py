"""What a machine and a server cost: processor time, memory, wake-ups and flushes, read from /proc."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    pid: int
    parent: int
    cpu_s: float  # its own, user and system
    children_s: float  # of the children it has waited for


def read_process(pid: int) -> Process | None:
    """A process, or None if it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    own, children = (sum(map(int, fields[i : i + 2])) * TICK_S for i in (11, 13))
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Nanoseconds, where the kernel keeps them.
        own = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 or own
    return Process(pid, int(fields[1]), own, children)


def server_processes(postmaster: int) -> list[Process]:
    found = [read_process(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [process for process in found if process and postmaster in (process.pid, process.parent)]


def server_cpu_s(postmaster: int, without: set[int]) -> float:
    """Processor time of a whole server so far: every process, the dead ones included, but those in `without`."""
    total = 0.0
    for process in server_processes(postmaster):
        if process.pid not in without:
            total += process.cpu_s
        if process.pid == postmaster:
            total += process.children_s
    return total


def cpu_s(pid: int) -> float:
    process = read_process(pid)
    if process is None:
        raise ProcessLookupError(pid)
    return process.cpu_s


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status, in its own unit."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)


def wakeups(pid: int) -> int:
    return status(pid, "voluntary_ctxt_switches")


def flush_ms(folder: Path, rounds: int = 50) -> float:
    """The median of writing 8 kB and fdatasync."""
    taken = []
    path = folder / "flush"
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for _ in range(rounds):
            start = time.perf_counter()
            os.pwrite(file, bytes(8192), 0)
            os.fdatasync(file)
            taken.append(time.perf_counter() - start)
    finally:
        os.close(file)
        path.unlink()
    return sorted(taken)[rounds // 2] * 1e3


def describe() -> dict[str, str | int | float]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // 1024
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "memory GB": memory,
        "kernel": platform.release(),
    }
