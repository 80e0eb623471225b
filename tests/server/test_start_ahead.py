"""What is due in a moment is got ready before: never early, and as if nothing had happened when it is not to start.

The clock of the server stops a millisecond before a due time, and what happens in that moment can be watched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.support.clock import Clock, clocked_server, wake
from tests.server.support.jobs import (
    Run,
    launcher_pid,
    one,
    rows,
    run_now,
    runs_of,
    schedule,
    wait_for_runs,
    wait_for_status,
    workers,
)
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import LocalServer
from tests.support.targets import Target
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = [
    pytest.mark.local_only,
    pytest.mark.skipif(sys.platform != "linux", reason="the clock is shifted by a preloaded library"),
]

NEVER = "0 0 29 2 *"
MOMENT = timedelta(milliseconds=1)
LEAVES_A_TRACE = "INSERT INTO public.trace VALUES (current_setting('cron.job_id'))"


@pytest.fixture(scope="module")
def clocked(target: Target, extension_files: Path) -> Iterator[tuple[LocalServer, Clock]]:
    assert target.pg_config is not None
    with clocked_server(target.pg_config, extension_files) as pair:
        with pair[0].connect() as conn:
            conn.execute("CREATE TABLE public.trace (what text)")
        yield pair


class Moment:
    """A server whose clock can be stopped right before a job is due."""

    def __init__(self, server: LocalServer, clock: Clock, conn: Connection) -> None:
        self.server, self.clock, self.conn = server, clock, conn

    def before(self, command: str = LEAVES_A_TRACE, *, name: str = "held", **options: Any) -> tuple[int, datetime]:
        """A job that is due in a moment that does not pass; it and its due time."""
        due = (self.clock.now() + timedelta(seconds=2)).replace(microsecond=0)
        calendar = f"{due.second} {due.minute} {due.hour} {due.day} {due.month} *"
        with self.conn.transaction():
            jobid = schedule(self.conn, name, calendar, command)
            for option, value in options.items():
                self.conn.execute(f'UPDATE cron.job SET "{option}" = %s WHERE jobid = %s'.encode(), [value, jobid])
        self.clock.stop_at(due - MOMENT)
        return jobid, due

    def begun(self, command: str = LEAVES_A_TRACE, **options: Any) -> tuple[int, Run]:
        """The same, when the run has been begun ahead; its job and its record."""
        jobid, due = self.before(command, **options)
        poll(lambda: runs_of(self.conn, jobid), message="the record of a run that is not due yet")
        (run,) = runs_of(self.conn, jobid)
        assert (run.status, run.due_time) == ("starting", due)
        assert self.clock.now() < due
        return jobid, run

    def pass_by(self) -> None:
        """Let the moment pass, and some more time: whatever was to start then has started, or will not."""
        self.clock.go_on()
        jobid = schedule(self.conn, "later", "1 second", "SELECT 1")
        wait_for_runs(self.conn, jobid, 2)
        self.conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])

    def traces(self, jobid: int) -> int:
        return int(one(self.conn, "SELECT count(*) FROM public.trace WHERE what = %s", str(jobid)))

    def gone(self, jobid: int) -> None:
        poll(lambda: runs_of(self.conn, jobid) == [], message="the record to be removed")


@pytest.fixture
def moment(clocked: tuple[LocalServer, Clock]) -> Iterator[Moment]:
    server, clock = clocked
    with server.connect() as conn:
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        # No worker is left that would have stayed.
        poll(lambda: workers(conn) == [], message="the workers to leave")
        try:
            yield Moment(server, clock, conn)
        finally:
            clock.go_on()


# --- on the instant ----------------------------------------------------------------------------


def test_a_run_is_begun_ahead_and_starts_on_the_instant(moment: Moment) -> None:
    jobid, begun = moment.begun()
    (waiting,) = workers(moment.conn)
    # The launcher and the worker have looked at the clock many times meanwhile.
    other = schedule(moment.conn, "other", NEVER, "SELECT 1")
    wait_for_status(moment.conn, run_now(moment.conn, other))
    assert moment.traces(jobid) == 0
    moment.clock.go_on()
    run = wait_for_status(moment.conn, begun.runid)
    assert (run.status, run.job_pid) == ("succeeded", waiting)
    assert run.start_time is not None
    assert run.due_time is not None
    assert run.start_time >= run.due_time
    assert (moment.traces(jobid), len(runs_of(moment.conn, jobid))) == (1, 1)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_worker_had_ahead_serves_any_job(moment: Moment, fresh: bool) -> None:
    jobid, begun = moment.begun(fresh_session=fresh)
    (waiting,) = workers(moment.conn)
    moment.clock.go_on()
    assert wait_for_status(moment.conn, begun.runid).job_pid == waiting
    assert moment.traces(jobid) == 1


def test_no_worker_is_had_ahead_for_a_role_that_cannot_have_one(moment: Moment) -> None:
    """It is tried once: whoever reads the server's log sees one line for each run, and one more."""
    moment.conn.execute("CREATE ROLE barred LOGIN")
    jobid = schedule(moment.conn, "barred", NEVER, "SELECT 1", username="barred")
    moment.conn.execute("ALTER ROLE barred NOLOGIN")
    length = len(moment.server.log())
    moment.conn.execute("UPDATE cron.job SET schedule = '1 second' WHERE jobid = %s", [jobid])
    runs = wait_for_runs(moment.conn, jobid, 4)
    assert {run.reason for run in runs[:4]} == {"could_not_start"}
    moment.conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    poll(lambda: all(run.end_time for run in runs_of(moment.conn, jobid)), message="the last of them")
    count = sum(run.reason == "could_not_start" for run in runs_of(moment.conn, jobid))
    poll(lambda: workers(moment.conn) == [], message="its worker to leave")
    refusals = moment.server.log()[length:].count('FATAL:  role "barred" is not permitted to log in')
    assert count <= refusals <= count + 1


