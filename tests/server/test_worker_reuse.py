"""A worker that stays for another run: nobody can tell, and it is in nobody's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    Run,
    at,
    launcher_pid,
    one,
    rows,
    run_now,
    schedule,
    wait_for_runs,
    wait_for_status,
    workers,
)
from tests.server.support.watching import most_at_once, wait_for_launcher
from tests.support.plugin import forget_jobs
from tests.support.servers import LocalServer, Server
from tests.support.targets import Target

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

pytestmark = pytest.mark.local_only

# Far longer than any test: whoever leaves has another reason.
LONG = "1h"
NEVER = "0 0 29 2 *"


@pytest.fixture(scope="module")
def patient(target: Target, extension_files: Path) -> Iterator[LocalServer]:
    """A server whose workers wait for an hour, with two roles and two databases."""
    assert target.pg_config is not None
    server = LocalServer.launch(target.pg_config, extension_files, {"cron.worker_idle_timeout": LONG})
    try:
        with server.connect() as conn:
            conn.execute("CREATE EXTENSION pg_clockwork")
            conn.execute("CREATE TABLE public.seen (what text, value text); GRANT ALL ON public.seen TO PUBLIC")
            conn.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE SEQUENCE public.numbers")
        yield server
    finally:
        server.close()


@pytest.fixture
def held(patient: LocalServer) -> Iterator[Connection]:
    """A connection to that server, on which nothing runs and no worker waits."""
    with patient.connect() as conn:
        forget_jobs(conn)
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_clockwork worker'"
        )
        conn.execute("TRUNCATE public.seen")
        yield conn


def perform(
    conn: Connection,
    command: str,
    *,
    username: str = "postgres",
    database: str = "postgres",
    options: str = '{"active": true}',
) -> Run:
    """Run a command now, as a job of its own; its record."""
    jobid = schedule(conn, f"perform {username} {database}", NEVER, command, username=username, database=database)
    conn.execute("SELECT cron.alter_job(%s::bigint, %s::jsonb)", [jobid, options])
    return wait_for_status(conn, run_now(conn, jobid))


def seen(conn: Connection) -> dict[str, str | None]:
    return dict(rows(conn, "SELECT what, value FROM public.seen"))


# --- it stays ----------------------------------------------------------------------------------


def test_runs_of_one_role_and_database_share_a_worker(held: Connection) -> None:
    found = [perform(held, "SELECT 1") for _ in range(4)]
    assert {run.status for run in found} == {"succeeded"}
    assert len({run.job_pid for run in found}) == 1
    assert workers(held) == [found[0].job_pid]
    assert rows(held, "SELECT state, backend_xmin FROM pg_stat_activity WHERE pid = %s", found[0].job_pid) == [
        ("idle", None)
    ]


def test_a_run_that_starts_names_the_worker_that_waits_for_it(held: Connection) -> None:
    held.execute(
        "CREATE TABLE public.started (runid bigint, job_pid int);"
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.started VALUES (NEW.runid, NEW.job_pid); RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON cron.job_run_details"
        " FOR EACH ROW WHEN (NEW.status = 'starting') EXECUTE FUNCTION public.note()"
    )
    try:
        first, second = (perform(held, "SELECT 1") for _ in range(2))
        other = perform(held, "SELECT 1", username="alice")
        (third,) = wait_for_runs(held, schedule(held, "third", at(held), "SELECT 1"))
        assert dict(rows(held, "SELECT runid, job_pid FROM public.started")) == {
            first.runid: None,
            second.runid: first.job_pid,
            other.runid: None,
            third.runid: first.job_pid,
        }
        assert [run.job_pid for run in (second, third)] == [first.job_pid] * 2
    finally:
        held.execute(
            "DROP TRIGGER note ON cron.job_run_details; DROP FUNCTION public.note(); DROP TABLE public.started"
        )


def test_another_role_or_database_gets_a_worker_of_its_own(held: Connection) -> None:
    held.execute("DROP DATABASE IF EXISTS elsewhere")
    held.execute("CREATE DATABASE elsewhere")
    ours = perform(held, "SELECT 1")
    alices = perform(held, "INSERT INTO public.seen VALUES ('user', current_user)", username="alice")
    there = perform(held, "DO $$ BEGIN ASSERT current_database() = 'elsewhere'; END $$", database="elsewhere")
    assert {run.status for run in (ours, alices, there)} == {"succeeded"}
    assert len({ours.job_pid, alices.job_pid, there.job_pid}) == 3
    assert seen(held) == {"user": "alice"}
    assert perform(held, "SELECT 1", username="alice").job_pid == alices.job_pid


def test_many_runs_due_at_once_need_few_workers(held: Connection, wait_until: WaitUntil) -> None:
    """And each is a run with a record of its own: in order, complete, and never more than the cap at once."""
    with held.transaction():
        jobs = [
            schedule(held, f"many {i}", NEVER, "INSERT INTO public.seen VALUES ('x', txid_current())")
            for i in range(300)
        ]
    with held.transaction():
        for jobid in jobs:
            run_now(held, jobid)
    wait_until(lambda: one(held, "SELECT count(*) FROM public.seen") == 300, 30, "300 runs")
    statement = "SELECT count(*) FROM cron.job_run_details WHERE jobid = ANY (%s) AND status = 'succeeded'"
    wait_until(lambda: one(held, statement, jobs) == 300, message="300 records")
    assert one(held, "SELECT count(DISTINCT value) FROM public.seen") == 300
    pids = one(held, "SELECT count(DISTINCT job_pid) FROM cron.job_run_details WHERE jobid = ANY (%s)", jobs)
    assert 1 <= pids <= 32, pids


# --- nobody can tell -----------------------------------------------------------------------------

# What a run may leave behind, and how the next would notice: NULL in a new session.
LEFTOVERS = {
    "setting": ("SET work_mem = '77MB'", "nullif(current_setting('work_mem'), '4MB')"),
    "role": ("SET ROLE bob", "nullif(current_user, 'postgres')"),
    "session_role": ("SET SESSION AUTHORIZATION bob", "nullif(session_user, 'postgres')"),
    "search_path": ("SET search_path = pg_temp", "nullif(current_setting('search_path'), '\"$user\", public')"),
    "read_only": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "nullif(current_setting('default_transaction_read_only'), 'off')",
    ),
    "own_parameter": ("SET my.own = 'here'", "current_setting('my.own', true)"),
    "local_parameter": ("SELECT set_config('my.local', 'here', true)", "current_setting('my.local', true)"),
    "prepared": ("PREPARE kept AS SELECT 1", "(SELECT name FROM pg_prepared_statements)"),
    "cursor": ("BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT 1; COMMIT", "(SELECT name FROM pg_cursors)"),
    "lock": ("SELECT pg_advisory_lock(77)", "(SELECT mode FROM pg_locks WHERE locktype = 'advisory' LIMIT 1)"),
    "temporary": ("CREATE TEMP TABLE kept AS SELECT 1", "nullif(pg_my_temp_schema(), 0)"),
    "temporary_gone": ("CREATE TEMP TABLE kept AS SELECT 1; DROP TABLE kept", "nullif(pg_my_temp_schema(), 0)"),
    "shown_run": ("SELECT 1", "nullif(current_setting('cron.attempt'), '1')"),
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_a_run_finds_nothing_that_another_left_behind(held: Connection, kind: str) -> None:
    command, probe = LEFTOVERS[kind]
    first = perform(held, command)
    assert first.status == "succeeded", first.return_message
    second = perform(held, f"INSERT INTO public.seen VALUES ('{kind}', ({probe})::text)")
    assert second.status == "succeeded", second.return_message
    assert seen(held) == {kind: None}


@pytest.mark.parametrize(
    "command",
    [
        "SET my.own = 'here'",
        "SELECT set_config('my.own', 'here', true)",
        "BEGIN; SET LOCAL my.own = 'here'; ROLLBACK",
        "DO $$ BEGIN SET my.own = 'here'; RAISE ''; EXCEPTION WHEN raise_exception THEN NULL; END $$",
    ],
)
def test_a_parameter_that_a_run_makes_up_ends_its_worker(held: Connection, command: str) -> None:
    """Also after many runs that made up none, whatever else they have set."""
    before = [perform(held, "SELECT 1"), perform(held, f"SET search_path = '{'x' * 3000}'"), perform(held, "SELECT 1")]
    maker = perform(held, command)
    assert maker.status == "succeeded", maker.return_message
    assert {run.job_pid for run in before} == {maker.job_pid}
    after = perform(held, "INSERT INTO public.seen VALUES ('own', current_setting('my.own', true))")
    assert after.job_pid != maker.job_pid
    assert seen(held) == {"own": None}


def test_a_parameter_made_up_in_the_name_of_plpgsql_ends_its_worker(held: Connection) -> None:
    """Before PL/pgSQL is there; it brings its own parameters along, which are no reason."""
    maker = perform(held, "SET plpgsql.own = 'here'")
    assert maker.status == "succeeded", maker.return_message
    probe = "INSERT INTO public.seen VALUES ('own', current_setting('plpgsql.own', true))"
    after = perform(held, probe)
    assert after.job_pid != maker.job_pid
    assert seen(held) == {"own": None}
    assert perform(held, "DO $$ BEGIN PERFORM 1; END $$").job_pid == after.job_pid
    assert perform(held, "SELECT 1").job_pid == after.job_pid


def test_a_parameter_of_plpgsql_in_the_settings_is_no_reason_to_end(held: Connection) -> None:
    """It becomes PL/pgSQL's when that comes; one that is made up in the same run is noticed all the same."""
    held.execute("ALTER ROLE alice SET plpgsql.variable_conflict = 'use_column'")
    try:
        block = "DO $$ BEGIN PERFORM 1; END $$"
        first, second = (perform(held, command, username="alice") for command in (block, "SELECT 1"))
        maker = perform(held, f"SET my.own = 'here'; {block}", username="alice")
        assert first.job_pid == second.job_pid == maker.job_pid
        again = perform(held, f"SET my.own = 'here'; {block}", username="alice")
        assert perform(held, "SELECT 1", username="alice").job_pid != again.job_pid != maker.job_pid
    finally:
        held.execute("ALTER ROLE alice RESET plpgsql.variable_conflict")


