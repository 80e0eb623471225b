"""Jobs follow transactions: what is committed runs, what is not does not, and nobody waits for an open one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    at,
    launcher_pid,
    one,
    rows,
    run_once,
    runs,
    runs_of,
    schedule,
    unfinished,
    wait_for_no_gap,
    wait_for_runs,
)
from tests.server.support.watching import log_since, sample
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]


@pytest.fixture
def other(server: Server, conn: Connection) -> Iterator[Connection]:
    """A second session, which holds transactions open."""
    with server.connect() as connection:
        yield connection
        connection.execute("ROLLBACK")


@pytest.fixture
def ann(server: Server, conn: Connection) -> Iterator[Connection]:
    """A session of an ordinary role that may use the scheduler and nothing else."""
    conn.execute("DO $$ BEGIN CREATE ROLE isolation_ann LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    conn.execute("GRANT USAGE ON SCHEMA cron TO isolation_ann")
    with server.connect() as connection:
        connection.execute("SET SESSION AUTHORIZATION isolation_ann")
        yield connection
        connection.execute("ROLLBACK")


# --- what is not committed ---------------------------------------------------------------------


def test_a_job_starts_only_after_its_transaction_has_committed(conn: Connection, other: Connection) -> None:
    other.execute("BEGIN")
    kept = schedule(other, "kept", "1 second", "SELECT 1")
    other.execute("SAVEPOINT s")
    undone = schedule(other, "undone", "1 second", "SELECT 1")
    other.execute("ROLLBACK TO s")
    other.execute(
        "DO $$ BEGIN PERFORM cron.schedule('caught', '1 second', 'SELECT 1'); RAISE 'x';"
        " EXCEPTION WHEN raise_exception THEN PERFORM cron.schedule('inner', '1 second', 'SELECT 1'); END $$"
    )
    # Two seconds in which both jobs would be due: absence is what is asserted.
    assert set(
        sample(
            2,
            lambda: one(conn, "SELECT count(*) FROM cron.job_run_details WHERE jobid = ANY (%s)", [kept, undone]),
            0.1,
        )
    ) == {0}
    committed = one(conn, "SELECT clock_timestamp()")
    other.execute("COMMIT")
    inner = one(conn, "SELECT jobid FROM cron.job WHERE jobname = 'inner'")
    for jobid in (kept, inner):
        first = wait_for_runs(conn, jobid)[0]
        assert first.start_time is not None
        assert committed < first.start_time < committed + timedelta(seconds=2)
        assert 0 <= first.lateness < 1
    assert runs_of(conn, undone) == []
    assert one(conn, "SELECT count(*) FROM cron.job WHERE jobname = 'caught'") == 0


def test_a_job_of_a_transaction_that_was_rolled_back_never_runs(conn: Connection, other: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS public.never; CREATE TABLE public.never (i int)")
    other.execute("BEGIN")
    schedule(other, "never", "1 second", "INSERT INTO public.never VALUES (1)")
    other.execute("ROLLBACK")
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness, 2)
    assert rows(conn, "SELECT * FROM public.never") == []
    conn.execute("DROP TABLE public.never")


def test_an_open_change_of_a_job_changes_nothing_yet(conn: Connection, other: Connection) -> None:
    changed = schedule(conn, "changed", "1 second", "SELECT 'old'")
    removed = schedule(conn, "removed", "1 second", "SELECT 'old'")
    other.execute("BEGIN")
    other.execute("SELECT cron.alter_job(%s, schedule := '0 0 29 2 *', command := $$SELECT 'new'$$)", [changed])
    other.execute("SELECT cron.unschedule(%s::bigint)", [removed])
    for jobid in (changed, removed):
        assert {run.command for run in wait_for_runs(conn, jobid, 3)} == {"SELECT 'old'"}
    other.execute("ROLLBACK")
    for jobid in (changed, removed):
        wait_for_runs(conn, jobid, 4)
        wait_for_no_gap(conn, jobid)


@pytest.mark.parametrize("mode", ["truncate", "delete", "replica"])
def test_direct_changes_of_the_table_are_noticed(conn: Connection, other: Connection, mode: str) -> None:
    if mode == "replica":
        other.execute("SET session_replication_role = replica")
        other.execute(
            "INSERT INTO cron.job (jobname, schedule, command, nodeport) VALUES ('direct', '1 second', 'SELECT 1', 1)"
        )
        wait_for_runs(conn, one(conn, "SELECT jobid FROM cron.job WHERE jobname = 'direct'"))
        return
    jobid = schedule(conn, "direct", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    other.execute("TRUNCATE cron.job" if mode == "truncate" else "DELETE FROM cron.job")
    wait_for = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, wait_for)
    count = len(runs_of(conn, jobid))
    wait_for_runs(conn, wait_for, 3)
    assert len(runs_of(conn, jobid)) == count


@pytest.mark.settings({"max_prepared_transactions": 5})
def test_jobs_of_prepared_transactions_run_once_those_are_committed(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobs = {}
        for fate in ("committed", "rolled back", "pending"):
            conn.execute("BEGIN")
            jobs[fate] = schedule(conn, fate, "1 second", "SELECT 1")
            conn.execute(f"PREPARE TRANSACTION '{fate}'".encode())
        conn.execute("COMMIT PREPARED 'committed'")
        conn.execute("ROLLBACK PREPARED 'rolled back'")
        # COMMIT PREPARED wakes nobody: it is noticed with the next reason, or within half a minute.
        wait_for_runs(conn, jobs["committed"], timeout=40)
        assert runs_of(conn, jobs["rolled back"]) == []
        assert runs_of(conn, jobs["pending"]) == []
        conn.execute("COMMIT PREPARED 'pending'")
        # Now there is a reason every second.
        assert wait_for_runs(conn, jobs["pending"], timeout=5)[0].status == "succeeded"


# --- nobody waits for an open transaction ------------------------------------------------------


def test_an_open_deletion_of_ones_own_record_holds_up_nobody(
    server: Server, conn: Connection, ann: Connection, wait_until: WaitUntil
) -> None:
    """Everybody may delete records of their own; a row locked that way may not stop the others' jobs."""
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    own = int(one(ann, "SELECT cron.schedule('own', '1 second', 'SELECT pg_sleep(1.4)')"))
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", own), message="a run of the ordinary role")
    ann.execute("BEGIN")
    assert ann.execute("DELETE FROM cron.job_run_details").rowcount >= 1
    held = one(conn, "SELECT clock_timestamp()")
    length = len(server.log())
    # Five seconds of an open transaction: others' runs are counted.
    sample(5, lambda: None, 1)
    during = runs(conn, "jobid = %s AND due_time > %s AND status = 'succeeded'", witness, held)
    ann.execute("ROLLBACK")
    assert len(during) >= 3, "an ordinary role's open transaction held up somebody else's job"
    assert max(run.lateness for run in during) < 3
    assert log_since(server, length).count("ERROR:") <= 10, "the log is flooded"
    wait_for_runs(conn, own, 2)
    wait_for_no_gap(conn, witness)
    wait_for_no_gap(conn, own)


