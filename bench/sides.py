"""The sides of the comparison: ours with fresh workers, ours with workers reused, and the real pg_cron.

Each side is a private server of its own with the same settings, and fsync on.
What a side is asked is the same for all; the differences in what pg_cron can
express are settled here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import machine
from scheduler import packaging
from scheduler.cluster import Cluster, Installation, Setting

ROOT = Path(__file__).resolve().parents[1]
FLOOR = ROOT / "bench" / "floor"
REUSE_SETTING = "cron.worker_idle_timeout"

SETTINGS: dict[str, Setting] = {
    "shared_buffers": "256MB",
    "max_worker_processes": 80,
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum_naptime": "10s",
    "cron.max_running_jobs": 32,
    "cron.use_background_workers": True,
}


@dataclass(slots=True)
class Runs:
    """What the records of some runs say, in seconds."""

    lateness: list[float]
    elapsed: float  # from the due time to the last end
    failed: int


@dataclass(slots=True)
class Side:
    key: str
    title: str
    cluster: Cluster
    counts: Path
    theirs: bool = False
    idle_s: float = 0.0  # measured: processor seconds of the idle launcher in a second
    _connection: Any = field(default=None, repr=False)

    # Asking.

    def sql(self, statement: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = self.cluster.connect()
        cursor = self._connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description is not None else []

    def number(self, statement: str, parameters: Sequence[Any] | None = None) -> float:
        return float(self.sql(statement, parameters)[0][0] or 0)

    def stop_asking(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def launcher(self) -> int:
        """The launcher's process: the oldest background worker with its name."""
        kind = "pg_cron launcher" if self.theirs else "pg_clockwork launcher"
        for _ in range(100):
            rows = self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = %s", (kind,))
            if rows:
                return int(rows[0][0])
            time.sleep(0.1)
        raise TimeoutError(f"no {kind}")

    def cpu_s(self) -> float:
        assert self.cluster.pid is not None
        own = {int(self.number("SELECT pg_backend_pid()"))}
        return machine.server_cpu_s(self.cluster.pid, own)

    def wal_bytes(self) -> float:
        return self.number("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")

    def syncs(self) -> int:
        """How often the write-ahead log was flushed to disk so far."""
        return int.from_bytes(self.counts.read_bytes()[:8], "little")

    def mark(self) -> int:
        """The newest run so far."""
        return int(self.number("SELECT max(runid) FROM cron.job_run_details"))

    # Telling.

    def restart(self, settings: Mapping[str, Setting] | None = None) -> None:
        self.stop_asking()
        if settings:
            self.cluster.configure(settings)
        self.cluster.restart()

    def add_jobs(self, count: int, schedule: str, name: str, command: str = "SELECT 1") -> None:
        """Jobs in one statement and one transaction."""
        self.sql(
            "INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, jobname)"
            " SELECT %s, %s, '', 5432, 'postgres', 'postgres', %s || i FROM generate_series(1, %s) i",
            (schedule, command, name, count),
        )

    def remove_jobs(self, name: str) -> None:
        self.sql("DELETE FROM cron.job WHERE jobname LIKE %s", (name + "%",))

    def wait_for(self, statement: str, parameters: Sequence[Any], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.sql(statement, parameters)[0][0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.key}: {statement} {parameters}")
            time.sleep(0.1)

    def set_autovacuum(self, value: str) -> None:
        self.cluster.configure({"autovacuum": value})
        self.cluster.reload()

    def burst(self, count: int, timeout: float = 180.0) -> tuple[Runs, Costs]:
        """So many jobs due at one instant, once; what their records say, and what it cost.

        What autovacuum does then, mostly to jobs that come and go here, is not the runs'.
        """
        self.set_autovacuum("off")
        now = datetime.now(UTC)
        if self.theirs:
            # The minute is the only instant that many of its jobs can share.
            due = (now + timedelta(seconds=2)).replace(second=0, microsecond=0) + timedelta(minutes=1)
            schedule = f"{due.minute} {due.hour} {due.day} {due.month} *"
        else:
            due = (now + timedelta(seconds=3)).replace(microsecond=0)
            schedule = f"{due.second} {due.minute} {due.hour} {due.day} {due.month} *"
        mark = self.mark()
        self.add_jobs(count, schedule, "burst")
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() - 0.5))
        before = Costs.read(self)
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() + 0.2))
        # An outcome that theirs has not looked at yet is a second late at most.
        self.wait_for(
            "SELECT count(*) >= %s FROM cron.job_run_details WHERE runid > %s AND end_time IS NOT NULL",
            (count, mark),
            timeout,
        )
        time.sleep(0.3)
        costs = Costs.read(self).since(before, count)
        runs = self.read_runs(mark, due)
        self.remove_jobs("burst")
        self.set_autovacuum("on")
        return runs, costs

    def read_runs(self, mark: int, due: datetime) -> Runs:
        rows = self.sql(
            "SELECT start_time, end_time, status FROM cron.job_run_details WHERE runid > %s ORDER BY runid", (mark,)
        )
        return Runs(
            lateness=sorted((start - due).total_seconds() for start, _, _ in rows),
            elapsed=(max(end for _, end, _ in rows) - due).total_seconds(),
            failed=sum(state != "succeeded" for _, _, state in rows),
        )

    def tick_lateness(self, mark: int) -> list[float]:
        """How late each run of jobs with the schedule `1 second` was.

        Ours keep a due time; theirs is due a second after the last one started.
        """
        if not self.theirs:
            rows = self.sql(
                "SELECT extract(epoch FROM start_time - due_time)::float8 FROM cron.job_run_details"
                " WHERE runid > %s AND start_time IS NOT NULL AND status <> 'skipped'",
                (mark,),
            )
        else:
            rows = self.sql(
                "SELECT extract(epoch FROM start_time - lag(start_time) OVER"
                " (PARTITION BY jobid ORDER BY runid))::float8 - 1 FROM cron.job_run_details WHERE runid > %s",
                (mark,),
            )
        return sorted(late for (late,) in rows if late is not None)


