"""What administrators, other users of the server and the machine itself can do to a scheduler: one fault each."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.support.checker import Span, Timeline, check_attempts, check_due_times
from tests.server.support.jobs import (
    OPEN,
    Task,
    launcher_pid,
    one,
    rows,
    run_each,
    runs,
    runs_of,
    schedule,
    schedule_together,
    wait_for_no_gap,
    wait_for_runs,
)
from tests.server.support.watching import log_since, sample, wait_for_launcher
from tests.support.servers import LocalServer, Server
from tests.support.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

MEGABYTE = 1024 * 1024

# DROP DATABASE gives up after five seconds of waiting for a process that does not leave.
DROP_TIMEOUT = "8s"


def assert_goes_on(conn: Connection, jobid: int) -> None:
    """The job has new runs, none of its due times is missing or double, and none of its runs failed."""
    wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2)
    wait_for_no_gap(conn, jobid)
    assert {run.status for run in runs_of(conn, jobid)} <= {"succeeded", "skipped", *OPEN}


# --- one job against the others ----------------------------------------------------------------


@pytest.mark.local_only
def test_a_worker_that_hangs_holds_up_nobody(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """Its process is stopped: it does not react to anything, not even to being asked to end."""
    with fresh_server.connect() as conn:
        witness = schedule(conn, "witness", "1 second", "SELECT 1")
        hung = schedule(conn, "hung", "1 second", "SELECT pg_sleep(60)")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", hung), message="its run")
        (run,) = runs(conn, "jobid = %s AND status = 'running'", hung)
        assert run.job_pid is not None
        fresh_server.kill(run.job_pid, signal.SIGSTOP)
        try:
            conn.execute("SELECT pg_terminate_backend(%s)", [run.job_pid])
            conn.execute("SELECT cron.unschedule(%s::bigint)", [hung])
            assert_goes_on(conn, witness)
            assert runs(conn, "runid = %s", run.runid)[0].end_time is None
            found = run_each(conn, {str(i): "SELECT 1" for i in range(20)})
            assert {other.status for other in found.values()} == {"succeeded"}
        finally:
            fresh_server.kill(run.job_pid, signal.SIGCONT)
        wait_until(lambda: runs(conn, "runid = %s AND end_time IS NOT NULL", run.runid), message="its end")
        ended = runs(conn, "runid = %s", run.runid)[0]
        assert (ended.status, ended.reason) == ("failed", "terminated")


def test_gigabyte_strings_and_millions_of_rows_are_their_own_jobs_affair(conn: Connection) -> None:
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    found = run_each(
        conn,
        {
            "too long": f"SELECT repeat('x', {1024 * MEGABYTE})",
            "rows": "SELECT i, i::text FROM generate_series(1, 2000000) AS i",
            "many statements": "SELECT 1;" * 20_000,
        },
    )
    assert (found["too long"].status, found["too long"].sqlstate) == ("failed", "54000")
    assert (found["rows"].status, found["rows"].row_count) == ("succeeded", 2_000_000)
    assert found["many statements"].status == "succeeded"
    assert_goes_on(conn, witness)


def limit_files(server: LocalServer, pid: int, size: str) -> None:
    """How large a file may become by what this process writes; asked for by its own user, who alone may."""
    prlimit = shutil.which("prlimit")
    assert prlimit is not None
    subprocess.run(
        server.account.command(Path(prlimit), f"--pid={pid}", f"--fsize={size}:"),
        check=True,
        **server.account.process_options(),
    )


@pytest.mark.local_only
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit, which util-linux brings")
def test_a_disk_without_room_for_the_history_stops_no_job(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """The launcher's files may grow no further: as on a full disk, every new page of the history is refused."""
    limit = 24 * MEGABYTE
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.counted (at timestamptz DEFAULT clock_timestamp())")
        jobid = schedule(conn, "tick", "1 second", f"/* {'c' * 6000} */ INSERT INTO public.counted DEFAULT VALUES")
        conn.execute("ALTER TABLE cron.job_run_details ALTER command SET STORAGE PLAIN")
        wait_for_runs(conn, jobid)
        conn.execute(
            "INSERT INTO cron.job_run_details (jobid, command, status, reason, return_message, end_time)"
            " SELECT -1, repeat('c', 6000), 'failed', 'error', 'x', now() FROM generate_series(1, 3500)"
        )
        assert one(conn, "SELECT pg_relation_size('cron.job_run_details')") > limit
        launcher = wait_for_launcher(conn)
        before = one(conn, "SELECT count(*) FROM public.counted")
        length = len(fresh_server.log())
        limit_files(fresh_server, launcher, str(limit))
        try:
            wait_until(lambda: "could not extend file" in log_since(fresh_server, length), 20, "the disk to be full")
            full = one(conn, "SELECT count(*) FROM public.counted")
            wait_until(
                lambda: one(conn, "SELECT count(*) FROM public.counted") >= full + 2, 20, "jobs to run all the same"
            )
        finally:
            limit_files(fresh_server, launcher, "unlimited")
        assert launcher_pid(conn) == launcher
        assert one(conn, "SELECT count(*) FROM public.counted") > before
        conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
        settled = "SELECT count(*) FROM public.counted"
        wait_until(
            lambda: (
                len(runs(conn, "jobid = %s AND status = 'succeeded'", jobid)) == one(conn, settled)
                and not runs(conn, "jobid = %s AND status = ANY (%s)", jobid, list(OPEN))
            ),
            60,
            "every run to have its record",
        )
        wait_for_no_gap(conn, jobid)


