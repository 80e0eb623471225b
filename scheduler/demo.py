"""A private PostgreSQL with the extension and four real jobs: what `clockwork demo` shows.

This module makes the server and reads the history; how it looks is left to the
command line. One job runs every second, one at every minute, one in another
database, and one fails, because a scheduler is judged by how it tells of that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from scheduler.cluster import EXTENSION, Cluster, Installation
from scheduler.packaging import stage

OTHER_DATABASE = "reports"
UNFINISHED = frozenset({"queued", "starting", "running"})

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A job of the demo; `database` is set where it is not the home one."""

    name: str
    schedule: str
    command: str
    database: str | None = None


JOBS = (
    DemoJob("heartbeat", "1 second", "INSERT INTO heartbeat (beat) VALUES (now())"),
    DemoJob("trim heartbeat", "* * * * *", "DELETE FROM heartbeat WHERE beat < now() - interval '30 seconds'"),
    DemoJob(
        "count sessions", "2 seconds", "INSERT INTO sessions SELECT now(), count(*) FROM pg_stat_activity", "reports"
    ),
    DemoJob("always fails", "3 seconds", "SELECT 1 / 0"),
)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the history."""

    runid: int
    job: str
    database: str
    status: str
    start: datetime | None
    end: datetime | None
    message: str

    @property
    def finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def duration(self) -> timedelta | None:
        return self.end - self.start if self.start is not None and self.end is not None else None


@contextmanager
def open_demo(pg_config: Path, *, keep: bool, say: Say) -> Iterator[Cluster]:
    """A running server with the demo's jobs, gone at the end unless it is to be kept."""
    version = Installation.of(pg_config).version
    with tempfile.TemporaryDirectory(prefix="clockwork-extension-") as temporary:
        say(f"building the extension for PostgreSQL {version}")
        files = stage(pg_config, Path(temporary))
        say(f"creating a private PostgreSQL {version}")
        cluster = Cluster.create(pg_config, extension=files, settings={"cron.database_name": "postgres"}, durable=True)
    try:
        cluster.start()
        cluster.sql(f"CREATE EXTENSION {EXTENSION}")
        schedule_jobs(cluster)
        yield cluster
    finally:
        if keep:
            cluster.stop()
        else:
            cluster.close()


def schedule_jobs(cluster: Cluster) -> None:
    """Make what the jobs work on, then the jobs."""
    cluster.sql("CREATE TABLE heartbeat (beat timestamptz NOT NULL)")
    cluster.create_database(OTHER_DATABASE)
    cluster.sql("CREATE TABLE sessions (at timestamptz NOT NULL, count bigint NOT NULL)", database=OTHER_DATABASE)
    for job in JOBS:
        if job.database is None:
            cluster.sql("SELECT cron.schedule(%s, %s, %s)", (job.name, job.schedule, job.command))
        else:
            cluster.sql(
                "SELECT cron.schedule_in_database(%s, %s, %s, %s)",
                (job.name, job.schedule, job.command, job.database),
            )


# A few at a time: what happened in one second is short.
RECENT = """
    SELECT d.runid, coalesce(j.jobname, d.jobid::text, ''), d.database, d.status,
           d.start_time, d.end_time, coalesce(d.return_message, '')
    FROM cron.job_run_details d LEFT JOIN cron.job j USING (jobid)
    WHERE d.runid > %s
    ORDER BY d.runid DESC
    LIMIT %s
"""


def read_history(cluster: Cluster, *, after: int = 0, limit: int = 1000) -> Sequence[RunRow]:
    """The latest runs after a runid, oldest first."""
    rows = [RunRow(*row) for row in cluster.sql(RECENT, (after, limit))]
    return rows[::-1]