@dataclass(frozen=True, slots=True)
class Costs:
    cpu_s: float
    syncs: float
    wal: float

    @classmethod
    def read(cls, side: Side) -> Costs:
        return cls(side.cpu_s(), side.syncs(), side.wal_bytes())

    def since(self, before: Costs, runs: int) -> Costs:
        """What one run cost."""
        return Costs(
            (self.cpu_s - before.cpu_s) / runs, (self.syncs - before.syncs) / runs, (self.wal - before.wal) / runs
        )


# --- making them -------------------------------------------------------------------------------


def stage_ours(pg_config: Path, folder: Path) -> Path:
    """Our extension and the floor's module beside it."""
    staged = packaging.stage(pg_config, folder / "ours")
    build = folder / "floor"
    shutil.copytree(FLOOR, build)
    subprocess.run(["make", "-s", "-C", build, f"PG_CONFIG={pg_config}"], check=True)
    shutil.copy2(build / "floor.so", staged / "lib")
    return staged


def stage_theirs(installation: Installation, cache: Path) -> Path:
    """The real pg_cron, unpacked from its Debian package for the same major."""
    major = installation.major
    prefix = cache / f"pg_cron-{major}"
    library = prefix / f"usr/lib/postgresql/{major}/lib/pg_cron.so"
    if not library.exists():
        subprocess.run(
            [ROOT / "tests" / "matrix", "unpack", str(major), prefix, f"postgresql-{major}-cron"], check=True
        )
    staged = prefix / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    (staged / "lib").mkdir(parents=True)
    shutil.copy2(library, staged / "lib")
    shutil.copytree(prefix / f"usr/share/postgresql/{major}/extension", staged / "share" / "extension")
    return staged


def build_counter(folder: Path) -> Path:
    library = folder / "count_syncs.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, FLOOR / "count_syncs.c"], check=True)
    return library


def _open(key: str, title: str, pg_config: Path, staged: Path, counter: Path, settings: Mapping[str, Setting]) -> Side:
    theirs = key.startswith("pg_cron")
    extension = "pg_cron" if theirs else "pg_clockwork"
    # Servers run as another user when this is root: what they are to read lies in /tmp, for everybody.
    counts = Path(tempfile.mkdtemp(prefix="clockwork-counts-", dir="/tmp"))
    counts.chmod(0o755)
    shutil.copy2(counter, counts / counter.name)
    (counts / "syncs").write_bytes(bytes(16))
    (counts / "syncs").chmod(0o666)
    cluster = Cluster.create(
        pg_config,
        extension=staged,
        settings={**SETTINGS, "shared_preload_libraries": extension, **settings},
        durable=True,
        environment={"LD_PRELOAD": str(counts / counter.name), "CLOCKWORK_SYNC_COUNTS": str(counts / "syncs")},
    )
    side = Side(key, title, cluster, counts / "syncs", theirs)
    try:
        cluster.start()
        side.sql(f"CREATE EXTENSION {extension}")
        if not theirs:
            side.sql("CREATE FUNCTION floor_burst(int, int) RETURNS void LANGUAGE c STRICT AS 'floor'")
        _ = side.launcher
    except BaseException:
        close(side)
        raise
    return side


def close(side: Side) -> None:
    side.stop_asking()
    side.cluster.close()
    shutil.rmtree(side.counts.parent, ignore_errors=True)


@contextmanager
def open_sides(
    pg_config: Path, cache: Path, wanted: Sequence[str] = (), settings: Mapping[str, Setting] | None = None
) -> Iterator[list[Side]]:
    """The sides, each on a running server of its own; reuse only where this version has it."""
    installation = Installation.of(pg_config)
    more = dict(settings or {})
    sides: list[Side] = []
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as temporary:
        folder = Path(temporary)
        counter = build_counter(folder)
        ours = stage_ours(pg_config, folder)
        try:
            probe = _open("reuse", "ours, workers reused", pg_config, ours, counter, more)
            if probe.sql("SELECT 1 FROM pg_settings WHERE name = %s", (REUSE_SETTING,)):
                sides.append(probe)
                more[REUSE_SETTING] = 0
            else:
                close(probe)
            sides.insert(0, _open("fresh", "ours, fresh workers", pg_config, ours, counter, more))
            more.pop(REUSE_SETTING, None)
            if "pg_cron" in wanted or not wanted:
                theirs = stage_theirs(installation, cache)
                sides.append(_open("pg_cron", "pg_cron", pg_config, theirs, counter, more))
            for side in [side for side in sides if wanted and side.key not in wanted]:
                sides.remove(side)
                close(side)
            yield sides
        finally:
            for side in sides:
                close(side)