def test_a_long_value_is_gone_and_its_worker_stays(held: Connection) -> None:
    before = perform(held, "SELECT 1")
    setter = perform(held, f"SET search_path = '{'x' * 20000}'; SET ROLE bob; SET application_name = '{'y' * 60}'")
    assert setter.status == "succeeded", setter.return_message
    after = perform(
        held,
        "INSERT INTO public.seen VALUES ('search_path', current_setting('search_path')), ('role', current_user),"
        " ('name', substr(current_setting('application_name'), 1, 16))",
    )
    assert seen(held) == {"search_path": '"$user", public', "role": "postgres", "name": "pg_clockwork job"}
    assert {before.job_pid, setter.job_pid} == {after.job_pid}


def test_a_run_does_not_know_the_sequences_of_another(held: Connection) -> None:
    first = perform(held, "SELECT nextval('public.numbers')")
    second = perform(held, "SELECT lastval()")
    assert (second.status, second.sqlstate) == ("failed", "55000")
    assert first.job_pid == second.job_pid


def test_random_numbers_are_not_another_runs(held: Connection) -> None:
    perform(held, "SELECT setseed(0.5)")
    perform(held, "INSERT INTO public.seen VALUES ('first', random())")
    held.execute("SELECT setseed(0.5)")
    assert seen(held)["first"] != str(one(held, "SELECT random()"))


