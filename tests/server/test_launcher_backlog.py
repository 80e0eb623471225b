"""A history that takes no records stops no job: the backlog keeps them, and they move when it takes them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    Connection,
    at,
    launcher_pid,
    one,
    rows,
    runs,
    runs_of,
    schedule,
    wait_for_no_gap,
    wait_for_runs,
)
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

REFUSE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no records today'; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.refuse();
"""
ACCEPT = "DROP TRIGGER IF EXISTS refuse ON cron.job_run_details; DROP FUNCTION IF EXISTS public.refuse()"


@contextmanager
def locked(server: Server, *tables: str) -> Iterator[None]:
    """Nobody else can read or write these tables."""
    with server.connect() as holder, holder.transaction():
        for table in tables:
            holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@pytest.fixture
def journal(conn: Connection) -> Iterator[str]:
    """A table in which commands leave their mark; a command that does."""
    conn.execute("DROP TABLE IF EXISTS public.journal; CREATE TABLE public.journal (job text, at timestamptz)")
    yield "INSERT INTO public.journal VALUES ('{}', clock_timestamp())"
    conn.execute("DROP TABLE public.journal")


def marks(conn: Connection, name: str = "%") -> int:
    return int(one(conn, "SELECT count(*) FROM public.journal WHERE job LIKE %s", name))


def backlog(conn: Connection) -> int:
    return int(one(conn, "SELECT count(*) FROM cron.record_backlog"))


def assert_records_are_complete(conn: Connection, jobid: int, name: str, wait_until: WaitUntil) -> None:
    """Each mark has its record, each due time one, and the backlog is empty."""
    conn.execute("UPDATE cron.job SET active = false WHERE jobid = %s", [jobid])
    wait_until(lambda: backlog(conn) == 0, 40, "the backlog to be empty")
    wait_until(lambda: not runs(conn, "jobid = %s AND status = ANY (%s)", jobid, list(OPEN)), message="the runs to end")
    wait_for_no_gap(conn, jobid)
    found = runs_of(conn, jobid)
    assert len({run.due_time for run in found}) == len(found)
    assert sum(run.status == "succeeded" for run in found) == marks(conn, name)
    assert all(run.end_time and run.start_time and run.job_pid for run in found if run.status == "succeeded")
    assert {run.status for run in found} <= {"succeeded", "skipped"}


def test_jobs_go_on_while_somebody_locks_the_history(
    server: Server, conn: Connection, journal: str, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "tick", "1 second", journal.format("tick"))
    failing = schedule(conn, "failing", "1 second", "SELECT 1/0")
    wait_for_runs(conn, jobid)
    with locked(server, "cron.job_run_details"):
        before = marks(conn)
        wait_until(lambda: marks(conn) >= before + 5, message="five runs during the lock")
        kept = rows(conn, "SELECT status, end_time IS NOT NULL FROM cron.record_backlog WHERE jobid = %s", jobid)
        assert ("succeeded", True) in kept
        statuses = rows(conn, "SELECT DISTINCT sqlstate FROM cron.record_backlog WHERE jobid = %s", failing)
        assert ("22012",) in statuses
    conn.execute("SELECT cron.unschedule(%s::bigint)", [failing])
    assert_records_are_complete(conn, jobid, "tick", wait_until)
    assert {run.sqlstate for run in runs(conn, "jobid = %s AND status = 'failed'", failing)} == {"22012"}


def test_a_run_that_began_before_the_lock_has_its_end_recorded(
    server: Server, conn: Connection, journal: str, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "long", at(conn), "SELECT pg_sleep(1.5); " + journal.format("long"))
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="the run")
    with locked(server, "cron.job_run_details"):
        wait_until(lambda: backlog(conn) == 1, message="its end in the backlog")
    (run,) = wait_for_runs(conn, jobid)
    assert (run.status, run.command_tag, marks(conn)) == ("succeeded", "INSERT", 1)
    wait_until(lambda: backlog(conn) == 0, message="an empty backlog")


def test_jobs_go_on_while_a_trigger_refuses_every_record(conn: Connection, journal: str, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "tick", "1 second", journal.format("tick"))
    wait_for_runs(conn, jobid)
    conn.execute(REFUSE)
    try:
        before = marks(conn)
        wait_until(lambda: marks(conn) >= before + 4, message="four runs meanwhile")
        assert backlog(conn) >= 3
    finally:
        conn.execute(ACCEPT)
    assert_records_are_complete(conn, jobid, "tick", wait_until)


