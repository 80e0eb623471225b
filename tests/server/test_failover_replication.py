"""Failover with streaming replication: standbys are idle, a promoted one takes over, and its history tells what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import OPEN, Run, at, one, rows, runs, runs_of, schedule, wait_for_runs
from tests.server.support.replication import (
    REWINDABLE,
    assert_idle,
    assert_once_per_due_time,
    rejoin,
    standby_of,
    wait_for_replay,
)
from tests.server.support.watching import log_since
from tests.support.servers import LocalServer
from tests.support.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
Promotion = Callable[[LocalServer], None]

pytestmark = pytest.mark.local_only

# We promise three seconds; a machine that is busy with other tests is given more.
FIRST_RUN_WITHIN_S = 10.0
PROMPT_S = 5.0


def call_pg_promote(server: LocalServer) -> None:
    assert server.sql("SELECT pg_promote()") == [(True,)]


def call_pg_ctl(server: LocalServer) -> None:
    server.promote()


def stop_in_order(server: LocalServer) -> None:
    server.stop("fast")


def stop_dead(server: LocalServer) -> None:
    server.crash()


def busy(conn: Connection) -> dict[str, int]:
    """A primary at work: a job each second, and one of which a run goes on while another waits."""
    conn.execute("CREATE TABLE public.effects (made timestamptz DEFAULT clock_timestamp())")
    jobs = {
        "tick": schedule(conn, "tick", "1 second", "INSERT INTO public.effects DEFAULT VALUES"),
        "long": schedule(conn, "long", "1 second", "SELECT pg_sleep(600)"),
        "minutely": schedule(conn, "minutely", "* * * * *", "SELECT 1"),
        "boot": schedule(conn, "boot", "@reboot", "SELECT 1"),
    }
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobs["long"]), message="a long run")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'queued'", jobs["long"]), message="a queued run")
    wait_for_runs(conn, jobs["tick"], 2)
    return jobs


def timelines(conn: Connection, where: str = "true", *parameters: Any) -> set[int]:
    return {
        row[0] for row in rows(conn, f"SELECT DISTINCT timeline FROM cron.job_run_details WHERE {where}", *parameters)
    }


def wait_for_timeline(conn: Connection, jobid: int, timeline: int, count: int = 1) -> list[Run]:
    """The successful runs of a job on a timeline, once there are so many."""
    where = "jobid = %s AND timeline = %s AND status = 'succeeded'"
    wait_until(lambda: len(runs(conn, where, jobid, timeline)) >= count, 30, f"runs on timeline {timeline}")
    return runs(conn, where, jobid, timeline)


def promote(server: LocalServer, promotion: Promotion, jobid: int, timeline: int) -> float:
    """Promote a standby; seconds from the request to the first run of the job on the new timeline."""
    with server.connect() as conn:
        asked = one(conn, "SELECT clock_timestamp()")
    promotion(server)
    with server.connect() as conn:
        (first, *_) = wait_for_timeline(conn, jobid, timeline)
    took = (first.start_time - asked).total_seconds()
    print(f"first run {took:.2f} s after the promotion was asked for")
    assert 0 < took < FIRST_RUN_WITHIN_S
    return float(took)


def assert_closed_by_failover(conn: Connection, jobid: int, old: int, new: int) -> None:
    """The long job's run and the one that waited behind it have their ends, and the ends say what happened."""
    where = "jobid = %s AND timeline = %s AND status = ANY (%s)"
    wait_until(lambda: not runs(conn, where, jobid, old, list(OPEN)), message="the old primary's records to be closed")
    ended = runs(conn, "jobid = %s AND timeline = %s AND reason = 'failover'", jobid, old)
    went_on, waited = [next(run for run in ended if run.status == status) for status in ("failed", "skipped")]
    assert went_on.detail == (
        f"The run began on timeline {old}, and its end is not known on timeline {new}."
        f" What it committed is here if it was replicated before timeline {new} branched off."
    )
    assert waited.detail == f"The run waited on timeline {old} and had not begun where timeline {new} branched off."
    assert len(ended) == 2
    for run in ended:
        assert run.return_message == f"server promoted\nDETAIL: {run.detail}"
        assert run.end_time is not None


