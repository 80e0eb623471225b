"""Does the launcher's memory stay the same over very many runs?

Starts a private server with a hundred one-second jobs of several kinds, and watches the launcher: its own memory
(RssAnon) and what its memory contexts add up to. Jobs come and go and are changed meanwhile.

    .venv/bin/python bench/leak.py --runs 100000 [--pg PG_CONFIG]

Exit code 1 if the memory grew by more than the bound after the first tenth.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scheduler.cluster import Cluster
from scheduler.packaging import find_embedded, stage

JOBS = 100
COMMANDS = [
    "SELECT 1",
    "SELECT 1 / 0",
    "CREATE TEMP TABLE t AS SELECT i FROM generate_series(1, 100) i",
    "DO $$ BEGIN RAISE '%', repeat('e', 20000); END $$",
    "DO $$ BEGIN RAISE NOTICE 'n'; END $$",
    f"/* {'c' * 20000} */ SELECT 1",
]

# Growth beyond this, in KiB, is a leak: over 90,000 runs, ten bytes per run.
BOUND_KIB = 1024


def own_memory(pid: int) -> int:
    """KiB of memory that belong to the process alone."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1])


def context_memory(cluster: Cluster, pid: int) -> int:
    """KiB in the memory contexts of the process; the server's log says it."""
    length = len(cluster.log())
    cluster.sql("SELECT pg_log_backend_memory_contexts(%s)", [pid])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        totals = re.findall(r"Grand total: (\d+) bytes", cluster.log()[length:])
        if totals:
            return int(totals[-1]) // 1024
        time.sleep(0.1)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--pg", type=Path, default=None, help="a pg_config; the embedded PostgreSQL unless given")
    options = parser.parse_args()
    pg_config = options.pg or find_embedded()
    settings = {"log_min_messages": "fatal", "cron.log_statement": False, "max_worker_processes": 48}
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster.create(pg_config, extension=stage(pg_config, Path(folder)), settings=settings) as cluster,
    ):
        cluster.start()
        with cluster.connect() as conn:
            conn.execute("CREATE EXTENSION pg_clockwork")
            for i in range(JOBS):
                conn.execute("SELECT cron.schedule(%s, '1 second', %s)", [f"job {i}", COMMANDS[i % len(COMMANDS)]])
            first: tuple[int, int] | None = None
            done, turn, started = 0, 0, time.monotonic()
            print(f"{'runs':>8} {'runs/s':>7} {'own KiB':>8} {'contexts KiB':>12}")
            while done < options.runs:
                # The rhythm of the measurement.
                time.sleep(5)
                turn += 1
                name = f"passing {turn}"
                conn.execute("SELECT cron.schedule(%s, '1 second', 'SELECT 1')", [name])
                conn.execute("SELECT cron.schedule('job 1', '1 second', %s)", [f"SELECT {turn}"])
                conn.execute("SELECT cron.unschedule(%s)", [f"passing {turn - 1}"]) if turn > 1 else None
                row = conn.execute(
                    "SELECT count(*), (SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher')"
                    " FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')"
                ).fetchone()
                assert row is not None
                done, pid = row
                seen = own_memory(pid), context_memory(cluster, pid)
                rate = done / (time.monotonic() - started)
                print(f"{done:>8} {rate:>7.0f} {seen[0]:>8} {seen[1]:>12}", flush=True)
                if first is None and done >= options.runs / 10:
                    first = seen
            assert first is not None
            grown = max(seen[0] - first[0], seen[1] - first[1])
            print(f"{done} runs: the launcher's memory grew by {grown} KiB after the first tenth of them")
    return 1 if grown > BOUND_KIB else 0


if __name__ == "__main__":
    sys.exit(main())