# --- administrators ----------------------------------------------------------------------------


@pytest.mark.local_only
def test_a_fast_shutdown_is_prompt_with_every_slot_busy(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        jobs = schedule_together(conn, {f"busy {i}": "SELECT pg_sleep(600)" for i in range(40)}, 0.5)
        found = "SELECT count(*) FROM cron.job_run_details WHERE status = 'running'"
        deadline = time.monotonic() + 30
        while one(conn, found) < 32:
            assert time.monotonic() < deadline, "the slots did not fill"
    fresh_server.stop("fast", timeout=5.0)
    fresh_server.start()
    with fresh_server.connect() as conn:
        wait_for_launcher(conn)
        for jobid in jobs.values():
            (run,) = wait_for_runs(conn, jobid)
            assert (run.status, run.reason) in {
                ("failed", "shutdown"),
                ("failed", "server_restart"),
                ("skipped", "server_restart"),
            }
            assert run.end_time is not None


def test_settings_can_be_altered_and_reloaded_while_jobs_are_due(server: Server, conn: Connection) -> None:
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    length = len(server.log())
    try:
        for value in ("off", "on", "off"):
            conn.execute(f"ALTER SYSTEM SET cron.log_statement = {value}".encode())
            conn.execute("ALTER SYSTEM SET cron.timezone = 'Asia/Kathmandu'")
            conn.execute("SELECT pg_reload_conf()")
            wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 1)
    finally:
        conn.execute("ALTER SYSTEM RESET cron.log_statement; ")
        conn.execute("ALTER SYSTEM RESET cron.timezone")
        conn.execute("SELECT pg_reload_conf()")
    assert_goes_on(conn, jobid)
    assert "launcher reloaded configuration" in log_since(server, length)
    assert "pg_clockwork launcher started" not in log_since(server, length)


def test_the_extension_can_be_altered_while_jobs_are_due(server: Server, conn: Connection) -> None:
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    launcher = launcher_pid(conn)
    with server.connect() as other:
        other.execute("SET lock_timeout = '5s'")
        other.execute("BEGIN")
        other.execute("ALTER EXTENSION pg_clockwork UPDATE")
        other.execute("ALTER EXTENSION pg_clockwork DROP FUNCTION cron.unschedule(text)")
        since = one(conn, "SELECT clock_timestamp()")
        wait_for_runs(conn, jobid, len(runs_of(conn, jobid)) + 2)
        other.execute("ALTER EXTENSION pg_clockwork ADD FUNCTION cron.unschedule(text)")
        other.execute("COMMIT")
    assert runs(conn, "jobid = %s AND status = 'succeeded' AND start_time > %s", jobid, since)
    assert_goes_on(conn, jobid)
    assert launcher_pid(conn) == launcher


