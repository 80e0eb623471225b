"""How many instructions launcher and worker spend on one run: the difference of two bursts under callgrind.

A whole private server runs under valgrind, tens of times slower than else;
only counts are taken, never times. The counts do not depend on how busy the
machine is, so that two versions can be compared on any.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import sides
from scheduler.cluster import Cluster

START_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The output files of one burst: of the launcher, and of the workers that ran something."""

    folder: Path
    launcher: Path
    workers: list[Path]


def count(pg_config: Path, staged: Path, runs: int, at_once: int) -> Counts:
    """Run a server under callgrind through one burst."""
    output = Path(tempfile.mkdtemp(prefix="clockwork-callgrind-", dir="/tmp"))
    output.chmod(0o777)
    cluster = Cluster.create(
        pg_config,
        extension=staged,
        settings={
            **sides.SETTINGS,
            "shared_buffers": "16MB",
            "autovacuum": False,
            "cron.log_statement": False,
            "cron.max_running_jobs": at_once,
            # Under valgrind a pass can last longer than a worker waits in life.
            sides.REUSE_SETTING: "1min",
        },
    )
    side = sides.Side("fresh", "ours", cluster, output / "none")
    plain = cluster.account
    try:
        cluster.start()
        side.sql("CREATE EXTENSION pg_clockwork")
        side.stop_asking()
        cluster.stop()
        wrapper = ("valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={output}/%p")
        cluster.account = replace(plain, wrapper=(*plain.wrapper, *wrapper))
        cluster.start(wait=False)
        cluster.wait_until_ready(START_TIMEOUT_S)
        launcher = side.launcher
        due = datetime.now(UTC) + timedelta(seconds=10)
        schedule = f"{due.second} {due.minute} {due.hour} {due.day} {due.month} *"
        side.add_jobs(runs, schedule, "burst")
        while side.number("SELECT count(*) FROM cron.job_run_details WHERE end_time IS NOT NULL") < runs:
            time.sleep(1)
        workers = side.sql("SELECT DISTINCT job_pid FROM cron.job_run_details")
        side.stop_asking()
        cluster.account = plain
        cluster.stop(timeout=START_TIMEOUT_S)
        return Counts(output, output / str(launcher), [output / str(pid) for (pid,) in workers])
    finally:
        cluster.account = plain
        cluster.close()


def total(file: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise ValueError(f"no totals in {file}")
    return int(found.group(1))


def by_function(file: Path) -> dict[str, int]:
    """Instructions of each named function, with what it calls."""
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", file]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    found: dict[str, int] = {}
    for count_text, name in re.findall(r"^ *([\d,]+) \([ \d.]+%\) +\S*?:([A-Za-z_]\w*)", listing, re.MULTILINE):
        found[name] = found.get(name, 0) + int(count_text.replace(",", ""))
    return found


def difference(
    pg_config: Path, staged: Path, runs: int, at_once: int, of: Callable[[Counts], Path], say: Callable[[str], None]
) -> tuple[float, dict[str, float]]:
    """Instructions of one process for one run, in all and by function: of `runs` more runs in a burst."""
    totals, functions = [], []
    for size in (runs, 2 * runs):
        say(f"a burst of {size} under callgrind, {at_once} at once")
        counts = count(pg_config, staged, size, at_once)
        totals.append(total(of(counts)))
        functions.append(by_function(of(counts)))
        shutil.rmtree(counts.folder, ignore_errors=True)
    before, after = functions
    return (totals[1] - totals[0]) / runs, {name: (after[name] - before.get(name, 0)) / runs for name in after}


def the_worker(counts: Counts) -> Path:
    (worker,) = counts.workers
    return worker


def measure(pg_config: Path, runs: int, top: int, say: Callable[[str], None]) -> str:
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is needed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as temporary:
        staged = sides.stage_ours(pg_config, Path(temporary))
        parts = [
            (
                "launcher, 32 runs at once",
                *difference(pg_config, staged, runs, 32, lambda counts: counts.launcher, say),
            ),
            # One slot: one worker serves all runs, and its start cancels out.
            ("reused worker", *difference(pg_config, staged, runs, 1, the_worker, say)),
        ]
    text = [f"instructions a run, from bursts of {runs} and {2 * runs} runs; by function, with what it calls"]
    for title, in_all, cost in parts:
        text += ["", f"{in_all:12,.0f}  {title}"]
        text += [f"{each:12,.0f}    {name}" for name, each in sorted(cost.items(), key=lambda item: -item[1])[:top]]
    return "\n".join(text)