def test_an_open_change_of_ones_own_job_holds_up_nobody(
    server: Server, conn: Connection, ann: Connection, wait_until: WaitUntil
) -> None:
    """A one-time job ends while its row is locked: making it inactive can wait, the others cannot."""
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    own = int(one(ann, "SELECT cron.schedule('own', %s, 'SELECT 1')", at(conn, 1)))
    ann.execute("BEGIN")
    ann.execute("SELECT cron.unschedule('own')")
    held = one(conn, "SELECT clock_timestamp()")
    # Five seconds of an open transaction: others' runs are counted.
    sample(5, lambda: None, 1)
    during = runs(conn, "jobid = %s AND due_time > %s AND status = 'succeeded'", witness, held)
    assert [run.status for run in runs_of(conn, own)] == ["succeeded"]
    ann.execute("ROLLBACK")
    assert len(during) >= 3, "an ordinary role's open transaction held up somebody else's job"
    wait_until(
        lambda: one(conn, "SELECT NOT active FROM cron.job WHERE jobid = %s", own), message="the job to be inactive"
    )
    assert len(runs_of(conn, own)) == 1
    wait_for_no_gap(conn, witness)


@pytest.mark.parametrize("table", ["cron.job", "cron.job_run_details"])
def test_a_locked_table_loses_no_due_time(server: Server, conn: Connection, other: Connection, table: str) -> None:
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid, 2)
    launcher = launcher_pid(conn)
    length = len(server.log())
    other.execute("BEGIN")
    other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
    # Four seconds of a lock, which is what the test is about.
    sample(4, lambda: None, 1)
    other.execute("COMMIT")
    count = len(runs(conn, "jobid = %s", jobid))
    wait_for_runs(conn, jobid, count + 1)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    wait_for_no_gap(conn, jobid)
    assert launcher_pid(conn) == launcher
    assert {run.status for run in runs_of(conn, jobid)} <= {"succeeded", "skipped", *OPEN}
    assert log_since(server, length).count("ERROR:") <= 10, "the log is flooded"