@pytest.fixture
def housed(fresh_server: LocalServer) -> Iterator[LocalServer]:
    """A server whose home database is not the one that administrators connect to."""
    fresh_server.sql("DROP EXTENSION pg_clockwork")
    fresh_server.sql("CREATE DATABASE home")
    fresh_server.configure({"cron.database_name": "home"})
    fresh_server.restart()
    with fresh_server.connect("home") as conn:
        conn.execute("CREATE EXTENSION pg_clockwork")
        wait_for_launcher(conn)
        wait_for_runs(conn, schedule(conn, "tick", "1 second", "SELECT 1", database="home"))
    return fresh_server


def assert_comes_back(server: LocalServer) -> None:
    """A launcher finds the home database within its back-off, and runs jobs again."""
    with server.connect("home") as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS pg_clockwork")
        jobid = schedule(conn, "again", "1 second", "SELECT 1", database="home")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'succeeded'", jobid), 40, "a run of the new job")
        assert_goes_on(conn, jobid)


@pytest.mark.local_only
@pytest.mark.parametrize("way", ["plain", "owner", "force"])
def test_the_home_database_can_be_dropped(housed: LocalServer, way: str) -> None:
    """The launcher leaves it to whoever may drop it; once it exists again, jobs run without a restart."""
    with housed.connect() as conn:
        conn.execute(f"SET statement_timeout = '{DROP_TIMEOUT}'".encode())
        conn.execute("CREATE ROLE faults_owner CREATEDB; ALTER DATABASE home OWNER TO faults_owner")
        if way == "owner":
            conn.execute("SET ROLE faults_owner")
        conn.execute("DROP DATABASE home WITH (FORCE)" if way == "force" else "DROP DATABASE home")
        assert rows(conn, "SELECT FROM pg_database WHERE datname = 'home'") == []
        conn.execute("CREATE DATABASE unrelated")
        conn.execute("DROP DATABASE unrelated")
        conn.execute("CREATE DATABASE home")
    assert_comes_back(housed)


@pytest.mark.local_only
def test_the_home_database_that_could_not_be_dropped_keeps_its_jobs(housed: LocalServer) -> None:
    """Somebody is connected to it: the launcher left in vain, and the next one goes on."""
    with housed.connect() as conn, housed.connect("home") as home:
        launcher = wait_for_launcher(conn)
        conn.execute("CREATE ROLE faults_stranger CREATEDB")
        conn.execute("SET ROLE faults_stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DROP DATABASE home")
        conn.execute("RESET ROLE")
        with pytest.raises(psycopg.errors.ObjectInUse, match="cannot drop the currently open database"):
            home.execute("DROP DATABASE home")
        conn.execute("CREATE DATABASE unrelated")
        conn.execute("DROP DATABASE unrelated")
        assert launcher_pid(conn) == launcher, "it left although nobody could drop its database"
        conn.execute(f"SET statement_timeout = '{DROP_TIMEOUT}'".encode())
        with pytest.raises(psycopg.errors.ObjectInUse, match="being accessed by other users"):
            conn.execute("DROP DATABASE home")
        wait_for_launcher(conn, other_than=launcher)
        assert_goes_on(home, 1)


@pytest.mark.local_only
def test_the_home_database_can_be_copied_without_losing_the_launcher_for_good(housed: LocalServer) -> None:
    """On PostgreSQL 19 it had been ended by the copy, and never came back."""
    with housed.connect() as conn:
        conn.execute(f"SET statement_timeout = '{DROP_TIMEOUT}'".encode())
        launcher = wait_for_launcher(conn)
        with pytest.raises(psycopg.errors.ObjectInUse):
            conn.execute("CREATE DATABASE copy TEMPLATE home")
        assert launcher_pid(conn) == launcher
        # What docs/guarantees.md says to do.
        conn.execute("ALTER DATABASE home ALLOW_CONNECTIONS false")
        conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher'"
        )
        conn.execute("CREATE DATABASE copy TEMPLATE home")
        conn.execute("ALTER DATABASE home ALLOW_CONNECTIONS true")
    assert_comes_back(housed)