@pytest.mark.settings(dict(REWINDABLE))
@pytest.mark.parametrize(
    ("end", "promotion"),
    [pytest.param(stop_dead, call_pg_promote, id="crash"), pytest.param(stop_in_order, call_pg_ctl, id="switchover")],
)
def test_a_standby_is_idle_and_takes_over_when_promoted(
    fresh_server: LocalServer, end: Promotion, promotion: Promotion
) -> None:
    with fresh_server.connect() as conn:
        jobs = busy(conn)
    with standby_of(fresh_server) as standby, standby_of(standby) as cascade:
        with fresh_server.connect() as source, standby.connect() as conn, cascade.connect() as further:
            wait_for_runs(source, jobs["tick"], len(runs_of(source, jobs["tick"])) + 1)
            for idle in (conn, further):
                wait_for_replay(source, idle)
                assert_idle(idle)
                assert runs(idle, "jobid = %s AND status = 'running'", jobs["long"])
                assert len(rows(idle, "SELECT cron.next_runs('* * * * *')")) == 5
                assert rows(idle, "SELECT cron.explain('* * * * *')")
                assert jobs["minutely"] in {row[0] for row in rows(idle, "SELECT jobid FROM cron.upcoming()")}
        assert "pg_clockwork" not in standby.log() + cascade.log()

        end(fresh_server)
        promote(standby, promotion, jobs["tick"], 2)
        with standby.connect() as conn, cascade.connect() as further:
            if end is stop_dead:
                assert_closed_by_failover(conn, jobs["long"], 1, 2)
            else:
                # A launcher that is asked to go may still have recorded the end of the run.
                wait_until(lambda: not runs(conn, "timeline = 1 AND status = ANY (%s)", list(OPEN)), message="the ends")
                closed = runs(conn, "jobid = %s AND timeline = 1 AND reason <> 'overlap'", jobs["long"])
                assert {run.reason for run in closed} <= {"failover", "shutdown"}
                assert all(run.end_time for run in closed)
            assert [run.timeline for run in wait_for_runs(conn, jobs["boot"])] == [2]
            # One record for all that fell due in between, and it is the last that is not a run.
            after = next(run.due_time for run in runs_of(conn, jobs["tick"]) if run.due_time and run.timeline == 2)
            missed = runs(conn, "jobid = %s AND reason = 'missed'", jobs["tick"])
            assert [run.due_time for run in missed] in ([], [after])
            assert_every_second_accounted_for(conn, jobs["tick"], missed)
            assert_once_per_due_time(conn)
            assert_effects_have_records(conn, jobs["tick"])
            wait_for_replay(conn, further)
            wait_until(lambda: 2 in timelines(further), message="the cascading standby to follow the new timeline")
            assert_idle(further)
        assert "pg_clockwork" not in cascade.log()


def assert_every_second_accounted_for(conn: Connection, jobid: int, missed: list[Any]) -> None:
    """Every due time has its record, or lies in the gap that the record of missed due times counts."""
    due = sorted(run.due_time for run in runs_of(conn, jobid) if run.due_time)
    gaps = [later for earlier, later in pairwise(due) if later - earlier != timedelta(seconds=1)]
    assert set(gaps) <= {run.due_time for run in missed}


def assert_effects_have_records(conn: Connection, jobid: int) -> None:
    """What is here of effects was recorded before: no effect without a run that may have made it."""
    # One statement sees one state: jobs go on meanwhile.
    ((effects, began, succeeded),) = rows(
        conn,
        "SELECT (SELECT count(*) FROM public.effects), count(*) FILTER (WHERE status <> 'skipped'),"
        " count(*) FILTER (WHERE status = 'succeeded') FROM cron.job_run_details WHERE jobid = %s",
        jobid,
    )
    assert succeeded <= effects <= began


@pytest.mark.settings(dict(REWINDABLE))
def test_a_deposed_primary_is_told_apart_and_rejoins_idle(fresh_server: LocalServer) -> None:
    """Two primaries at once, as after a cut cable: each due time runs once on each timeline, and one history survives."""
    first = fresh_server
    with first.connect() as conn:
        jobs = busy(conn)
    with standby_of(first) as second:
        with first.connect() as conn, second.connect() as other:
            wait_for_replay(conn, other)
            wait_until(lambda: runs(other, "jobid = %s AND status = 'queued'", jobs["long"]), message="replication")
        promote(second, call_pg_promote, jobs["tick"], 2)
        with first.connect() as old, second.connect() as new:
            newest = one(new, "SELECT max(due_time) FROM cron.job_run_details WHERE timeline = 2")
            wait_until(
                lambda: runs(old, "jobid = %s AND status = 'succeeded' AND due_time >= %s", jobs["tick"], newest),
                message="the deposed primary to go on",
            )
            assert timelines(old) == {1}
            assert timelines(new, "due_time >= %s", newest) == {2}
            for history in (old, new):
                assert_once_per_due_time(history)
            assert_closed_by_failover(new, jobs["long"], 1, 2)

        first.stop("fast")
        rejoin(first, second)
        with first.connect() as old, second.connect() as new:
            wait_for_runs(new, jobs["tick"], len(runs_of(new, jobs["tick"])) + 1)
            wait_for_replay(new, old)
            assert_idle(old)
            kept = "SELECT runid, jobid, due_time, timeline FROM cron.job_run_details WHERE due_time <= %s ORDER BY 1"
            assert rows(old, kept, newest) == rows(new, kept, newest)
            wait_until(lambda: runs(old, "timeline = 2 AND status = 'queued'"), message="an open record to arrive")

        length = len(first.log())
        second.crash()
        promote(first, call_pg_ctl, jobs["tick"], 3)
        with first.connect() as conn:
            assert_closed_by_failover(conn, jobs["long"], 2, 3)
            assert_once_per_due_time(conn)
            # A crash of the promoted server is a crash, not a failover.
            wait_until(lambda: runs(conn, "timeline = 3 AND status = 'running'"), message="a long run on timeline 3")
        assert log_since(first, length).count("pg_clockwork launcher started") == 1
        first.crash()
        first.start()
        with first.connect() as conn:
            wait_until(lambda: runs(conn, "reason = 'server_restart'"), message="the records of before the crash")
            assert timelines(conn, "reason = 'server_restart'") == {3}
            assert timelines(conn, "reason = 'failover'") == {1, 2}