def test_records_put_off_by_a_lock_are_written_soon_after_it_is_gone(conn: Connection, other: Connection) -> None:
    """Nothing else is due by then: the launcher has to remember by itself what it still owes."""
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    first = wait_for_runs(conn, jobid)[0]
    assert first.due_time is not None
    other.execute("BEGIN; LOCK TABLE cron.job_run_details IN ACCESS EXCLUSIVE MODE")
    # Four seconds of a lock, which is what the test is about.
    sample(4, lambda: None, 1)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    gone = one(conn, "SELECT clock_timestamp()")
    other.execute("COMMIT")
    owed = int((gone - first.due_time).total_seconds()) + 1
    # The last one may have fallen due just as the job went.
    assert len(wait_for_runs(conn, jobid, owed - 1, timeout=10)) <= owed + 1
    wait_for_no_gap(conn, jobid)


def test_a_change_made_while_the_job_table_is_locked_is_noticed_later(conn: Connection, other: Connection) -> None:
    """The change commits, and the lock is taken again before the launcher can read it."""
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness)
    other.execute("BEGIN; LOCK TABLE cron.job IN ACCESS EXCLUSIVE MODE")
    late = schedule(other, "late", "1 second", "SELECT 1")
    other.execute("COMMIT; BEGIN; LOCK TABLE cron.job IN ACCESS EXCLUSIVE MODE")
    locked = one(conn, "SELECT clock_timestamp()")
    # Five seconds of a lock: jobs that are known already go on.
    sample(5, lambda: None, 1)
    during = runs(conn, "jobid = %s AND due_time > %s AND status = 'succeeded'", witness, locked)
    other.execute("COMMIT")
    wait_for_runs(conn, late)
    wait_for_no_gap(conn, witness)
    assert len(during) >= 3, "jobs stood still because the job table was locked"


def test_a_run_that_locks_the_history_ends_and_is_recorded(conn: Connection) -> None:
    """What a run locks, it locks against its own launcher: no deadlock, no loss."""
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    run = run_once(conn, "BEGIN; LOCK TABLE cron.job_run_details; LOCK TABLE cron.job; SELECT pg_sleep(3); COMMIT")
    assert (run.status, run.return_message) == ("succeeded", "COMMIT")
    wait_for_runs(conn, witness, 3)
    wait_for_no_gap(conn, witness)


