"""Runs that people ask for: cron.run_job, cron.backfill, and cron.current_run inside them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.server.support.jobs import (
    Connection,
    insert_job,
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
)
from tests.server.support.watching import most_at_once, wait_for_launcher
from tests.server.surface import ANN, BEN, Refusal, make_role, refusal, session_of
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

NEVER = "0 0 1 1 *"


def job(conn: Connection, name: str, command: str = "SELECT 1", when: str = NEVER) -> int:
    return schedule(conn, name, when, command)


# ---- cron.run_job ----


def test_a_run_that_is_asked_for_runs_at_once_and_says_who_asked(conn: Connection) -> None:
    jobid = job(conn, "now", "INSERT INTO pg_temp.nowhere SELECT 1")
    conn.execute("SELECT cron.alter_job(%s, command := 'SELECT generate_series(1, 3)')", [jobid])
    before = one(conn, "SELECT clock_timestamp()")
    runid = one(conn, "SELECT cron.run_job('now', label => 'release 7')")
    run = wait_for_status(conn, runid)
    assert (run.jobid, run.status, run.return_message) == (jobid, "succeeded", "SELECT 3")
    assert (run.trigger, run.attempt, run.label, run.requested_by) == ("manual", 1, "release 7", "postgres")
    assert run.due_time is not None
    assert before <= run.due_time <= one(conn, "SELECT clock_timestamp()")
    assert run.due_time.microsecond != 0, "full seconds belong to schedules"
    assert len(runs_of(conn, jobid)) == 1


def test_a_run_needs_no_schedule_that_is_active_or_readable(conn: Connection) -> None:
    off = job(conn, "off")
    paused = job(conn, "paused")
    conn.execute("UPDATE cron.job SET active = false WHERE jobid = %s", [off])
    conn.execute("UPDATE cron.job SET paused_reason = 'for a test' WHERE jobid = %s", [paused])
    junk = insert_job(conn, schedule="not a schedule", jobname="junk", active=False)
    assert [wait_for_status(conn, run_now(conn, jobid)).status for jobid in (off, paused, junk)] == ["succeeded"] * 3
    assert one(conn, "SELECT count(*) FROM cron.job WHERE jobid = ANY (%s) AND active", [off, paused, junk]) == 1


def test_a_job_that_is_made_inactive_keeps_the_runs_that_were_asked_for(conn: Connection) -> None:
    jobid = job(conn, "held up", "SELECT pg_sleep(1)")
    first, second = run_now(conn, jobid), run_now(conn, jobid)
    conn.execute("SELECT cron.alter_job(%s, active := false)", [jobid])
    assert [wait_for_status(conn, runid).status for runid in (first, second)] == ["succeeded", "succeeded"]


def test_only_one_run_waits_and_the_next_is_skipped(conn: Connection) -> None:
    """As with due times: the rule of on_overlap = queue."""
    jobid = job(conn, "overlap", "SELECT pg_sleep(0.7)")
    first = run_now(conn, jobid)
    wait_for_status(conn, first, "running")
    second, third = run_now(conn, jobid), run_now(conn, jobid)
    skipped = wait_for_status(conn, third)
    assert (skipped.status, skipped.reason, skipped.trigger) == ("skipped", "overlap", "manual")
    assert run_of(conn, second).status == "queued"
    runs_ended = [wait_for_status(conn, runid) for runid in (first, second)]
    assert [run.status for run in runs_ended] == ["succeeded", "succeeded"]
    assert runs_ended[0].end_time is not None
    assert runs_ended[1].start_time is not None
    assert runs_ended[0].end_time <= runs_ended[1].start_time


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_a_run_that_is_asked_for_waits_for_a_slot(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        blocker = run_now(conn, job(conn, "blocker", "SELECT pg_sleep(1)"))
        wait_for_status(conn, blocker, "running")
        waiting = run_now(conn, job(conn, "waiting"))
        assert run_of(conn, waiting).status == "queued"
        end, start = wait_for_status(conn, blocker).end_time, wait_for_status(conn, waiting).start_time
        assert end is not None
        assert start is not None
        assert end <= start


def test_a_rolled_back_request_leaves_nothing(conn: Connection, server: Server) -> None:
    jobid = job(conn, "rolled back")
    with server.connect() as other, other.transaction(force_rollback=True):
        lost = run_now(other, jobid)
        with other.transaction(force_rollback=True):
            run_now(other, jobid)
        assert run_of(other, lost).status == "queued"
    # Whatever the launcher was told came before this.
    kept = run_now(conn, jobid)
    assert wait_for_status(conn, kept).status == "succeeded"
    assert [run.runid for run in runs_of(conn, jobid)] == [kept]


def test_a_run_starts_when_its_transaction_has_committed(conn: Connection, server: Server) -> None:
    with server.connect() as other, other.transaction():
        jobid = job(other, "same transaction", "SELECT count(*) FROM cron.job WHERE jobname = 'same transaction'")
        other.execute("SELECT cron.alter_job(%s, command := 'SELECT generate_series(1, 4)')", [jobid])
        runid = run_now(other, jobid)
        # The launcher is busy with something else meanwhile, and does not find it.
        assert wait_for_status(conn, run_now(conn, job(conn, "other"))).status == "succeeded"
        assert runs_of(conn, jobid) == []
        assert run_of(other, runid).status == "queued"
    assert wait_for_status(conn, runid).return_message == "SELECT 4"


def test_a_request_for_a_job_that_is_gone_by_then_is_skipped(conn: Connection) -> None:
    jobid = job(conn, "gone")
    with conn.transaction():
        runid = run_now(conn, jobid)
        conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    run = wait_for_status(conn, runid)
    assert (run.status, run.reason) == ("skipped", "unscheduled")


def test_a_job_with_one_due_time_stays_active_for_it(conn: Connection) -> None:
    jobid = job(conn, "at", when="@at 2100-01-01")
    assert wait_for_status(conn, run_now(conn, jobid)).status == "succeeded"
    # The launcher makes it inactive in the pass that records the end, if at all.
    assert wait_for_status(conn, run_now(conn, jobid)).status == "succeeded"
    assert one(conn, "SELECT active FROM cron.job WHERE jobid = %s", jobid)


def test_many_requests_in_one_transaction_are_all_taken_in(conn: Connection) -> None:
    """More than the launcher can be told one by one."""
    jobs = 300
    with conn.transaction():
        for i in range(jobs):
            insert_job(conn, schedule=NEVER, jobname=f"many {i}", command="SELECT 1", active=False)
        found = rows(conn, "SELECT cron.run_job(jobid) FROM cron.job WHERE jobname LIKE 'many %%'")
    runids = [runid for (runid,) in found]
    assert len(runids) == jobs
    last = rows(conn, "SELECT cron.wait(runid, '60 s') FROM unnest(%s::bigint[]) AS runid", runids)
    assert {status for (status,) in last} == {"succeeded"}


def test_requests_outlive_the_launcher(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = job(conn, "survivor", "SELECT pg_sleep(1)")
    first, second = run_now(conn, jobid, "one"), run_now(conn, jobid, "two")
    wait_for_status(conn, first, "running")
    launcher = wait_for_launcher(conn)
    conn.execute("SELECT pg_terminate_backend(%s)", [launcher])
    wait_until(lambda: launcher_pid(conn) != launcher, message="the launcher to be gone")
    meanwhile = run_now(conn, job(conn, "meanwhile"))
    found = [wait_for_status(conn, runid) for runid in (first, second, meanwhile)]
    assert [(run.status, run.trigger) for run in found] == [("succeeded", "manual")] * 3


def test_after_a_restart_of_the_server_queued_runs_are_closed(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobid = job(conn, "restart", "SELECT pg_sleep(60)")
        first, second = run_now(conn, jobid), run_now(conn, jobid)
        wait_for_status(conn, first, "running")
    fresh_server.restart()
    with fresh_server.connect() as conn:
        # Asked for as early as can be: it belongs to this life of the server.
        third = run_now(conn, job(conn, "early"))
        found = [wait_for_status(conn, runid) for runid in (first, second, third)]
        assert [(run.status, run.reason) for run in found][1:] == [("skipped", "server_restart"), ("succeeded", None)]
        assert found[0].status == "failed", "it had begun"


@pytest.mark.settings({"cron.log_run": False})
def test_a_run_that_is_asked_for_is_recorded_whatever_log_run_says(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        jobid = job(conn, "unlogged")
        assert wait_for_status(conn, run_now(conn, jobid)).status == "succeeded"
        assert len(runs_of(conn, jobid)) == 1


def test_who_may_ask(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    jobid = schedule(conn, "hers", NEVER, "SELECT current_user", username=ANN)
    with session_of(server, ANN) as ann:
        run = run_of(conn, run_now(ann, jobid))
        assert (run.username, run.requested_by) == (ANN, ANN)
    refused = Refusal("42501", f"Job {jobid} does not exist or you don't own it")
    with session_of(server, BEN) as ben:
        assert refusal(ben, f"SELECT cron.run_job({jobid})") == refused
        assert refusal(ben, "SELECT cron.run_job('hers')").message == "could not find valid entry for job 'hers'"
        conn.execute(f"GRANT {ANN} TO {BEN}")
        run = wait_for_status(conn, run_now(ben, jobid))
        assert (run.username, run.requested_by, run.status) == (ANN, BEN, "succeeded")
        assert isinstance(one(ben, "SELECT cron.run_job('hers')"), int)
    wait_for_runs(conn, jobid, 3)


def test_a_name_that_two_roles_use_is_refused_unless_one_is_the_callers(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    hers = schedule(conn, "twice", NEVER, "SELECT 1", username=ANN)
    schedule(conn, "twice", NEVER, "SELECT 1", username=BEN)
    assert refusal(conn, "SELECT cron.run_job('twice')") == Refusal(
        "42P08",
        'job name "twice" is not unique',
        "Several roles have a job of that name.",
        "Give the number of the job instead.",
    )
    with session_of(server, ANN) as ann:
        runid = one(ann, "SELECT cron.run_job('twice')")
    assert wait_for_status(conn, runid).jobid == hers


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("cron.run_job(NULL::bigint)", Refusal("22004", "job_id can not be NULL")),
        ("cron.run_job(NULL::text)", Refusal("22004", "job_name can not be NULL")),
        ("cron.run_job(0)", Refusal("42501", "Job 0 does not exist or you don't own it")),
        ("cron.run_job('nope')", Refusal("22023", "could not find valid entry for job 'nope'")),
        (
            "cron.run_job('labelled', repeat('é', 32) || 'x')",
            Refusal("22023", "label is too long", "A label has at most 64 bytes; this has 65."),
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused(conn: Connection, call: str, expected: Refusal) -> None:
    jobid = job(conn, "labelled")
    assert refusal(conn, f"SELECT {call}") == expected
    assert runs_of(conn, jobid) == []


def test_a_label_may_have_64_bytes(conn: Connection) -> None:
    jobid = job(conn, "labelled")
    assert run_of(conn, run_now(conn, jobid, "é" * 32)).label == "é" * 32
    wait_for_runs(conn, jobid)


def test_nothing_is_asked_for_in_a_read_only_or_prepared_transaction(conn: Connection, server: Server) -> None:
    jobid = job(conn, "read only")
    with server.connect() as other:
        other.execute("BEGIN READ ONLY")
        assert refusal(other, f"SELECT cron.run_job({jobid})") == Refusal(
            "25006", "cannot execute INSERT in a read-only transaction"
        )
        other.execute("ROLLBACK; BEGIN")
        run_now(other, jobid)
        assert refusal(other, "PREPARE TRANSACTION 'p'").sqlstate == "0A000"
    assert runs_of(conn, jobid) == []


# ---- cron.current_run ----


def test_a_run_can_ask_what_it_is(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS me; CREATE TABLE me AS SELECT * FROM cron.current_run()")
    assert rows(conn, "SELECT * FROM me") == [], "this session is no run"
    jobid = job(conn, "who am I", "INSERT INTO me SELECT * FROM cron.current_run()")
    runid = run_now(conn, jobid, "asked")
    run = wait_for_status(conn, runid)
    assert run.status == "succeeded", run
    columns = "jobid, jobname, runid, due_time, attempt, trigger, label, requested_by, start_time"
    expected = (jobid, "who am I", runid, run.due_time, 1, "manual", "asked", "postgres", run.start_time)
    assert rows(conn, f"SELECT {columns} FROM me") == [expected]
    conn.execute("DROP TABLE me")


# ---- cron.backfill ----


def whole_minutes(conn: Connection, ago: int) -> datetime:
    """The full minute so many minutes ago."""
    found = one(conn, "SELECT date_trunc('minute', now()) - make_interval(mins => %s)", ago)
    assert isinstance(found, datetime)
    return found


BACKFILL = "SELECT due_time, action, runid, status FROM cron.backfill(%s::bigint, %s, %s, dry_run => %s)"


def test_a_backfill_lists_first_and_then_runs_in_order_what_is_missing(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS filled; CREATE TABLE filled (at timestamptz, runid bigint)")
    command = "INSERT INTO filled SELECT due_time, runid FROM cron.current_run()"
    jobid = insert_job(conn, schedule="* * * * *", jobname="backfilled", command=command, active=False)
    start, end = whole_minutes(conn, 10), whole_minutes(conn, 5)
    due = [start + timedelta(minutes=i) for i in range(6)]
    past = "INSERT INTO cron.job_run_details (jobid, username, due_time, attempt, status) VALUES (%s, 'postgres', %s, %s, %s)"
    conn.execute(past, [jobid, due[1], 1, "succeeded"])
    conn.execute(past, [jobid, due[2], 1, "failed"])
    conn.execute(past, [jobid, due[3], 1, "skipped"])
    conn.execute(past, [jobid, due[3], 2, "failed"])

    listed = rows(conn, BACKFILL, jobid, start, end, True)
    assert [(at, action, status) for at, action, _, status in listed] == [
        (due[0], "run", None),
        (due[1], "leave", "succeeded"),
        (due[2], "run", "failed"),
        (due[3], "run", "failed"),
        (due[4], "run", None),
        (due[5], "run", None),
    ]
    assert [runid for _, _, runid, status in listed if status is None] == [None] * 3
    assert rows(conn, "SELECT * FROM filled") == []
    assert len(runs_of(conn, jobid)) == 4, "a dry run writes nothing"

    made = rows(conn, BACKFILL, jobid, start, end, False)
    assert [row[:2] for row in made] == [row[:2] for row in listed]
    runids = [runid for _, action, runid, _ in made if action == "run"]
    found = [wait_for_status(conn, runid) for runid in runids]
    missing = [due[0], due[2], due[3], due[4], due[5]]
    expected = list(zip(missing, [1, 2, 3, 1, 1], strict=True))
    assert [(run.due_time, run.attempt) for run in found] == expected
    assert {(run.status, run.trigger, run.requested_by) for run in found} == {("succeeded", "catch_up", "postgres")}
    for before, after in pairwise(found):
        assert before.end_time is not None
        assert after.start_time is not None
        assert before.end_time <= after.start_time, "two runs of one job at once"
    assert rows(conn, "SELECT at FROM filled ORDER BY at") == [(at,) for at in missing]

    again = rows(conn, BACKFILL, jobid, start, end, False)
    assert [(at, action, status) for at, action, _, status in again] == [(at, "leave", "succeeded") for at in due]
    conn.execute("DROP TABLE filled")


def test_a_backfill_stands_back_for_other_runs_of_the_job(conn: Connection) -> None:
    jobid = insert_job(conn, schedule="* * * * *", jobname="polite", command="SELECT pg_sleep(0.3)", active=False)
    rows(conn, BACKFILL, jobid, whole_minutes(conn, 6), whole_minutes(conn, 1), False)
    runid = run_now(conn, jobid)
    run = wait_for_status(conn, runid)
    assert run.status == "succeeded", "the runs of a backfill do not count as one that waits"
    assert run.start_time is not None
    wait_for_runs(conn, jobid, 7)
    later = runs(conn, "jobid = %s AND trigger = 'catch_up' AND start_time > %s", jobid, run.start_time)
    assert len(later) >= 3, "it had to wait for the whole backfill"


def test_a_backfill_goes_as_the_runs_of_the_job_do(conn: Connection) -> None:
    for name, rule, most in (("side by side", "parallel", 3), ("skipping", "skip", 1), ("replacing", "replace", 1)):
        jobid = insert_job(
            conn,
            schedule="* * * * *",
            jobname=name,
            command="SELECT pg_sleep(0.3)",
            on_overlap=rule,
            max_parallel=3 if rule == "parallel" else None,
            active=False,
        )
        rows(conn, BACKFILL, jobid, whole_minutes(conn, 5), whole_minutes(conn, 1), False)
        found = wait_for_runs(conn, jobid, 5)
        assert [run.status for run in found] == ["succeeded"] * 5, (name, found)
        assert most_at_once(found) == most, name


@pytest.mark.parametrize(
    ("rule", "wanted", "reason", "least", "most"),
    [("queue", "parallel", "in_parallel", 3, 5), ("parallel", "queue", "one_by_one", 1, 1)],
)
def test_a_backfill_can_go_otherwise_than_the_runs_of_the_job(
    conn: Connection, rule: str, wanted: str, reason: str, least: int, most: int
) -> None:
    """Also when another launcher takes it up; and the job's own due times keep their rule."""
    jobid = insert_job(
        conn, schedule="* * * * *", jobname="otherwise", command="SELECT pg_sleep(2)", on_overlap=rule, active=False
    )
    statement = "SELECT runid FROM cron.backfill(%s::bigint, %s, %s, %s) WHERE action = 'run'"
    with conn.transaction():
        asked = rows(conn, statement, jobid, whole_minutes(conn, 5), whole_minutes(conn, 1), wanted)
        assert runs(conn, "jobid = %s AND reason = %s AND status = 'queued'", jobid, reason)
    pid = launcher_pid(conn)
    conn.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_for_launcher(conn, other_than=pid)
    found = wait_for_runs(conn, jobid, len(asked), timeout=30)
    assert [(run.status, run.reason) for run in found] == [("succeeded", None)] * 5
    assert least <= most_at_once(found) <= most


