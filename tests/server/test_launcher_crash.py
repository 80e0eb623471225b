"""Crashes, shutdowns and restarts: jobs go on, no record stays open, and nothing runs twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    at,
    launcher_pid,
    one,
    rows,
    run_now,
    runs,
    runs_of,
    schedule,
    wait_for_runs,
    wait_for_status,
    workers,
)
from tests.server.support.watching import sample, wait_for_launcher
from tests.server.test_policy_runs import plan
from tests.support.servers import LocalServer, Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

PROMPT_S = 5.0


def assert_no_ghost(conn: Connection) -> None:
    """No record of before is open, and those that were say when and why they ended."""
    closed = runs(conn, "reason = 'server_restart'")
    assert all(
        run.end_time and run.return_message and run.return_message.startswith("server restarted") for run in closed
    )
    assert {run.status for run in closed} <= {"failed", "skipped"}
    assert rows(
        conn,
        "SELECT count(*) FROM cron.job_run_details WHERE status = ANY (%s) AND due_time < %s",
        list(OPEN),
        one(conn, "SELECT pg_postmaster_start_time()"),
    ) == [(0,)]


def assert_no_double(conn: Connection, jobid: int) -> None:
    due = [run.due_time for run in runs_of(conn, jobid)]
    assert len(set(due)) == len(due)


def busy(conn: Connection, wait_until: WaitUntil) -> dict[str, int]:
    """A server at work: a short job each second, one that runs long, and one that waits behind it."""
    conn.execute("CREATE TABLE public.counted (name text, due timestamptz DEFAULT clock_timestamp())")
    jobs = {
        "tick": schedule(conn, "tick", "1 second", "INSERT INTO public.counted VALUES ('tick')"),
        "long": schedule(conn, "long", "1 second", "INSERT INTO public.counted VALUES ('long'); SELECT pg_sleep(60)"),
    }
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobs["long"]), message="a long run")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'queued'", jobs["long"]), message="a queued run")
    wait_for_runs(conn, jobs["tick"], 2)
    return jobs


def reconnect(server: Server, wait_until: WaitUntil) -> Connection:
    """A connection, as soon as the server takes one again."""

    def connect() -> Connection | None:
        try:
            return server.connect()
        except psycopg.OperationalError:
            return None

    connection: Connection = wait_until(connect, 30, "the server to be back")
    return connection


def settle(conn: Connection, jobs: dict[str, int]) -> None:
    """The short job goes on; the long one's open records are closed; nothing is doubled."""
    count = len(runs_of(conn, jobs["tick"]))
    wait_for_runs(conn, jobs["tick"], count)
    wait_for_runs(conn, jobs["tick"], len(runs_of(conn, jobs["tick"])) + 2)
    assert_no_ghost(conn)
    for jobid in jobs.values():
        assert_no_double(conn, jobid)
    first = runs_of(conn, jobs["long"])[0]
    assert first.status == "failed"
    assert first.end_time is not None
    assert first.reason is not None
    counted = one(conn, "SELECT count(*) FROM public.counted WHERE name = 'tick'")
    said = len(runs(conn, "jobid = %s AND status = 'succeeded'", jobs["tick"]))
    closed = len(runs(conn, "jobid = %s AND reason = 'server_restart' AND status = 'failed'", jobs["tick"]))
    assert said <= counted <= said + closed + 1


@pytest.mark.local_only
def test_a_worker_that_is_killed_takes_nobody_with_it_for_long(
    fresh_server: LocalServer, wait_until: WaitUntil
) -> None:
    with fresh_server.connect() as conn:
        jobs = busy(conn, wait_until)
        (victim,) = runs(conn, "jobid = %s AND status = 'running'", jobs["long"])
        assert victim.job_pid is not None
        fresh_server.kill(victim.job_pid)
        wait_until(lambda: "all server processes terminated" in fresh_server.log(), message="the server to notice")
    with reconnect(fresh_server, wait_until) as conn:
        settle(conn, jobs)
        # The server lived through the crash, so the one that waited was not started twice either.
        assert fresh_server.log().count("terminated by signal 9") == 1