def test_nodes_whose_clocks_differ_lose_and_double_nothing(fresh_server: LocalServer) -> None:
    """One standby lives three seconds in the past, one three seconds in the future; both are promoted."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.effects (made timestamptz DEFAULT clock_timestamp())")
        tick = schedule(conn, "tick", "1 second", "INSERT INTO public.effects DEFAULT VALUES")
        wait_for_runs(conn, tick, 2)
    with standby_of(fresh_server, clock=-3) as past, standby_of(fresh_server, clock=3) as future:
        with fresh_server.connect() as source, past.connect() as one_of_them, future.connect() as other:
            wait_for_runs(source, tick, len(runs_of(source, tick)) + 3)
            wait_for_replay(source, one_of_them)
            wait_for_replay(source, other)
            (behind, ahead) = (one(node, "SELECT clock_timestamp()") for node in (one_of_them, other))
            assert timedelta(seconds=5) < ahead - behind < timedelta(seconds=15), "the clocks do differ"
        fresh_server.crash()
        for server in (past, future):
            call_pg_promote(server)
        for server in (past, future):
            with server.connect() as conn:
                wait_for_timeline(conn, tick, 2, count=2)
                assert_once_per_due_time(conn)
                missed = runs(conn, "jobid = %s AND reason = 'missed'", tick)
                assert_every_second_accounted_for(conn, tick, missed)
                assert_effects_have_records(conn, tick)
                # What the old primary ran by a clock that was ahead is not run again.
                newest = one(conn, "SELECT max(due_time) FROM cron.job_run_details WHERE timeline = 1")
                oldest = one(conn, "SELECT min(due_time) FROM cron.job_run_details WHERE timeline = 2")
                assert oldest > newest
                if server is future:
                    assert len(missed) == 1


def test_a_synchronous_standby_that_is_missing_holds_up_only_who_asks_for_it(fresh_server: LocalServer) -> None:
    """The bookkeeping goes on; a run that wrote waits like any session, and its end is told as it is."""
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_clockwork worker' AND wait_event = 'SyncRep'"
        " AND application_name LIKE %s"
    )

    def start_writer(conn: Connection, name: str) -> tuple[int, int]:
        jobid = schedule(conn, name, at(conn), f"INSERT INTO public.effects VALUES ('{name}')")
        ((pid,),) = wait_until(lambda: rows(conn, waiting, f"pg_clockwork job {jobid} %"), message=f"{name} to wait")
        return jobid, pid

    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.effects (name text)")
        conn.execute("SET synchronous_commit = local")
        fresh_server.configure({"synchronous_standby_names": "walreceiver"})
        fresh_server.reload()
        wait_until(lambda: one(conn, "SHOW synchronous_standby_names") == "walreceiver", message="the setting")
        tick = schedule(conn, "tick", "1 second", "SELECT 1")
        released, _ = start_writer(conn, "released")
        count = len(wait_for_runs(conn, tick))
        found = wait_for_runs(conn, tick, count + 2)
        assert {run.status for run in found[:count]} == {"succeeded"}
        assert {run.status for run in runs_of(conn, released)} <= set(OPEN)
        with standby_of(fresh_server) as standby:
            assert wait_for_runs(conn, released)[0].status == "succeeded"
            assert standby.sql("SELECT name FROM public.effects") == [("released",)]

        canceled, pid = start_writer(conn, "canceled")
        conn.execute("SELECT pg_cancel_backend(%s)", [pid])
        terminated, pid = start_writer(conn, "terminated")
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        for jobid in (canceled, terminated):
            (run,) = wait_for_runs(conn, jobid)
            assert (run.status, run.reason, run.return_message) == ("succeeded", None, "INSERT 0 1")
        cut_off, _ = start_writer(conn, "cut off")
    before = time.monotonic()
    fresh_server.stop("fast")
    assert time.monotonic() - before < PROMPT_S

    fresh_server.configure({"synchronous_standby_names": ""})
    fresh_server.start()
    with fresh_server.connect() as conn:
        assert {row[0] for row in rows(conn, "SELECT name FROM public.effects")} == {
            "released",
            "canceled",
            "terminated",
            "cut off",
        }
        (run,) = wait_for_runs(conn, cut_off)
        # It is committed here. Where its record could not say so in time, it at least does not say the contrary.
        assert (run.status, run.reason) in (("succeeded", None), ("failed", "server_restart")), run
        assert "nothing of it was committed" not in (run.return_message or "")