def test_a_run_that_unschedules_itself_ends_as_a_success(conn: Connection) -> None:
    jobid = schedule(conn, "suicidal", "1 second", "SELECT cron.unschedule('suicidal'); SELECT pg_sleep(1.5)")
    run, *queued = wait_for_runs(conn, jobid)
    assert (run.status, run.return_message) == ("succeeded", "SELECT 1")
    assert all(later.status != "succeeded" for later in queued)
    assert one(conn, "SELECT count(*) FROM cron.job WHERE jobid = %s", jobid) == 0


def test_runs_that_schedule_jobs_wake_the_launcher(conn: Connection, wait_until: WaitUntil) -> None:
    schedule(
        conn,
        "parent",
        at(conn),
        "SELECT cron.schedule('child ' || i, '1 second', 'SELECT 1') FROM generate_series(1, 3) i",
    )
    children = "SELECT jobid FROM cron.job WHERE jobname LIKE 'child %'"
    wait_until(lambda: len(rows(conn, children)) == 3, message="three children")
    jobs = [jobid for (jobid,) in rows(conn, children)]
    wait_until(lambda: not unfinished(conn, jobs), message="the children to have run")
    assert all(0 <= runs_of(conn, jobid)[0].lateness < 1 for jobid in jobs)


# --- changes while due and while running -------------------------------------------------------


def test_unscheduling_lets_the_run_finish_and_drops_the_queued_one(conn: Connection, wait_until: WaitUntil) -> None:
    jobs = {
        verb: schedule(conn, verb, "1 second", "SELECT pg_sleep(3)") for verb in ("unschedule", "deactivate", "delete")
    }
    queued = "jobid = ANY (%s) AND status = 'queued'"
    wait_until(lambda: len(runs(conn, queued, list(jobs.values()))) == 3, message="a queued run of each")
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobs["unschedule"]])
    conn.execute("SELECT cron.alter_job(%s, active := false)", [jobs["deactivate"]])
    conn.execute("DELETE FROM cron.job WHERE jobid = %s", [jobs["delete"]])
    reasons = {"unschedule": "unscheduled", "deactivate": "inactive", "delete": "unscheduled"}
    for verb, jobid in jobs.items():
        first, second, *_ = wait_for_runs(conn, jobid, 2)
        wait_until(lambda jobid=jobid: not runs(conn, "jobid = %s AND status = ANY (%s)", jobid, list(OPEN)))
        first, second, *_ = runs_of(conn, jobid)
        assert (first.status, first.return_message) == ("succeeded", "SELECT 1")
        assert (second.status, second.reason, second.start_time) == ("skipped", reasons[verb], None)
        assert second.end_time is not None


def test_renaming_and_rescheduling_a_running_job_leaves_the_run_alone(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "before", "1 second", "SELECT pg_sleep(1.5)")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="a run")
    conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [jobid, '{"name": "after", "schedule": "0 0 29 2 *"}'])
    wait_until(lambda: not runs(conn, "jobid = %s AND status = ANY (%s)", jobid, list(OPEN)), message="its end")
    assert {run.status for run in runs_of(conn, jobid)} <= {"succeeded", "skipped"}
    assert runs_of(conn, jobid)[0].status == "succeeded"
    count = len(runs_of(conn, jobid))
    # Two seconds in which the old schedule would be due: absence is what is asserted.
    sample(2, lambda: None, 1)
    assert len(runs_of(conn, jobid)) == count


def test_a_job_made_active_again_does_not_make_up_for_the_pause(conn: Connection) -> None:
    jobid = schedule(conn, "paused", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    conn.execute("SELECT cron.alter_job(%s, active := false)", [jobid])
    sample(3, lambda: None, 1)
    before = one(conn, "SELECT clock_timestamp()")
    count = len(runs_of(conn, jobid))
    conn.execute("SELECT cron.alter_job(%s, active := true)", [jobid])
    after = wait_for_runs(conn, jobid, count + 2)[count:]
    assert all(run.due_time and run.due_time > before for run in after)
    assert {run.status for run in after} <= {"succeeded", *OPEN}