def test_a_library_that_a_run_loads_ends_its_worker(held: Connection) -> None:
    """It may keep what it likes. PL/pgSQL is known to keep nothing."""
    first = perform(held, "DO $$ BEGIN PERFORM 1; END $$")
    again = perform(held, "SELECT 1")
    assert first.job_pid == again.job_pid
    loading = perform(held, "LOAD 'libpqwalreceiver'")
    assert loading.status == "succeeded", loading.return_message
    assert loading.job_pid == first.job_pid
    assert perform(held, "SELECT 1").job_pid != first.job_pid


def test_settings_of_a_job_do_not_reach_the_next(held: Connection) -> None:
    first = perform(held, "SELECT 1", options='{"settings": {"work_mem": "66MB"}}')
    second = perform(
        held, "INSERT INTO public.seen VALUES ('work_mem', current_setting('work_mem'))", options='{"settings": null}'
    )
    assert (first.status, second.status) == ("succeeded", "succeeded")
    assert seen(held) == {"work_mem": "4MB"}


# --- what a new session would find ---------------------------------------------------------------


def note_work_mem(conn: Connection, **where: str) -> str | None:
    conn.execute("TRUNCATE public.seen")
    run = perform(conn, "INSERT INTO public.seen VALUES ('work_mem', current_setting('work_mem'))", **where)
    assert run.status == "succeeded", run.return_message
    return seen(conn)["work_mem"]