# --- not after all -----------------------------------------------------------------------------


def test_a_command_changed_in_the_last_moment_is_the_one_that_runs(moment: Moment) -> None:
    jobid, begun = moment.begun("SELECT 1")
    moment.conn.execute("SELECT cron.alter_job(%s, command := %s)", [jobid, LEAVES_A_TRACE])
    # It is begun anew at once.
    poll(lambda: [run.command for run in runs_of(moment.conn, jobid)] == [LEAVES_A_TRACE], message="the new command")
    moment.pass_by()
    (run,) = runs_of(moment.conn, jobid)
    assert (run.status, run.due_time, run.command) == ("succeeded", begun.due_time, LEAVES_A_TRACE)
    assert moment.traces(jobid) == 1


NOT_TO_START = {
    "unscheduled": "SELECT cron.unschedule(%s::bigint)",
    "inactive": "SELECT cron.alter_job(%s, active := false)",
    "paused": "SELECT cron.pause(%s::bigint)",
    "rescheduled": f"SELECT cron.alter_job(%s, schedule := '{NEVER}')",
    "all paused": "SELECT cron.pause_all('a test') WHERE %s > 0",
}


@pytest.mark.parametrize("how", NOT_TO_START)
def test_what_is_stopped_in_the_last_moment_never_was_due(moment: Moment, how: str) -> None:
    jobid, begun = moment.begun()
    assert begun.due_time is not None
    over = begun.due_time + timedelta(seconds=1)
    moment.conn.execute(NOT_TO_START[how].encode(), [jobid])
    try:
        moment.gone(jobid)
        moment.clock.go_on()
        poll(lambda: moment.clock.now() > over, message="the due time to pass")
    finally:
        moment.conn.execute("SELECT cron.resume_all()")
    moment.pass_by()
    assert (runs_of(moment.conn, jobid), moment.traces(jobid)) == ([], 0)


def test_a_run_canceled_in_the_last_moment_says_so(moment: Moment) -> None:
    jobid, begun = moment.begun()
    moment.conn.execute("SELECT cron.cancel(%s)", [begun.runid])
    moment.pass_by()
    (run,) = runs_of(moment.conn, jobid)
    assert (run.status, run.reason, run.due_time) == ("failed", "canceled", begun.due_time)
    assert moment.traces(jobid) == 0


def test_a_clock_that_is_set_back_makes_it_due_later(moment: Moment) -> None:
    jobid, begun = moment.begun()
    hour = timedelta(hours=1)
    moment.clock.set(-hour)
    wake(moment.server, moment.conn)
    moment.gone(jobid)
    moment.pass_by()
    assert (runs_of(moment.conn, jobid), moment.traces(jobid)) == ([], 0)
    moment.clock.set(hour)
    wake(moment.server, moment.conn)
    (run,) = wait_for_runs(moment.conn, jobid)
    assert (run.status, run.due_time) == ("succeeded", begun.due_time)
    assert moment.traces(jobid) == 1


# --- ends in between ---------------------------------------------------------------------------