@pytest.mark.local_only
@pytest.mark.settings({"max_prepared_transactions": 2})
def test_a_first_load_that_fails_is_tried_again(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """A prepared transaction's lock survives the restart: the launcher cannot read the jobs, gives up, and tries again."""
    with fresh_server.connect() as conn:
        schedule(conn, "long", "1 second", "SELECT pg_sleep(60)")
        wait_until(lambda: runs(conn, "status = 'running'"), message="a run")
        tick = schedule(conn, "tick", "1 second", "SELECT 1")
        wait_for_runs(conn, tick)
        open_before = [run.runid for run in runs(conn, "status = ANY (%s)", list(OPEN))]
        conn.execute("BEGIN; LOCK TABLE cron.job; PREPARE TRANSACTION 'holder'")
    fresh_server.crash()
    length = len(fresh_server.log())
    fresh_server.start()
    with fresh_server.connect() as conn:
        pid = wait_for_launcher(conn)
        failure = "canceling statement due to lock timeout"
        wait_until(lambda: log_since(fresh_server, length).count(failure) >= 2, 20, "two failures")
        assert launcher_pid(conn) == pid
        conn.execute("ROLLBACK PREPARED 'holder'")
        wait_until(
            lambda: not runs(conn, "runid = ANY (%s) AND status = ANY (%s)", open_before, list(OPEN)),
            message="the old records to be closed",
        )
        wait_for_runs(conn, tick, len(runs_of(conn, tick)) + 2)
        conn.execute("SELECT cron.alter_job(%s, active := false)", [tick])
        anchor = one(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", tick)
        found = runs_of(conn, tick)
        last = max(run.due_time for run in found if run.due_time)
        assert check_due_times(Timeline("tick", [Span("1 second", anchor, anchor, anchor=anchor)]), found, last) == []
        assert check_attempts("tick", found) == []


# --- the launcher itself -------------------------------------------------------------------------


@pytest.mark.local_only
def test_a_job_that_is_renamed_at_the_very_moment_it_is_due_runs(
    fresh_server: LocalServer, wait_until: WaitUntil
) -> None:
    """The launcher finds the due time and the change in the same pass: it was stopped while both came."""
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "before", "2 seconds", "SELECT 1")
        pid = wait_for_launcher(conn)
        due = "SELECT schedule_anchor + interval '2 seconds' < clock_timestamp() FROM cron.job"
        # Time to read the new job, before its first due time.
        wait_until(lambda: one(conn, "SELECT schedule_anchor + interval '1 second' < clock_timestamp() FROM cron.job"))
        fresh_server.kill(pid, signal.SIGSTOP)
        try:
            assert not one(conn, due)
            conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [jobid, '{"name": "after"}'])
            wait_until(lambda: one(conn, due), message="the due time")
        finally:
            fresh_server.kill(pid, signal.SIGCONT)
        first = wait_for_runs(conn, jobid)[0]
        assert first.due_time == one(conn, "SELECT schedule_anchor + interval '2 seconds' FROM cron.job")
        assert first.status == "succeeded"


@pytest.mark.local_only
def test_a_launcher_that_stands_still_for_a_while_accounts_for_what_fell_due(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "tick", "1 second", "SELECT 1")
        wait_for_runs(conn, jobid)
        pid = wait_for_launcher(conn)
        fresh_server.kill(pid, signal.SIGSTOP)
        # Four seconds without a launcher that moves, which is what the test is about.
        sample(4, lambda: None, 1)
        fresh_server.kill(pid, signal.SIGCONT)
        assert_goes_on(conn, jobid)
        skipped = runs(conn, "jobid = %s AND status = 'skipped'", jobid)
        assert {run.reason for run in skipped} == {"overlap"}