def test_settings_of_role_and_database_are_read_when_they_change(held: Connection) -> None:
    assert note_work_mem(held, username="alice") == "4MB"
    steps = [
        ("ALTER ROLE alice SET work_mem = '11MB'", "11MB"),
        ("ALTER ROLE alice IN DATABASE postgres SET work_mem = '12MB'", "12MB"),
        ("ALTER ROLE alice IN DATABASE postgres RESET work_mem", "11MB"),
        ("ALTER ROLE alice RESET ALL", "4MB"),
        ("ALTER DATABASE postgres SET work_mem = '13MB'", "13MB"),
        ("ALTER DATABASE postgres RESET ALL", "4MB"),
        ("BEGIN; ALTER ROLE alice SET work_mem = '14MB'; ROLLBACK", "4MB"),
        ("DO $$ BEGIN EXECUTE 'ALTER ROLE alice SET work_mem = ''15MB'''; END $$", "15MB"),
        ("ALTER ROLE alice RESET ALL", "4MB"),
    ]
    for statement, value in steps:
        held.execute(statement.encode())
        assert note_work_mem(held, username="alice") == value, statement


def test_the_configuration_file_is_read_when_it_changes(patient: LocalServer, held: Connection) -> None:
    assert note_work_mem(held) == "4MB"
    try:
        patient.configure({"work_mem": "9MB"})
        patient.reload()
        wait_for_launcher(held)
        assert note_work_mem(held) == "9MB"
    finally:
        patient.configure({"work_mem": "4MB"})
        patient.reload()