def test_an_immediate_stop_leaves_no_ghost(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobs = busy(conn, wait_until)
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        settle(conn, jobs)


@pytest.mark.parametrize("newer", [12_000, 65_000])
def test_what_was_left_open_long_ago_is_found_under_a_long_history(
    fresh_server: Server, wait_until: WaitUntil, newer: int
) -> None:
    """The newest records are looked at first, the others bit by bit."""
    record = (
        "INSERT INTO cron.job_run_details (jobid, database, username, command, status, due_time, trigger, attempt,"
        " timeline, requested_by) VALUES (%s, 'postgres', 'postgres', 'SELECT 1', %s, clock_timestamp(), %s, 1, 1, %s)"
        " RETURNING runid"
    )
    with fresh_server.connect() as conn:
        # When something has run, the launcher has looked at the records that it found.
        other = schedule(conn, "other", "0 0 29 2 *", "SELECT 1")
        wait_for_status(conn, run_now(conn, other))
        jobid = schedule(conn, "old", "0 0 29 2 *", "SELECT 1")
        conn.execute('SELECT cron.alter_job(%s::bigint, \'{"on_missed": "run_once"}\'::jsonb)', [jobid])
        conn.execute("SELECT cron.pause_all('a history is made')")
        begun = one(conn, record, jobid, "running", "schedule", None)
        waited = one(conn, record, jobid, "queued", "schedule", None)
        asked = one(conn, record, jobid, "queued", "manual", "postgres")
        conn.execute(
            "INSERT INTO cron.job_run_details (jobid, status, due_time, attempt)"
            " SELECT 1000000, 'succeeded', timestamptz '2020-01-01' + i * interval '1 s', 1"
            " FROM generate_series(1, %s) i",
            [newer],
        )
        newest = one(conn, record, jobid, "running", "schedule", None)
        conn.execute("SELECT cron.resume_all()")
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        closed = "SELECT count(*) FROM cron.job_run_details WHERE runid = ANY (%s) AND end_time IS NOT NULL"
        wait_until(lambda: one(conn, closed, [begun, waited, asked, newest]) == 4, message="the records to be closed")
        found = {run.runid: (run.status, run.reason) for run in runs_of(conn, jobid)}
        assert found == {
            begun: ("failed", "server_restart"),
            waited: ("succeeded", None),
            asked: ("skipped", "server_restart"),
            newest: ("failed", "server_restart"),
        }


def test_a_fast_shutdown_with_jobs_running_is_prompt(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobs = busy(conn, wait_until)
        before = time.monotonic()
    fresh_server.stop("fast")
    assert time.monotonic() - before < PROMPT_S
    fresh_server.start()
    with fresh_server.connect() as conn:
        settle(conn, jobs)


@pytest.mark.local_only
def test_a_smart_shutdown_of_an_idle_server_is_prompt(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        schedule(conn, "idle", "0 0 29 2 *", "SELECT 1")
        wait_for_launcher(conn)
    fresh_server.stop("smart", timeout=PROMPT_S)


def test_a_restart_within_the_second_runs_no_due_time_twice(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.counted (due timestamptz DEFAULT clock_timestamp())")
        jobid = schedule(conn, "tick", "1 second", "INSERT INTO public.counted DEFAULT VALUES")
        minutely = schedule(conn, "minutely", "* * * * *", "INSERT INTO public.counted DEFAULT VALUES")
        wait_for_runs(conn, jobid)
    for _ in range(4):
        fresh_server.restart()
    with fresh_server.connect() as conn:
        wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2)
        assert_no_double(conn, jobid)
        assert_no_double(conn, minutely)
        assert_no_ghost(conn)
        due = [run.due_time for run in runs_of(conn, jobid) if run.due_time]
        assert all((later - earlier) % timedelta(seconds=1) == timedelta(0) for earlier, later in pairwise(due))


def test_due_times_missed_while_the_server_was_down_leave_a_record(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "tick", "1 second", "SELECT 1")
        wait_for_runs(conn, jobid, 2)
    fresh_server.stop()
    # Three seconds of being down, which is what the test is about.
    time.sleep(3)
    fresh_server.start()
    with fresh_server.connect() as conn:
        up = one(conn, "SELECT pg_postmaster_start_time()")
        wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2)
        found = runs_of(conn, jobid)
        after = next(
            i for i, run in enumerate(found) if run.status == "succeeded" and run.due_time and run.due_time > up
        )
        missed = [run for run in found[:after] if run.reason == "missed"]
        assert len(missed) == 1, [(run.due_time, run.status, run.reason) for run in found]
        assert missed[0].status == "skipped"
        # What had its record before is not counted once more.
        (before,) = [run.due_time for run, later in pairwise(found) if later.reason == "missed"]
        assert missed[0].due_time
        assert before
        assert missed[0].return_message
        counted = 1 + int(missed[0].return_message.partition(", nor ")[2].split()[0])
        assert missed[0].due_time - before == timedelta(seconds=counted)


def test_reboot_jobs_run_once_per_server_start(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.reboots (at timestamptz DEFAULT clock_timestamp())")
        jobid = schedule(conn, "boot", "@reboot", "INSERT INTO public.reboots DEFAULT VALUES")
        asleep = schedule(conn, "asleep", "@reboot", "INSERT INTO public.reboots DEFAULT VALUES")
        conn.execute("SELECT cron.alter_job(%s, active := false)", [asleep])
        witness = schedule(conn, "witness", "1 second", "SELECT 1")
        wait_for_runs(conn, witness, 2)
        assert runs_of(conn, jobid) == [], "scheduling is no reboot"
    for starts in (1, 2):
        fresh_server.restart()
        with fresh_server.connect() as conn:
            wait_for_runs(conn, jobid, starts)
            pid = wait_for_launcher(conn)
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])
            wait_for_launcher(conn, other_than=pid)
            fresh_server.reload()
            wait_for_runs(conn, witness, len(runs_of(conn, witness)) + 3)
            assert [run.status for run in runs_of(conn, jobid)] == ["succeeded"] * starts
            assert one(conn, "SELECT count(*) FROM public.reboots") == starts
            assert runs_of(conn, asleep) == []


@pytest.mark.local_only
@pytest.mark.settings({"max_prepared_transactions": 2})
def test_a_launcher_that_dies_before_its_first_look_forgets_nothing(
    fresh_server: LocalServer, wait_until: WaitUntil
) -> None:
    """A prepared transaction's lock survives the restart: the first launcher cannot read the jobs, and is ended."""
    with fresh_server.connect() as conn:
        schedule(conn, "long", "1 second", "SELECT pg_sleep(60)")
        wait_until(lambda: runs(conn, "status = 'running'"), message="a run")
        wait_until(lambda: runs(conn, "status = 'queued'"), message="a queued run")
        boot = schedule(conn, "boot", "@reboot", "SELECT 1")
        open_before = [run.runid for run in runs(conn, "status = ANY (%s)", list(OPEN))]
        conn.execute("BEGIN; LOCK TABLE cron.job; PREPARE TRANSACTION 'holder'")
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        pid = wait_for_launcher(conn)
        waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_until(lambda: one(conn, waits, pid) > 0, message="the launcher to wait for the lock")
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        conn.execute("ROLLBACK PREPARED 'holder'")
        wait_until(
            lambda: not runs(conn, "runid = ANY (%s) AND status = ANY (%s)", open_before, list(OPEN)),
            message="the ends",
        )
        found = runs(conn, "runid = ANY (%s)", open_before)
        assert wait_for_runs(conn, boot)[0].status == "succeeded"
        assert {(run.status, run.reason) for run in found} == {
            ("failed", "server_restart"),
            ("skipped", "server_restart"),
        }
        assert len(runs_of(conn, boot)) == 1


@pytest.mark.local_only
@pytest.mark.settings({"max_prepared_transactions": 2})
@pytest.mark.parametrize("later", [0, 4])
def test_a_crash_between_the_records_of_one_instant_loses_none(fresh_server: LocalServer, later: int) -> None:
    """Some of those that were due together have their record, others not: as after a crash between two transactions.

    A run may have waited for its slot so long that others, due `later`, had theirs before.
    """
    with fresh_server.connect() as conn:
        lead = "to_timestamp(extract(epoch FROM clock_timestamp())::bigint + 2)"
        when, then = one(
            conn,
            "SELECT array_agg(to_char(due AT TIME ZONE 'UTC', 'SS MI HH24 DD MM \"*\"'))"
            f" FROM (SELECT {lead} + i * interval '1 s' AS due FROM unnest(ARRAY[0, {later}]) i) AS s",
        )
        with conn.transaction():
            jobs = {
                f"{policy} {state}": plan(conn, f"{policy} {state}", when, "SELECT 1", on_missed=policy)
                for policy in ("skip", "run_once", "run_all")
                for state in ("recorded", "lost")
            }
            jobs |= {
                f"after {state}": schedule(conn, f"after {state}", f'@after "skip {state}"', "SELECT 1")
                for state in ("recorded", "lost")
            }
            jobs["later"] = schedule(conn, "later", then, "SELECT 1")
            trimmed = plan(conn, "trimmed", when, "SELECT 1", on_missed="run_all", history="failures")
        for jobid in (*jobs.values(), trimmed):
            assert [run.status for run in wait_for_runs(conn, jobid)] == ["succeeded"]
        due = runs_of(conn, jobs["skip lost"])[0].due_time
        # The next launcher is kept from looking until there is something to find.
        conn.execute("BEGIN; LOCK TABLE cron.job; PREPARE TRANSACTION 'holder'")
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        conn.execute(
            "DELETE FROM cron.job_run_details WHERE jobid = ANY (%s)",
            [[jobid for name, jobid in jobs.items() if name.endswith("lost")]],
        )
        # Its history may do that by itself: then it says nothing of what had no run.
        conn.execute("DELETE FROM cron.job_run_details WHERE jobid = %s AND %s > 0", [trimmed, later])
        before = runs(conn)
        conn.execute("ROLLBACK PREPARED 'holder'")
        lost = {name: wait_for_runs(conn, jobid, timeout=30) for name, jobid in jobs.items() if name.endswith("lost")}
        assert {name: [(run.status, run.reason, run.due_time) for run in found] for name, found in lost.items()} == {
            "skip lost": [("skipped", "missed", due)],
            "run_once lost": [("succeeded", None, due)],
            "run_all lost": [("succeeded", None, due)],
            "after lost": [("skipped", "parent_skipped", due)],
        }
        assert runs(conn, "runid = ANY (%s)", [run.runid for run in before]) == before
        assert len(runs(conn, "jobid <> %s", trimmed)) == len(jobs)
        assert len(runs_of(conn, trimmed)) == (0 if later else 1)


@pytest.mark.local_only
def test_nothing_outlives_a_postmaster_that_is_killed(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobs = busy(conn, wait_until)
        assert {launcher_pid(conn), *workers(conn)} <= set(fresh_server.children())
    # Raises when any of them lives on.
    fresh_server.kill_postmaster(timeout=10)
    fresh_server.start()
    with fresh_server.connect() as conn:
        settle(conn, jobs)


@pytest.mark.local_only
@pytest.mark.settings({"synchronous_standby_names": "missing", "synchronous_commit": "local"})
def test_a_missing_synchronous_standby_stops_neither_schedule_nor_shutdown(fresh_server: LocalServer) -> None:
    """Runs that wrote something wait for the standby, as any session would; the bookkeeping does not."""
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "tick", "1 second", "SELECT 1")
        writer = schedule(conn, "writer", at(conn), "SET synchronous_commit = on; CREATE TABLE public.written ()")
        found = wait_for_runs(conn, jobid, 3)
        assert {run.status for run in found[:3]} == {"succeeded"}
        sample(0.2, lambda: None, 0.1)
        # Its record waits with it, and so stays what it was.
        assert {run.status for run in runs_of(conn, writer)} <= set(OPEN)
    before = time.monotonic()
    fresh_server.stop("fast")
    assert time.monotonic() - before < 10
