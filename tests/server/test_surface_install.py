"""Creating and dropping the extension: where it may live, what it says where it may not, and coming back.

Without preload nothing can work; then CREATE EXTENSION and every function say how to preload.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.server.surface import PRELOAD_ERROR, PRELOAD_HINT, Connection, Refusal, refusal, rows, value
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

DETAIL = (
    "Jobs must be scheduled from the database configured in cron.database_name, since the pg_clockwork background"
    " worker reads job descriptions from this database."
)

CALLS = [
    "cron.schedule('@reboot', '')",
    "cron.schedule('n', '@reboot', '')",
    "cron.schedule('n', '@reboot', '', '{}')",
    "cron.schedule_in_database('n', '@reboot', '', 'postgres')",
    "cron.unschedule(1)",
    "cron.unschedule('n')",
    "cron.alter_job(1, active => true)",
    "cron.alter_job(1, '{}'::jsonb)",
]

OBJECTS_LEFT = """
    SELECT nspname::text FROM pg_namespace WHERE nspname = 'cron'
    UNION ALL SELECT relname::text FROM pg_class WHERE relname ~ '^(job|jobid_seq|runid_seq|job_run_details)$'
    UNION ALL SELECT proname::text FROM pg_proc WHERE prosrc LIKE 'clockwork%'
