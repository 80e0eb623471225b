"""The session of a run: whose it is, what settings it has, and that nothing of it outlives the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.server.support.jobs import (
    Task,
    at,
    one,
    rows,
    run_each,
    run_once,
    schedule,
    wait_for_runs,
)
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

ROLE = "session_runner"
DATABASE = "session_home"


@pytest.fixture
def home(server: Server, conn: Connection) -> Iterator[Connection]:
    """A connection to a database of the test's own, with an ordinary role that may use it."""
    conn.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
    conn.execute(f"DROP ROLE IF EXISTS {ROLE}".encode())
    conn.execute(f"CREATE ROLE {ROLE} LOGIN".encode())
    conn.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}".encode())
    with server.connect(DATABASE) as connection:
        connection.execute("CREATE TABLE public.seen (name text, value text)")
        connection.execute(f"GRANT ALL ON public.seen TO {ROLE}".encode())
        connection.execute(f"GRANT ALL ON SCHEMA public TO {ROLE}".encode())
        yield connection
    conn.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)".encode())
    conn.execute(f"DROP ROLE {ROLE}".encode())


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        ("COPY public.seen TO STDOUT", "A job has no client to copy to STDOUT."),
        ("COPY (SELECT 1) TO STDOUT", "A job has no client to copy to STDOUT."),
        ("COPY public.seen FROM STDIN", "A job has no client to copy from STDIN."),
        (
            "INSERT INTO public.seen VALUES ('a'); COPY public.seen TO STDOUT",
            "A job has no client to copy to STDOUT.",
        ),
    ],
    ids=["to_stdout", "query_to_stdout", "from_stdin", "after_a_statement"],
)
def test_copy_with_a_client_is_refused_and_undoes_the_rest(
    conn: Connection, home: Connection, command: str, detail: str
) -> None:
    run = run_once(conn, command, database=DATABASE)
    assert (run.status, run.sqlstate, run.detail) == ("failed", "0A000", detail)
    assert run.return_message is not None
    assert run.return_message.startswith("ERROR: COPY not supported\n")
    assert rows(home, "SELECT * FROM public.seen") == []


def test_what_an_ordinary_role_may_not_do_is_refused(conn: Connection, home: Connection) -> None:
    found = run_each(
        conn,
        {
            "program": Task("COPY (SELECT 1) TO PROGRAM 'true'", DATABASE, ROLE),
            "file": Task("COPY public.seen TO '/tmp/never'", DATABASE, ROLE),
            "role": Task("SET ROLE postgres", DATABASE, ROLE),
            "session": Task("SET SESSION AUTHORIZATION postgres", DATABASE, ROLE),
            "table": Task("SELECT * FROM pg_authid", DATABASE, ROLE),
            "listen": Task("LISTEN news", DATABASE, ROLE),
        },
    )
    assert {name: (run.status, run.sqlstate) for name, run in found.items()} == {
        "program": ("failed", "42501"),
        "file": ("failed", "42501"),
        "role": ("failed", "42501"),
        "session": ("failed", "42501"),
        "table": ("failed", "42501"),
        "listen": ("failed", "0A000"),
    }
    assert found["listen"].return_message == "ERROR: cannot execute LISTEN within a background process"


@pytest.mark.parametrize(
    ("command", "persists"),
    [
        ("BEGIN; INSERT INTO public.seen VALUES ('a')", []),
        ("BEGIN", []),
        ("INSERT INTO public.seen VALUES ('a'); BEGIN", []),
        ("BEGIN; INSERT INTO public.seen VALUES ('a'); SAVEPOINT s", []),
        ("BEGIN; INSERT INTO public.seen VALUES ('a'); COMMIT; BEGIN; INSERT INTO public.seen VALUES ('b')", ["a"]),
        ("BEGIN; INSERT INTO public.seen VALUES ('a'); COMMIT AND CHAIN", ["a"]),
        ("BEGIN; INSERT INTO public.seen VALUES ('a'); ROLLBACK AND CHAIN", []),
    ],
)
def test_a_block_left_open_is_a_failure_and_nothing_of_it_persists(
    conn: Connection, home: Connection, command: str, persists: list[str]
) -> None:
    run = run_once(conn, command, database=DATABASE)
    assert (run.status, run.reason, run.sqlstate) == ("failed", "error", "25001")
    assert run.return_message == (
        "ERROR: the command ended inside a transaction block, which was rolled back\nHINT: End the command with COMMIT."
    )
    assert [name for (name,) in rows(home, "SELECT name FROM public.seen")] == persists


