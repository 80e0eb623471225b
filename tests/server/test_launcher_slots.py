"""Slots and workers: the cap is kept, everybody gets a turn, and waiting costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    FINAL,
    Task,
    at,
    one,
    rows,
    run_each,
    runs,
    runs_of,
    schedule,
    unfinished,
    wait_for_runs,
    workers,
)
from tests.server.support.watching import most_at_once, processor_seconds, sample, wait_for_launcher, wakeups
from tests.server.test_policy_runs import plan
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]


def note_records(conn: Connection) -> None:
    """From here on public.written has a row for each time that a record was written."""
    conn.execute(
        "CREATE TABLE public.written (is_new bool, runid bigint, jobid bigint, status text,"
        " xid xid8 DEFAULT pg_current_xact_id(), at timestamptz DEFAULT clock_timestamp());"
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.written VALUES (TG_OP = 'INSERT', NEW.runid, NEW.jobid, NEW.status); RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON cron.job_run_details"
        " FOR EACH ROW EXECUTE FUNCTION public.note()"
    )


@pytest.mark.settings({"cron.max_running_jobs": 3})
def test_the_cap_is_never_exceeded_and_everybody_gets_a_turn(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn, fresh_server.connect() as watcher:
        when = at(conn, 2)
        with conn.transaction():
            jobs = [schedule(conn, f"job {i}", when, "SELECT pg_sleep(0.3)") for i in range(12)]
            jobs += [schedule(conn, f"every {i}", "1 second", "SELECT pg_sleep(0.2)") for i in range(4)]
        most = 0

        def all_done() -> bool:
            nonlocal most
            most = max(most, len(workers(watcher)))
            ran = rows(conn, "SELECT DISTINCT jobid FROM cron.job_run_details WHERE status = 'succeeded'")
            return {jobid for (jobid,) in ran} == set(jobs)

        wait_until(all_done, message="every job to have run")
        assert most == 3
        found = runs(conn, "status = 'succeeded'")
        assert most_at_once(found) == 3
        waited = runs(conn, "jobid = ANY (%s)", jobs[:12])
        assert max(run.lateness for run in waited) > 0.8, "nobody had to wait: the test proves nothing"


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_runs_that_wait_start_in_order_of_priority_and_age(fresh_server: Server, wait_until: WaitUntil) -> None:
    priorities = [0, 5, 0, 5, -3, 1000, 0]
    with fresh_server.connect() as conn:
        blocker = schedule(conn, "blocker", at(conn), "SELECT pg_sleep(2)")
        with conn.transaction():
            waiting = [
                schedule(conn, f"waiting {i}", at(conn, 1 + i * 0.02), "SELECT 1") for i in range(len(priorities))
            ]
            for jobid, priority in zip(waiting, priorities, strict=True):
                conn.execute("UPDATE cron.job SET priority = %s WHERE jobid = %s", [priority, jobid])
            together = [schedule(conn, f"together {i}", at(conn, 1.5), "SELECT 1") for i in range(6)]
            same = rows(conn, "SELECT schedule FROM cron.job WHERE jobid = %s", together[0])[0][0]
            conn.execute("UPDATE cron.job SET schedule = %s, priority = -9 WHERE jobid = ANY (%s)", [same, together])
        everybody = [*waiting, *together]
        statuses = "SELECT status FROM cron.job_run_details WHERE jobid = ANY (%s)"
        wait_until(lambda: len(rows(conn, statuses, everybody)) == len(everybody), message="everybody to be visible")
        assert rows(conn, statuses, everybody) == [("queued",)] * len(everybody)
        assert runs_of(conn, blocker)[0].end_time is None
        wait_until(lambda: not unfinished(conn, everybody), message="everybody to have run")
        order = [
            jobid
            for (jobid,) in rows(
                conn, "SELECT jobid FROM cron.job_run_details WHERE jobid <> %s ORDER BY start_time", blocker
            )
        ]
        expected = [jobid for _, _, jobid in sorted((-p, i, waiting[i]) for i, p in enumerate(priorities))]
        assert order[: len(waiting)] == expected
        assert order[len(waiting) :] == together, "equal rank: first scheduled, first started"


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_a_wait_for_a_slot_shows_only_when_it_lasts(fresh_server: Server, wait_until: WaitUntil) -> None:
    """Each record is inserted once: as starting if its run got a slot soon, else as queued."""
    with fresh_server.connect() as conn:
        note_records(conn)
        conn.execute("CREATE VIEW public.inserted AS SELECT * FROM public.written WHERE is_new")
        short = [schedule(conn, f"short {i}", at(conn, 1), "SELECT 1") for i in range(3)]
        conn.execute("UPDATE cron.job SET schedule = (SELECT max(schedule) FROM cron.job)")
        for jobid in short:
            wait_for_runs(conn, jobid)
        blocker = schedule(conn, "blocker", at(conn), "SELECT pg_sleep(60)")
        wait_until(lambda: runs_of(conn, blocker), message="the slot to be taken")
        waiting = [schedule(conn, f"waiting {i}", at(conn), "SELECT 1") for i in range(2)]
        statuses = "SELECT status FROM public.inserted WHERE jobid = ANY (%s)"
        wait_until(lambda: rows(conn, statuses, waiting) == [("queued",)] * 2, message="the wait to show")
        waited = (
            "SELECT extract(epoch FROM min(i.at - r.due_time)) FROM public.inserted i"
            " JOIN cron.job_run_details r USING (jobid) WHERE i.status = 'queued'"
        )
        assert one(conn, waited) > 0.19


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_while_slots_are_handed_on_a_wait_shows_after_five_seconds(fresh_server: Server) -> None:
    """Whoever is in a line that moves has no record; one that all others are preferred to has, in the end."""
    with fresh_server.connect() as conn:
        note_records(conn)
        conn.execute(
            "CREATE VIEW public.shown AS SELECT t.jobid, t.at - r.due_time AS age,"
            " t.at - (SELECT max(s.at) FROM public.written s WHERE s.status = 'starting' AND s.at < t.at) AS pause"
            " FROM public.written t JOIN cron.job_run_details r USING (runid) WHERE t.status = 'queued'"
        )
        when = at(conn, 2)
        with conn.transaction():
            line = [plan(conn, f"job {i}", when, "SELECT pg_sleep(0.1)", priority=1) for i in range(60)]
            last = schedule(conn, "last", when, "SELECT 1")
            # Not so where another due time is near, or the history does not keep everything.
            near = schedule(conn, "near", "2 seconds", "SELECT 1")
            trimmed = plan(conn, "trimmed", when, "SELECT 1", history="failures")
        wait_for_runs(conn, last, timeout=60)
        age = "SELECT extract(epoch FROM min(age))::float FROM public.shown WHERE jobid = %s"
        assert one(conn, age, last) > 4.9
        assert one(conn, age, near) < 4.9
        assert one(conn, age, trimmed) < 4.9
        # Those of the line: after as long, or when the line had come to a stop.
        hasty = "SELECT * FROM public.shown WHERE jobid = ANY (%s) AND age < '4.9 s' AND pause < '0.19 s'"
        assert rows(conn, hasty, line) == []


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_what_waits_unseen_is_recorded_when_the_server_stops(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        when = at(conn, 1)
        with conn.transaction():
            jobs = [schedule(conn, f"job {i}", when, "SELECT pg_sleep(60)") for i in range(3)]
        wait_until(lambda: runs(conn), message="the first to begin")
    fresh_server.stop("fast")
    fresh_server.start()
    with fresh_server.connect() as conn:
        found = [wait_for_runs(conn, jobid) for jobid in jobs]
        assert sorted((run.status, run.reason) for (run,) in found) == [
            ("failed", "shutdown"),
            ("skipped", "server_restart"),
            ("skipped", "server_restart"),
        ]


@pytest.mark.settings({"cron.max_running_jobs": 16})
def test_in_a_burst_ends_and_beginnings_share_transactions(fresh_server: Server) -> None:
    """Each transaction has a third of the slots in it, or comes a moment after the last one, or shows something."""
    with fresh_server.connect() as conn:
        note_records(conn)
        # They end one by one: each would be a transaction of its own.
        when = 'SS MI HH24 DD MM "*"'
        due = one(conn, f"SELECT to_char((now() + interval '2 seconds') AT TIME ZONE 'UTC', '{when}')")
        with conn.transaction():
            jobs = [schedule(conn, f"job {i}", due, f"SELECT pg_sleep({0.05 + i % 16 * 0.004})") for i in range(320)]
        for jobid in jobs:
            wait_for_runs(conn, jobid, timeout=60)
        passes = rows(
            conn,
            "SELECT count(*) FILTER (WHERE status IN ('succeeded')), count(*) FILTER (WHERE status = 'starting'),"
            " bool_or(status NOT IN ('succeeded', 'starting')), extract(epoch FROM min(at) - lag(min(at)) OVER (ORDER BY min(at)))"
            " FROM public.written GROUP BY xid ORDER BY min(at)",
        )
        # At the end nobody waits for a slot any more, and nothing is kept back.
        hasty = [
            (ended, begun, pause)
            for ended, begun, shows, pause in passes[1:-16]
            if not shows and ended < 4 and begun < 4 and pause < 0.015
        ]
        assert len(hasty) < len(passes) / 4, hasty


@pytest.mark.settings({"cron.max_running_jobs": 1})
def test_a_slot_is_free_again_as_soon_as_its_process_is_gone(fresh_server: Server) -> None:
    """Many short runs one after the other: a process that ends unnoticed would hold the only slot for half a minute."""
    with fresh_server.connect() as conn:
        for _ in range(6):
            found = run_each(conn, {str(i): "SELECT 1" for i in range(30)}, lead=0.3, timeout=20)
            assert max(run.lateness for run in found.values()) < 10


@pytest.mark.local_only
@pytest.mark.settings({"max_worker_processes": 4, "cron.max_running_jobs": 20})
def test_without_a_free_worker_runs_wait_without_spinning(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        launcher = wait_for_launcher(conn)
        when = at(conn, 2)
        with conn.transaction():
            for i in range(6):
                schedule(conn, f"blocker {i}", when, "SELECT pg_sleep(60)")
        wait_until(lambda: "no background worker is free for a due job" in fresh_server.log(), message="the shortage")
        with conn.transaction():
            waiting = [schedule(conn, f"waiting {i}", at(conn), "SELECT 1") for i in range(3)]
            gone, off = (schedule(conn, name, at(conn), "SELECT 1") for name in ("gone", "off"))
        everybody = [*waiting, gone, off]
        seen = "SELECT count(*) FROM cron.job_run_details WHERE jobid = ANY (%s)"
        wait_until(lambda: one(conn, seen, everybody) == 5, message="the runs that wait to be visible")
        conn.execute("SELECT cron.unschedule(%s::bigint)", [gone])
        conn.execute("SELECT cron.alter_job(%s, active := false)", [off])

        # Three seconds in which nothing may happen: absence is what is asserted.
        before, woken = processor_seconds(launcher), wakeups(launcher)
        free = sample(3, lambda: one(conn, seen + " AND status = ANY (%s)", waiting, list(FINAL)))
        used, woken = processor_seconds(launcher) - before, wakeups(launcher) - woken
        assert set(free) == {0}, "a run that waits for a worker ended"
        assert used < 0.15, f"the launcher used {used:.2f} s in 3 s of waiting"
        assert woken < 60, f"the launcher woke {woken} times in 3 s of waiting"

        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname LIKE 'blocker%'")

        def waiters_ran() -> bool:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
            return not unfinished(conn, everybody)

        wait_until(waiters_ran, message="the waiting runs to have run")
        assert [run.status for run in runs(conn, "jobid = ANY (%s)", waiting)] == ["succeeded"] * 3
        assert [(run.status, run.reason) for run in runs_of(conn, gone)] == [("skipped", "unscheduled")]
        assert [(run.status, run.reason) for run in runs_of(conn, off)] == [("skipped", "inactive")]
        assert fresh_server.log().count("no background worker is free for a due job") == 1
        assert (
            "cron.max_running_jobs is 20, but max_worker_processes (4) leaves room for 3 at most" in fresh_server.log()
        )


@pytest.mark.local_only
def test_a_worker_that_cannot_connect_yet_costs_the_launcher_nothing(server: Server, conn: Connection) -> None:
    """A worker waits for the lock that ALTER DATABASE holds on its database; others run meanwhile."""
    conn.execute("CREATE DATABASE slots_locked")
    try:
        launcher = wait_for_launcher(conn)
        with server.connect() as holder:
            holder.execute("BEGIN")
            holder.execute("ALTER DATABASE slots_locked RENAME TO slots_renamed")
            stuck = schedule(conn, "stuck", at(conn), "SELECT 1", database="slots_locked")
            assert run_each(conn, {"other": "SELECT 1"})["other"].status == "succeeded"
            # Two seconds of waiting: the processor time is what is asserted.
            before, woken = processor_seconds(launcher), wakeups(launcher)
            statuses = {run.status for (run,) in sample(2, lambda: runs_of(conn, stuck))}
            used, woken = processor_seconds(launcher) - before, wakeups(launcher) - woken
            holder.execute("ROLLBACK")
        assert statuses == {"starting"}
        assert used < 0.1, f"the launcher used {used:.2f} s in 2 s of waiting"
        assert woken < 60, f"the launcher woke {woken} times in 2 s of waiting"
        (run,) = wait_for_runs(conn, stuck)
        assert run.status == "succeeded", run.return_message
    finally:
        conn.execute("DROP DATABASE slots_locked WITH (FORCE)")


def test_three_hundred_jobs_due_at_once_all_run(conn: Connection) -> None:
    found = run_each(conn, {str(i): "SELECT 1" for i in range(300)}, lead=1.5)
    assert {run.status for run in found.values()} == {"succeeded"}
    assert most_at_once(found.values()) <= 32
    assert max(run.lateness for run in found.values()) < 20


@pytest.mark.local_only
def test_ten_thousand_jobs_committed_together_are_no_burden(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        launcher = wait_for_launcher(conn)
        before = processor_seconds(launcher)
        with conn.transaction():
            conn.execute(
                "SELECT cron.schedule('bulk ' || i, '0 0 29 2 *', 'SELECT 1') FROM generate_series(1, 10000) i"
            )
        # The last one scheduled is noticed as quickly as if it were alone.
        alone = schedule(conn, "alone", "1 second", "SELECT 1")
        first = wait_for_runs(conn, alone)[0]
        assert first.due_time == one(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", alone) + timedelta(
            seconds=1
        )
        assert 0 <= first.lateness < 1
        loading = processor_seconds(launcher) - before
        assert loading < 3, f"loading 10,000 jobs cost {loading:.2f} s"

        # A sample of them, from both ends and the middle: each is known to the launcher.
        bulk = rows(conn, "SELECT jobid FROM cron.job WHERE jobname LIKE 'bulk %' ORDER BY jobid")
        sampled = [jobid for (jobid,) in (bulk[0], bulk[1], bulk[4999], bulk[-2], bulk[-1])]
        conn.execute("UPDATE cron.job SET schedule = '1 second' WHERE jobid = ANY (%s)", [sampled])
        wait_until(lambda: not unfinished(conn, sampled), message="the sample to have run")
        conn.execute("UPDATE cron.job SET active = false WHERE jobid = ANY (%s)", [[*sampled, alone]])
        wait_until(lambda: workers(conn) == [], message="the last runs to end")

        # Two idle seconds: ten thousand jobs that are not due may not keep the launcher busy.
        before = processor_seconds(launcher)
        sample(2, lambda: None, pause=0.5)
        assert processor_seconds(launcher) - before < 0.1

        # A change of one job costs one job's work.
        before = processor_seconds(launcher)
        for i in range(50):
            conn.execute("UPDATE cron.job SET command = %s WHERE jobid = %s", [f"SELECT {i}", sampled[0]])
        sample(0.5, lambda: None, pause=0.25)
        assert processor_seconds(launcher) - before < 0.3
        conn.execute("TRUNCATE cron.job")


def test_a_task_can_run_where_many_others_wait_for_the_same_row(conn: Connection) -> None:
    """More runs than slots that all wait for one lock: the cap holds them, and all of them end."""
    conn.execute("DROP TABLE IF EXISTS public.counter; CREATE TABLE public.counter (n int)")
    conn.execute("INSERT INTO public.counter VALUES (0)")
    found = run_each(conn, {str(i): Task("UPDATE public.counter SET n = n + 1") for i in range(60)})
    assert {run.status for run in found.values()} == {"succeeded"}
    assert rows(conn, "SELECT n FROM public.counter") == [(60,)]
    conn.execute("DROP TABLE public.counter")