"""


def create_database(connection: Connection, name: str) -> None:
    connection.execute(f'DROP DATABASE IF EXISTS "{name}"'.encode())
    connection.execute(f'CREATE DATABASE "{name}"'.encode())


# --- the wrong place ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["elsewhere", 'it\'s "else"where', "Contrib_regression"])
def test_another_database_is_refused_with_the_words_of_pg_cron(conn: Connection, server: Server, name: str) -> None:
    conn.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {0}").format(psycopg.sql.Identifier(name)))
    conn.execute(psycopg.sql.SQL("CREATE DATABASE {0}").format(psycopg.sql.Identifier(name)))
    with server.connect(name) as other:
        refused = refusal(other, "CREATE EXTENSION pg_clockwork")
        left = rows(other, OBJECTS_LEFT)
    assert refused == Refusal(
        "P0001",
        "can only create extension in database postgres",
        DETAIL,
        f"Add cron.database_name = '{name}' in postgresql.conf to use the current database.",
    )
    assert left == []


def test_the_database_of_regression_suites_is_allowed(conn: Connection, server: Server) -> None:
    create_database(conn, "contrib_regression")
    with server.connect("contrib_regression") as other:
        other.execute("CREATE EXTENSION pg_clockwork")
        # As in pg_cron: scheduled there, meant for the database of the settings, and never run.
        assert value(other, "SELECT cron.schedule('@reboot', '')") == 1
        assert rows(other, "SELECT database FROM cron.job") == [("postgres",)]
        other.execute("DROP EXTENSION pg_clockwork")
        other.execute("CREATE EXTENSION pg_clockwork")
        assert value(other, "SELECT cron.schedule('@reboot', '')") == 1


def test_a_function_called_where_the_extension_is_not_says_where_it_belongs(conn: Connection, server: Server) -> None:
    """The C functions can be reached without the extension, by anybody who may create functions in C."""
    create_database(conn, "elsewhere")
    with server.connect("elsewhere") as other:
        library = value(conn, "SELECT probin FROM pg_proc WHERE prosrc = 'clockwork_schedule_unnamed'")
        other.execute(
            f"CREATE FUNCTION s(text, text) RETURNS bigint LANGUAGE C AS '{library}', 'clockwork_schedule_unnamed'".encode()
        )
        assert refusal(other, "SELECT s('@reboot', '')") == Refusal(
            "55000",
            'extension "pg_clockwork" is not installed in database "elsewhere"',
            None,
            "Run CREATE EXTENSION pg_clockwork in the database named by cron.database_name.",
        )


def test_an_ordinary_user_cannot_create_the_extension(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        connection.execute("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE postgres TO plain")
        connection.execute("SET SESSION AUTHORIZATION plain")
        refused = refusal(connection, "CREATE EXTENSION pg_clockwork")
        assert (refused.sqlstate, refused.message) == ("42501", 'permission denied to create extension "pg_clockwork"')


def test_a_schema_of_the_same_name_is_left_alone(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        connection.execute("CREATE SCHEMA cron CREATE TABLE cron.job (mine int)")
        assert refusal(connection, "CREATE EXTENSION pg_clockwork") == Refusal("42P06", 'schema "cron" already exists')
        assert rows(connection, "SELECT * FROM cron.job") == []


@pytest.mark.parametrize("clause", ["SCHEMA public", "VERSION '1.6'"])
def test_a_schema_or_a_version_of_ones_own_choice_is_refused(conn: Connection, server: Server, clause: str) -> None:
    create_database(conn, "contrib_regression")
    with server.connect("contrib_regression") as other:
        with pytest.raises(psycopg.Error, match="pg_clockwork"):
            other.execute(f"CREATE EXTENSION pg_clockwork {clause}".encode())
        assert rows(other, OBJECTS_LEFT) == []


def test_the_extension_cannot_be_moved(conn: Connection) -> None:
    refused = refusal(conn, "ALTER EXTENSION pg_clockwork SET SCHEMA public")
    assert refused == Refusal("0A000", 'extension "pg_clockwork" does not support SET SCHEMA')


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE cron.job",
        "DROP SCHEMA cron CASCADE",
        "DROP FUNCTION cron.schedule(text, text)",
        "DROP SEQUENCE cron.runid_seq CASCADE",
    ],
)
def test_a_part_of_the_extension_cannot_be_dropped(conn: Connection, statement: str) -> None:
    refused = refusal(conn, statement)
    assert refused.sqlstate == "2BP01"
    assert refused.hint == "You can drop extension pg_clockwork instead."


# --- coming, going, coming back ----------------------------------------------------------------


def test_the_extension_goes_without_a_trace_and_comes_back_to_work(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        done = "SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'"
        for _ in range(2):
            jobid = value(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')")
            assert jobid == 1
            wait_until(lambda: value(connection, done) > 0, message="a run")
            connection.execute("DROP EXTENSION pg_clockwork")
            assert rows(connection, OBJECTS_LEFT) == []
            connection.execute("CREATE EXTENSION pg_clockwork")
            assert rows(connection, "SELECT count(*) FROM cron.job, cron.job_run_details") == [(0,)]
    assert "PANIC" not in server.log()


def test_creating_the_extension_can_be_rolled_back(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        with connection.transaction(force_rollback=True):
            connection.execute("CREATE EXTENSION pg_clockwork")
            assert value(connection, "SELECT cron.schedule('@reboot', '')") == 1
        assert rows(connection, OBJECTS_LEFT) == []
        connection.execute("CREATE EXTENSION pg_clockwork")
        assert value(connection, "SELECT cron.schedule('@reboot', '')") == 1


def test_the_database_of_the_settings_may_have_any_name(make_server: ServerMaker) -> None:
    server = make_server()
    name = 'Büro\'s "home"'
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    server.configure({"cron.database_name": name})
    server.restart()
    with server.connect() as connection:
        assert (
            refusal(connection, "CREATE EXTENSION pg_clockwork").message
            == f"can only create extension in database {name}"
        )
    with server.connect(name) as home:
        home.execute("CREATE EXTENSION pg_clockwork")
        home.execute("SELECT cron.schedule('1 second', 'CREATE TABLE IF NOT EXISTS public.here ()')")
        assert rows(home, "SELECT database FROM cron.job") == [(name,)]
        wait_until(lambda: value(home, "SELECT to_regclass('public.here')") is not None, message="a run at home")


# --- without preload ---------------------------------------------------------------------------


def test_without_preload_everything_says_how_to_preload(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("SELECT cron.schedule('kept', '@reboot', '')")
    server.configure({"shared_preload_libraries": ""})
    server.restart()
    expected = Refusal("55000", PRELOAD_ERROR, None, PRELOAD_HINT)
    for call in CALLS:
        with server.connect() as connection:
            assert (call, refusal(connection, f"SELECT {call}")) == (call, expected)
            # A second try in the same session is no different.
            assert (call, refusal(connection, f"SELECT {call}")) == (call, expected)
    with server.connect() as connection:
        assert refusal(connection, "LOAD 'pg_clockwork'") == expected
        assert refusal(connection, "DELETE FROM cron.job") == expected
        assert rows(connection, "SELECT jobname FROM cron.job") == [("kept",)]
        connection.execute("DROP EXTENSION pg_clockwork")
        assert refusal(connection, "CREATE EXTENSION pg_clockwork") == expected
        # A setting of that name may have been made by hand; it is no preload.
        connection.execute("SET cron.database_name = 'postgres'")
        assert refusal(connection, "CREATE EXTENSION pg_clockwork") == expected
        assert rows(connection, OBJECTS_LEFT) == []


def test_the_script_refuses_to_be_run_by_psql() -> None:
    """`\\echo ... \\quit` on the first line that is no comment; the server skips that line itself."""
    script = Path(__file__).resolve().parents[2] / "sql" / "pg_clockwork.sql"
    body = script.read_text().split("*/", 1)[1].strip()
    assert body.startswith('\\echo Use "CREATE EXTENSION pg_clockwork" to load this file. \\quit\n')