# --- whose session it is -----------------------------------------------------------------------


def test_a_run_is_its_roles_own_session(conn: Connection, home: Connection) -> None:
    command = (
        "INSERT INTO public.seen VALUES ('user', current_user), ('session', session_user),"
        " ('database', current_database()), ('super', current_setting('is_superuser')),"
        " ('application', current_setting('application_name')), ('client', inet_client_addr()::text),"
        " ('encoding', current_setting('client_encoding')), ('recovery', pg_is_in_recovery()::text),"
        " ('type', (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()))"
    )
    run = run_once(conn, command, database=DATABASE, username=ROLE)
    assert (run.status, run.return_message) == ("succeeded", "INSERT 0 9")
    assert (run.database, run.username, run.command) == (DATABASE, ROLE, command)
    assert dict(rows(home, "SELECT name, value FROM public.seen")) == {
        "user": ROLE,
        "session": ROLE,
        "database": DATABASE,
        "super": "off",
        "application": f"pg_clockwork job {run.jobid} run {run.runid}",
        "client": None,
        "encoding": "UTF8",
        "recovery": "false",
        "type": "pg_clockwork worker",
    }


def test_settings_of_role_and_database_are_applied(conn: Connection, home: Connection) -> None:
    for statement in (
        f"ALTER DATABASE {DATABASE} SET work_mem = '3MB'",
        f"ALTER DATABASE {DATABASE} SET lock_timeout = '30s'",
        f"ALTER ROLE {ROLE} SET lock_timeout = '40s'",
        f"ALTER ROLE {ROLE} SET search_path = elsewhere, public",
        f"ALTER ROLE {ROLE} IN DATABASE {DATABASE} SET timezone = 'Asia/Kathmandu'",
        f"ALTER ROLE {ROLE} SET default_transaction_isolation = 'serializable'",
    ):
        conn.execute(statement.encode())
    names = ["work_mem", "lock_timeout", "search_path", "TimeZone", "transaction_isolation"]
    command = "".join(f"INSERT INTO seen VALUES ('{name}', current_setting('{name}'));" for name in names)
    run = run_once(conn, command, database=DATABASE, username=ROLE)
    assert run.status == "succeeded", run.return_message
    assert dict(rows(home, "SELECT name, value FROM public.seen")) == {
        "work_mem": "3MB",
        "lock_timeout": "40s",
        "search_path": "elsewhere, public",
        "TimeZone": "Asia/Kathmandu",
        "transaction_isolation": "serializable",
    }


def test_search_path_of_the_role_decides_what_a_name_means(conn: Connection, home: Connection) -> None:
    home.execute("CREATE SCHEMA own; CREATE TABLE own.seen (name text, value text)")
    home.execute(f"GRANT ALL ON SCHEMA own TO {ROLE}; GRANT ALL ON own.seen TO {ROLE}".encode())
    conn.execute(f"ALTER ROLE {ROLE} SET search_path = own".encode())
    assert run_once(conn, "INSERT INTO seen VALUES ('x')", database=DATABASE, username=ROLE).status == "succeeded"
    assert rows(home, "SELECT count(*) FROM own.seen") == [(1,)]
    assert rows(home, "SELECT count(*) FROM public.seen") == [(0,)]