def test_rights_are_those_of_today(held: Connection) -> None:
    held.execute("CREATE ROLE carol LOGIN; GRANT bob TO carol")
    try:
        held.execute("CREATE TABLE public.bobs (); ALTER TABLE public.bobs OWNER TO bob")
        first = perform(held, "TABLE public.bobs", username="carol")
        assert first.status == "succeeded", first.return_message
        held.execute("REVOKE bob FROM carol")
        refused = perform(held, "TABLE public.bobs", username="carol")
        assert (refused.status, refused.sqlstate) == ("failed", "42501")
        held.execute("GRANT bob TO carol")
        assert perform(held, "TABLE public.bobs", username="carol").status == "succeeded"
        jobid = one(held, "SELECT jobid FROM cron.job WHERE username = 'carol'")
        held.execute("ALTER ROLE carol NOLOGIN")
        barred = wait_for_status(held, run_now(held, jobid))
        assert (barred.status, barred.reason) == ("failed", "could_not_start")
        held.execute("ALTER ROLE carol LOGIN; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        barred = wait_for_status(held, run_now(held, jobid))
        assert (barred.status, barred.reason) == ("failed", "could_not_start")
        held.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC; ALTER ROLE carol SUPERUSER")
        assert perform(held, "SELECT pg_read_file('PG_VERSION')", username="carol").status == "succeeded"
        held.execute("ALTER ROLE carol NOSUPERUSER")
        refused = perform(held, "SELECT pg_read_file('PG_VERSION')", username="carol")
        assert (refused.status, refused.sqlstate) == ("failed", "42501")
    finally:
        held.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC; DROP TABLE IF EXISTS public.bobs")
        held.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE username = 'carol'")
        held.execute("DROP ROLE carol")


# --- when it leaves ------------------------------------------------------------------------------


def test_a_failed_or_canceled_run_ends_its_worker(held: Connection) -> None:
    first = perform(held, "SELECT 1")
    failed = perform(held, "SELECT 1 / 0")
    assert (failed.status, failed.job_pid) == ("failed", first.job_pid)
    second = perform(held, "SELECT 1")
    assert second.job_pid != first.job_pid
    jobid = schedule(held, "long", NEVER, "SELECT pg_sleep(60)")
    runid = run_now(held, jobid)
    wait_for_status(held, runid, "running")
    held.execute("SELECT cron.cancel(%s)", [runid])
    canceled = wait_for_status(held, runid)
    assert (canceled.reason, canceled.job_pid) == ("canceled", second.job_pid)
    assert perform(held, "SELECT 1").job_pid != second.job_pid


def test_a_cancel_of_nothing_does_not_reach_the_next_run(held: Connection) -> None:
    first = perform(held, "SELECT 1")
    held.execute("SELECT pg_cancel_backend(%s)", [first.job_pid])
    second = perform(held, "SELECT 1")
    assert (second.status, second.job_pid) == ("succeeded", first.job_pid)


def test_a_worker_that_waits_can_be_terminated(held: Connection, wait_until: WaitUntil) -> None:
    first = perform(held, "SELECT 1")
    held.execute("SELECT pg_terminate_backend(%s)", [first.job_pid])
    wait_until(lambda: workers(held) == [], message="the worker to leave")
    assert perform(held, "SELECT 1").status == "succeeded"


def test_a_job_can_have_a_fresh_session(held: Connection, wait_until: WaitUntil) -> None:
    first = perform(held, "SELECT 1")
    fresh = [perform(held, "SELECT 1", options='{"fresh_session": true}') for _ in range(2)]
    after = perform(held, "SELECT 1", options='{"fresh_session": false}')
    assert first.job_pid == after.job_pid
    assert len({first.job_pid, *(run.job_pid for run in fresh)}) == 3
    wait_until(lambda: workers(held) == [first.job_pid], message="the fresh ones to leave")


@pytest.mark.settings({"cron.worker_idle_timeout": LONG, "cron.worker_max_runs": 3})
def test_a_worker_leaves_after_so_many_runs(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        pids = [perform(conn, "SELECT 1").job_pid for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


@pytest.mark.settings({"cron.worker_idle_timeout": "50ms"})
def test_a_worker_leaves_when_nothing_comes(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        first = perform(conn, "SELECT 1")
        wait_until(lambda: workers(conn) == [], message="the worker to leave")
        fresh_server.configure({"cron.worker_idle_timeout": 0})
        length = len(fresh_server.log())
        fresh_server.reload()
        wait_until(lambda: "launcher reloaded" in fresh_server.log()[length:], message="the reload")
        pids = {perform(conn, "SELECT 1").job_pid for _ in range(3)}
        assert len(pids | {first.job_pid}) == 4


# --- in nobody's way -------------------------------------------------------------------------------


def test_databases_where_a_worker_waits_can_be_dropped_copied_moved_and_renamed(held: Connection) -> None:
    """The server waits five seconds for sessions to go before it refuses: these have gone before it looks."""
    for name in ("waited", "copied", "renamed"):
        held.execute(f"DROP DATABASE IF EXISTS {name}".encode())
    held.execute("CREATE DATABASE waited")
    held.execute("SET statement_timeout = '4s'")
    commands = [
        "CREATE DATABASE copied TEMPLATE waited",
        "ALTER DATABASE waited RENAME TO renamed",
        "ALTER DATABASE renamed RENAME TO waited",
        "ALTER DATABASE waited SET TABLESPACE pg_default",
        "DROP DATABASE waited",
    ]
    for command in commands:
        name = "renamed" if command.startswith("ALTER DATABASE renamed") else "waited"
        run = perform(held, "SELECT 1", database=name)
        assert run.status == "succeeded", run.return_message
        assert run.job_pid in workers(held), "no worker waits: this proves nothing"
        held.execute(command.encode())
        assert run.job_pid not in workers(held)
    held.execute("RESET statement_timeout")
    held.execute("DROP DATABASE copied")


def test_a_database_of_the_same_name_is_another_one(held: Connection) -> None:
    held.execute("DROP DATABASE IF EXISTS twin")
    held.execute("DROP DATABASE IF EXISTS twin_before")
    held.execute("CREATE DATABASE twin")
    first = perform(held, "CREATE TABLE public.mark ()", database="twin")
    held.execute("ALTER DATABASE twin RENAME TO twin_before")
    held.execute("CREATE DATABASE twin")
    second = perform(held, "CREATE TABLE public.mark ()", database="twin")
    assert (first.status, second.status) == ("succeeded", "succeeded"), second.return_message
    held.execute("DROP DATABASE twin")
    held.execute("DROP DATABASE twin_before")


def test_a_role_whose_worker_waits_can_be_dropped(held: Connection) -> None:
    held.execute("CREATE ROLE dave LOGIN")
    first = perform(held, "SELECT 1", username="dave")
    held.execute("SET statement_timeout = '4s'")
    held.execute("DROP ROLE dave")
    held.execute("RESET statement_timeout")
    jobid = one(held, "SELECT jobid FROM cron.job WHERE username = 'dave'")
    refused = wait_for_status(held, run_now(held, jobid))
    assert (first.status, refused.status, refused.reason) == ("succeeded", "failed", "role_missing")


@pytest.mark.settings({"cron.worker_idle_timeout": LONG, "cron.max_running_jobs": 2})
def test_workers_that_wait_give_their_slots_to_others(fresh_server: Server, wait_until: WaitUntil) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN")
        jobs = [schedule(conn, f"{i}", NEVER, "SELECT pg_sleep(0.3)", username=r) for i, r in enumerate(["alice"] * 2)]
        for jobid in jobs:
            run_now(conn, jobid)
        for jobid in jobs:
            wait_until(
                lambda j=jobid: rows(
                    conn, "SELECT FROM cron.job_run_details WHERE jobid = %s AND status = 'succeeded'", j
                )
            )
        assert len(workers(conn)) == 2, "both slots have a worker of alice's"
        others = [schedule(conn, f"bob {i}", NEVER, "SELECT 1", username="bob") for i in range(6)]
        asked = [run_now(conn, jobid) for jobid in [*others, *jobs]]
        found = [wait_for_status(conn, runid) for runid in asked]
        assert {run.status for run in found} == {"succeeded"}
        assert most_at_once(found) <= 2
        assert len(workers(conn)) <= 2


@pytest.mark.settings({"cron.worker_idle_timeout": LONG, "max_worker_processes": 4, "cron.max_running_jobs": 8})
def test_workers_that_wait_leave_when_the_server_has_no_other(fresh_server: Server) -> None:
    """Two of its four background workers are the launchers of jobs and of logical replication."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN")
        for name in ("alice", "bob", "carol", "alice", "postgres", "bob"):
            run = perform(conn, "SELECT 1", username=name)
            assert run.status == "succeeded", run.return_message


def test_a_launcher_that_is_replaced_sends_the_waiting_away(held: Connection, wait_until: WaitUntil) -> None:
    first = perform(held, "SELECT 1")
    pid = launcher_pid(held)
    held.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_for_launcher(held, other_than=pid)
    wait_until(lambda: first.job_pid not in workers(held), message="the worker to leave")
    second, third = perform(held, "SELECT 1"), perform(held, "SELECT 1")
    assert (second.status, second.job_pid) == ("succeeded", third.job_pid)


@pytest.mark.settings({"cron.worker_idle_timeout": LONG})
def test_waiting_workers_do_not_hold_up_a_shutdown(fresh_server: LocalServer) -> None:
    with fresh_server.connect() as conn:
        perform(conn, "SELECT 1")
        assert workers(conn)
    fresh_server.stop("smart")
    fresh_server.start()
    with fresh_server.connect() as conn:
        assert perform(conn, "SELECT 1").status == "succeeded"
    fresh_server.stop("fast")
    assert "pg_clockwork worker: FATAL" not in fresh_server.log()
