"""cron.cancel ends a run, whatever it does; cron.unschedule does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    Connection,
    Run,
    launcher_pid,
    one,
    rows,
    run_now,
    run_of,
    schedule,
    wait_for_status,
    workers,
)
from tests.server.support.watching import wait_for_launcher
from tests.server.surface import ANN, BEN, Notice, Refusal, make_role, notices, refusal, session_of
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

NEVER = "0 0 1 1 *"
CANCELED = 'Canceled by role "postgres".'
TERMINATED = 'Canceled by role "postgres", and terminated after the grace period.'
BEFORE = 'Canceled by role "postgres" before it began.'


def start(conn: Connection, name: str, command: str, **where: str) -> Run:
    """A run that goes on."""
    return wait_for_status(conn, run_now(conn, schedule(conn, name, NEVER, command, **where)), "running")


def cancel(conn: Connection, runid: int, grace: str | None = "10 s") -> bool:
    return bool(one(conn, "SELECT cron.cancel(%s, %s)", runid, grace))


@pytest.fixture
def lock(server: Server) -> Iterator[Connection]:
    """A session that holds a lock on the table `locked`."""
    with server.connect() as holder:
        holder.execute("DROP TABLE IF EXISTS locked; CREATE TABLE locked ()")
        holder.execute("BEGIN; LOCK TABLE locked")
        yield holder
        holder.execute("ROLLBACK; DROP TABLE locked")


COMMANDS = {
    "sleep": "SELECT pg_sleep(60)",
    "loop": "DO $$ DECLARE i int8 := 0; BEGIN LOOP i := i + 1; END LOOP; END $$",
    "lock": "SELECT * FROM locked",
    "query": "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000) b",
    "statements": "SELECT 1; SELECT pg_sleep(60); SELECT 2",
    "call": "DO $$ BEGIN COMMIT; PERFORM pg_sleep(60); END $$",
}


def test_a_run_is_cancelled_whatever_it_does(conn: Connection, lock: Connection) -> None:
    with conn.transaction():
        runids = {name: run_now(conn, schedule(conn, name, NEVER, command)) for name, command in COMMANDS.items()}
    started = {name: wait_for_status(conn, runid, "running") for name, runid in runids.items()}
    for runid in runids.values():
        assert cancel(conn, runid)
    for name, runid in runids.items():
        run = wait_for_status(conn, runid)
        assert (name, run.status, run.reason, run.sqlstate) == (name, "failed", "canceled", "57014")
        assert run.detail == CANCELED
        assert (run.return_message or "").startswith(f"ERROR: job canceled\nDETAIL: {CANCELED}"), run
        assert run.job_pid == started[name].job_pid
    context = run_of(conn, runids["loop"]).context or ""
    assert "PL/pgSQL function inline_code_block line 1" in context, "where it was is worth knowing"


def test_a_cancel_takes_effect_before_its_transaction_ends(conn: Connection, server: Server) -> None:
    run = start(conn, "at once", "SELECT pg_sleep(60)")
    with server.connect() as other, other.transaction(force_rollback=True):
        assert cancel(other, run.runid)
        assert wait_for_status(conn, run.runid).reason == "canceled"


STUBBORN = """
DO $$ BEGIN
  LOOP
    BEGIN
      PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN NULL;
    END;
  END LOOP;
