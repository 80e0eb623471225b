"""The life of the extension in a server: before it is created, after it is dropped, and beside others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.server.support.jobs import (
    OPEN,
    insert_job,
    launcher_pid,
    one,
    rows,
    run_once,
    runs,
    runs_of,
    schedule,
    wait_for_runs,
    workers,
)
from tests.server.support.watching import log_since, sample, wait_for_launcher, wakeups
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]


# --- without the extension ---------------------------------------------------------------------


def test_a_server_without_the_extension_is_left_in_peace(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        conn.execute("DROP EXTENSION pg_clockwork")
    fresh_server.restart()
    with fresh_server.connect() as conn:
        pid = wait_for_launcher(conn)
        conn.execute("SET statement_timeout = '5s'")
        conn.execute("CREATE DATABASE unrelated")
        conn.execute("DROP DATABASE unrelated")
        conn.execute("CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, schedule text, command text)")
        conn.execute("INSERT INTO cron.job VALUES (1, '1 second', 'SELECT 1')")
        # Two seconds in which a job of a table that is not ours would be due.
        sample(2, lambda: None, 1)
        assert launcher_pid(conn) == pid
        conn.execute("DROP SCHEMA cron CASCADE")
        since = fresh_server.log().rpartition("starting PostgreSQL")[2]
        ours = [line for line in since.splitlines() if "pg_clockwork" in line and "statement" not in line.lower()]
        assert len(ours) == 1, ours
        assert ours[0].endswith("pg_clockwork launcher started")

        conn.execute("CREATE EXTENSION pg_clockwork")
        jobid = schedule(conn, "first", "1 second", "SELECT 1")
        (first, *_) = wait_for_runs(conn, jobid)
        assert first.due_time == one(conn, "SELECT schedule_anchor FROM cron.job") + timedelta(seconds=1)
        assert 0 <= first.lateness < 1


def test_an_extension_that_is_created_but_rolled_back_is_nothing(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        conn.execute("DROP EXTENSION pg_clockwork")
        pid = wait_for_launcher(conn)
        conn.execute(
            "BEGIN; CREATE EXTENSION pg_clockwork; SELECT cron.schedule('x', '1 second', 'SELECT 1'); ROLLBACK"
        )
        conn.execute("BEGIN; CREATE EXTENSION pg_clockwork")
        jobid = schedule(conn, "kept", "1 second", "SELECT 1")
        conn.execute("COMMIT")
        assert wait_for_runs(conn, jobid, 2)[0].status == "succeeded"
        assert launcher_pid(conn) == pid


def test_a_schema_of_another_name_is_noticed_at_once(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        schedule(conn, "before", "0 0 29 2 *", "SELECT 1")
        conn.execute("ALTER SCHEMA cron RENAME TO elsewhere")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is not installed"):
            conn.execute("SELECT elsewhere.schedule('other', '0 0 29 2 *', 'SELECT 1')")
        conn.execute("ALTER SCHEMA elsewhere RENAME TO cron")
        jobid = schedule(conn, "after", "1 second", "SELECT 1")
        assert wait_for_runs(conn, jobid)[0].status == "succeeded"


def test_a_created_extension_that_was_rolled_back_is_not_found(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        pid = wait_for_launcher(conn)
        conn.execute("DROP EXTENSION pg_clockwork")
        conn.execute("BEGIN; SAVEPOINT one; CREATE EXTENSION pg_clockwork")
        schedule(conn, "lost", "1 second", "SELECT 1")
        conn.execute("ROLLBACK TO one; CREATE EXTENSION pg_clockwork")
        jobid = schedule(conn, "kept", "1 second", "SELECT 1")
        conn.execute("COMMIT")
        assert wait_for_runs(conn, jobid)[0].status == "succeeded"
        assert rows(conn, "SELECT jobname FROM cron.job") == [("kept",)]
        assert launcher_pid(conn) == pid


def test_the_extension_can_be_dropped_and_created_while_jobs_run(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        pid = wait_for_launcher(conn)
        conn.execute("CREATE TABLE public.proof (what text)")
        old = schedule(conn, "old", "1 second", "SELECT pg_sleep(4); INSERT INTO public.proof VALUES ('old')")
        wait_until(lambda: runs(conn, "status = 'running'"), message="a run of the old extension")
        (old_run, *_) = runs_of(conn, old)
        conn.execute("SET lock_timeout = '5s'")
        conn.execute("DROP EXTENSION pg_clockwork")
        conn.execute("CREATE EXTENSION pg_clockwork")
        new = schedule(conn, "new", "1 second", "SELECT pg_sleep(0.3); INSERT INTO public.proof VALUES ('new')")
        assert new == old, "the numbers start again, or this test proves nothing"
        found = wait_for_runs(conn, new, 4)
        assert found[0].runid == old_run.runid
        wait_until(
            lambda: one(conn, "SELECT count(*) FROM public.proof WHERE what = 'old'") == 1, message="the old run's end"
        )
        conn.execute("SELECT cron.unschedule(%s::bigint)", [new])
        wait_until(lambda: not workers(conn), message="the last run to end")
        wait_until(lambda: not runs(conn, "status = ANY (%s)", list(OPEN)), message="every record to be final")
        done = runs_of(conn, new)
        assert all(run.command and "'new'" in run.command for run in done)
        ran = [run for run in done if run.start_time]
        assert {run.status for run in ran} == {"succeeded"}
        assert len(ran) == one(conn, "SELECT count(*) FROM public.proof WHERE what = 'new'")
        assert all(
            run.end_time - run.start_time < timedelta(seconds=2) for run in ran if run.end_time and run.start_time
        )
        assert ran[0].lateness < 2, "the new job waited for the old one's run"
        assert launcher_pid(conn) == pid


# --- the database of the jobs ------------------------------------------------------------------


@pytest.fixture
def without_home(fresh_server: Server) -> Server:
    """A server whose cron.database_name names no database."""
    fresh_server.configure({"cron.database_name": "missing"})
    fresh_server.restart()
    return fresh_server


def test_a_missing_home_database_is_complained_about_quietly(without_home: Server, wait_until: WaitUntil) -> None:
    complaint = 'FATAL:  database "missing" does not exist'
    with without_home.connect() as conn:
        wait_until(lambda: complaint in without_home.log(), message="a complaint")
        # Eight seconds: once a second would be a flood.
        sample(8, lambda: None, 1)
        assert without_home.log().count(complaint) <= 4
        conn.execute("CREATE DATABASE other")
        conn.execute("DROP DATABASE other")
        with pytest.raises(psycopg.errors.RaiseException, match="can only create extension in database missing"):
            conn.execute("DROP EXTENSION pg_clockwork; CREATE EXTENSION pg_clockwork")
        conn.execute("CREATE DATABASE missing")
    without_home.stop("fast")


def test_another_home_database_serves_as_well(fresh_server: Server) -> None:
    server = fresh_server
    with server.connect() as conn:
        conn.execute("DROP EXTENSION pg_clockwork")
        conn.execute("CREATE DATABASE home ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    server.configure({"cron.database_name": "home"})
    server.restart()
    with server.connect("home") as conn:
        conn.execute("CREATE EXTENSION pg_clockwork")
        jobid = schedule(conn, "elsewhere", "1 second", "DO $$ BEGIN RAISE 'Größe'; END $$")
        (run, *_) = wait_for_runs(conn, jobid)
        assert (run.return_message or "").startswith("ERROR: Größe\n")
        foreign = run_once(conn, "DO $$ BEGIN RAISE '%', U&'\\65E5\\672C'; END $$", database="home")
        assert foreign.status == "failed"
        assert foreign.end_time is not None


# --- commands of administrators ----------------------------------------------------------------


def test_databases_can_be_dropped_while_jobs_run(conn: Connection, wait_until: WaitUntil) -> None:
    conn.execute("CREATE DATABASE lifecycle_target")
    conn.execute("CREATE DATABASE lifecycle_unrelated")
    tick = schedule(conn, "tick", "1 second", "SELECT pg_sleep(0.5)")
    target = schedule(conn, "target", "1 second", "SELECT pg_sleep(60)", database="lifecycle_target")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", target), message="a run in the database")
    conn.execute("SET statement_timeout = '8s'")
    conn.execute("DROP DATABASE lifecycle_unrelated")
    with pytest.raises(psycopg.errors.ObjectInUse):
        conn.execute("DROP DATABASE lifecycle_target")
    conn.execute("DROP DATABASE lifecycle_target WITH (FORCE)")
    conn.execute("RESET statement_timeout")
    wait_until(
        lambda: runs(conn, "jobid = %s AND reason = 'database_missing'", target), message="a failure that says why"
    )
    (first, *_) = runs_of(conn, target)
    assert (first.status, first.reason) == ("failed", "terminated")
    conn.execute("SELECT cron.unschedule(%s::bigint)", [target])
    wait_for_runs(conn, tick, len(runs_of(conn, tick)) + 2)
    due = [run.due_time for run in runs_of(conn, tick) if run.due_time]
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(seconds=1)}


def test_an_idle_target_database_can_be_dropped_and_copied(conn: Connection) -> None:
    """A run leaves nobody behind in its database."""
    conn.execute("CREATE DATABASE lifecycle_idle")
    assert run_once(conn, "SELECT 1", database="lifecycle_idle").status == "succeeded"
    conn.execute("SET statement_timeout = '5s'")
    conn.execute("CREATE DATABASE lifecycle_copy TEMPLATE lifecycle_idle")
    conn.execute("DROP DATABASE lifecycle_copy")
    conn.execute("DROP DATABASE lifecycle_idle")
    conn.execute("RESET statement_timeout")


def test_launching_can_be_switched_off_and_on(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        tick = schedule(conn, "tick", "1 second", "SELECT 1")
        long = schedule(conn, "long", "1 second", "SELECT pg_sleep(4)")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", long), message="a long run")
        wait_for_runs(conn, tick)
        fresh_server.configure({"cron.launch_active_jobs": False})
        length = len(fresh_server.log())
        fresh_server.reload()
        wait_until(lambda: "launcher reloaded configuration" in log_since(fresh_server, length), message="the reload")
        off = one(conn, "SELECT clock_timestamp()")
        # Three seconds in which three runs would start: absence is what is asserted.
        sample(3, lambda: None, 1)
        assert runs(conn, "jobid = %s AND start_time > %s", tick, off) == []
        assert runs_of(conn, long)[0].status in ("running", "succeeded"), "a run that goes on is left alone"
        fresh_server.configure({"cron.launch_active_jobs": True})
        on = one(conn, "SELECT clock_timestamp()")
        fresh_server.reload()
        wait_until(
            lambda: runs(conn, "jobid = %s AND status = 'succeeded' AND due_time > %s", tick, on), message="runs again"
        )
        assert rows(conn, "SELECT DISTINCT active FROM cron.job") == [(True,)]
        assert wait_for_runs(conn, long)[0].status == "succeeded"


def test_a_reload_with_thousands_of_changes_keeps_the_rhythm(conn: Connection, server: Server) -> None:
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    conn.execute("SELECT cron.schedule('many ' || i, '0 0 29 2 *', 'SELECT 1') FROM generate_series(1, 2000) i")
    for _ in range(5):
        server.reload()
        conn.execute("UPDATE cron.job SET command = command || ' ' WHERE jobname LIKE 'many %'")
        conn.execute("ANALYZE cron.job")
    wait_for_runs(conn, jobid, 4)
    conn.execute("DELETE FROM cron.job WHERE jobname LIKE 'many %'")
    due = [run.due_time for run in runs_of(conn, jobid) if run.due_time]
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(seconds=1)}


def test_what_jobs_have_in_common_outlives_each_of_them(conn: Connection) -> None:
    pid = wait_for_launcher(conn)
    options = {"timezone": "Asia/Tokyo", "retry_on": ["40001"], "max_attempts": 2, "settings": {"work_mem": "5MB"}}
    _, second, third = (
        one(
            conn,
            "SELECT cron.schedule(%s, '1 second', 'SELECT 1', %s)",
            name,
            Jsonb(options),
        )
        for name in ("first", "second", "third")
    )
    conn.execute("SELECT cron.unschedule('first')")
    conn.execute("SELECT cron.alter_job(%s, options => %s)", (second, Jsonb({"schedule": "0 0 29 2 *"})))
    conn.execute("UPDATE cron.job SET timezone = NULL WHERE jobid = %s", (second,))
    # Others, in the memory that would be free.
    for number in range(50):
        schedule(conn, f"other{number}", f"{number} 1 29 2 *", "SELECT 1")
    conn.execute("SELECT cron.alter_job(%s, options => %s)", (second, Jsonb({"schedule": "1 second"})))
    assert wait_for_runs(conn, second)[-1].status == "succeeded"
    assert {run.status for run in wait_for_runs(conn, third, 3)} == {"succeeded"}
    assert launcher_pid(conn) == pid


def test_jobs_committed_by_hundreds_have_no_past(conn: Connection, wait_until: WaitUntil) -> None:
    """More changes than can be told one by one: the new jobs are read with all others, and have nothing to catch up."""
    # Two quiet seconds, so that the last look at the table is older than the jobs.
    sample(2, lambda: None, 1)
    with conn.transaction():
        for i in range(300):
            insert_job(conn, jobname=f"hundred {i}", schedule="* * * * *" if i else "1 second")
        conn.execute("UPDATE cron.job SET schedule_anchor = now() - interval '1 hour' WHERE jobname LIKE 'hundred %'")
        committed = one(conn, "SELECT clock_timestamp()")
    ticking = one(conn, "SELECT jobid FROM cron.job WHERE jobname = 'hundred 0'")
    wait_for_runs(conn, ticking, 2)
    assert runs(conn, "due_time < %s AND jobid IN (SELECT jobid FROM cron.job)", committed) == []
    conn.execute("DELETE FROM cron.job")


# --- nothing to do -----------------------------------------------------------------------------


@pytest.mark.local_only
@pytest.mark.settings({"autovacuum": "off"})
def test_a_launcher_with_nothing_to_do_sleeps_for_half_minutes(fresh_server: Server, wait_until: WaitUntil) -> None:
    """Twice a minute it looks whether the clock was set; nothing else may wake it, however many jobs there are."""
    with fresh_server.connect() as conn:
        launcher = wait_for_launcher(conn)
        conn.execute(
            "INSERT INTO cron.job (jobname, schedule, command)"
            " SELECT 'j' || i, '0 0 29 2 *', 'SELECT 1' FROM generate_series(1, 1000) i"
        )
        run_once(conn, "SELECT 1")

        wait_until(lambda: not workers(conn), timeout=60, message="the worker of that run to leave")

        def rests() -> bool:
            before = wakeups(launcher)
            sample(5, lambda: None, 1)
            return wakeups(launcher) == before

        wait_until(rests, timeout=60, message="the launcher to rest")

    # Half a minute in which nothing may happen: absence is what is asserted.
    woken = wakeups(launcher)
    sample(31, lambda: None, 1)
    woken = wakeups(launcher) - woken
    assert woken <= 2, f"the launcher woke {woken} times in 31 s without anything to do"
