"""Pausing one job, pausing everything, and draining the server before maintenance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server.support.jobs import (
    Connection,
    launcher_pid,
    one,
    rows,
    run_now,
    run_of,
    runs,
    runs_of,
    schedule,
    wait_for_runs,
    wait_for_status,
    workers,
)
from tests.server.support.watching import wait_for_launcher
from tests.server.surface import ANN, BEN, Notice, Refusal, job, make_role, notices, refusal, session_of
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

NEVER = "0 0 1 1 *"


@pytest.fixture
def everything(conn: Connection, server: Server) -> Iterator[Connection]:
    """The connection of a test that pauses everything: it is resumed afterwards."""
    yield conn
    with server.connect() as other:
        other.execute("SELECT cron.resume_all()")


# ---- one job ----


def test_a_job_is_paused_with_a_reason_and_resumed(conn: Connection) -> None:
    jobid = schedule(conn, "nightly", NEVER, "SELECT 1")
    assert one(conn, "SELECT cron.pause(%s::bigint, 'disk is full')", jobid)
    assert job(conn, jobid, "paused_reason, active") == ("disk is full", True)
    assert notices(conn, "SELECT cron.pause('nightly')") == [
        Notice("NOTICE", f"job {jobid} is paused already", "disk is full")
    ]
    assert job(conn, jobid, "paused_reason") == ("disk is full",), "no better reason, so the old one stays"
    assert not one(conn, "SELECT cron.pause('nightly', 'no operator')")
    assert job(conn, jobid, "paused_reason") == ("no operator",)
    assert one(conn, "SELECT cron.resume('nightly')")
    assert job(conn, jobid, "paused_reason") == (None,)
    assert notices(conn, f"SELECT cron.resume({jobid})") == [Notice("NOTICE", f"job {jobid} is not paused")]
    assert not one(conn, "SELECT cron.resume(%s::bigint)", jobid)


def test_a_pause_without_a_reason_says_who_and_when(conn: Connection) -> None:
    jobid = schedule(conn, "nightly", NEVER, "SELECT 1")
    conn.execute("SELECT cron.pause('nightly')")
    (reason,) = job(conn, jobid, "paused_reason")
    assert reason.startswith('Paused by role "postgres" at 2')


def test_who_may_pause(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    jobid = schedule(conn, "hers", NEVER, "SELECT 1", username=ANN)
    with session_of(server, ANN) as ann:
        assert one(ann, "SELECT cron.pause('hers')")
        assert one(ann, "SELECT cron.resume('hers')")
    refused = Refusal("42501", f"Job {jobid} does not exist or you don't own it")
    with session_of(server, BEN) as ben:
        assert refusal(ben, f"SELECT cron.pause({jobid})") == refused
        assert refusal(ben, f"SELECT cron.resume({jobid})") == refused
        conn.execute(f"GRANT {ANN} TO {BEN}")
        assert one(ben, "SELECT cron.pause('hers', 'by a member')")
    assert job(conn, jobid, "paused_reason") == ("by a member",)


@pytest.mark.parametrize("call", ["cron.pause({}, 'x')", "cron.resume({})"])
def test_a_job_that_is_not_there_is_refused(conn: Connection, call: str) -> None:
    expected = Refusal("42501", "Job 0 does not exist or you don't own it")
    assert refusal(conn, f"SELECT {call.format('0')}") == expected
    named = Refusal("22023", "could not find valid entry for job 'nope'")
    assert refusal(conn, f"SELECT {call.format(chr(39) + 'nope' + chr(39))}") == named
    assert refusal(conn, f"SELECT {call.format('NULL::bigint')}") == Refusal("22004", "job_id can not be NULL")


# ---- everything ----


def all_quiet(conn: Connection) -> None:
    """The launcher has taken part in what was committed before this."""
    launcher = launcher_pid(conn)
    assert launcher is not None
    # It answers a cancellation at the end of a pass that has read every change before it.
    jobid = schedule(conn, "probe", NEVER, "SELECT 1")
    runid = run_now(conn, jobid)
    conn.execute("SELECT cron.cancel(%s)", [runid])
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])


def test_nothing_starts_while_everything_is_paused(everything: Connection, wait_until: WaitUntil) -> None:
    conn = everything
    every = schedule(conn, "every second", "1 second", "SELECT 1")
    wait_for_runs(conn, every)
    assert one(conn, "SELECT cron.pause_all('moving house')")
    assert rows(conn, "SELECT reason, changed_by FROM cron.pause_state") == [("moving house", "postgres")]
    all_quiet(conn)
    before = len(runs_of(conn, every))
    asked = run_now(conn, schedule(conn, "asked", NEVER, "SELECT 1"))
    # Two due times pass by.
    wait_until(
        lambda: one(
            conn, "SELECT clock_timestamp() > max(due_time) + '3 s' FROM cron.job_run_details WHERE jobid = %s", every
        ),
        message="due times to pass",
    )
    assert len(runs_of(conn, every)) == before, "no run, and no record either: paused time is not missed"
    assert run_of(conn, asked).status == "queued"
    assert one(conn, "SELECT cron.resume_all()")
    assert wait_for_status(conn, asked).status == "succeeded"
    wait_for_runs(conn, every, before + 1)
    assert runs(conn, "jobid = %s AND status = 'skipped'", every) == []
    assert rows(conn, "SELECT reason, changed_by FROM cron.pause_state") == [(None, "postgres")]


def test_a_pause_that_is_rolled_back_was_none(everything: Connection, server: Server) -> None:
    with server.connect() as other, other.transaction(force_rollback=True):
        other.execute("SELECT cron.pause_all()")
        assert wait_for_status(everything, run_now(everything, schedule(everything, "a", NEVER, "SELECT 1")))
    assert rows(everything, "SELECT FROM cron.pause_state WHERE reason IS NOT NULL") == []
    assert wait_for_status(everything, run_now(everything, schedule(everything, "b", NEVER, "SELECT 1")))


def test_what_changes_nothing_is_remarked(everything: Connection) -> None:
    conn = everything
    conn.execute("SELECT cron.resume_all()")
    assert notices(conn, "SELECT cron.resume_all()") == [Notice("NOTICE", "all jobs are not paused")]
    assert not one(conn, "SELECT cron.resume_all()")
    assert one(conn, "SELECT cron.pause_all('first')")
    assert notices(conn, "SELECT cron.pause_all('second')") == [
        Notice("NOTICE", "all jobs were paused already", "first")
    ]
    assert rows(conn, "SELECT reason FROM cron.pause_state") == [("second",)]
    conn.execute("SELECT cron.resume_all()")
    assert one(conn, "SELECT cron.pause_all()")
    assert one(conn, "SELECT reason FROM cron.pause_state").startswith('Paused by role "postgres" at 2')


def test_only_those_who_are_let_may_pause_everything(everything: Connection, server: Server) -> None:
    make_role(everything, ANN)
    calls = {
        "pause_all(text)": "cron.pause_all()",
        "resume_all()": "cron.resume_all()",
        "drain(interval, text)": "cron.drain('0')",
    }
    with session_of(server, ANN) as ann:
        for signature, call in calls.items():
            name = signature.partition("(")[0]
            assert refusal(ann, f"SELECT {call}") == Refusal("42501", f"permission denied for function {name}")
            everything.execute(f"GRANT EXECUTE ON FUNCTION cron.{signature} TO {ANN}".encode())
        assert one(ann, "SELECT cron.pause_all('granted')")
        assert rows(ann, "SELECT reason, changed_by FROM cron.pause_state") == [("granted", ANN)]
        assert refusal(ann, "UPDATE cron.pause_state SET reason = NULL").sqlstate == "42501"
        assert one(ann, "SELECT cron.resume_all()")
    everything.execute(f"DROP OWNED BY {ANN}".encode())


def test_who_asks_for_a_run_meanwhile_is_told_that_it_waits(everything: Connection) -> None:
    jobid = schedule(everything, "asked", NEVER, "SELECT 1")
    everything.execute("SELECT cron.pause_all('moving house')")
    heard = notices(everything, f"SELECT cron.run_job({jobid})")
    remark, advice = "all jobs are paused: the run will wait", "cron.resume_all ends the pause."
    assert heard == [Notice("NOTICE", remark, "moving house", advice)]
    everything.execute("SELECT cron.resume_all()")
    wait_for_runs(everything, jobid)


def test_a_pause_of_everything_outlives_launcher_and_server(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        every = schedule(conn, "every second", "1 second", "SELECT 1")
        wait_for_runs(conn, every)
        conn.execute("SELECT cron.pause_all('maintenance')")
        asked = run_now(conn, schedule(conn, "asked", NEVER, "SELECT 1"))
        launcher = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [launcher])
        wait_for_launcher(conn, other_than=launcher)
        all_quiet(conn)
        assert run_of(conn, asked).status == "queued"
        before = len(runs_of(conn, every))
    assert "all jobs are paused" in fresh_server.log()
    fresh_server.restart()
    with fresh_server.connect() as conn:
        wait_for_launcher(conn)
        all_quiet(conn)
        assert run_of(conn, asked).reason == "server_restart"
        assert len(runs_of(conn, every)) == before
        conn.execute("SELECT cron.resume_all()")
        wait_for_runs(conn, every, before + 1)
    # At once, before newer records can tell what was not missed.
    fresh_server.restart()
    with fresh_server.connect() as conn:
        wait_for_runs(conn, every, before + 2)
        missed = runs(conn, "jobid = %s AND reason = 'missed'", every)
        for run in missed:
            assert run.due_time is not None
            assert one(conn, "SELECT %s > changed_at FROM cron.pause_state", run.due_time), "paused time is not missed"
    assert "all jobs are resumed" in fresh_server.log()


# ---- drain ----


def test_a_drain_waits_for_the_runs_that_go_on_and_starts_no_others(everything: Connection, server: Server) -> None:
    conn = everything
    jobid = schedule(conn, "long", NEVER, "SELECT pg_sleep(1)")
    first, second = run_now(conn, jobid), run_now(conn, jobid)
    wait_for_status(conn, first, "running")
    with server.connect() as other, other.transaction():
        assert one(other, "SELECT cron.drain('30 s', 'upgrade')")
        # Not committed yet, and in force all the same.
        assert run_of(conn, first).status == "succeeded"
        assert workers(conn) == []
        third = run_now(conn, schedule(conn, "third", NEVER, "SELECT 1"))
        all_quiet(conn)
        assert [run_of(conn, runid).status for runid in (second, third)] == ["queued", "queued"]
        assert rows(conn, "SELECT FROM cron.pause_state WHERE reason IS NOT NULL") == []
    all_quiet(conn)
    assert rows(conn, "SELECT reason FROM cron.pause_state") == [("upgrade",)]
    assert [run_of(conn, runid).status for runid in (second, third)] == ["queued", "queued"]
    assert one(conn, "SELECT cron.drain()"), "nothing runs: it does not wait"
    conn.execute("SELECT cron.resume_all()")
    assert [wait_for_status(conn, runid).status for runid in (second, third)] == ["succeeded", "succeeded"]


def test_a_drain_that_times_out_says_so_and_can_be_undone(everything: Connection, server: Server) -> None:
    conn = everything
    run = run_now(conn, schedule(conn, "long", NEVER, "SELECT pg_sleep(60)"))
    wait_for_status(conn, run, "running")
    waiting = run_now(conn, schedule(conn, "waiting", NEVER, "SELECT 1"))
    wait_for_status(conn, waiting)
    with server.connect() as other, other.transaction(force_rollback=True):
        assert not one(other, "SELECT cron.drain('200 ms')")
        waiting = run_now(conn, schedule(conn, "waiting", NEVER, "SELECT 1"))
        all_quiet(conn)
        assert run_of(conn, waiting).status == "queued"
    assert wait_for_status(conn, waiting).status == "succeeded", "rolled back: nothing is paused any more"
    assert rows(conn, "SELECT FROM cron.pause_state WHERE reason IS NOT NULL") == []


def test_a_drain_whose_session_dies_holds_nothing(
    everything: Connection, server: Server, wait_until: WaitUntil
) -> None:
    conn = everything
    run = run_now(conn, schedule(conn, "long", NEVER, "SELECT pg_sleep(60)"))
    wait_for_status(conn, run, "running")
    other = server.connect()
    try:
        other.pgconn.send_query(b"SELECT cron.drain()")
        pid = other.info.backend_pid
        waits = "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: one(conn, waits, pid), message="the drain to wait")
        waiting = run_now(conn, schedule(conn, "waiting", NEVER, "SELECT 1"))
        all_quiet(conn)
        assert run_of(conn, waiting).status == "queued"
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert wait_for_status(conn, waiting).status == "succeeded"
    finally:
        other.close()


def test_a_drain_notices_that_it_waits_for_its_own_lock(everything: Connection, server: Server) -> None:
    conn = everything
    conn.execute("DROP TABLE IF EXISTS mine; CREATE TABLE mine ()")
    with server.connect() as other:
        other.execute("BEGIN; LOCK TABLE mine")
        run = wait_for_status(conn, run_now(conn, schedule(conn, "wants it", NEVER, "SELECT * FROM mine")), "running")
        refused = refusal(other, "SELECT cron.drain()")
        assert (refused.sqlstate, refused.message) == ("40P01", "deadlock detected")
        assert (refused.detail or "").startswith(f"Run {run.runid} (process {run.job_pid})")
        other.execute("ROLLBACK")
    assert wait_for_status(conn, run.runid).status == "succeeded"
    conn.execute("DROP TABLE mine")


def test_a_run_cannot_drain(everything: Connection) -> None:
    conn = everything
    run = wait_for_status(conn, run_now(conn, schedule(conn, "inside", NEVER, "SELECT cron.drain()")))
    assert run.return_message == (
        "ERROR: cron.drain cannot be called inside a run\n"
        "DETAIL: It would wait for its own end.\nHINT: Use cron.pause_all."
    )