END $$
"""


def test_a_run_that_ignores_it_is_terminated_after_the_grace_period(conn: Connection) -> None:
    run = start(conn, "stubborn", STUBBORN)
    asked = time.monotonic()
    assert cancel(conn, run.runid, "1 s")
    ended = wait_for_status(conn, run.runid)
    assert time.monotonic() - asked >= 1
    assert (ended.status, ended.reason, ended.sqlstate, ended.detail) == ("failed", "canceled", "57014", TERMINATED)


def test_a_second_cancel_shortens_the_grace_period(conn: Connection) -> None:
    run = start(conn, "stubborn", STUBBORN)
    assert cancel(conn, run.runid, None)
    assert cancel(conn, run.runid, "1 hour")
    assert run_of(conn, run.runid).status == "running"
    assert cancel(conn, run.runid, "0")
    assert wait_for_status(conn, run.runid).detail == TERMINATED


def test_a_run_that_waits_will_not_start(conn: Connection) -> None:
    first = start(conn, "busy", "SELECT pg_sleep(60)")
    assert first.jobid is not None
    second = run_now(conn, first.jobid)
    wait_for_status(conn, second, "queued")
    assert cancel(conn, second)
    run = run_of(conn, second)
    assert (run.status, run.reason, run.sqlstate) == ("failed", "canceled", "57014")
    assert (run.detail, run.start_time, run.job_pid) == (BEFORE, None, None)
    assert run.return_message == f"ERROR: job canceled\nDETAIL: {BEFORE}"
    assert run_of(conn, first.runid).status == "running"

    third = run_now(conn, first.jobid)
    assert cancel(conn, first.runid)
    assert wait_for_status(conn, third, "running").status == "running", "the next is up when one is cancelled"
    assert cancel(conn, third)
    wait_for_status(conn, third)


def test_a_due_time_that_waits_will_not_start(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "every second", "1 second", "SELECT pg_sleep(60)")
    queued = "SELECT runid FROM cron.job_run_details WHERE jobid = %s AND status = 'queued'"
    runid = wait_until(lambda: rows(conn, queued, jobid), message="a due time to wait")[0][0]
    assert cancel(conn, runid)
    assert (run_of(conn, runid).status, run_of(conn, runid).reason) == ("failed", "canceled")


def test_a_request_of_the_same_transaction_is_taken_back(conn: Connection) -> None:
    jobid = schedule(conn, "taken back", NEVER, "SELECT 1")
    with conn.transaction():
        runid = run_now(conn, jobid)
        assert cancel(conn, runid)
    assert (run_of(conn, runid).status, run_of(conn, runid).detail) == ("failed", BEFORE)


def test_requests_are_cancelled_as_soon_as_they_are_committed(conn: Connection) -> None:
    """Whether the launcher has taken them in by then makes no difference."""
    jobid = schedule(conn, "too soon", NEVER, "SELECT pg_sleep(60)")
    for _ in range(15):
        runid = run_now(conn, jobid)
        assert cancel(conn, runid)
        run = wait_for_status(conn, runid)
        assert (run.status, run.reason) == ("failed", "canceled"), run


def test_many_sessions_cancel_at_once(conn: Connection, server: Server) -> None:
    """More than the launcher's board has room for."""
    jobid = schedule(conn, "crowded", NEVER, "SELECT pg_sleep(60)")
    first = wait_for_status(conn, run_now(conn, jobid), "running")
    others = []
    try:
        for _ in range(40):
            other = server.connect()
            others.append(other)
            other.pgconn.send_query(f"SELECT cron.cancel({first.runid})".encode())
        answers = []
        for other in others:
            result = other.pgconn.get_result()
            while result is not None:
                assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
                answers.append(result.get_value(0, 0))
                result = other.pgconn.get_result()
        assert set(answers) <= {b"t", b"f"}
        assert b"t" in answers
        assert len(answers) == 40
    finally:
        for other in others:
            other.close()
    assert wait_for_status(conn, first.runid).reason == "canceled"


def test_a_run_that_has_ended_is_left_alone(conn: Connection) -> None:
    run = wait_for_status(conn, run_now(conn, schedule(conn, "ended", NEVER, "SELECT 1")))
    assert notices(conn, f"SELECT cron.cancel({run.runid})") == [
        Notice("NOTICE", f"run {run.runid} has already ended", "Its status is succeeded.")
    ]
    assert not cancel(conn, run.runid)
    assert run_of(conn, run.runid) == run


def test_a_run_that_fails_of_itself_keeps_its_own_reason(conn: Connection) -> None:
    command = """
    DO $$ BEGIN
      PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'tidied up' USING ERRCODE = 'CW001';
    END $$
    """
    run = start(conn, "tidy", command)
    assert cancel(conn, run.runid)
    ended = wait_for_status(conn, run.runid)
    assert (ended.status, ended.reason, ended.sqlstate) == ("failed", "error", "CW001")


def test_a_run_that_succeeds_all_the_same_is_recorded_so(conn: Connection) -> None:
    command = "DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END $$"
    run = start(conn, "deaf", command)
    assert cancel(conn, run.runid)
    assert wait_for_status(conn, run.runid).status == "succeeded"