def test_a_launcher_that_ends_in_the_moment_loses_and_doubles_nothing(moment: Moment) -> None:
    jobid, begun = moment.begun()
    pid = launcher_pid(moment.conn)
    moment.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
    poll(lambda: launcher_pid(moment.conn) != pid, message="the launcher to end")
    moment.clock.go_on()
    wait_for_launcher(moment.conn, other_than=pid)
    run = wait_for_status(moment.conn, begun.runid)
    assert (run.status, moment.traces(jobid), len(runs_of(moment.conn, jobid))) == ("succeeded", 1, 1)


def test_a_worker_that_ends_in_the_moment_is_replaced(moment: Moment) -> None:
    jobid, begun = moment.begun()
    (waiting,) = workers(moment.conn)
    moment.conn.execute("SELECT pg_terminate_backend(%s)", [waiting])
    poll(lambda: waiting not in workers(moment.conn), message="the worker to end")
    assert moment.traces(jobid) == 0
    moment.clock.go_on()
    run = wait_for_status(moment.conn, begun.runid)
    assert (run.status, moment.traces(jobid), len(runs_of(moment.conn, jobid))) == ("succeeded", 1, 1)
    assert run.job_pid != waiting
    assert run.start_time is not None
    assert begun.due_time is not None
    assert run.start_time >= begun.due_time


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_that_stops_in_the_moment_accounts_for_it_once(moment: Moment, how: str) -> None:
    jobid, begun = moment.begun()
    moment.server.stop(how)
    moment.server.start()
    with moment.server.connect() as conn:
        again = Moment(moment.server, moment.clock, conn)
        again.pass_by()
        (run,) = runs_of(conn, jobid)
        assert run.due_time == begun.due_time
        if how == "fast":
            assert (run.status, again.traces(jobid)) == ("succeeded", 1)
        else:
            assert (run.status, run.reason, again.traces(jobid)) == ("failed", "server_restart", 0)
            assert rows(conn, "SELECT effects FROM cron.job_run_details WHERE runid = %s", run.runid) == [("none",)]


# --- whose turn it is --------------------------------------------------------------------------


def test_a_priority_counts_before_the_instant_too(
    target: Target, extension_files: Path, request: pytest.FixtureRequest
) -> None:
    assert target.pg_config is not None
    settings = {"cron.max_running_jobs": 1}
    with clocked_server(target.pg_config, extension_files, settings) as (server, clock), server.connect() as conn:
        moment = Moment(server, clock, conn)
        conn.execute("CREATE TABLE public.trace (what text)")
        due = (clock.now() + timedelta(seconds=2)).replace(microsecond=0)
        calendar = f"{due.second} {due.minute} {due.hour} {due.day} {due.month} *"
        with conn.transaction():
            jobs = [schedule(conn, f"p{priority}", calendar, LEAVES_A_TRACE) for priority in range(5)]
            conn.execute("UPDATE cron.job SET priority = substr(jobname, 2)::int")
        clock.stop_at(due - MOMENT)
        poll(lambda: rows(conn, "SELECT jobid FROM cron.job_run_details"), message="a run begun ahead")
        assert rows(conn, "SELECT jobid FROM cron.job_run_details") == [(jobs[-1],)]
        clock.go_on()
        for jobid in jobs:
            wait_for_runs(conn, jobid)
        order = rows(conn, "SELECT jobid FROM cron.job_run_details ORDER BY start_time")
        assert [jobid for (jobid,) in order] == jobs[::-1]
        assert [moment.traces(jobid) for jobid in jobs] == [1] * 5


def test_it_can_be_switched_off(moment: Moment, wait_until: Callable[..., Any]) -> None:
    moment.server.configure({"cron.start_ahead": False})
    length = len(moment.server.log())
    moment.server.reload()
    wait_until(lambda: "launcher reloaded" in moment.server.log()[length:], message="the reload")
    try:
        jobid, due = moment.before()
        other = schedule(moment.conn, "other", NEVER, "SELECT 1")
        poll(lambda: moment.clock.now() == due - MOMENT, message="the moment before")
        for _ in range(3):
            wait_for_status(moment.conn, run_now(moment.conn, other))
        assert runs_of(moment.conn, jobid) == []
        moment.clock.go_on()
        (run,) = wait_for_runs(moment.conn, jobid)
        assert (run.status, run.due_time) == ("succeeded", due)
    finally:
        moment.server.configure({"cron.start_ahead": True})
        moment.server.reload()