def test_runs_asked_for_while_the_launcher_looks_for_the_first_time_all_come(fresh_server: Server) -> None:
    """Job and run are committed between its look at the jobs and its look at the records, sooner or later."""
    with fresh_server.connect() as conn:
        for _ in range(25):
            conn.execute("DROP EXTENSION pg_clockwork")
            conn.execute("CREATE EXTENSION pg_clockwork")
            asked = [run_now(conn, schedule(conn, f"new {i}", "0 0 29 2 *", "SELECT 1")) for i in range(6)]
            assert [wait_for_status(conn, runid).status for runid in asked] == ["succeeded"] * 6


def test_an_old_backfill_does_not_move_what_counts_as_missed(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        jobid = insert_job(conn, schedule="0 0 1 * *", jobname="old", command="SELECT 1", active=False)
        conn.execute("SELECT cron.backfill(%s::bigint, '2001-01-01', '2003-01-01')", [jobid])
        wait_for_runs(conn, jobid, 25)
        busy = schedule(conn, "busy", "* * * * *", "SELECT 1")
        launcher = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [launcher])
        wait_for_launcher(conn, other_than=launcher)
        assert wait_for_status(conn, run_now(conn, busy)).status == "succeeded"
        assert runs(conn, "jobid = %s AND reason = 'missed'", busy) == []
    fresh_server.restart()
    with fresh_server.connect() as conn:
        assert wait_for_status(conn, run_now(conn, busy)).status == "succeeded"
        missed = runs(conn, "jobid = %s AND reason = 'missed'", busy)
        assert all("nor" not in (run.return_message or "") for run in missed), "a minute at most"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("NULL, now()", Refusal("22004", "from_time can not be NULL")),
        ("now(), NULL", Refusal("22004", "to_time can not be NULL")),
        ("'-infinity', now()", Refusal("22023", "from_time and to_time must be finite")),
        ("'2020-01-02', '2020-01-01'", Refusal("22023", "from_time is after to_time")),
        (
            "now(), now() + '1 hour'",
            Refusal(
                "22023",
                "to_time is in the future",
                "Only due times that are over can be run by a backfill.",
                "Use now() for to_time, or cron.next_runs to see what is to come.",
            ),
        ),
        (
            "'2020-01-01', '2020-01-02', 'skip'",
            Refusal(
                "22023",
                'a backfill cannot have on_overlap "skip"',
                "Its own runs would push each other out.",
                'Use "queue" or "parallel", or leave it out.',
            ),
        ),
        (
            "'2020-01-01', '2020-01-02', 'never'",
            Refusal(
                "22023",
                'unrecognized value "never" for on_overlap',
                None,
                'Use "queue" or "parallel", or leave it out.',
            ),
        ),
        (
            "'2020-01-01', '2021-01-01'",
            Refusal(
                "54000",
                "the range holds more than 100000 due times",
                None,
                "Call cron.backfill for one part of the range after the other.",
            ),
        ),
    ],
)
def test_a_backfill_that_cannot_be_is_refused(conn: Connection, arguments: str, expected: Refusal) -> None:
    jobid = insert_job(conn, schedule="* * * * *", jobname="refused", active=False)
    assert refusal(conn, f"SELECT cron.backfill('refused', {arguments})") == expected
    assert runs_of(conn, jobid) == []


