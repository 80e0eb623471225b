"""How many instructions the launcher spends on one run: the difference of two bursts under callgrind.

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
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import sides
from scheduler.cluster import Cluster

START_TIMEOUT_S = 300.0


def count(pg_config: Path, staged: Path, runs: int) -> Path:
    """Run a server under callgrind through one burst; the launcher's output file."""
    output = Path(tempfile.mkdtemp(prefix="clockwork-callgrind-", dir="/tmp"))
    output.chmod(0o777)
    cluster = Cluster.create(
        pg_config,
        extension=staged,
        settings={**sides.SETTINGS, "shared_buffers": "16MB", "autovacuum": False, "cron.log_statement": False},
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
        side.stop_asking()
        cluster.account = plain
        cluster.stop(timeout=START_TIMEOUT_S)
        return output / str(launcher)
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


def measure(pg_config: Path, runs: int, top: int, say: Callable[[str], None]) -> str:
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is needed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as temporary:
        staged = sides.stage_ours(pg_config, Path(temporary))
        files = []
        for size in (runs, 2 * runs):
            say(f"a burst of {size} under callgrind")
            files.append(count(pg_config, staged, size))
        few, many = map(total, files)
        before, after = map(by_function, files)
    cost = {name: (after[name] - before.get(name, 0)) / runs for name in after}
    text = [
        f"launcher: {(many - few) / runs:,.0f} instructions a run (bursts of {runs} and {2 * runs}: {few:,} and {many:,})",
        "by function, with what it calls:",
        *(f"{each:12,.0f}  {name}" for name, each in sorted(cost.items(), key=lambda item: -item[1])[:top]),
    ]
    for file in files:
        shutil.rmtree(file.parent, ignore_errors=True)
    return "\n".join(text)
