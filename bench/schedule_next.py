"""The next due time, side by side: our core in C, the same core from Python, croniter and cronsim.

    bench/run schedules

Prints microseconds of processor time (best of several runs), how many times slower
the others are than `Schedule.next`, and whether the targets are met. Needs a C compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter
from cronsim import CronSim, CronSimError

from scheduler.cron import Schedule, _zones
from scheduler.cron import _build as build

ROOT = Path(__file__).resolve().parents[1]

# A pattern, and croniter's spelling of it where that differs.
PATTERNS = [
    ("* * * * *", ""),
    ("*/5 * * * *", ""),
    ("0 0 * * *", ""),
    ("30 4 * * 1-5", ""),
    ("0 0 13 * 5", ""),
    ("0 0 L * *", ""),
    ("0 0 * * 5L", "0 0 * * l5"),
    ("0 0 15W * *", ""),
    ("0 0 * * 1#2", ""),
    ("0 0 29 2 *", ""),
    ("0 0 * 2 MON#5", ""),
    ("0 0 30 2 *", ""),
]
ROWS = 100_000

# Microseconds for one next due time in C, and for one parse.
NEXT_TARGETS_US = {
    "*/5 * * * *": 0.5,
    "0 0 * * *": 1,
    "0 0 13 * 5": 3,
    "0 0 * 2 MON#5": 20,
    "0 0 30 2 *": 50,
}
PARSE_TARGET_US = 1
ROWS_TARGET_S = 0.2
# From Python: times as slow as ours.
CRONITER_TARGET = 20
CRONSIM_TARGET = 1


def best_of(action: Callable[[], int], rounds: int = 5) -> float:
    """Microseconds for one step of an action that says how many steps it took."""
    fastest = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        steps = action()
        fastest = min(fastest, (time.process_time() - start) / steps)
    return fastest * 1e6


def walk_next(schedule: Schedule, start: datetime, steps: int) -> int:
    moment = start
    for _ in range(steps):
        moment = schedule.next(moment) or start
    return steps


def walk_upcoming(schedule: Schedule, start: datetime, steps: int) -> int:
    return len(list(islice(schedule.upcoming(start), steps))) or 1


def walk_croniter(text: str, start: datetime, steps: int) -> int:
    found = croniter(text, start)
    try:
        for _ in range(steps):
            found.get_next(datetime)
    except CroniterBadDateError:
        return 1
    return steps


def walk_cronsim(text: str, start: datetime, steps: int) -> int:
    return len(list(islice(CronSim(text, start), steps))) or 1


def parse_many(text: str, steps: int) -> int:
    for _ in range(steps):
        Schedule(text)
    return steps


def time_core(zone: ZoneInfo) -> dict[str, tuple[float, float, float]]:
    """Microseconds of parse and next in C, and calls of the zone, for each pattern."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    core = ROOT / build.CORE
    sources = [core / f"schedule_{name}.c" for name in build.SOURCES]
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "schedule_next")
        subprocess.run(
            [compiler, "-std=gnu99", "-O2", f"-I{core}", ROOT / "bench" / "schedule_next.c", *sources, "-o", program],
            check=True,
        )
        changes = [(-(2**62), _zones.offset_at(zone, _zones.FIRST))]
        changes += _zones.find_changes(zone, _zones.FIRST, _zones.LAST)
        table = Path(scratch, "zone.tsv")
        table.write_text("".join(f"{second}\t{offset}\n" for second, offset in changes))
        asked = "".join(f"{text}\n" for text, _ in PATTERNS)
        answer = subprocess.run([program, table], input=asked, capture_output=True, text=True, check=True).stdout
    found = {}
    for (text, _), line in zip(PATTERNS, answer.splitlines(), strict=True):
        parse, following, calls = map(float, line.split())
        found[text] = (parse / 1e3, following / 1e3, calls)
    return found


def compare_all(zone_name: str) -> bool:
    """Print the table; are all targets met?"""
    zone = ZoneInfo(zone_name)
    start = datetime(2026, 3, 1, tzinfo=zone)
    core = time_core(zone)
    print(f"zone {zone.key}; microseconds; ratios are to Schedule.next")
    head = f"{'pattern':16}{'C parse':>9}{'C next':>9}{'zone calls':>11}{'next':>8}{'upcoming':>10}"
    print(f"{head}{'croniter':>10}{'ratio':>7}{'cronsim':>9}{'ratio':>7}")
    missed = []
    for text, theirs in PATTERNS:
        schedule = Schedule(text)
        walk_next(schedule, start, 200)
        rare = text.split()[3] != "*"
        mine = best_of(lambda s=schedule: walk_next(s, start, 5000))
        batch = best_of(lambda s=schedule, n=50 if rare else 5000: walk_upcoming(s, start, n))
        other = best_of(lambda t=theirs or text, n=1 if rare else 500: walk_croniter(t, start, n))
        try:
            simple = best_of(lambda t=text, n=1 if rare else 500: walk_cronsim(t, start, n))
        except CronSimError:
            simple = float("nan")
        parse, following, calls = core[text]
        print(
            f"{text:16}{parse:9.2f}{following:9.3f}{calls:11.1f}{mine:8.2f}{batch:10.2f}"
            f"{other:10.1f}{other / mine:6.0f}x{simple:9.1f}{simple / mine:6.1f}x"
        )
        if following > NEXT_TARGETS_US.get(text, float("inf")):
            missed.append(f"{text}: {following:.3f} instead of {NEXT_TARGETS_US[text]} microseconds in C")
        if other < CRONITER_TARGET * mine:
            missed.append(f"{text}: croniter takes {other / mine:.0f} times as long, not {CRONITER_TARGET}")
        if simple < CRONSIM_TARGET * mine:
            missed.append(f"{text}: slower than cronsim")
    parse = max(parse for parse, _, _ in core.values())
    rows_s = parse * ROWS / 1e6
    print(f"\nparsing {ROWS:,} rows: {rows_s:.3f} s in C (slowest pattern above)", end=", ")
    print(f"{best_of(lambda: parse_many('30 4 * * 1-5', 20_000), 3) * ROWS / 1e6:.3f} s from Python")
    if parse > PARSE_TARGET_US or rows_s > ROWS_TARGET_S:
        missed.append(f"parse: {parse:.2f} microseconds")
    print("\n".join(f"MISSED {line}" for line in missed) or "all targets are met")
    return not missed