def test_one_record_that_is_refused_for_ever_stays_visible_and_holds_up_no_other(
    conn: Connection, journal: str, wait_until: WaitUntil
) -> None:
    conn.execute("ALTER TABLE cron.job_run_details ADD CONSTRAINT never CHECK (command <> 'SELECT 13') NOT VALID")
    try:
        hated = schedule(conn, "hated", at(conn), "SELECT 13")
        jobid = schedule(conn, "tick", "1 second", journal.format("tick"))
        wait_for_runs(conn, jobid, 3)
        wait_until(
            lambda: rows(conn, "SELECT status FROM cron.record_backlog WHERE jobid = %s", hated) == [("succeeded",)],
            message="the refused record, final, in the backlog",
        )
        assert not runs_of(conn, hated)
    finally:
        conn.execute("ALTER TABLE cron.job_run_details DROP CONSTRAINT never")
    wait_until(lambda: [run.status for run in runs_of(conn, hated)] == ["succeeded"], 40, "its move to the history")


def test_the_launcher_may_die_while_records_are_in_the_backlog(
    server: Server, conn: Connection, journal: str, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "tick", "1 second", journal.format("tick"))
    wait_for_runs(conn, jobid)
    conn.execute(REFUSE)
    try:
        wait_until(lambda: backlog(conn) >= 2, message="records in the backlog")
        pid = launcher_pid(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
    finally:
        conn.execute(ACCEPT)
    assert_records_are_complete(conn, jobid, "tick", wait_until)


def test_the_server_may_crash_while_records_are_in_the_backlog(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.journal (job text, at timestamptz)")
        jobid = schedule(conn, "tick", "1 second", "INSERT INTO public.journal VALUES ('tick', now())")
        long = schedule(conn, "long", at(conn), "SELECT pg_sleep(600)")
        wait_for_runs(conn, jobid)
        conn.execute(REFUSE)
        wait_until(lambda: backlog(conn) >= 3, message="records in the backlog")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", long), message="a long run")
        kept = {
            runid: status
            for runid, status in rows(conn, "SELECT runid, status FROM cron.record_backlog")
            if status == "succeeded"
        }
    assert kept
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        before = marks(conn)
        wait_until(lambda: marks(conn) >= before + 2, message="runs while the history still refuses")
        conn.execute(ACCEPT)
        wait_until(lambda: backlog(conn) == 0, 40, "an empty backlog")
        moved = rows(conn, "SELECT runid, status FROM cron.job_run_details WHERE runid = ANY (%s)", list(kept))
        assert dict(moved) == kept
        wait_until(
            lambda: [(run.status, run.reason) for run in runs_of(conn, long)] == [("failed", "server_restart")],
            message="the orphan to be closed",
        )
        wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2)
        # A run whose record was open when the server went down may have committed: never the other way round.
        recorded = runs(conn, "jobid = %s AND status = 'succeeded'", jobid)
        assert len(recorded) <= marks(conn) <= len(runs_of(conn, jobid))


def test_without_history_and_backlog_runs_wait_and_nothing_is_lost(
    server: Server, conn: Connection, journal: str, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "tick", "1 second", journal.format("tick"))
    wait_for_runs(conn, jobid)
    with locked(server, "cron.job_run_details", "cron.record_backlog"):
        due = one(conn, "SELECT clock_timestamp()")
        wait_until(lambda: one(conn, "SELECT clock_timestamp() - %s > '3 seconds'", due), message="three due times")
        assert one(conn, "SELECT max(at) - %s FROM public.journal", due) is not None
        assert one(conn, "SELECT count(*) FROM public.journal WHERE at > %s + interval '1.5 seconds'", due) == 0
    wait_for_runs(conn, jobid, 4)
    assert_records_are_complete(conn, jobid, "tick", wait_until)


def test_users_see_the_backlog_of_their_own_runs(server: Server, conn: Connection) -> None:
    conn.execute("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA cron TO keeper")
    conn.execute(
        "INSERT INTO cron.record_backlog (runid, jobid, username, status)"
        " VALUES (-1, -1, 'keeper', 'failed'), (-2, -2, 'postgres', 'failed')"
    )
    try:
        with server.connect(user="keeper") as keeper:
            assert rows(keeper, "SELECT runid FROM cron.record_backlog") == [(-1,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                keeper.execute("DELETE FROM cron.record_backlog")
    finally:
        conn.execute("DELETE FROM cron.record_backlog WHERE runid < 0")
        conn.execute("DROP OWNED BY keeper; DROP ROLE keeper")
