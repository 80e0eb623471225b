"""Nothing is lost between a parent's end and its child's run, whoever dies when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import Run, launcher_pid, one, runs, runs_of, schedule, start_together, wait_for_runs
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import LocalServer, Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

NEVER = "@at 2199-01-01"

# A run that ends when its test lets it.
GATED = "SELECT pg_advisory_lock(4711); SELECT pg_advisory_unlock(4711)"
COUNTS = "INSERT INTO public.counted VALUES ('{}')"


def reconnect(server: Server, wait_until: WaitUntil) -> Connection:
    """A connection, as soon as the server takes one again."""

    def connect() -> Connection | None:
        try:
            return server.connect()
        except psycopg.OperationalError:
            return None

    connection: Connection = wait_until(connect, 30, "the server to be back")
    return connection


def prepare(conn: Connection) -> dict[str, int]:
    """gate and quick are parents of both; chain follows both; sorry would follow a failure of gate."""
    conn.execute("CREATE TABLE public.counted (name text)")
    jobs = {"gate": schedule(conn, "gate", NEVER, GATED), "quick": schedule(conn, "quick", NEVER, "SELECT 1")}
    jobs["both"] = schedule(conn, "both", '@after "gate", "quick"', COUNTS.format("both"))
    jobs["chain"] = schedule(conn, "chain", '@after "both"', COUNTS.format("chain"))
    jobs["sorry"] = schedule(conn, "sorry", '@after "gate" failed', COUNTS.format("sorry"))
    jobs["after sorry"] = schedule(conn, "after sorry", '@after "sorry"', COUNTS.format("after sorry"))
    return jobs


def wait_at_the_gate(conn: Connection, jobs: dict[str, int], wait_until: WaitUntil) -> None:
    """Until gate runs and cannot go on, quick has ended, and the others wait for gate."""
    start_together(conn, jobs["gate"], jobs["quick"])
    wait_until(lambda: [run.status for run in runs_of(conn, jobs["gate"])] == ["running"], message="gate to run")
    wait_for_runs(conn, jobs["quick"])
    wait_until(
        lambda: [run.reason for run in runs_of(conn, jobs["both"])] == ["waiting_for_parent"], message="both to wait"
    )


def outcome(run: Run) -> tuple[str | None, str | None]:
    return run.status, run.reason


def assert_all_ran(conn: Connection, jobs: dict[str, int]) -> None:
    """What follows a success has run once, what follows a failure is skipped."""
    for name, expected in {
        "gate": ("succeeded", None),
        "both": ("succeeded", None),
        "chain": ("succeeded", None),
        "sorry": ("skipped", "parent_succeeded"),
        "after sorry": ("skipped", "parent_skipped"),
    }.items():
        assert [outcome(run) for run in wait_for_runs(conn, jobs[name], timeout=30)] == [expected], name
    counted = conn.execute("SELECT name, count(*) FROM public.counted GROUP BY name ORDER BY name").fetchall()
    assert counted == [("both", 1), ("chain", 1)]
    assert len({run.due_time for run in runs(conn, "due_time IS NOT NULL")}) == 1


def open_gate(keeper: Connection) -> None:
    keeper.execute("SELECT pg_advisory_unlock_all()")


def close_gate(server: Server) -> Connection:
    keeper = server.connect()
    keeper.execute("SELECT pg_advisory_lock(4711)")
    return keeper


def test_a_new_launcher_decides_what_the_old_one_left_waiting(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn, close_gate(fresh_server) as keeper:
        jobs = prepare(conn)
        wait_at_the_gate(conn, jobs, wait_until)
        waiting = runs_of(conn, jobs["both"])
        pid = launcher_pid(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        assert runs_of(conn, jobs["both"]) == waiting
        open_gate(keeper)
        assert_all_ran(conn, jobs)
        assert [run.runid for run in runs_of(conn, jobs["both"])] == [run.runid for run in waiting]


@pytest.mark.local_only
def test_a_parent_that_ends_while_there_is_no_launcher(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """Launchers are ended until the worker has reported its outcome to none of them."""
    with fresh_server.connect() as conn, close_gate(fresh_server) as keeper:
        jobs = prepare(conn)
        wait_at_the_gate(conn, jobs, wait_until)
        (gate,) = runs_of(conn, jobs["gate"])
        pid = launcher_pid(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        open_gate(keeper)
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: one(conn, alive, gate.job_pid) == 0, message="the worker to end")
        wait_for_launcher(conn, other_than=pid)
        assert_all_ran(conn, jobs)


def test_a_crash_of_the_server_fails_the_parent_and_says_so_on_the_children(
    fresh_server: Server, wait_until: WaitUntil
) -> None:
    with fresh_server.connect() as conn, close_gate(fresh_server):
        jobs = prepare(conn)
        wait_at_the_gate(conn, jobs, wait_until)
        runid = runs_of(conn, jobs["gate"])[0].runid
        fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        for name, expected in {
            "gate": ("failed", "server_restart"),
            "both": ("skipped", "parent_failed"),
            "chain": ("skipped", "parent_skipped"),
            "sorry": ("succeeded", None),
            "after sorry": ("succeeded", None),
        }.items():
            assert [outcome(run) for run in wait_for_runs(conn, jobs[name], timeout=30)] == [expected], name
        assert runs_of(conn, jobs["both"])[0].return_message == f'run {runid} of job "gate" failed'


def test_an_outcome_that_no_launcher_has_seen_is_found_after_a_crash(
    fresh_server: Server, wait_until: WaitUntil
) -> None:
    """The parent's success is in the table, as if the worker had committed it with the command; then the crash."""
    with fresh_server.connect() as conn, close_gate(fresh_server):
        jobs = prepare(conn)
        wait_at_the_gate(conn, jobs, wait_until)
        conn.execute(
            "UPDATE cron.job_run_details SET status = 'succeeded', end_time = clock_timestamp() WHERE jobid = %s",
            [jobs["gate"]],
        )
        conn.execute("CHECKPOINT")
        fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        assert_all_ran(conn, jobs)