def test_who_may_cancel(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    run = start(conn, "hers", "SELECT pg_sleep(60)", username=ANN)
    refused = Refusal("42501", f"run {run.runid} does not exist or you don't own it")
    with session_of(server, BEN) as ben:
        assert refusal(ben, f"SELECT cron.cancel({run.runid})") == refused
        conn.execute(f"GRANT {ANN} TO {BEN}")
        assert cancel(ben, run.runid)
    assert wait_for_status(conn, run.runid).detail == f'Canceled by role "{BEN}".'


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("cron.cancel(NULL)", Refusal("22004", "runid can not be NULL")),
        ("cron.cancel(-1)", Refusal("42501", "run -1 does not exist or you don't own it")),
        ("cron.cancel(1, '-1 s')", Refusal("22023", "grace can not be negative")),
    ],
)
def test_what_cannot_be_cancelled_is_refused(conn: Connection, call: str, expected: Refusal) -> None:
    assert refusal(conn, f"SELECT {call}") == expected


def test_a_run_goes_on_when_its_job_is_removed_and_can_be_cancelled_then(conn: Connection) -> None:
    unscheduled = start(conn, "unscheduled", "SELECT pg_sleep(1.5)")
    deleted = start(conn, "deleted", "SELECT pg_sleep(1.5)")
    cancelled = start(conn, "cancelled", "SELECT pg_sleep(60)")
    conn.execute("SELECT cron.unschedule('unscheduled')")
    conn.execute("DELETE FROM cron.job WHERE jobname IN ('deleted', 'cancelled')")
    assert cancel(conn, cancelled.runid)
    assert wait_for_status(conn, cancelled.runid).reason == "canceled"
    assert [wait_for_status(conn, run.runid).status for run in (unscheduled, deleted)] == ["succeeded", "succeeded"]


def test_a_cancel_outlives_the_launcher(conn: Connection, wait_until: WaitUntil) -> None:
    run = start(conn, "stubborn", STUBBORN)
    launcher = wait_for_launcher(conn)
    assert cancel(conn, run.runid, "3 s")
    conn.execute("SELECT pg_terminate_backend(%s)", [launcher])
    wait_until(lambda: launcher_pid(conn) != launcher, message="the launcher to be gone")
    ended = wait_for_status(conn, run.runid)
    assert (ended.reason, ended.detail) == ("canceled", TERMINATED)


def test_a_cancel_reaches_only_the_run_it_is_meant_for(conn: Connection) -> None:
    """Runs of one job follow each other at once, perhaps in the same process."""
    jobid = schedule(conn, "series", NEVER, "SELECT pg_sleep(0.05)")
    for _ in range(10):
        first = run_now(conn, jobid)
        second = run_now(conn, jobid)
        cancel(conn, first)
        assert wait_for_status(conn, second).status == "succeeded"
        ended = wait_for_status(conn, first)
        assert (ended.status, ended.reason) in {("succeeded", None), ("failed", "canceled")}, ended


@pytest.mark.local_only
@pytest.mark.settings({"max_worker_processes": 3, "cron.max_running_jobs": 4})
def test_a_run_that_waits_for_a_worker_process_is_cancelled(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobs = [schedule(conn, f"short {i}", NEVER, "SELECT pg_sleep(60)") for i in range(4)]
        runids = [run_now(conn, jobid) for jobid in jobs]
        wait_until(lambda: "no background worker is free for a due job" in fresh_server.log(), message="a shortage")
        stuck = [runid for runid in runids if run_of(conn, runid).status == "starting"]
        wait_until(lambda: len([r for r in runids if run_of(conn, r).status == "running"]) >= 1, message="runs")
        stuck = [runid for runid in runids if run_of(conn, runid).status == "starting"]
        assert stuck
        asked = one(conn, "SELECT clock_timestamp()")
        for runid in stuck:
            assert cancel(conn, runid)
            run = run_of(conn, runid)
            assert (run.status, run.reason, run.job_pid) == ("failed", "canceled", None)
            assert run.end_time is not None
            assert run.end_time - asked < timedelta(seconds=10)
        for runid in set(runids) - set(stuck):
            cancel(conn, runid)
            assert wait_for_status(conn, runid).reason == "canceled"
        wait_until(lambda: workers(conn) == [], message="the workers to be gone")