def test_a_backfill_is_bounded(conn: Connection) -> None:
    jobid = insert_job(conn, schedule="* * * * *", jobname="bounded", active=False)
    call = "SELECT cron.backfill('bounded', '2020-01-01 00:00+00', '2020-01-01 16:40+00'"
    refused = refusal(conn, f"{call})")
    assert (refused.sqlstate, refused.message) == ("54000", "the backfill would ask for 1001 runs, more than 1000")
    assert "one part of the range after the other" in (refused.hint or "")
    assert len(rows(conn, f"{call}, dry_run => true)")) == 1001
    assert runs_of(conn, jobid) == []


def test_a_thousand_runs_are_taken_in_and_can_be_thrown_out(conn: Connection) -> None:
    jobid = insert_job(conn, schedule="* * * * *", jobname="thousand", command="SELECT pg_sleep(60)", active=False)
    made = rows(conn, "SELECT runid FROM cron.backfill('thousand', '2020-01-01 00:01+00', '2020-01-01 16:40+00')")
    assert len(made) == 1000
    wait_for_status(conn, made[0][0], "running")
    conn.execute("SELECT cron.unschedule('thousand')")
    assert one(conn, "SELECT cron.cancel(%s)", made[0][0])
    last = wait_for_status(conn, made[-1][0])
    assert (last.status, last.reason) == ("skipped", "unscheduled")
    counted = "SELECT status, reason, count(*) FROM cron.job_run_details WHERE jobid = %s GROUP BY 1, 2 ORDER BY 1"
    wait_for_runs(conn, jobid, 1000)
    assert rows(conn, counted, jobid) == [("failed", "canceled", 1), ("skipped", "unscheduled", 999)]


def test_a_job_that_may_not_be_controlled_cannot_be_backfilled(conn: Connection, server: Server) -> None:
    make_role(conn, BEN)
    jobid = insert_job(conn, schedule="* * * * *", jobname="foreign", active=False)
    with session_of(server, BEN) as ben:
        for dry_run in ("true", "false"):
            assert refusal(
                ben, f"SELECT cron.backfill({jobid}, '2020-01-01', '2020-01-01', dry_run => {dry_run})"
            ) == Refusal("42501", f"Job {jobid} does not exist or you don't own it")
