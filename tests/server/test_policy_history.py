"""The option history: which records stay, and what must go on as if all of them did."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.support.clock import clocked_server, wake
from tests.server.support.jobs import (
    one,
    rows,
    run_now,
    runs,
    runs_of,
    wait_for_runs,
    wait_for_status,
)
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import Server
from tests.support.targets import Target
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

COUNT = "INSERT INTO public.seen (due_time) VALUES (current_setting('cron.due_time')::timestamptz)"


def plan(conn: Connection, name: str, when: str, command: str, **options: Any) -> int:
    return int(one(conn, "SELECT cron.schedule(%s, %s, %s, %s::jsonb)", name, when, command, json.dumps(options)))


def statuses(conn: Connection, jobid: int) -> list[str | None]:
    return [run.status for run in runs_of(conn, jobid)]


def stop(conn: Connection, jobid: int) -> None:
    """Nothing of it is due any more, and nothing goes on."""
    conn.execute("SELECT cron.alter_job(%s, active := false)", [jobid])
    poll(lambda: not {"queued", "starting", "running"} & set(statuses(conn, jobid)), 15, "the last run to end")


def wait_for_trim(conn: Connection) -> None:
    """Wait until the launcher has looked at what is to be removed, and removed it."""
    witness = plan(conn, "witness", "1 second", "SELECT 1", history="none")
    first = wait_for_runs(conn, witness)[0]
    poll(lambda: first.runid not in {run.runid for run in runs_of(conn, witness)}, 15, "a record to be removed")
    conn.execute("SELECT cron.unschedule(%s::bigint)", [witness])


@pytest.fixture
def seen(conn: Connection) -> Iterator[Connection]:
    conn.execute("DROP TABLE IF EXISTS public.seen; CREATE TABLE public.seen (due_time timestamptz)")
    yield conn
    conn.execute("DROP TABLE public.seen")


# --- what stays --------------------------------------------------------------------------------


def test_failures_keeps_those_and_of_the_successes_the_last(conn: Connection, wait_until: WaitUntil) -> None:
    conn.execute("DROP SEQUENCE IF EXISTS public.tries; CREATE SEQUENCE public.tries")
    third = "SELECT 1 / (nextval('public.tries') % 3)"
    jobid = plan(conn, "third", "1 second", third, history="failures")
    wait_until(lambda: one(conn, "SELECT last_value FROM public.tries") >= 7, 30, "seven runs")
    stop(conn, jobid)
    failed = one(conn, "SELECT last_value / 3 FROM public.tries")
    wait_for_trim(conn)
    assert statuses(conn, jobid).count("succeeded") == 1
    assert statuses(conn, jobid).count("failed") == failed >= 2
    conn.execute("DROP SEQUENCE public.tries")


def test_none_keeps_the_last_and_what_somebody_asked_for(seen: Connection, wait_until: WaitUntil) -> None:
    jobid = plan(seen, "silent", "1 second", COUNT, history="none")
    wait_for_runs(seen, jobid)
    asked = run_now(seen, jobid)
    wait_until(lambda: one(seen, "SELECT count(*) FROM public.seen") >= 5, 30, "five runs")
    stop(seen, jobid)
    wait_for_trim(seen)
    last = one(seen, "SELECT max(due_time) FROM public.seen")
    assert {(run.trigger, run.status, run.due_time == last or run.runid == asked) for run in runs_of(seen, jobid)} == {
        ("schedule", "succeeded", True),
        ("manual", "succeeded", True),
    }


def test_skips_and_attempts_go_too(conn: Connection, wait_until: WaitUntil) -> None:
    slow = plan(conn, "slow", "1 second", "SELECT pg_sleep(2.5)", history="none", on_overlap="skip")
    wait_until(lambda: ("skipped", "overlap") in [(r.status, r.reason) for r in runs_of(conn, slow)], 20, "a skip")
    hardy = plan(conn, "hardy", "3 seconds", "SELECT 1/0", history="none", max_attempts=2, retry_delay="0.1 seconds")
    wait_until(lambda: [run.attempt for run in runs_of(conn, hardy)] == [1, 2], 20, "two attempts")
    due = runs_of(conn, hardy)[0].due_time
    wait_until(lambda: {run.due_time for run in runs_of(conn, hardy)}.isdisjoint({due}), 20, "both to be gone")
    stop(conn, slow)
    stop(conn, hardy)
    wait_until(lambda: len(runs_of(conn, slow)) == 1, 10, "the skips to be gone")
    assert len({run.due_time for run in runs_of(conn, hardy)}) == 1


def test_a_change_holds_for_the_records_that_are_there(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = plan(conn, "changing", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid, 3)
    stop(conn, jobid)
    conn.execute("""SELECT cron.alter_job(%s, '{"history": "failures"}'::jsonb)""", [jobid])
    wait_until(lambda: len(runs_of(conn, jobid)) == 1, 10, "all but the last to be gone")
    conn.execute("UPDATE cron.job SET history = 'all', active = true WHERE jobid = %s", [jobid])
    wait_for_runs(conn, jobid, 3)
    stop(conn, jobid)


def test_what_cannot_be_removed_holds_up_nobody(conn: Connection, server: Server, wait_until: WaitUntil) -> None:
    conn.execute("""
        CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it stays'; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON cron.job_run_details
          FOR EACH ROW WHEN (OLD.command = 'SELECT 4711') EXECUTE FUNCTION public.keep()""")
    try:
        with conn.transaction():
            kept = plan(conn, "kept", "1 second", "SELECT 4711", history="none")
            locked = plan(conn, "locked", "1 second", "SELECT 1", history="none")
            other = plan(conn, "other", "1 second", "SELECT 2", history="none")
        wait_for_runs(conn, locked)
        with server.connect() as holder:
            holder.execute("BEGIN")
            (held,) = holder.execute(
                "SELECT runid FROM cron.job_run_details WHERE jobid = %s ORDER BY runid LIMIT 1 FOR UPDATE", [locked]
            ).fetchall()
            first = [run.runid for run in runs_of(conn, other)][:1]
            last = one(conn, "SELECT max(runid) FROM cron.job_run_details")

            def is_done() -> bool:
                newest = {jobid: {run.runid for run in runs_of(conn, jobid)} for jobid in (kept, locked, other)}
                return (
                    len(newest[kept]) >= 4
                    and held[0] in newest[locked]
                    and len({runid for runid in newest[locked] if runid <= last} - {held[0]}) == 0
                    and newest[other].isdisjoint(first)
                )

            wait_until(is_done, 30, "the others to be removed")
            holder.execute("ROLLBACK")
    finally:
        conn.execute("DROP TRIGGER keep ON cron.job_run_details; DROP FUNCTION public.keep()")


# --- what goes on ------------------------------------------------------------------------------


@pytest.mark.parametrize("history", ["failures", "none"])
def test_failures_are_counted_over_a_restart(fresh_server: Server, wait_until: WaitUntil, history: str) -> None:
    """Failures, a success between them, and a new launcher before the third in a row."""
    with fresh_server.connect() as conn:
        conn.execute("DROP SEQUENCE IF EXISTS public.tries; CREATE SEQUENCE public.tries")
        flaky = "SELECT 1 / (CASE nextval('public.tries') WHEN 1 THEN 1 WHEN 4 THEN 1 ELSE 0 END)"
        jobid = plan(conn, "flaky", "2 seconds", flaky, history=history, pause_after=3)

        def is_at(attempt: int) -> bool:
            drawn, is_called = rows(conn, "SELECT last_value, is_called FROM public.tries")[0]
            return is_called and drawn >= attempt and "starting" not in statuses(conn, jobid)

        # F of 2 and 3 do not count with F of 5 and 6: 4 was a success.
        wait_until(lambda: is_at(6), 30, "six runs")
        assert statuses(conn, jobid).count("succeeded") == 1, "the first one is gone, the other keeps them apart"
        pid = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        why = wait_until(
            lambda: one(conn, "SELECT paused_reason FROM cron.job WHERE jobid = %s", jobid), 30, "the job to be paused"
        )
        assert why.startswith("paused after 3 consecutive failures")
        assert one(conn, "SELECT last_value FROM public.tries") == 7
        kept = 5 if history == "failures" else 3
        assert statuses(conn, jobid).count("failed") == kept


def test_a_run_after_others_finds_out_how_they_ended(fresh_server: Server, wait_until: WaitUntil) -> None:
    """One parent ended long ago and has run since; the other goes on; and the launcher is a new one."""
    with fresh_server.connect() as conn:
        due = one(conn, "SELECT date_trunc('second', clock_timestamp()) + interval '3 seconds'")
        with conn.transaction():
            quick = plan(conn, "quick", "* * * * * *", "SELECT 1", history="none")
            plan(conn, "long", f"@at {due.isoformat()}", "SELECT pg_sleep(5)", history="none")
            child = plan(conn, "child", '@after "quick", "long"', "SELECT 1")
        wait_until(
            lambda: runs(conn, "jobid = %s AND due_time > %s + interval '2 seconds'", quick, due), 20, "later runs"
        )
        assert runs(conn, "jobid = %s AND due_time = %s AND status = 'succeeded'", quick, due), "still awaited"
        pid = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        ended = "jobid = %s AND due_time = %s AND end_time IS NOT NULL"
        (run,) = wait_until(lambda: runs(conn, ended, child, due), 20, "the run after both")
        assert (run.status, run.reason) == ("succeeded", None)
        wait_until(lambda: not runs(conn, "jobid = %s AND due_time = %s", quick, due), 20, "its record to go now")


def test_a_server_that_was_down_knows_what_has_run(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.seen (due_time timestamptz)")
        jobid = plan(conn, "silent", "* * * * * *", COUNT, history="none", on_missed="run_all")
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.seen") >= 3, 20, "three runs")
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        before = one(conn, "SELECT count(*) FROM public.seen")
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.seen") >= before + 2, 30, "runs after the crash")
        stop(conn, jobid)
        assert rows(conn, "SELECT due_time FROM public.seen GROUP BY due_time HAVING count(*) > 1") == []
        first, last, count = rows(conn, "SELECT min(due_time), max(due_time), count(*) FROM public.seen")[0]
        # The crash may have cost one run its end: its record is gone as well by now.
        assert timedelta(seconds=count - 1) <= last - first <= timedelta(seconds=count)


@pytest.mark.local_only
@pytest.mark.skipif(sys.platform != "linux", reason="the clock is shifted by a preloaded library")
def test_a_clock_that_is_set_back_repeats_nothing(target: Target, extension_files: Path) -> None:
    assert target.pg_config is not None
    with (
        clocked_server(target.pg_config, extension_files) as (server, clock),
        server.connect() as conn,
    ):

        def wait_for_due(after: datetime) -> None:
            poll(lambda: one(conn, "SELECT max(due_time) FROM public.seen") > after, 30, "runs at later due times")

        def set_clock(by: timedelta) -> None:
            length = len(server.log())
            clock.set(by)
            wake(server, conn)
            poll(lambda: "the clock was set" in server.log()[length:], 10, "the launcher to notice")

        conn.execute("CREATE TABLE public.seen (due_time timestamptz)")
        jobid = plan(conn, "silent", "* * * * * *", COUNT, history="none")
        poll(lambda: one(conn, "SELECT count(*) FROM public.seen") >= 7, 30, "seven runs")
        poll(lambda: len(runs_of(conn, jobid)) <= 3, 10, "their records to be gone")
        last = one(conn, "SELECT max(due_time) FROM public.seen")
        set_clock(timedelta(seconds=-6))
        wait_for_due(last)

        # What was jumped over has not run, and can come after all.
        set_clock(timedelta(days=1))
        wait_for_due(last + timedelta(hours=23))
        set_clock(timedelta(days=-1))
        today = "SELECT max(due_time) FROM public.seen WHERE due_time < %s"
        before = one(conn, today, last + timedelta(hours=12))
        poll(lambda: one(conn, today, last + timedelta(hours=12)) > before, 30, "it to go on today")
        assert rows(conn, "SELECT due_time FROM public.seen GROUP BY due_time HAVING count(*) > 1") == []


# --- what people ask ---------------------------------------------------------------------------


def test_a_backfill_leaves_alone_what_may_have_run(seen: Connection, wait_until: WaitUntil) -> None:
    jobid = plan(seen, "silent", "1 second", COUNT, history="none")
    wait_until(lambda: one(seen, "SELECT count(*) FROM public.seen") >= 4, 20, "four runs")
    stop(seen, jobid)
    wait_until(lambda: len(runs_of(seen, jobid)) == 1, 10, "the older records to be gone")
    first = one(seen, "SELECT min(due_time) FROM public.seen")
    notices: list[str | None] = []
    seen.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    ask = "SELECT action, status FROM cron.backfill(%s, %s, %s)"
    last = one(seen, "SELECT max(due_time) FROM public.seen")
    found = rows(seen, ask, jobid, first, last)
    assert found == [("leave", None)] * (len(found) - 1) + [("leave", "succeeded")]
    assert notices == [f"{len(found) - 1} due times without a record are left alone"]
    seen.execute("""SELECT cron.alter_job(%s, '{"history": "all"}'::jsonb)""", [jobid])
    assert rows(seen, ask, jobid, first, first) == [("run", None)]


def test_who_waits_for_a_record_that_goes_is_told(conn: Connection, server: Server) -> None:
    jobid = plan(conn, "long", "@at 2199-01-01", "SELECT pg_sleep(60)")
    runid = run_now(conn, jobid)
    wait_for_status(conn, runid, "running")
    state = "SELECT state = 'active' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s"
    with server.connect() as waiter:
        waiter.pgconn.send_query(f"SELECT cron.wait({runid})".encode())
        poll(lambda: one(conn, state, waiter.info.backend_pid), 10, "the wait")
        conn.execute("DELETE FROM cron.job_run_details WHERE runid = %s", [runid])
        result = waiter.pgconn.get_result()
        assert result is not None
        assert f"the record of run {runid} is gone" in result.error_message.decode()
        assert waiter.pgconn.get_result() is None
    conn.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_clockwork worker'")
    wait_for_runs(conn, jobid)