def test_timeouts_of_the_role_count_per_statement(conn: Connection, home: Connection) -> None:
    conn.execute(f"ALTER ROLE {ROLE} SET statement_timeout = '700ms'".encode())
    conn.execute(f"ALTER ROLE {ROLE} SET lock_timeout = '100ms'".encode())
    with home.transaction():
        home.execute("LOCK TABLE public.seen")
        found = run_each(
            conn,
            {
                "long": Task("SELECT pg_sleep(30)", DATABASE, ROLE),
                "two halves": Task("SELECT pg_sleep(0.5); SELECT pg_sleep(0.5)", DATABASE, ROLE),
                "second": Task("SELECT 1; SELECT pg_sleep(30)", DATABASE, ROLE),
                "in a block": Task("BEGIN; SELECT 1; SELECT pg_sleep(30); COMMIT", DATABASE, ROLE),
                "in a function": Task(
                    "DO $$ BEGIN PERFORM pg_sleep(0.5); PERFORM pg_sleep(30); END $$", DATABASE, ROLE
                ),
                "switched off": Task("SET statement_timeout = 0; SELECT pg_sleep(1)", DATABASE, ROLE),
                "lock": Task("SELECT * FROM public.seen", DATABASE, ROLE),
            },
        )
    # A limit that the role has is no cancel by somebody: such a run may be tried again.
    canceled = ("failed", "error", "57014", "ERROR: canceling statement due to statement timeout")
    passed = ("succeeded", None, None, "SELECT 1")
    brief = {
        name: (r.status, r.reason, r.sqlstate, (r.return_message or "").split("\n")[0]) for name, r in found.items()
    }
    assert brief == {
        "long": canceled,
        "two halves": passed,
        "second": canceled,
        "in a block": canceled,
        "in a function": canceled,
        "switched off": passed,
        "lock": ("failed", "error", "55P03", "ERROR: canceling statement due to lock timeout"),
    }


def test_transaction_timeout_ends_a_run_visibly(server: Server, conn: Connection, home: Connection) -> None:
    if server.major < 17:
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    conn.execute(f"ALTER ROLE {ROLE} SET transaction_timeout = '200ms'".encode())
    run = run_once(conn, "INSERT INTO seen VALUES ('x'); SELECT pg_sleep(30)", database=DATABASE, username=ROLE)
    assert (run.status, run.sqlstate) == ("failed", "25P04")
    assert run.end_time is not None
    assert rows(home, "SELECT * FROM public.seen") == []


# --- what reaches others, and what does not ----------------------------------------------------


def test_a_notification_is_delivered_when_the_run_commits(server: Server, conn: Connection, home: Connection) -> None:
    with server.connect(DATABASE) as listener:
        listener.execute("LISTEN news")
        run_each(
            conn,
            {
                "sent": Task("NOTIFY news, 'good'", DATABASE),
                "undone": Task("NOTIFY news, 'bad'; SELECT 1 / 0", DATABASE),
            },
        )
        heard = [note.payload for note in listener.notifies(timeout=5, stop_after=1)]
        heard += [note.payload for note in listener.notifies(timeout=0.2)]
    assert heard == ["good"]


def test_no_session_sees_what_an_earlier_run_left(conn: Connection, home: Connection) -> None:
    home.execute(
        "CREATE TABLE public.state (settings text, prepared bigint, temporary text, locks bigint, cursors bigint)"
    )
    command = """
        INSERT INTO public.state SELECT current_setting('work_mem') || current_setting('my.own', true),
          (SELECT count(*) FROM pg_prepared_statements), to_regclass('pg_temp.scratch')::text,
          (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT count(*) FROM pg_cursors);
        SET work_mem = '7MB'; SET my.own = 'x'; PREPARE p AS SELECT 1; CREATE TEMP TABLE scratch ();
        DECLARE c CURSOR WITH HOLD FOR SELECT 1; SELECT pg_advisory_lock(4711)
    """
    jobid = schedule(conn, "leaver", "1 second", command, database=DATABASE)
    ran = wait_for_runs(conn, jobid, 3)[:3]
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    assert {run.status for run in ran} == {"succeeded"}
    found = rows(
        home, "SELECT DISTINCT coalesce(settings, 'none'), prepared, temporary, locks, cursors FROM public.state"
    )
    assert found == [("none", 0, None, 0, 0)]


