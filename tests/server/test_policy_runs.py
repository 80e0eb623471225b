"""Each policy of docs/policies.md on a real server: what the rule says, and the records it leaves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import Run, at, one, rows, runs, runs_of, unfinished, wait_for_runs
from tests.server.support.watching import most_at_once
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

BUSY = "DO $$ DECLARE i bigint := 0; BEGIN LOOP i := i + 1; END LOOP; END $$"
STUBBORN = """DO $$ BEGIN LOOP
  BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
END LOOP; END $$"""


def plan(conn: Connection, name: str, when: str, command: str, **options: Any) -> int:
    return int(one(conn, "SELECT cron.schedule(%s, %s, %s, %s::jsonb)", name, when, command, json.dumps(options)))


def stop(conn: Connection, *jobids: int) -> None:
    """Nothing of these is due any more."""
    conn.execute("SELECT cron.alter_job(jobid, active := false) FROM cron.job WHERE jobid = ANY (%s)", [list(jobids)])


def what(found: list[Run]) -> list[tuple[Any, ...]]:
    return [(run.status, run.reason) for run in found]


def seconds(run: Run) -> float:
    assert run.start_time is not None
    assert run.end_time is not None
    return (run.end_time - run.start_time).total_seconds()


# --- overlap -----------------------------------------------------------------------------------


def test_overlap(conn: Connection, wait_until: WaitUntil) -> None:
    """skip, replace and parallel, side by side."""
    with conn.transaction():
        skip = plan(conn, "skip", "1 second", "SELECT pg_sleep(1.5)", on_overlap="skip")
        replace = plan(conn, "replace", "1 second", "SELECT pg_sleep(60)", on_overlap="replace")
        parallel = plan(conn, "parallel", "1 second", "SELECT pg_sleep(60)", on_overlap="parallel", max_parallel=2)

    def enough() -> bool:
        return (
            ("skipped", "overlap") in what(runs_of(conn, skip))
            and ("skipped", "overlap") in what(runs_of(conn, parallel))
            and what(runs_of(conn, replace)).count(("failed", "replaced")) >= 2
            and len(runs(conn, "jobid = %s AND status = 'succeeded'", skip)) >= 2
        )

    wait_until(enough, 30, "every rule to have shown itself")

    found = runs_of(conn, skip)
    assert set(what(found)) <= {("succeeded", None), ("skipped", "overlap"), ("running", None), ("starting", None)}
    assert most_at_once(found) == 1
    assert {run.return_message for run in found if run.status == "skipped"} == {
        "an earlier run of the job had not ended"
    }

    found = runs_of(conn, replace)
    assert most_at_once(found) <= 1
    replaced = [run for run in found if run.reason == "replaced" and run.status == "failed"]
    assert {run.sqlstate for run in replaced} == {"57014"}
    assert {run.detail for run in replaced} == {"A later due time of the job took its place."}

    found = runs_of(conn, parallel)
    assert [run.status for run in found].count("running") == 2
    assert {run.status for run in found} == {"running", "skipped"}
    stop(conn, skip, replace, parallel)


# --- deadline ----------------------------------------------------------------------------------


def test_a_run_that_cannot_start_within_its_deadline_is_skipped(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = plan(conn, "late", "1 second", "SELECT pg_sleep(60)", start_deadline="0.5 seconds")
    wait_until(lambda: ("skipped", "too_late") in what(runs_of(conn, jobid)), 20, "a run that is too late")
    late = next(run for run in runs_of(conn, jobid) if run.reason == "too_late")
    assert late.return_message == "it could not start within its start_deadline"
    assert late.start_time is None
    assert late.end_time is not None
    assert late.due_time is not None
    assert late.end_time - late.due_time >= timedelta(seconds=0.5)
    assert [run.status for run in runs_of(conn, jobid)].count("running") == 1
    stop(conn, jobid)


# --- timeout -----------------------------------------------------------------------------------


def test_a_run_that_lasts_too_long_is_canceled(conn: Connection, server: Server, wait_until: WaitUntil) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS public.locked (id int)")
    with server.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE public.locked")
        commands = {
            "sleeping": "SELECT pg_sleep(60)",
            "busy": BUSY,
            "waiting for a lock": "INSERT INTO public.locked VALUES (1)",
            "in time": "SELECT 1",
        }
        when = at(conn)
        with conn.transaction():
            jobs = {name: plan(conn, name, when, command, timeout="1 second") for name, command in commands.items()}
        wait_until(lambda: not unfinished(conn, jobs.values()), 30, "every run to have ended")
        holder.execute("ROLLBACK")
    for name, jobid in jobs.items():
        (run,) = runs_of(conn, jobid)
        if name == "in time":
            assert run.status == "succeeded"
            continue
        assert (run.status, run.reason, run.sqlstate) == ("failed", "timeout", "57014"), name
        assert run.detail == "The run lasted longer than the timeout of its job."
        assert 0.9 <= seconds(run) < 10
    assert one(conn, "SELECT count(*) FROM public.locked") == 0
    conn.execute("DROP TABLE public.locked")


@pytest.mark.settings({"cron.timeout_grace": "300ms"})
def test_a_run_that_ignores_being_canceled_is_terminated(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobid = plan(conn, "stubborn", at(conn), STUBBORN, timeout="0.5 seconds")
        (run,) = wait_for_runs(conn, jobid, timeout=30)
        assert (run.status, run.reason, run.sqlstate) == ("failed", "timeout", "57P01")
        assert seconds(run) >= 0.7


# --- retries -----------------------------------------------------------------------------------


def test_a_failing_run_is_tried_again(conn: Connection, wait_until: WaitUntil) -> None:
    conn.execute("DROP SEQUENCE IF EXISTS public.tries; CREATE SEQUENCE public.tries")
    third = "DO $$ BEGIN IF nextval('public.tries') < 3 THEN RAISE 'not yet' USING ERRCODE = '40001'; END IF; END $$"
    when = at(conn)
    with conn.transaction():
        succeeds = plan(conn, "succeeds", when, third, max_attempts=5, retry_delay="0.2 seconds", retry_on=["40"])
        fails = plan(conn, "fails", when, "SELECT 1/0", max_attempts=2, retry_delay="0 seconds")
        other = plan(conn, "other", when, "SELECT 1/0", max_attempts=3, retry_delay="0 seconds", retry_on=["40001"])
        canceled = plan(
            conn,
            "canceled",
            when,
            "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)",
            max_attempts=3,
            retry_delay="0 seconds",
        )
        limited = plan(
            conn,
            "limited",
            when,
            "SET statement_timeout = '100ms'; SELECT pg_sleep(60)",
            max_attempts=2,
            retry_delay="0 seconds",
        )
        slow = plan(conn, "slow", "2 seconds", "SELECT 1/0", max_attempts=9, retry_delay="5 seconds")
    everything = {succeeds: 3, fails: 2, other: 1, canceled: 1, limited: 2, slow: 2}

    def done() -> bool:
        return all(
            len([run for run in runs_of(conn, jobid) if run.end_time]) >= count for jobid, count in everything.items()
        )

    wait_until(done, 30, "every attempt")
    stop(conn, slow)
    # Jobs with an @at schedule are inactive when nothing of them is to follow.
    wait_until(lambda: not rows(conn, "SELECT FROM cron.job WHERE active"), 15, "the jobs to have had their last run")
    found = runs_of(conn, succeeds)
    assert [(run.attempt, run.trigger, run.status) for run in found] == [
        (1, "schedule", "failed"),
        (2, "retry", "failed"),
        (3, "retry", "succeeded"),
    ]
    assert len({run.due_time for run in found}) == 1
    for before, after in itertools.pairwise(found):
        assert before.end_time is not None
        assert after.start_time is not None
        # The delay is 0.2 seconds, doubled once, less an eighth.
        assert after.start_time - before.end_time >= timedelta(seconds=0.17)
    assert [(run.attempt, run.status, run.sqlstate) for run in runs_of(conn, fails)] == [
        (1, "failed", "22012"),
        (2, "failed", "22012"),
    ]
    assert [(run.attempt, run.reason) for run in runs_of(conn, other)] == [(1, "error")], "not on the list"
    assert [(run.attempt, run.reason) for run in runs_of(conn, canceled)] == [(1, "canceled")], "never tried again"
    assert [(run.attempt, run.reason) for run in runs_of(conn, limited)] == [(1, "error"), (2, "error")]
    assert {run.attempt for run in runs_of(conn, slow)} == {1}, "the next due time came first"
    conn.execute("DROP SEQUENCE public.tries")


# --- pausing -----------------------------------------------------------------------------------


def test_a_job_that_goes_on_failing_pauses(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = plan(conn, "failing", "1 second", "SELECT 1/0", pause_after=2)
    reason = "SELECT paused_reason FROM cron.job WHERE jobid = %s"
    why = wait_until(lambda: one(conn, reason, jobid), 20, "the job to be paused")
    assert why.startswith("paused after 2 consecutive failures, the last one noted at ")
    assert one(conn, "SELECT active FROM cron.job WHERE jobid = %s", jobid)
    assert one(conn, "SELECT count(*) FROM cron.upcoming()") == 0
    witness = plan(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness, 2)
    found = runs_of(conn, jobid)
    assert [run.reason for run in found if run.status == "failed"] == ["error", "error"]
    assert {run.reason for run in found if run.status == "skipped"} <= {"paused"}

    # Resumed: what fell due meanwhile was not missed, and the count begins anew.
    resumed = one(conn, "SELECT clock_timestamp()")
    conn.execute("UPDATE cron.job SET paused_reason = NULL, command = 'SELECT 1' WHERE jobid = %s", [jobid])
    more = wait_for_runs(conn, jobid, len(found) + 1)[len(found) :]
    assert {run.status for run in more} <= {"succeeded", "starting", "running"}
    assert all(run.due_time and run.due_time > resumed for run in more)
    stop(conn, jobid, witness)


# --- when --------------------------------------------------------------------------------------


def test_jitter_is_what_the_preview_shows(conn: Connection) -> None:
    jobid = plan(conn, "spread", "1 second", "SELECT 1", jitter="1 hour")
    assert one(conn, "SELECT count(*) FROM cron.upcoming() WHERE start_time > due_time") > 1000
    found = [run for run in wait_for_runs(conn, jobid, 3) if run.status == "succeeded"]
    stop(conn, jobid)
    for run in found:
        assert run.due_time is not None
        assert run.start_time is not None
        start = one(conn, "SELECT cron.start_time(job, %s) FROM cron.job WHERE jobid = %s", run.due_time, jobid)
        assert run.due_time <= start < run.due_time + timedelta(seconds=1)
        assert run.start_time >= start
    assert len({run.due_time.microsecond for run in found if run.due_time}) == 1, "due times stay what they are"


def test_bounds(conn: Connection, wait_until: WaitUntil) -> None:
    begin, end = rows(
        conn,
        "SELECT date_trunc('second', clock_timestamp()) + interval '2 seconds',"
        " date_trunc('second', clock_timestamp()) + interval '4 seconds'",
    )[0]
    jobid = plan(
        conn, "bounded", "* * * * * *", "SELECT 1", starts_at=begin.isoformat(), ends_at=end.isoformat(), priority=1
    )
    due = "SELECT due_time FROM cron.job, cron.due_times(job, '2000-01-01', '2100-01-01') AS d (due_time)"
    expected = [begin, begin + timedelta(seconds=1), end]
    assert [row[0] for row in rows(conn, due)] == expected
    wait_until(lambda: one(conn, "SELECT clock_timestamp()") > end + timedelta(seconds=1.5), 20, "time to pass")
    assert [run.due_time for run in wait_for_runs(conn, jobid, 3)] == expected


# --- what cannot work --------------------------------------------------------------------------

REFUSED = [
    ("* * * * *", {"timeout": "0"}, 'option "timeout" is out of range'),
    ("* * * * *", {"start_deadline": "-1 second"}, 'option "start_deadline" is out of range'),
    ("@reboot", {"max_attempts": 2}, 'option "max_attempts" cannot be more than 1 for schedule "@reboot"'),
    ("* * * * *", {"max_parallel": 2}, 'option "max_parallel" has no effect without "on_overlap": "parallel"'),
    (
        "* * * * *",
        {"starts_at": "2030-01-02 00:00Z", "ends_at": "2030-01-01 00:00Z"},
        'option "ends_at" must not be before "starts_at"',
    ),
    (
        "@at 2030-01-01 00:00Z",
        {"starts_at": "2031-01-01 00:00Z"},
        'schedule "@at 2030-01-01 00:00Z" is before option "starts_at"',
    ),
    (
        "@at 2030-01-01 00:00Z",
        {"ends_at": "2029-12-31 23:59:59Z"},
        'schedule "@at 2030-01-01 00:00Z" is after option "ends_at"',
    ),
    ("* * * * *", {"timezone": "Nowhere"}, 'time zone "Nowhere" not recognized'),
    ("* * * * *", {"retry_on": ["4000"]}, '"4000" in option "retry_on" is no SQLSTATE of an error'),
    ("* * * * *", {"retry_on": []}, 'option "retry_on" must not be empty'),
    ("* * * * *", {"jitter": "25 hours"}, 'option "jitter" is out of range'),
]


@pytest.mark.parametrize(("when", "options", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_cannot_work_is_refused_when_scheduled(
    conn: Connection, when: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        plan(conn, "refused", when, "SELECT 1", **options)
    assert refused.value.diag.message_primary == message
    jobid = plan(conn, "refused", when, "SELECT 1", active=False)
    with pytest.raises(psycopg.DatabaseError):
        conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [jobid, json.dumps(options)])
    columns = ", ".join(f"{key} = %s" for key in options)
    with pytest.raises((psycopg.errors.InvalidParameterValue, psycopg.errors.CheckViolation)):
        conn.execute(f"UPDATE cron.job SET {columns} WHERE jobid = {jobid}".encode(), list(options.values()))
