"""The clock of the server is set forward and back, and months pass in seconds: every due time is accounted for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.support.checker import Span, Timeline, check_due_times, check_ends
from tests.server.support.clock import Clock, clocked_server, wake
from tests.server.support.jobs import (
    launcher_pid,
    one,
    rows,
    run_now,
    runs_of,
    schedule,
    wait_for_runs,
    wait_for_status,
)
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import LocalServer
from tests.support.targets import Target
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

pytestmark = [
    pytest.mark.local_only,
    pytest.mark.skipif(sys.platform != "linux", reason="the clock is shifted by a preloaded library"),
]

# Longer than all tests of this file take: no two of them share an instant.
STEPS = [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=90), timedelta(days=1)]
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def clocked(target: Target, extension_files: Path) -> Iterator[tuple[LocalServer, Clock]]:
    assert target.pg_config is not None
    with clocked_server(target.pg_config, extension_files) as pair:
        yield pair


def count_ran(conn: Connection, jobid: int, since: int = 0) -> int:
    statement = "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND runid > %s AND status = 'succeeded'"
    return int(one(conn, statement, jobid, since))


def newest_runid(conn: Connection) -> int:
    return int(one(conn, "SELECT coalesce(max(runid), 0) FROM cron.job_run_details"))


def goes_on(conn: Connection, *jobids: int) -> None:
    """A new run of each, whatever its due time is called."""
    since = newest_runid(conn)
    poll(lambda: all(count_ran(conn, jobid, since) for jobid in jobids), 20, f"jobs {jobids} to go on")


def set_clock(server: LocalServer, conn: Connection, clock: Clock, by: timedelta) -> None:
    """Set it, and wait until the launcher has said so."""
    length = len(server.log())
    clock.set(by)
    wake(server, conn)
    way = "forward" if by > timedelta() else "back"
    poll(lambda: f"the clock was set {way} by" in server.log()[length:], 10, "the launcher to notice")


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_clock_that_is_set_loses_and_doubles_no_due_time(clocked: tuple[LocalServer, Clock], step: timedelta) -> None:
    """Forward and back again, then back and forward again: as a bad time server, and a good one after it, would."""
    server, clock = clocked
    with server.connect() as conn:
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        # A day further for each test, so that none meets the records of another.
        clock.pass_until(clock.now() + timedelta(days=3))
        began = clock.now()
        interval = schedule(conn, "interval", "1 second", "SELECT 1")
        calendar = schedule(conn, "calendar", "* * * * * *", "SELECT 1")
        scheduled = clock.now()
        wait_for_runs(conn, interval, 2)
        wait_for_runs(conn, calendar, 1)

        set_clock(server, conn, clock, step)
        goes_on(conn, interval, calendar)
        most = clock.now()
        set_clock(server, conn, clock, -step)
        goes_on(conn, interval)
        # What was late by less than a minute has run already, under its own due time, and does not run again.
        if step <= timedelta(minutes=2):
            clock.pass_until(most + SECOND)
            wake(server, conn)
        goes_on(conn, calendar)
        once = clock.now()
        set_clock(server, conn, clock, -step)
        goes_on(conn, interval)
        set_clock(server, conn, clock, step)
        goes_on(conn, interval, calendar)

        end = clock.now()
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        found = runs_of(conn, calendar)
        span = Span("* * * * * *", since=began - step, surely_since=scheduled, surely_until=most + step)
        # What fell due in the stretch that was set forward over and then back again is counted by one record.
        span.until = max(once, most - SECOND)
        timeline = Timeline("calendar", [span])
        poll(lambda: not check_ends(runs_of(conn, calendar)), 10, "the last run")
        wrong = check_due_times(timeline, runs_of(conn, calendar), span.until)
        assert wrong == [], wrong
        assert len({run.due_time for run in found}) == len(found)
        assert end > once
        # The interval takes no notice: one run a second, whatever the clock shows.
        elapsed = runs_of(conn, interval)
        assert {run.status for run in elapsed} <= {"succeeded", "skipped"}
        if step > timedelta(minutes=2):
            assert [run.reason for run in elapsed if run.status == "skipped"] == []


def test_jobs_go_on_after_a_clock_that_was_wrong_is_put_right_and_the_launcher_replaced(
    clocked: tuple[LocalServer, Clock],
) -> None:
    """The jobs were scheduled in what is now the future; neither the launcher that knows it nor the next waits for it."""
    server, clock = clocked
    with server.connect() as conn:
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        clock.pass_until(clock.now() + timedelta(days=3))
        set_clock(server, conn, clock, timedelta(days=400))
        interval = schedule(conn, "interval", "1 second", "SELECT 1")
        calendar = schedule(conn, "calendar", "* * * * * *", "SELECT 1")
        wait_for_runs(conn, interval, 2)
        set_clock(server, conn, clock, timedelta(days=-400))
        goes_on(conn, interval, calendar)
        pid = launcher_pid(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        goes_on(conn, interval, calendar)
        # A change of the job is read like any other.
        conn.execute("SELECT cron.alter_job(jobid, command := 'SELECT 2') FROM cron.job")
        goes_on(conn, interval, calendar)
    server.restart()
    with server.connect() as conn:
        goes_on(conn, interval, calendar)


def test_an_interval_does_not_wait_for_a_clock_that_was_set_back(clocked: tuple[LocalServer, Clock]) -> None:
    """Its due times come by instants that have their records already: also for the next launcher, and the next server."""
    server, clock = clocked
    with server.connect() as conn:
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        clock.pass_until(clock.now() + timedelta(days=3))
        interval = schedule(conn, "interval", "1 second", "SELECT 1")
        # Many due times at once, so that there is something to come by again: most are recorded as skipped.
        wait_for_runs(conn, interval)
        clock.pass_until(clock.now() + timedelta(seconds=50))
        wake(server, conn)
        wait_for_runs(conn, interval, 45)
        set_clock(server, conn, clock, timedelta(seconds=-45))
        goes_on(conn, interval)
        pid = launcher_pid(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        goes_on(conn, interval)
    server.stop()
    clock.set(timedelta(seconds=-3))
    server.start()
    with server.connect() as conn:
        goes_on(conn, interval)


# --- months in seconds -------------------------------------------------------------------------

# Name, schedule, zone: fixed times and wildcards, in zones whose clocks change on different days and by different steps.
ALMANAC = [
    ("berlin", "30 2 * * *", "Europe/Berlin"),
    ("berlin hourly", "0 */12 * * *", "Europe/Berlin"),
    ("new york", "30 1,2 * * *", "America/New_York"),
    ("lord howe", "15 2 * * *", "Australia/Lord_Howe"),
    ("leap day", "0 12 29 2 *", "UTC"),
    ("last day", "59 23 $ * *", "UTC"),
    ("kathmandu", "0 9 * * MON", "Asia/Kathmandu"),
    ("every 35 hours", "@every 35 hours", "UTC"),
]

SEASONS = [
    pytest.param(datetime(2028, 2, 27, 12, tzinfo=UTC), datetime(2028, 4, 3, tzinfo=UTC), id="spring"),
    pytest.param(datetime(2028, 10, 27, 12, tzinfo=UTC), datetime(2028, 11, 7, tzinfo=UTC), id="autumn"),
]


def wait_for_count(conn: Connection, statement: str, count: int) -> None:
    """Look very often: there are hundreds of instants to wait for."""
    deadline = time.monotonic() + 10
    while one(conn, statement) < count:
        assert time.monotonic() < deadline, f"not {count} runs within 10 s: {statement}"
        time.sleep(0.002)


@pytest.mark.parametrize(("start", "end"), SEASONS)
def test_a_season_of_schedules_passes_in_seconds_and_misses_nothing(
    target: Target, extension_files: Path, start: datetime, end: datetime
) -> None:
    """A leap day and every change of the clock from February to April, and from October to November."""
    assert target.pg_config is not None
    with (
        clocked_server(target.pg_config, extension_files, start=start) as (server, clock),
        server.connect() as conn,
    ):
        timelines = {}
        scheduled = clock.now()
        with conn.transaction():
            for name, text, zone in ALMANAC:
                options = f'{{"timezone": "{zone}"}}'
                jobid = int(one(conn, "SELECT cron.schedule(%s, %s, 'SELECT 1', %s::jsonb)", name, text, options))
                timelines[jobid] = (name, text, zone)
        for jobid, (name, text, zone) in timelines.copy().items():
            anchor = one(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", jobid)
            timelines[jobid] = Timeline(name, [Span(text, scheduled, scheduled, anchor=anchor, zone=zone)])  # type: ignore[assignment]
        due = sorted((moment, jobid) for jobid, timeline in timelines.items() for moment in timeline.due_times(end)[0])  # type: ignore[attr-defined]
        assert len(due) > 50
        done = "SELECT count(*) FROM cron.job_run_details WHERE status = ANY ('{succeeded,failed,skipped}')"
        for count, (moment, _) in enumerate(due, 1):
            if count < len(due) and due[count][0] == moment:
                continue
            clock.pass_until(moment + timedelta(milliseconds=1))
            wake(server, conn)
            wait_for_count(conn, done, count)
        for jobid, timeline in timelines.items():
            found = runs_of(conn, jobid)
            assert {run.status for run in found} <= {"succeeded"}
            assert all(0 <= run.lateness < 1 for run in found)
            assert check_due_times(timeline, found, end) == []  # type: ignore[arg-type]
        assert one(conn, done) == len(due)
        assert rows(conn, "SELECT jobid FROM cron.job_run_details WHERE due_time IS NULL") == []
        assert "the clock was set" not in server.log()


@pytest.mark.parametrize("ahead", [True, False], ids=["begun ahead", "not"])
def test_jobs_run_though_the_clock_is_of_the_last_century(target: Target, extension_files: Path, ahead: bool) -> None:
    """A machine whose battery is empty begins in 1970; PostgreSQL counts from the year 2000, forward and back."""
    assert target.pg_config is not None
    start = datetime(1999, 6, 1, 12, tzinfo=UTC)
    opened = clocked_server(target.pg_config, extension_files, {"cron.start_ahead": ahead}, start=start)
    with opened as (server, clock), server.connect() as conn:
        assert clock.now().year == 1999
        jobs = [
            schedule(conn, "interval", "1 second", "SELECT 1"),
            schedule(conn, "calendar", "* * * * * *", "SELECT 1"),
        ]
        for jobid in jobs:
            assert {run.status for run in wait_for_runs(conn, jobid, 2)[:2]} == {"succeeded"}
        assert wait_for_status(conn, run_now(conn, jobs[0])).status == "succeeded"
