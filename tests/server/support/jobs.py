"""Jobs that run once, soon, and the records they leave.

Most tests want one run of one command, or one run of each of many. `run_each` schedules them all for
the same instant in one transaction and waits until every one has its final record, so that a table of
a hundred commands costs about two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
from psycopg.rows import class_row

from tests.support.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

FINAL = ("succeeded", "failed", "skipped")
OPEN = ("queued", "starting", "running", "connecting", "sending")

# Long enough for the transaction that schedules to commit before its jobs are due.
LEAD_S = 0.5
MOST_LEAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """A row of cron.job_run_details."""

    jobid: int | None
    runid: int
    job_pid: int | None
    database: str | None
    username: str | None
    command: str | None
    status: str | None
    return_message: str | None
    start_time: datetime | None
    end_time: datetime | None
    due_time: datetime | None
    trigger: str | None
    attempt: int | None
    reason: str | None
    sqlstate: str | None
    detail: str | None
    hint: str | None
    context: str | None
    command_tag: str | None
    row_count: int | None
    timeline: int | None
    effects: str | None
    label: str | None
    requested_by: str | None

    @property
    def lateness(self) -> float:
        """Seconds from the due time to the start."""
        assert self.start_time is not None
        assert self.due_time is not None
        return (self.start_time - self.due_time).total_seconds()


@dataclass(frozen=True, slots=True)
class Task:
    """A command to be run once, and where and as whom."""

    command: str
    database: str = "postgres"
    username: str | None = None


COLUMNS = ", ".join(field.name for field in fields(Run))


def one(conn: Connection, statement: str, *parameters: Any) -> Any:
    """The only column of the only row."""
    row = conn.execute(statement.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def rows(conn: Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return conn.execute(statement.encode(), parameters or None).fetchall()


def runs(conn: Connection, where: str = "true", *parameters: Any) -> list[Run]:
    """The run records that a condition selects, in the order of their due times."""
    statement = f"SELECT {COLUMNS} FROM cron.job_run_details WHERE {where} ORDER BY due_time, runid"
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(statement.encode(), parameters or None).fetchall()


def runs_of(conn: Connection, jobid: int) -> list[Run]:
    return runs(conn, "jobid = %s", jobid)


def at(conn: Connection, seconds: float = LEAD_S) -> str:
    """A schedule for one run, that many seconds from now on the server's clock."""
    return str(
        one(
            conn,
            "SELECT to_char((clock_timestamp() + make_interval(secs => %s)) AT TIME ZONE 'UTC',"
            ' \'"@at "YYYY-MM-DD HH24:MI:SS.US"Z"\')',
            seconds,
        )
    )


def start_together(conn: Connection, *jobids: int) -> None:
    """Let jobs run once, all due at the same instant, which is still to come when this returns."""
    for lead in (LEAD_S, 1, 2, 4, 8):
        with conn.transaction(force_rollback=False) as changes:
            due = one(conn, "SELECT clock_timestamp() + make_interval(secs => %s)", lead)
            conn.execute(
                "UPDATE cron.job SET active = true, schedule ="
                " to_char(%s::timestamptz AT TIME ZONE 'UTC', '\"@at \"YYYY-MM-DD HH24:MI:SS.US\"Z\"')"
                " WHERE jobid = ANY (%s)",
                [due, list(jobids)],
            )
            if one(conn, "SELECT clock_timestamp() > %s::timestamptz - make_interval(secs => %s)", due, lead / 2):
                raise psycopg.Rollback(changes)
            return
    raise AssertionError("this machine is too busy to schedule anything within seconds")


def schedule(
    conn: Connection,
    name: str,
    when: str,
    command: str,
    *,
    database: str = "postgres",
    username: str | None = None,
) -> int:
    """Schedule a job, wherever and as whomever; its jobid."""
    statement = "SELECT cron.schedule_in_database(%s, %s, %s, %s, %s)"
    return int(one(conn, statement, name, when, command, database, username))


def insert_job(conn: Connection, **columns: Any) -> int:
    """Write a row into cron.job by hand, past every check; its jobid."""
    row = {"schedule": "1 second", "command": "SELECT 1", "nodeport": 5432, **columns}
    names = ", ".join(row)
    places = ", ".join(["%s"] * len(row))
    return int(one(conn, f"INSERT INTO cron.job ({names}) VALUES ({places}) RETURNING jobid", *row.values()))


