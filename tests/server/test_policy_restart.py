"""Policies across restarts, and where slots are short: missed due times, retries, failures in a row, caps per role."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import at, one, runs, runs_of, unfinished, wait_for_runs
from tests.server.support.watching import most_at_once, wait_for_launcher
from tests.server.test_policy_runs import plan
from tests.support.servers import Server
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]


def test_missed_due_times_are_made_up_for(fresh_server: Server) -> None:
    with fresh_server.connect() as conn, conn.transaction():
        skip = plan(conn, "skip", "1 second", "SELECT 1")
        once = plan(conn, "once", "1 second", "SELECT 1", on_missed="run_once")
        every = plan(conn, "every", "1 second", "SELECT 1", on_missed="run_all")
        bounded = plan(conn, "bounded", "1 second", "SELECT 1", on_missed="run_all", start_deadline="1 millisecond")
    with fresh_server.connect() as conn:
        for jobid in (skip, once, every, bounded):
            wait_for_runs(conn, jobid)
    fresh_server.stop()
    # The server is down for three seconds, which is what the test is about.
    time.sleep(3)
    fresh_server.start()
    with fresh_server.connect() as conn:
        up = one(conn, "SELECT pg_postmaster_start_time()")
        for jobid in (skip, once, every, bounded):
            wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2, timeout=30)
        down = "jobid = %s AND due_time <= %s AND (end_time > %s OR start_time > %s)"

        def since(jobid: int) -> list[tuple[Any, ...]]:
            return [(run.trigger, run.status, run.reason) for run in runs(conn, down, jobid, up, up, up)]

        counted = ("schedule", "skipped", "missed")
        made_up = ("catch_up", "succeeded", None)
        assert since(skip).count(counted) == 1
        assert made_up not in since(skip)
        assert since(once).count(counted) == 1
        assert since(once).count(made_up) == 1
        assert since(every).count(made_up) >= 3
        assert counted not in since(every)
        assert since(bounded).count(counted) == 1
        assert made_up not in since(bounded)

        # In order, one after the other, no due time twice.
        found = runs_of(conn, every)
        ran = [run for run in found if run.start_time]
        assert [run.start_time for run in ran] == sorted(run.start_time for run in ran if run.start_time)
        assert len({run.due_time for run in found}) == len(found)
        assert most_at_once(found) == 1


def test_a_due_time_is_missed_even_if_it_was_the_first_of_all(fresh_server: Server) -> None:
    """There is no record that would say until when somebody was there."""
    with fresh_server.connect() as conn:
        jobid = plan(conn, "first", at(conn, 8), "SELECT 1")
        due = one(conn, "SELECT extract(epoch FROM clock_timestamp() + interval '8 seconds')::float8")
    fresh_server.stop()
    poll(lambda: time.time() > due, 20, "the due time to pass")
    fresh_server.start()
    with fresh_server.connect() as conn:
        (run,) = wait_for_runs(conn, jobid, timeout=30)
        assert (run.status, run.reason) == ("skipped", "missed")


def test_attempts_and_failures_outlive_launcher_and_server(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE SEQUENCE public.failures")
        retried = plan(conn, "retried", at(conn), "SELECT 1/0", max_attempts=3, retry_delay="4 seconds")
        paused = plan(
            conn, "paused", "1 second", "SELECT 1/0 FROM (SELECT nextval('public.failures')) AS n", pause_after=6
        )
        wait_for_runs(conn, retried)
        wait_for_runs(conn, paused, 2)
        pid = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
        assert len(wait_for_runs(conn, retried, 2, timeout=30)) == 2
    fresh_server.restart()
    with fresh_server.connect() as conn:
        found = wait_for_runs(conn, retried, 3, timeout=30)
        assert [(run.attempt, run.trigger) for run in found] == [(1, "schedule"), (2, "retry"), (3, "retry")]
        assert len({run.due_time for run in found}) == 1
        reason = "SELECT paused_reason FROM cron.job WHERE jobid = %s"
        why = wait_until(lambda: one(conn, reason, paused), 30, "the job to be paused")
        counted = int(why.split()[2])
        failed = [run for run in runs_of(conn, paused) if run.status == "failed"]
        assert 6 <= counted <= len(failed) <= 8


def test_a_run_that_the_server_took_down_with_it_is_tried_again(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobid = plan(conn, "hit", at(conn), "SELECT pg_sleep(2)", max_attempts=2, retry_delay="0 seconds")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="the run")
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as conn:
        found = wait_for_runs(conn, jobid, 2, timeout=30)
        assert [(run.attempt, run.status, run.reason) for run in found] == [
            (1, "failed", "server_restart"),
            (2, "succeeded", None),
        ]


@pytest.mark.settings({"cron.max_running_jobs_per_role": 1})
def test_a_role_has_its_share_of_the_slots(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE ROLE ann LOGIN; CREATE ROLE ben LOGIN")
        when = at(conn)
        with conn.transaction():
            jobs = {
                role: [plan(conn, f"{role} {i}", when, "SELECT pg_sleep(0.3)", username=role) for i in range(3)]
                for role in ("ann", "ben")
            }
        everybody = [jobid for found in jobs.values() for jobid in found]
        wait_until(lambda: not unfinished(conn, everybody), 30, "everybody to have run")
        for found in jobs.values():
            records = runs(conn, "jobid = ANY (%s)", found)
            assert {run.status for run in records} == {"succeeded"}
            assert most_at_once(records) == 1
        fresh_server.configure({"cron.max_running_jobs_per_role": 0})
        fresh_server.reload()
        wait_until(lambda: one(conn, "SHOW cron.max_running_jobs_per_role") == "0", message="the setting")
