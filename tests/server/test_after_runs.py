"""Jobs that run after other jobs: chains, fan-in, conditions, and a record wherever there is no run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    FINAL,
    Run,
    insert_job,
    one,
    rows,
    runs,
    runs_of,
    schedule,
    start_together,
    wait_for_runs,
)
from tests.server.surface import session_of
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

FAILS = "SELECT 1 / 0"
LONG = "SELECT pg_sleep(60)"

# A job that is not due while a test schedules others after it.
NEVER = "@at 2199-01-01"


def only_run(conn: Connection, jobid: int, *, timeout: float = 15.0) -> Run:
    """The one record of a job, once it is final."""
    (run,) = wait_for_runs(conn, jobid, timeout=timeout)
    return run


def verdict(run: Run) -> tuple[str | None, str | None, str | None]:
    return run.status, run.reason, run.return_message


def test_a_chain_of_five_with_a_fan_in(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS public.chain; CREATE TABLE public.chain (name text)")
    say = "INSERT INTO public.chain VALUES ('{}')"
    load = schedule(conn, "load", NEVER, "SELECT pg_sleep(0.3); " + say.format("load"))
    clean = schedule(conn, "clean", NEVER, say.format("clean"))
    merge = schedule(conn, "merge", '@after "load", "clean"', say.format("merge"))
    report = schedule(conn, "report", '@after "merge"', say.format("report"))
    mail = schedule(conn, "mail", '@after "report" finished', say.format("mail"))
    start_together(conn, load, clean)
    only_run(conn, mail)

    found = {jobid: only_run(conn, jobid) for jobid in (load, clean, merge, report, mail)}
    assert {run.status for run in found.values()} == {"succeeded"}
    assert {run.due_time for run in found.values()} == {found[load].due_time}
    assert [run.trigger for run in found.values()] == ["schedule", "schedule", "after", "after", "after"]
    assert {run.attempt for run in found.values()} == {1}
    assert {run.reason for run in found.values()} == {None}
    for child, parents in {merge: (load, clean), report: (merge,), mail: (report,)}.items():
        began = found[child].start_time
        assert began is not None
        assert all((found[parent].end_time or began) <= began for parent in parents)
    said = [name for (name,) in rows(conn, "SELECT name FROM public.chain ORDER BY ctid")]
    assert sorted(said[:2]) == ["clean", "load"]
    assert said[2:] == ["merge", "report", "mail"]


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_condition_lets_the_child_run_or_leaves_a_record(conn: Connection, outcome: str) -> None:
    parent = schedule(conn, "parent", NEVER, "SELECT 1" if outcome == "succeeded" else FAILS)
    children = {
        condition: schedule(conn, f"after {condition}", f'@after "parent" {condition}', "SELECT 1")
        for condition in ("succeeded", "failed", "finished")
    }
    start_together(conn, parent)
    of_parent = only_run(conn, parent)
    assert of_parent.status == outcome
    why = f'run {of_parent.runid} of job "parent" {outcome}'
    skipped = ("skipped", f"parent_{outcome}", why)
    ran = ("succeeded", None, "1 row")
    found = {condition: verdict(only_run(conn, jobid)) for condition, jobid in children.items()}
    assert {condition: said[:2] for condition, said in found.items()} == {
        "succeeded": (ran if outcome == "succeeded" else skipped)[:2],
        "failed": (ran if outcome == "failed" else skipped)[:2],
        "finished": ran[:2],
    }
    assert [said for said in found.values() if said[0] == "skipped"] == [skipped]
    records = runs(conn, "jobid = ANY (%s)", list(children.values()))
    assert {(run.due_time, run.trigger, run.command) for run in records} == {(of_parent.due_time, "after", "SELECT 1")}


def test_of_several_attempts_the_last_one_counts(conn: Connection) -> None:
    conn.execute("DROP SEQUENCE IF EXISTS public.tries; CREATE SEQUENCE public.tries")
    hardy = schedule(conn, "hardy", NEVER, "SELECT 1 / (nextval('public.tries') - 1)")
    bad = schedule(conn, "bad", NEVER, FAILS)
    conn.execute(
        'SELECT cron.alter_job(unnest(%s::bigint[]), \'{"max_attempts": 2, "retry_delay": "100 milliseconds"}\'::jsonb)',
        [[hardy, bad]],
    )
    good = schedule(conn, "good", '@after "hardy", "bad" failed', "SELECT 1")
    sorry = schedule(conn, "sorry", '@after "hardy" failed', "SELECT 1")
    none = schedule(conn, "none", '@after "bad"', "SELECT 1")
    start_together(conn, hardy, bad)
    assert only_run(conn, good).status == "succeeded"
    tries = {jobid: wait_for_runs(conn, jobid, 2) for jobid in (hardy, bad)}
    assert [[run.status for run in found] for found in tries.values()] == [["failed", "succeeded"], ["failed"] * 2]
    began = only_run(conn, good).start_time
    assert began is not None
    assert all(found[-1].end_time and found[-1].end_time <= began for found in tries.values())
    last = {jobid: found[-1].runid for jobid, found in tries.items()}
    assert verdict(only_run(conn, sorry)) == (
        "skipped",
        "parent_succeeded",
        f'run {last[hardy]} of job "hardy" succeeded',
    )
    assert verdict(only_run(conn, none)) == ("skipped", "parent_failed", f'run {last[bad]} of job "bad" failed')
    conn.execute("DROP SEQUENCE public.tries")


def test_a_skipped_job_is_skipped_for_those_after_it(conn: Connection) -> None:
    parent = schedule(conn, "parent", NEVER, FAILS)
    child = schedule(conn, "child", '@after "parent"', "SELECT 1")
    grandchild = schedule(conn, "grandchild", '@after "child"', "SELECT 1")
    last = schedule(conn, "last", '@after "grandchild" finished', "SELECT 1")
    beside = schedule(conn, "beside", '@after "parent" failed, "child" failed', "SELECT 1")
    start_together(conn, parent)
    runid = only_run(conn, parent).runid
    assert verdict(only_run(conn, child)) == ("skipped", "parent_failed", f'run {runid} of job "parent" failed')
    assert verdict(only_run(conn, grandchild)) == (
        "skipped",
        "parent_skipped",
        'job "child" was skipped: parent_failed',
    )
    assert verdict(only_run(conn, last)) == (
        "skipped",
        "parent_skipped",
        'job "grandchild" was skipped: parent_skipped',
    )
    assert verdict(only_run(conn, beside)) == ("skipped", "parent_skipped", 'job "child" was skipped: parent_failed')
    assert {run.end_time is not None and run.start_time is None for run in runs_of(conn, last)} == {True}


def test_a_child_is_skipped_as_soon_as_nothing_can_help(conn: Connection, wait_until: WaitUntil) -> None:
    bad = schedule(conn, "bad", NEVER, FAILS)
    slow = schedule(conn, "slow", NEVER, LONG)
    child = schedule(conn, "child", '@after "slow", "bad"', "SELECT 1")
    start_together(conn, bad, slow)
    skipped = only_run(conn, child)
    assert verdict(skipped) == ("skipped", "parent_failed", f'run {only_run(conn, bad).runid} of job "bad" failed')
    wait_until(lambda: [run.status for run in runs_of(conn, slow)] == ["running"], message="the other parent")
    conn.execute("SELECT pg_terminate_backend(job_pid) FROM cron.job_run_details WHERE jobid = %s", [slow])
    assert only_run(conn, slow).status == "failed"
    assert runs_of(conn, child) == [skipped], "the other parent's end changes nothing"


def test_a_child_waits_visibly(conn: Connection, wait_until: WaitUntil) -> None:
    parent = schedule(conn, "parent", NEVER, LONG)
    quick = schedule(conn, "quick", NEVER, "SELECT 1")
    text = '@after "parent", "quick" finished'
    child = schedule(conn, "child", text, "SELECT 1")
    start_together(conn, parent, quick)
    wait_until(lambda: [run.status for run in runs_of(conn, parent)] == ["running"], message="the parent's run")
    only_run(conn, quick)
    (run,) = runs_of(conn, child)
    assert verdict(run) == ("queued", "waiting_for_parent", f"waiting for {text}")
    assert (run.trigger, run.due_time) == ("after", runs_of(conn, parent)[0].due_time)
    conn.execute("SELECT pg_terminate_backend(job_pid) FROM cron.job_run_details WHERE jobid = %s", [parent])
    assert only_run(conn, child).runid == run.runid, "the record stays the same"


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ("SELECT cron.unschedule('child')", "unscheduled", "the job was unscheduled"),
        ("UPDATE cron.job SET active = false WHERE jobname = 'child'", "inactive", "the job was made inactive"),
        (
            "UPDATE cron.job SET schedule = '@daily' WHERE jobname = 'child'",
            "rescheduled",
            "the job's schedule was changed",
        ),
        (
            "SELECT cron.unschedule('parent')",
            "parent_missing",
            'job "parent", which its schedule waits for, does not exist',
        ),
        (
            "UPDATE cron.job SET jobname = 'other' WHERE jobname = 'parent'",
            "parent_missing",
            'job "parent", which its schedule waits for, does not exist',
        ),
    ],
)
def test_a_change_while_a_child_waits_ends_its_record(
    conn: Connection, wait_until: WaitUntil, change: str, reason: str, message: str
) -> None:
    parent = schedule(conn, "parent", NEVER, LONG)
    child = schedule(conn, "child", '@after "parent"', "SELECT 1")
    start_together(conn, parent)
    wait_until(lambda: [run.reason for run in runs_of(conn, child)] == ["waiting_for_parent"], message="the child")
    conn.execute(change.encode())
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'skipped'", child), message="the end of its record")
    (run,) = runs(conn, "jobid = %s AND due_time IS NOT NULL", child)
    assert verdict(run) == ("skipped", reason, message)


def test_a_child_made_while_its_parent_runs_runs_after_it(conn: Connection, wait_until: WaitUntil) -> None:
    parent = schedule(conn, "parent", NEVER, "SELECT pg_sleep(60)")
    start_together(conn, parent)
    wait_until(lambda: [run.status for run in runs_of(conn, parent)] == ["running"], message="the parent's run")
    child = schedule(conn, "child", '@after "parent" failed', "SELECT 1")
    wait_until(lambda: [run.reason for run in runs_of(conn, child)] == ["waiting_for_parent"], message="the child")
    conn.execute("SELECT pg_terminate_backend(job_pid) FROM cron.job_run_details WHERE jobid = %s", [parent])
    assert only_run(conn, child).status == "succeeded"


def test_parents_that_are_never_due_together_say_so(conn: Connection) -> None:
    one_time = schedule(conn, "one", NEVER, "SELECT 1")
    another = schedule(conn, "another", NEVER, "SELECT 1")
    child = schedule(conn, "child", '@after "one", "another"', "SELECT 1")
    start_together(conn, one_time)
    first = only_run(conn, one_time)
    (missed,) = wait_for_runs(conn, child)
    assert (missed.status, missed.reason, missed.due_time) == ("skipped", "parent_missing", first.due_time)
    assert str(missed.return_message).startswith('job "another" has no run due at 20')
    start_together(conn, another)
    second = only_run(conn, another)
    _, missed = wait_for_runs(conn, child, 2)
    assert (missed.status, missed.reason, missed.due_time) == ("skipped", "parent_missing", second.due_time)
    assert str(missed.return_message).startswith('job "one" has no run due at 20')


def test_what_two_rhythms_have_in_common_completes(conn: Connection) -> None:
    fast = schedule(conn, "fast", "* * * * * *", "SELECT 1")
    slow = schedule(conn, "slow", "*/2 * * * * *", "SELECT 1")
    child = schedule(conn, "child", '@after "fast", "slow"', "SELECT 1")
    wait_for_runs(conn, child, 5)
    conn.execute("SELECT cron.alter_job(%s, active := false)", [fast])
    for run in runs(conn, "jobid = %s AND status = ANY (%s)", child, list(FINAL)):
        assert run.due_time is not None
        if run.due_time.second % 2:
            assert (run.status, run.reason) == ("skipped", "parent_missing")
            assert str(run.return_message).startswith('job "slow" has no run due at ')
        else:
            assert run.status == "succeeded" or run.reason in {"parent_missing", "parent_skipped"}, run
    assert runs(conn, "jobid = %s AND status = 'succeeded'", child)
    due = [run.due_time for run in runs_of(conn, child)]
    assert len(set(due)) == len(due)
    assert slow != fast


def test_a_diamond_runs_its_end_once(conn: Connection) -> None:
    top = schedule(conn, "top", NEVER, "SELECT 1")
    left = schedule(conn, "left", '@after "top"', "SELECT pg_sleep(0.2)")
    right = schedule(conn, "right", '@after "top"', FAILS)
    end = schedule(conn, "end", '@after "left", "right" failed, "top" finished', "SELECT 1")
    start_together(conn, top)
    assert only_run(conn, end).status == "succeeded"
    found = runs(conn, "jobid = ANY (%s)", [top, left, right, end])
    assert len(found) == 4
    assert len({run.due_time for run in found}) == 1


def test_a_due_time_without_a_run_is_a_skip_for_the_child(conn: Connection, wait_until: WaitUntil) -> None:
    schedule(conn, "parent", "1 second", "SELECT pg_sleep(60)")
    child = schedule(conn, "child", '@after "parent" finished', "SELECT 1")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'skipped'", child), message="a skipped due time")
    skipped = runs(conn, "jobid = %s AND status = 'skipped'", child)[0]
    assert verdict(skipped) == ("skipped", "parent_skipped", 'job "parent" was skipped: overlap')
    assert runs(conn, "due_time = %s AND reason = 'overlap'", skipped.due_time)


def test_a_run_that_cannot_begin_has_failed_for_the_child(conn: Connection, server: Server) -> None:
    conn.execute("CREATE ROLE after_gone LOGIN; GRANT USAGE ON SCHEMA cron TO after_gone")
    parent = schedule(conn, "parent", NEVER, "SELECT 1", username="after_gone")
    child = schedule(conn, "child", '@after "parent" failed', "SELECT 1", username="after_gone")
    conn.execute("DROP OWNED BY after_gone; DROP ROLE after_gone")
    start_together(conn, parent)
    assert only_run(conn, parent).reason == "role_missing"
    of_child = only_run(conn, child)
    assert (of_child.reason, of_child.trigger) == ("role_missing", "after"), "it was its turn, and has no role either"


def test_names_are_taken_as_they_are_and_of_the_same_role(conn: Connection, server: Server) -> None:
    conn.execute("DROP ROLE IF EXISTS after_ann; CREATE ROLE after_ann LOGIN; GRANT USAGE ON SCHEMA cron TO after_ann")
    name = 'täglich "um drei", oder nicht'
    quoted = name.replace('"', '""')
    parent = schedule(conn, name, NEVER, "SELECT 1")
    child = schedule(conn, "child", f'@after "{quoted}"', "SELECT 1")
    schedule(conn, name.upper(), NEVER, "SELECT 1")
    with session_of(server, "after_ann") as hers:
        hers.execute("SELECT cron.schedule(%s, %s, 'SELECT 1')", [name, NEVER])
        (of_ann,) = rows(hers, "SELECT cron.schedule('child', %s, 'SELECT 1')", f'@after "{quoted}"')[0]
    start_together(conn, parent)
    assert only_run(conn, child).status == "succeeded"
    assert runs_of(conn, of_ann) == []
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE username = 'after_ann'")
    conn.execute("DROP OWNED BY after_ann; DROP ROLE after_ann")


# --- problems ----------------------------------------------------------------------------------


def problems(conn: Connection, jobid: int) -> list[str | None]:
    return [run.return_message for run in runs(conn, "jobid = %s AND reason = 'invalid_job'", jobid)]


def test_a_job_whose_parent_is_gone_says_so_and_recovers(conn: Connection, wait_until: WaitUntil) -> None:
    parent = schedule(conn, "parent", NEVER, "SELECT 1")
    child = schedule(conn, "child", '@after "parent"', "SELECT 1")
    conn.execute("UPDATE cron.job SET jobname = 'renamed' WHERE jobid = %s", [parent])
    wait_until(lambda: problems(conn, child), message="the problem")
    assert problems(conn, child) == [
        'ERROR: job "parent", which its schedule waits for, does not exist\n'
        "DETAIL: Names in a schedule stand for jobs of the same role."
    ]
    start_together(conn, parent)
    only_run(conn, parent)
    assert runs(conn, "jobid = %s AND due_time IS NOT NULL", child) == []
    conn.execute("UPDATE cron.job SET jobname = 'parent' WHERE jobid = %s", [parent])
    start_together(conn, parent)
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'succeeded'", child), message="the child's run")
    assert len(problems(conn, child)) == 1


def test_jobs_written_by_hand_may_come_in_any_order(conn: Connection, wait_until: WaitUntil) -> None:
    child = insert_job(conn, jobname="child", schedule='@after "parent"', command="SELECT 1")
    wait_until(lambda: problems(conn, child), message="the problem")
    parent = insert_job(conn, jobname="parent", schedule=NEVER, command="SELECT 1")
    start_together(conn, parent)
    only_run(conn, parent)
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'succeeded'", child), message="the child's run")


def test_a_circle_that_two_transactions_close_is_found_by_the_launcher(
    conn: Connection, server: Server, wait_until: WaitUntil
) -> None:
    first = schedule(conn, "first", NEVER, "SELECT 1")
    second = schedule(conn, "second", NEVER, "SELECT 1")
    with server.connect() as one_session, server.connect() as another:
        one_session.execute("BEGIN")
        another.execute("BEGIN")
        one_session.execute("SELECT cron.alter_job(%s, schedule := '@after \"second\"')", [first])
        another.execute("SELECT cron.alter_job(%s, schedule := '@after \"first\"')", [second])
        one_session.execute("COMMIT")
        another.execute("COMMIT")
    wait_until(lambda: problems(conn, first) or problems(conn, second), message="the problem")
    ((message,),) = [problems(conn, jobid) for jobid in (first, second) if problems(conn, jobid)]
    assert str(message).startswith("ERROR: the jobs that its schedule waits for wait for it in turn")
    for jobid in (first, second):
        conn.execute("SELECT cron.unschedule(%s)", [jobid])


# --- without records ---------------------------------------------------------------------------


@pytest.mark.settings({"cron.log_run": False})
def test_a_chain_works_without_records(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.chain (name text, at timestamptz DEFAULT clock_timestamp())")
        say = "INSERT INTO public.chain VALUES ('{}')"
        load = schedule(conn, "load", NEVER, "SELECT pg_sleep(0.3); " + say.format("load"))
        clean = schedule(conn, "clean", NEVER, say.format("clean"))
        schedule(conn, "merge", '@after "load", "clean"', say.format("merge"))
        schedule(conn, "never", '@after "load" failed', say.format("never"))
        schedule(conn, "mail", '@after "merge"', say.format("mail"))
        start_together(conn, load, clean)
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.chain") >= 4, message="the chain")
        said = [name for (name,) in rows(conn, "SELECT name FROM public.chain ORDER BY at")]
        assert said == ["clean", "load", "merge", "mail"]
        assert runs(conn) == []