def wait_for_runs(conn: Connection, jobid: int, count: int = 1, *, timeout: float = 15.0) -> list[Run]:
    """The records of a job, once at least that many are final."""
    wait_until(
        lambda: (
            one(
                conn,
                "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND status = ANY (%s)",
                jobid,
                list(FINAL),
            )
            >= count
        ),
        timeout,
        f"{count} final records of job {jobid}",
    )
    return runs_of(conn, jobid)


def run_now(conn: Connection, jobid: int, label: str | None = None) -> int:
    """Ask for a run of a job now; its runid."""
    return int(one(conn, "SELECT cron.run_job(%s::bigint, %s)", jobid, label))


def run_of(conn: Connection, runid: int) -> Run:
    (run,) = runs(conn, "runid = %s", runid)
    return run


def wait_for_status(conn: Connection, runid: int, *statuses: str, timeout: float = 15.0) -> Run:
    """The record of a run, once its status is one of these (final, unless given)."""
    wanted = statuses or FINAL
    wait_until(lambda: run_of(conn, runid).status in wanted, timeout, f"run {runid} to be {' or '.join(wanted)}")
    return run_of(conn, runid)


def wait_for_no_gap(conn: Connection, jobid: int, step: timedelta = timedelta(seconds=1)) -> None:
    """Wait until every due time between the job's first and last record has one, and none has two.

    A record that could not be written at its time may come later.
    """

    def steps() -> set[timedelta]:
        due = [run.due_time for run in runs_of(conn, jobid) if run.due_time]
        return {later - earlier for earlier, later in pairwise(due)}

    try:
        wait_until(lambda: steps() == {step}, 10, "a record for every due time")
    except AssertionError as exc:
        raise AssertionError([(str(run.due_time), run.status, run.reason) for run in runs_of(conn, jobid)]) from exc


class TooSlow(Exception):
    """The machine was too busy to schedule everything before it was due."""


def schedule_together(conn: Connection, tasks: Mapping[str, Task | str], lead: float) -> dict[str, int]:
    """A job for each task, all due at the same instant, which is later the longer the scheduling takes."""
    while True:
        jobs: dict[str, int] = {}
        when = at(conn, lead)
        try:
            with conn.transaction():
                for name, task in tasks.items():
                    work = task if isinstance(task, Task) else Task(task)
                    jobs[name] = schedule(
                        conn, f"once {name}", when, work.command, database=work.database, username=work.username
                    )
                # What is due before it is committed never runs.
                if not one(
                    conn, "SELECT clock_timestamp() + interval '0.2 s' < %s::timestamptz", when.removeprefix("@at ")
                ):
                    raise TooSlow
            return jobs
        except (TooSlow, psycopg.errors.InvalidParameterValue):
            if lead > MOST_LEAD_S:
                raise
            lead *= 4


def run_each(
    conn: Connection, tasks: Mapping[str, Task | str], *, lead: float = LEAD_S, timeout: float = 60.0
) -> dict[str, Run]:
    """Run every task once, all due at the same instant; the final record of each."""
    jobs = schedule_together(conn, tasks, lead)
    try:
        wait_until(lambda: not unfinished(conn, jobs.values()), timeout, "every task to have its final record")
    except AssertionError as exc:
        left = set(unfinished(conn, jobs.values()))
        raise AssertionError({name: runs_of(conn, job) for name, job in jobs.items() if job in left}) from exc
    found = {name: runs_of(conn, jobid) for name, jobid in jobs.items()}
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE jobid = ANY (%s)", [list(jobs.values())])
    assert {name: len(records) for name, records in found.items()} == dict.fromkeys(tasks, 1)
    return {name: records[0] for name, records in found.items()}


def run_once(conn: Connection, command: str, *, database: str = "postgres", username: str | None = None) -> Run:
    """Run one command once, as a job; its final record."""
    return run_each(conn, {"task": Task(command, database, username)})["task"]


def unfinished(conn: Connection, jobids: Iterable[int]) -> list[int]:
    """Which of these jobs have no final record yet."""
    statement = (
        "SELECT wanted FROM unnest(%s::bigint[]) AS wanted WHERE NOT EXISTS"
        " (SELECT FROM cron.job_run_details WHERE jobid = wanted AND status = ANY (%s))"
    )
    return [row[0] for row in rows(conn, statement, list(jobids), list(FINAL))]


def launcher_pid(conn: Connection) -> int | None:
    """The launcher's process, if there is one."""
    found = rows(conn, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher'")
    assert len(found) <= 1, "two launchers"
    return int(found[0][0]) if found else None


def workers(conn: Connection) -> list[int]:
    """The processes of workers."""
    return [row[0] for row in rows(conn, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clockwork worker'")]