@pytest.mark.local_only
@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_a_launcher_killed_between_parent_and_child(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """The child's turn has come, but no slot is free for it, when kill -9 hits the launcher."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.counted (name text)")
        parent = schedule(conn, "parent", NEVER, "SELECT 1")
        blocker = schedule(conn, "blocker", NEVER, "SELECT pg_sleep(60)")
        conn.execute("SELECT cron.alter_job(%s, '{\"priority\": 1000}'::jsonb)", [parent])
        conn.execute("SELECT cron.alter_job(%s, '{\"priority\": 900}'::jsonb)", [blocker])
        child = schedule(conn, "child", '@after "parent"', COUNTS.format("child"))
        last = schedule(conn, "last", '@after "child"', COUNTS.format("last"))
        start_together(conn, parent, blocker)
        wait_until(lambda: [run.status for run in runs_of(conn, blocker)] == ["running"], message="the blocker")
        wait_until(lambda: [outcome(run) for run in runs_of(conn, child)] == [("queued", None)], message="its turn")
        assert [run.status for run in runs_of(conn, parent)] == ["succeeded"]
        pid = wait_for_launcher(conn)
        fresh_server.kill(pid)
        wait_until(lambda: "all server processes terminated" in fresh_server.log(), message="the server to notice")
    with reconnect(fresh_server, wait_until) as conn:
        assert [outcome(run) for run in wait_for_runs(conn, child, timeout=30)] == [("succeeded", None)]
        assert [outcome(run) for run in wait_for_runs(conn, last, timeout=30)] == [("succeeded", None)]
        assert conn.execute("SELECT name FROM public.counted").fetchall() == [("child",), ("last",)]
        assert [outcome(run) for run in runs_of(conn, blocker)] == [("failed", "server_restart")]


def test_due_times_missed_by_a_parent_are_skipped_for_its_children(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        schedule(conn, "parent", "* * * * * *", "SELECT 1")
        child = schedule(conn, "child", '@after "parent"', "SELECT 1")
        wait_for_runs(conn, child)
    fresh_server.stop()
    # More than a second of being down, so that a due time is missed.
    time.sleep(1.1)
    fresh_server.start()
    with fresh_server.connect() as conn:
        wait_until(lambda: runs(conn, "reason = 'missed'"), message="a missed due time")
        (missed,) = runs(conn, "reason = 'missed'")
        wait_until(lambda: runs(conn, "jobid = %s AND due_time = %s", child, missed.due_time), message="its record")
        (skipped,) = runs(conn, "jobid = %s AND due_time = %s", child, missed.due_time)
        assert (*outcome(skipped), skipped.return_message) == (
            "skipped",
            "parent_skipped",
            'job "parent" was skipped: missed',
        )
        wait_until(
            lambda: runs(conn, "jobid = %s AND due_time > %s AND status = 'succeeded'", child, missed.due_time),
            message="the next run",
        )
