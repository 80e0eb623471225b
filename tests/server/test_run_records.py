"""Run records: every due time has one, every column is true, and starts are neither early nor late."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    Run,
    at,
    launcher_pid,
    one,
    rows,
    run_once,
    runs,
    runs_of,
    schedule,
    wait_for_runs,
)
from tests.server.support.watching import log_since
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

# A start later than this after its due time is late, on a machine that runs other tests beside this one.
LATE_S = 2.0


def test_a_failed_run_has_every_column_right(conn: Connection) -> None:
    command = "DO $$ BEGIN RAISE 'no' USING ERRCODE = 'CW001', DETAIL = 'd', HINT = 'h'; END $$"
    before = one(conn, "SELECT clock_timestamp()")
    when = at(conn)
    jobid = schedule(conn, "columns", when, command)
    (run,) = wait_for_runs(conn, jobid)
    after = one(conn, "SELECT clock_timestamp()")
    assert run.job_pid is not None
    assert run.due_time == datetime.fromisoformat(when.removeprefix("@at ").replace("Z", "+00:00"))
    assert run.due_time is not None
    assert run.start_time is not None
    assert run.end_time is not None
    assert before < run.due_time <= run.start_time <= run.end_time <= after
    context = "PL/pgSQL function inline_code_block line 1 at RAISE"
    assert run == Run(
        jobid=jobid,
        runid=run.runid,
        job_pid=run.job_pid,
        database="postgres",
        username="postgres",
        command=command,
        status="failed",
        return_message=f"ERROR: no\nDETAIL: d\nHINT: h\nCONTEXT: {context}",
        start_time=run.start_time,
        end_time=run.end_time,
        due_time=run.due_time,
        trigger="schedule",
        attempt=1,
        reason="error",
        sqlstate="CW001",
        detail="d",
        hint="h",
        context=context,
        command_tag=None,
        row_count=None,
        label=None,
        timeline=1,
        effects=None,
        requested_by=None,
    )


def test_a_succeeded_run_has_every_column_right(conn: Connection) -> None:
    run = run_once(conn, "SELECT generate_series(1, 7)")
    assert (run.status, run.return_message, run.command_tag, run.row_count) == ("succeeded", "SELECT 7", "SELECT", 7)
    assert (run.reason, run.sqlstate, run.detail, run.hint, run.context) == (None, None, None, None, None)
    assert (run.trigger, run.attempt) == ("schedule", 1)


def test_a_one_second_job_has_a_run_for_every_second(conn: Connection) -> None:
    """Ten due times: exactly a second apart, none missing, none double, none early, none late."""
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    found = wait_for_runs(conn, jobid, 10, timeout=30)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    due = [run.due_time for run in found]
    assert None not in due
    assert {later - earlier for earlier, later in pairwise(t for t in due if t)} == {timedelta(seconds=1)}
    assert {run.status for run in found if run.status not in OPEN} == {"succeeded"}
    lateness = [run.lateness for run in found if run.start_time]
    assert min(lateness) >= 0, "a run started before it was due"
    assert max(lateness) < LATE_S
    assert sorted(lateness)[len(lateness) // 2] < 0.3, lateness


def test_the_first_due_time_is_one_interval_after_scheduling(conn: Connection) -> None:
    jobid = schedule(conn, "two seconds", "2 seconds", "SELECT 1")
    anchor = one(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", jobid)
    first, second = wait_for_runs(conn, jobid, 2)[:2]
    assert first.due_time == anchor + timedelta(seconds=2)
    assert second.due_time == anchor + timedelta(seconds=4)


def test_due_times_that_fall_into_a_long_run_are_queued_once_and_then_skipped(
    conn: Connection, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "slow", "1 second", "SELECT pg_sleep(3.6)")
    second = "SELECT status FROM cron.job_run_details WHERE jobid = %s ORDER BY due_time LIMIT 1 OFFSET 1"
    wait_until(lambda: rows(conn, second, jobid) == [("queued",)], message="the second due time to be queued")
    wait_until(lambda: rows(conn, second, jobid) == [("succeeded",)], message="the queued run to have run")
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    found = runs_of(conn, jobid)
    due = [run.due_time for run in found if run.due_time]
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(seconds=1)}
    first, queued, *rest = found
    assert queued.start_time is not None
    assert first.end_time is not None
    assert timedelta(0) <= queued.start_time - first.end_time < timedelta(seconds=LATE_S)
    assert queued.attempt == 1
    skipped = rest[:2]
    assert [(run.status, run.reason, run.start_time, run.job_pid) for run in skipped] == [
        ("skipped", "overlap", None, None)
    ] * 2
    assert all(run.return_message == "an earlier run of the job was still waiting to start" for run in skipped)
    assert all(run.end_time and run.command == "SELECT pg_sleep(3.6)" for run in skipped)


def test_a_due_time_that_has_its_record_holds_up_nobody(
    server: Server, conn: Connection, wait_until: WaitUntil
) -> None:
    """The others of its instant are written again, together: the server log says nothing."""
    undone = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    before, length = one(conn, undone), len(server.log())
    conn.execute(
        "CREATE TABLE public.written (jobid bigint, xid xid8);"
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.written VALUES (NEW.jobid, pg_current_xact_id()); RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.note()"
    )
    try:
        due = one(conn, "SELECT clock_timestamp() + interval '1 second'")
        when = one(conn, "SELECT to_char(%s AT TIME ZONE 'UTC', '\"@at \"YYYY-MM-DD HH24:MI:SS.US\"Z\"')", due)
        with conn.transaction():
            jobs = [schedule(conn, f"job {i}", when, "SELECT 1") for i in range(4)]
            conn.execute(
                "INSERT INTO cron.job_run_details (jobid, username, due_time, attempt, status)"
                " VALUES (%s, 'postgres', %s, 1, 'succeeded')",
                [jobs[1], due],
            )
        for jobid in jobs:
            assert [run.status for run in wait_for_runs(conn, jobid)] == ["succeeded"]
        assert [run.start_time for run in runs_of(conn, jobs[1])] == [None]
        others = "SELECT count(*), count(DISTINCT xid) FROM public.written WHERE jobid = ANY (%s) AND jobid <> %s"
        assert rows(conn, others, jobs, jobs[1]) == [(3, 1)]
    finally:
        conn.execute(
            "DROP TRIGGER note ON cron.job_run_details; DROP FUNCTION public.note(); DROP TABLE public.written"
        )

    def is_counted() -> bool:
        # The launcher tells its counts after a transaction, once a second at most: give it one.
        schedule(conn, "wake", "0 0 29 2 *", "SELECT 1")
        return bool(one(conn, undone) > before)

    # It was found out by failing: ordinary due times are not looked up before.
    wait_until(is_counted, message="the transaction that failed to be counted")
    assert "duplicate key" not in log_since(server, length)


def test_runs_of_one_job_never_overlap(conn: Connection) -> None:
    jobid = schedule(conn, "barely", "1 second", "SELECT pg_sleep(1.15)")
    wait_for_runs(conn, jobid, 6, timeout=30)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    ran = sorted(
        (run for run in runs_of(conn, jobid) if run.start_time and run.end_time), key=lambda r: r.start_time or 0
    )
    assert len(ran) >= 4
    assert all(a.end_time <= b.start_time for a, b in pairwise(ran) if a.end_time and b.start_time)


def test_a_long_run_is_shown_as_running_within_a_second(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "long", at(conn), "SELECT pg_sleep(30)")
    shown = "SELECT extract(epoch FROM clock_timestamp() - start_time) FROM cron.job_run_details WHERE jobid = %s AND status = 'running'"
    (age,) = wait_until(lambda: rows(conn, shown, jobid), message="the record to say running")[0]
    assert age < 1
    (run,) = runs_of(conn, jobid)
    assert (run.end_time, run.return_message, run.reason) == (None, None, None)
    activity = (
        "SELECT pid, usename, datname, backend_type, application_name, query, state"
        " FROM pg_stat_activity WHERE backend_type = 'pg_clockwork worker'"
    )
    assert rows(conn, activity) == [
        (
            run.job_pid,
            "postgres",
            "postgres",
            "pg_clockwork worker",
            f"pg_clockwork job {jobid} run {run.runid}",
            "SELECT pg_sleep(30)",
            "active",
        )
    ]
    assert one(conn, "SELECT xact_start >= %s FROM pg_stat_activity WHERE pid = %s", run.start_time, run.job_pid)
    conn.execute("SELECT pg_terminate_backend(%s)", [run.job_pid])
    wait_for_runs(conn, jobid)


def test_the_launcher_is_an_idle_background_worker(conn: Connection, wait_until: WaitUntil) -> None:
    idle = (
        "SELECT datname, application_name, state, xact_start IS NULL, backend_xmin IS NULL, wait_event_type"
        " FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher'"
    )
    expected = [("postgres", "pg_clockwork launcher", "idle", True, True, "Extension")]
    wait_until(lambda: rows(conn, idle) == expected, message="the launcher to be idle")
    pid = launcher_pid(conn)
    assert rows(conn, "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'relation'", pid) == [(0,)]


def test_the_record_keeps_the_command_as_it_was_at_the_start(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "changing", "1 second", "SELECT pg_sleep(2.5), 'old'")
    wait_until(lambda: len(runs_of(conn, jobid)) >= 2, message="a running and a queued run")
    conn.execute("SELECT cron.alter_job(%s, command := $$SELECT 'new'$$)", [jobid])
    found = wait_for_runs(conn, jobid, 3)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    assert found[0].command == "SELECT pg_sleep(2.5), 'old'"
    assert found[1].command == "SELECT 'new'"
    assert found[0].status == found[1].status == "succeeded"


def test_truncating_the_history_under_a_run_does_no_harm(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "truncated", "1 second", "SELECT pg_sleep(1.3)")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="a running run")
    conn.execute("TRUNCATE cron.job_run_details")
    fresh = wait_for_runs(conn, jobid, 2)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    assert {run.status for run in fresh} <= {"succeeded", "skipped", *OPEN}
    assert len({run.due_time for run in fresh}) == len(fresh)


@pytest.mark.settings({"cron.log_run": False, "cron.log_statement": True})
def test_without_log_run_jobs_run_and_leave_no_record(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.seen (at timestamptz DEFAULT clock_timestamp())")
        jobid = schedule(conn, "quiet", "1 second", "INSERT INTO public.seen DEFAULT VALUES")
        failing = schedule(conn, "failing", "1 second", "SELECT 1 / 0")
        orphan = schedule(conn, "orphan", "1 second", "SELECT 1")
        conn.execute("UPDATE cron.job SET username = 'nobody_at_all' WHERE jobid = %s", [orphan])
        slow = schedule(conn, "slow", "1 second", "SELECT pg_sleep(2.5)")
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.seen") >= 4, message="four runs")
        assert rows(conn, "SELECT * FROM cron.job_run_details") == []
        gaps = rows(conn, "SELECT at - lag(at) OVER (ORDER BY at) FROM public.seen")
        assert all(gap is None or gap > timedelta(seconds=0.3) for (gap,) in gaps)
        log = fresh_server.log()
    assert f"cron job {jobid} starting: INSERT INTO public.seen DEFAULT VALUES" in log
    assert f"cron job {jobid} completed: INSERT 0 1" in log
    assert f"cron job {failing} failed: division by zero" in log
    assert f'cron job {orphan} failed: role "nobody_at_all" does not exist' in log
    assert f"cron job {slow} completed: SELECT 1" in log


@pytest.mark.settings({"cron.log_statement": False})
def test_without_log_statement_the_log_is_silent_about_runs(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "silent", "1 second", "SELECT 'psst'")
        wait_for_runs(conn, jobid, 2)
        log = fresh_server.log()
    assert "psst" not in log
    assert f"cron job {jobid}" not in log


def test_with_log_statement_each_run_has_two_lines(server: Server, conn: Connection) -> None:
    run = run_once(conn, "SELECT 'a line to find'")
    lines = [line.partition("LOG:  ")[2] for line in server.log().splitlines() if f"cron job {run.jobid} " in line]
    assert lines == [
        f"cron job {run.jobid} starting: SELECT 'a line to find'",
        f"cron job {run.jobid} completed: SELECT 1",
    ]


# --- the instants ------------------------------------------------------------------------------


@pytest.mark.settings({"cron.timezone": "Asia/Kathmandu"})
def test_cron_expressions_fire_at_the_minute_of_their_zone(fresh_server: Server) -> None:
    """One job in the server's zone, one in its own: both due at the next full minute, which their clocks call differently."""
    zones = {"default": "Asia/Kathmandu", "own": "America/St_Johns"}
    with fresh_server.connect() as conn:
        now: datetime = one(conn, "SELECT clock_timestamp()")
        due = now.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        if due - now < timedelta(seconds=3):
            due += timedelta(minutes=1)
        jobs = {}
        for name, zone in zones.items():
            local = due.astimezone(ZoneInfo(zone))
            expression = f"{local.minute} {local.hour} {local.day} {local.month} *"
            jobs[name] = schedule(conn, name, expression, "SELECT 1")
        conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [jobs["own"], '{"timezone": "America/St_Johns"}'])
        # The same fields read as UTC would not be due for hours.
        jobs["other"] = schedule(conn, "other", f"{due.minute} {due.hour} {due.day} {due.month} *", "SELECT 1")
        for name in zones:
            (run,) = wait_for_runs(conn, jobs[name], timeout=130)
            assert run.due_time == due
            assert run.status == "succeeded"
            assert 0 <= run.lateness < LATE_S
        assert runs_of(conn, jobs["other"]) == []
