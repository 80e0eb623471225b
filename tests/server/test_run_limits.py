"""Memory that runs out: outcomes are still recorded, and nobody else notices."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.server.support.jobs import one, run_each, run_once, runs, schedule, wait_for_runs
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import LocalServer
from tests.support.waiting import wait_until

MEGABYTE = 1024 * 1024

# The largest file that the server may write: a WAL segment just fits, a longer text in shared memory does not.
LIMIT = 16 * MEGABYTE


@pytest.fixture
def full_server(fresh_server: LocalServer) -> LocalServer:
    """A server whose shared memory has no room for a large segment, as if /dev/shm were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        fresh_server.restart()  # it inherits the limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return fresh_server


@pytest.mark.local_only
@pytest.mark.settings({"cron.log_statement": False})
def test_full_shared_memory_loses_no_outcome(full_server: LocalServer) -> None:
    raise_error = f"DO $$ BEGIN RAISE '%', repeat('x', {20 * MEGABYTE}) USING DETAIL = 'why'; END $$"
    with full_server.connect() as conn:
        found = run_each(
            conn,
            {
                # The log is a file too.
                "long error": f"SET log_min_messages = panic; {raise_error}",
                "long command": f"SELECT 1 /* {'c' * (20 * MEGABYTE)} */",
                "short": "SELECT 1",
            },
            lead=2,
        )
        assert "could not resize shared memory segment" in full_server.log(), "the provocation did not work"
        error = found["long error"]
        assert (error.status, error.reason, error.sqlstate, error.detail) == ("failed", "error", "P0001", "why")
        assert (error.return_message or "").startswith("ERROR: " + "x" * 1000)
        assert f"cut, {20 * MEGABYTE} bytes in all" in (error.return_message or "")
        command = found["long command"]
        assert (command.status, command.reason, command.sqlstate) == ("failed", "could_not_start", "53200")
        assert (command.return_message or "").startswith("ERROR: out of shared memory for the command")
        assert str(20 * MEGABYTE)[:4] in (command.detail or "")
        assert found["short"].status == "succeeded"
        assert run_once(conn, "SELECT 2").status == "succeeded"


def memory_of(pid: int) -> int:
    """Bytes of a process's own memory, shared memory left out."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.local_only
def test_the_launchers_memory_does_not_follow_what_runs_say(fresh_server: LocalServer) -> None:
    """Large commands, errors and results come and go; the launcher gives back what it took."""
    with fresh_server.connect() as conn:
        launcher = wait_for_launcher(conn)
        run_once(conn, "SELECT 1")
        before = memory_of(launcher)
        for _ in range(3):
            found = run_each(
                conn,
                {
                    "error": f"DO $$ BEGIN RAISE '%', repeat('é', {4 * MEGABYTE}); END $$",
                    "result": f"SELECT repeat('x', {64 * MEGABYTE})",
                    "rows": "SELECT generate_series(1, 1000000)",
                    "command": f"SELECT 1 /* {'c' * (4 * MEGABYTE)} */",
                },
                lead=1,
            )
            assert [found[name].status for name in found] == ["failed", "succeeded", "succeeded", "succeeded"]
        # What malloc keeps of the peak is bounded by the peak of one pass.
        wait_until(lambda: memory_of(launcher) < before + 64 * MEGABYTE, message="the launcher to give memory back")


@pytest.mark.local_only
def test_a_fast_shutdown_is_recorded_as_such(fresh_server: LocalServer) -> None:
    """The runs that it ends say so before the server is down; the one that waits is closed at the next start."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.kept (i int)")
        jobs = [
            schedule(conn, f"long {i}", "1 second", "INSERT INTO public.kept VALUES (1); SELECT pg_sleep(600)")
            for i in range(5)
        ]
        wait_until(lambda: len(runs(conn, "status = 'running'")) == len(jobs), message="long runs")
        ended = {run.jobid: run.runid for run in runs(conn, "status = 'running'")}
    fresh_server.stop("fast", timeout=5)
    fresh_server.start()
    with fresh_server.connect() as conn:
        wait_until(
            lambda: not runs(conn, "runid = ANY (%s) AND end_time IS NULL", list(ended.values())), message="ends"
        )
        for run in runs(conn, "runid = ANY (%s)", list(ended.values())):
            assert (run.status, run.reason, run.sqlstate, run.effects) == ("failed", "shutdown", "57P01", None)
            assert "due to administrator command" in (run.return_message or "")
        started = one(conn, "SELECT pg_postmaster_start_time()")
        assert all(run.end_time and run.end_time < started for run in runs(conn, "reason = 'shutdown'"))
        assert one(conn, "SELECT count(*) FROM public.kept") == 0
        wait_for_runs(conn, jobs[0], 2)


LAUNCHER_SLEEPS = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher'"


@pytest.mark.local_only
@pytest.mark.parametrize(("seconds", "reason"), [(0.5, "shutdown"), (600, "server_restart")])
def test_a_fast_shutdown_finds_the_launcher_writing(fresh_server: LocalServer, seconds: float, reason: str) -> None:
    """The signal comes in the middle of a statement: one that ends in time is finished, and the runs' ends recorded."""
    with fresh_server.connect() as conn:
        long = schedule(conn, "long", "1 second", "SELECT pg_sleep(600)")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", long), message="a long run")
        (run,) = runs(conn, "jobid = %s AND status = 'running'", long)
        conn.execute(
            f"""
            CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
            CREATE TRIGGER linger BEFORE INSERT ON cron.job_run_details FOR EACH ROW
              WHEN (NEW.status = 'skipped') EXECUTE FUNCTION public.linger()
            """.encode()
        )
        wait_until(lambda: one(conn, LAUNCHER_SLEEPS), message="the launcher to write a record")
        fresh_server.stop("fast", timeout=5)
    fresh_server.start()
    with fresh_server.connect() as conn:
        wait_until(lambda: runs(conn, "runid = %s AND end_time IS NOT NULL", run.runid), message="its end")
        (run,) = runs(conn, "runid = %s", run.runid)
        assert (run.status, run.reason) == ("failed", reason)


@pytest.mark.local_only
def test_a_trigger_that_sleeps_does_not_hold_up_a_fast_shutdown(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "long", "1 second", "SELECT pg_sleep(600)")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="a long run")
        conn.execute(
            """
            CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN IF NEW.reason = 'shutdown' THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$;
            CREATE TRIGGER linger BEFORE UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.linger()
            """
        )
    fresh_server.stop("fast", timeout=5)
    fresh_server.start()
    with fresh_server.connect() as conn:
        (run, *_) = wait_for_runs(conn, jobid)
        assert (run.status, run.reason) == ("failed", "server_restart")


@pytest.mark.local_only
def test_a_terminated_run_is_no_shutdown(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        run = run_once(conn, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        assert (run.status, run.reason) == ("failed", "terminated")