def test_a_run_that_ends_itself_is_recorded(conn: Connection, home: Connection) -> None:
    found = run_each(
        conn,
        {
            "terminated": Task(
                "INSERT INTO public.seen VALUES ('t'); SELECT pg_terminate_backend(pg_backend_pid())", DATABASE
            ),
            "cancelled": Task(
                "INSERT INTO public.seen VALUES ('c'); SELECT pg_cancel_backend(pg_backend_pid())", DATABASE
            ),
            "committed before": Task(
                "INSERT INTO public.seen VALUES ('p'); COMMIT; SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(9)",
                DATABASE,
            ),
        },
    )
    assert (found["terminated"].status, found["terminated"].reason, found["terminated"].sqlstate) == (
        "failed",
        "terminated",
        "57P01",
    )
    assert (found["terminated"].return_message or "").startswith("FATAL: terminating background worker")
    assert (found["cancelled"].status, found["cancelled"].reason) == ("failed", "canceled")
    assert found["committed before"].status == "failed"
    assert rows(home, "SELECT name FROM public.seen") == [("p",)]
    assert all(run.end_time and run.start_time and run.job_pid for run in found.values())


def test_an_administrator_can_cancel_and_terminate_a_run(conn: Connection, wait_until: WaitUntil) -> None:
    verbs = {"pg_cancel_backend": ("canceled", "57014"), "pg_terminate_backend": ("terminated", "57P01")}
    when = at(conn)
    jobs = {verb: schedule(conn, verb, when, f"SELECT pg_sleep(60) /* {verb} */") for verb in verbs}
    for verb in verbs:
        statement = f"SELECT {verb}(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%/* {verb} %'"
        wait_until(partial(rows, conn, statement), message="the run to be there")
    for verb, (reason, sqlstate) in verbs.items():
        (run,) = wait_for_runs(conn, jobs[verb])
        assert (run.status, run.reason, run.sqlstate) == ("failed", reason, sqlstate)


def test_a_run_sees_itself_as_running_and_can_read_the_job_table(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS public.self_seen")
    conn.execute("CREATE TABLE public.self_seen (status text, jobs bigint)")
    run = run_once(
        conn,
        "SELECT pg_sleep(0.6); INSERT INTO public.self_seen SELECT (SELECT status FROM cron.job_run_details"
        " WHERE job_pid = pg_backend_pid()), (SELECT count(*) FROM cron.job)",
    )
    assert run.status == "succeeded", run.return_message
    assert rows(conn, "SELECT * FROM public.self_seen") == [("running", 1)]
    conn.execute("DROP TABLE public.self_seen")


def test_the_names_in_a_command_can_be_anything(conn: Connection, server: Server) -> None:
    """Databases and roles with quotes, blanks and capitals in their names."""
    name = "Ĝusta \"name\" 'n' %s; --"
    identifier = sql.Identifier(name)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
    conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(identifier, identifier))
    try:
        run = run_once(conn, "SELECT current_user, current_database()", database=name, username=name)
        assert (run.status, run.database, run.username) == ("succeeded", name, name), run.return_message
    finally:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
        conn.execute(sql.SQL("DROP ROLE {}").format(identifier))
    assert one(conn, "SELECT count(*) FROM pg_database WHERE datname = %s", name) == 0


@pytest.mark.settings({"max_prepared_transactions": 5})
def test_a_run_can_prepare_a_transaction_and_another_commit_it(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.seen (name text)")
        run = run_once(conn, "BEGIN; INSERT INTO public.seen VALUES ('x'); PREPARE TRANSACTION 'later'")
        assert (run.status, run.return_message) == ("succeeded", "PREPARE TRANSACTION")
        assert rows(conn, "SELECT gid FROM pg_prepared_xacts") == [("later",)]
        assert rows(conn, "SELECT * FROM public.seen") == []
        run = run_once(conn, "COMMIT PREPARED 'later'")
        assert (run.status, run.return_message) == ("succeeded", "COMMIT PREPARED")
        assert rows(conn, "SELECT * FROM public.seen") == [("x",)]
