"""The functions of schema cron for Python: the same words, with Python's values.

    with psycopg.connect(..., autocommit=True) as connection:
        client = Client(connection)
        nightly = client.schedule("nightly", "0 3 * * *", "CALL load()", timeout=timedelta(hours=2), max_attempts=3)
        run = client.run(nightly)
        client.wait(run, timedelta(minutes=10))

The options are those of docs/policies.md. None resets one to its default; one
that is not given is left alone. Nothing is checked here: the server does, and
its errors arrive as psycopg raises them. Nor is anything committed: what is
asked for belongs to the transaction of the connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

import psycopg

__all__ = ["Client", "Options", "PastDue"]

_MICROSECOND: Final = timedelta(microseconds=1)

Interval = timedelta | str
Setting = str | int | float | bool


class Options(TypedDict, total=False):
    """What cron.schedule and cron.alter_job take."""

    database: str
    username: str
    active: bool | None
    timezone: str | None
    on_overlap: Literal["queue", "skip", "replace", "parallel"] | None
    max_parallel: int | None
    on_missed: Literal["skip", "run_once", "run_all"] | None
    start_deadline: Interval | None
    timeout: Interval | None
    max_attempts: int | None
    retry_delay: Interval | None
    retry_on: Sequence[str] | None
    jitter: Interval | None
    priority: int | None
    starts_at: datetime | str | None
    ends_at: datetime | str | None
    pause_after: int | None
    settings: Mapping[str, Setting] | None
    fresh_session: bool | None
    history: Literal["all", "failures", "none"] | None
    notify: str | None
    managed_by: str | None


class Changes(Options, total=False):
    """What cron.alter_job takes besides."""

    name: str | None
    schedule: str
    command: str


class PastDue(NamedTuple):
    """A line of cron.backfill: what is, or would be, done for a due time."""

    due_time: datetime
    action: Literal["run", "leave"]
    runid: int | None
    status: str | None


def _to_json(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), default=_to_text)


def _to_text(value: Any) -> Any:
    if isinstance(value, timedelta):
        return f"{value // _MICROSECOND} microseconds"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"an option cannot be {value!r}")


class Client:
    """One connection to the database of the jobs. A job is a number or a name wherever one is asked for."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def _ask(self, statement: str, *arguments: Any) -> Any:
        row = self._connection.execute(statement.encode(), arguments).fetchone()
        return row[0] if row else None

    def schedule(self, name: str, schedule: str, command: str, **options: Unpack[Options]) -> int:
        """Schedule a job, or give one's job of that name a new schedule, command and these options: its jobid."""
        return int(self._ask("SELECT cron.schedule(%s, %s, %s, %s::jsonb)", name, schedule, command, _to_json(options)))

    def alter(self, jobid: int, **changes: Unpack[Changes]) -> None:
        self._ask("SELECT cron.alter_job(%s, %s::jsonb)", jobid, _to_json(changes))

    def unschedule(self, job: int | str) -> None:
        self._ask(f"SELECT cron.unschedule({_place(job)})", job)

    def run(self, job: int | str, label: str | None = None) -> int:
        """Ask for a run now: its runid. It starts when the transaction has committed."""
        return int(self._ask(f"SELECT cron.run_job({_place(job)}, %s)", job, label))

    def backfill(
        self,
        job: int | str,
        from_time: datetime,
        to_time: datetime,
        *,
        on_overlap: str | None = None,
        dry_run: bool = False,
    ) -> list[PastDue]:
        """Ask for the runs that a range of due times lacks; with `dry_run` only list them."""
        statement = (
            "SELECT due_time, action, runid, status"
            f" FROM cron.backfill({_place(job)}, %s::timestamptz, %s::timestamptz, %s, %s)"
        )
        cursor = self._connection.execute(statement.encode(), [job, from_time, to_time, on_overlap, dry_run])
        return [PastDue(*row) for row in cursor.fetchall()]

    def cancel(self, runid: int, grace: timedelta | None = timedelta(seconds=10)) -> bool:
        """Stop a run; terminate it after `grace`, None: never. False if it had ended."""
        return bool(self._ask("SELECT cron.cancel(%s, %s::interval)", runid, grace))

    def wait(self, runid: int, timeout: timedelta | None = None) -> str | None:
        """The final status of a run, or None after the timeout."""
        status = self._ask("SELECT cron.wait(%s, %s::interval)", runid, timeout)
        return None if status is None else str(status)

    def pause(self, job: int | str, reason: str | None = None) -> bool:
        return bool(self._ask(f"SELECT cron.pause({_place(job)}, %s)", job, reason))

    def resume(self, job: int | str) -> bool:
        return bool(self._ask(f"SELECT cron.resume({_place(job)})", job))

    def pause_all(self, reason: str | None = None) -> bool:
        return bool(self._ask("SELECT cron.pause_all(%s)", reason))

    def resume_all(self) -> bool:
        return bool(self._ask("SELECT cron.resume_all()"))

    def drain(self, timeout: timedelta | None = None, reason: str | None = None) -> bool:
        """Pause everything and wait until nothing runs. False after the timeout."""
        return bool(self._ask("SELECT cron.drain(%s::interval, %s)", timeout, reason))


def _place(job: int | str) -> str:
    return "%s::bigint" if isinstance(job, int) else "%s::text"