def test_what_fell_due_before_its_job_was_unscheduled_has_a_record(fresh_server: LocalServer) -> None:
    """The launcher stands still while the job is due, and unscheduled, and learns of both at once."""
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "tick", "1 second", "SELECT 1")
        other = schedule(conn, "rescheduled", "1 second", "SELECT 1")
        wait_for_runs(conn, jobid)
        wait_for_runs(conn, other)
        pid = wait_for_launcher(conn)
        fresh_server.kill(pid, signal.SIGSTOP)
        # Three seconds in which the jobs are due three times.
        sample(3, lambda: None, 1)
        conn.execute("BEGIN")
        conn.execute(
            "SELECT cron.unschedule(%s::bigint), cron.schedule('rescheduled', '0 0 29 2 *', 'SELECT 1')", [jobid]
        )
        conn.execute("COMMIT")
        until = one(conn, "SELECT clock_timestamp()")
        recorded = "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND due_time = ANY (%s) AND end_time IS NOT NULL"
        last = {
            job: one(conn, "SELECT max(due_time) FROM cron.job_run_details WHERE jobid = %s", job)
            for job in (jobid, other)
        }
        fresh_server.kill(pid, signal.SIGCONT)
        for job, before in last.items():
            due = [before + timedelta(seconds=i) for i in range(1, 1 + (until - before) // timedelta(seconds=1))]
            assert len(due) >= 2, "it was not due while nobody looked: this proves nothing"
            wait_until(lambda j=job, d=due: one(conn, recorded, j, d) == len(d), message="a record for each")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("SELECT cron.unschedule(%s::bigint)", "unscheduled"),
        ("SELECT cron.alter_job(%s, active := false)", "inactive"),
        ("SELECT cron.pause(%s::bigint, 'test')", "paused"),
    ],
    ids=lambda text: text if " " not in text else "",
)
def test_a_run_that_waits_hears_of_its_job_from_the_next_launcher(
    fresh_server: LocalServer, change: str, reason: str
) -> None:
    """The launcher ends before it has seen the change: that is no restart of the server."""
    with fresh_server.connect() as conn:
        jobid = schedule(conn, "long", "1 second", "SELECT pg_sleep(30)")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'queued'", jobid), message="a run that waits")
        pid = wait_for_launcher(conn)
        fresh_server.kill(pid, signal.SIGSTOP)
        conn.execute(change.encode(), [jobid])
        fresh_server.kill(pid, signal.SIGTERM)
        fresh_server.kill(pid, signal.SIGCONT)
        wait_for_launcher(conn, other_than=pid)
        wait_until(lambda: not runs(conn, "jobid = %s AND status = 'queued'", jobid), message="the end of its wait")
        waited = runs(conn, "jobid = %s AND status = 'skipped' AND reason <> 'overlap'", jobid)
        assert {run.reason for run in waited} == {reason}


def test_tasks_of_many_roles_and_databases_do_not_mix(conn: Connection) -> None:
    """Forty runs at once, each of which says where it is and as whom."""
    for i in range(4):
        conn.execute(f"DROP ROLE IF EXISTS faults_{i}; CREATE ROLE faults_{i} LOGIN".encode())
    conn.execute("DROP DATABASE IF EXISTS faults_there")
    conn.execute("CREATE DATABASE faults_there")
    try:
        tasks = {
            f"{i} {database}": Task(
                "DO $$ BEGIN RAISE '% % %', current_user, session_user, current_database(); END $$",
                database,
                f"faults_{i % 4}",
            )
            for i in range(20)
            for database in ("postgres", "faults_there")
        }
        for name, run in run_each(conn, tasks).items():
            number, database = name.split()
            role = f"faults_{int(number) % 4}"
            assert (run.return_message or "").split("\n")[0] == f"ERROR: {role} {role} {database}"
    finally:
        conn.execute("DROP DATABASE faults_there WITH (FORCE)")
        for i in range(4):
            conn.execute(f"DROP ROLE faults_{i}".encode())
