"""Hostile search paths: nothing of ours looks a name up where somebody else may have put one.

A schema full of traps stands first in the search path (pg_catalog after it, so that the traps would win):
operators, functions and casts that a careless statement would pick up. Each trap leaves a
trace, and none may be found after every function, policy, default, check and trigger has worked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from tests.server.surface import ANN, Connection, make_role, refusal, rows, session_of, value
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

# name, arguments, result: functions of pg_catalog that ours, or a careless version of ours, would call.
FUNCTIONS = [
    ("clock_timestamp", "", "timestamptz"),
    ("now", "", "timestamptz"),
    ("current_setting", "text", "text"),
    ("current_setting", "text, boolean", "text"),
    ("current_database", "", "name"),
    ("inet_server_port", "", "integer"),
    ("nextval", "regclass", "bigint"),
    ("set_config", "text, text, boolean", "text"),
    ("jsonb_typeof", "jsonb", "text"),
    ("format", "text, text", "text"),
    ("format", "text, VARIADIC text[]", "text"),
    ("lower", "text", "text"),
    ("count", "bigint", "bigint"),
    ("pg_extension_config_dump", "regclass, text", "void"),
]

# operators on the types of our columns, each a trap
OPERATORS = [
    *[
        (op, kind)
        for op in ("=", "<>", "<", ">", "<=", ">=")
        for kind in ("text", "bigint", "integer", "interval", "timestamptz")
    ],
    ("=", "name"),
    ("<>", "name"),
    ("||", "text"),
]


def lay_traps(connection: Connection, owner: str) -> None:
    """The schema `traps`, owned by an ordinary role, and public.sprung, where the traps leave their traces."""
    connection.execute("DROP SCHEMA IF EXISTS traps CASCADE; DROP SEQUENCE IF EXISTS public.sprung")
    connection.execute("CREATE SEQUENCE public.sprung; GRANT ALL ON SEQUENCE public.sprung TO public")
    connection.execute(sql.SQL("CREATE SCHEMA traps AUTHORIZATION {}").format(sql.Identifier(owner)))
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
    spring = "BEGIN PERFORM pg_catalog.nextval('public.sprung'); RETURN NULL; END"
    for name, arguments, result in FUNCTIONS:
        body = spring.replace(" RETURN NULL;", "") if result == "void" else spring
        statement = f"CREATE FUNCTION traps.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $${body}$$"
        connection.execute(statement.encode())
    for number, (operator, kind) in enumerate(OPERATORS):
        result = "text" if operator == "||" else "boolean"
        function = f"traps.op{number}"
        connection.execute(
            f"CREATE FUNCTION {function}({kind}, {kind}) RETURNS {result} LANGUAGE plpgsql AS $${spring}$$;"
            f"CREATE OPERATOR traps.{operator} (FUNCTION = {function}, LEFTARG = {kind}, RIGHTARG = {kind})".encode()
        )
    # Tables and types that are not ours.
    connection.execute(
        "CREATE TABLE traps.job (LIKE cron.job); CREATE TABLE traps.job_run_details (LIKE cron.job_run_details)"
    )
    connection.execute("CREATE DOMAIN traps.text AS pg_catalog.text CHECK (false)")
    connection.execute("CREATE DOMAIN traps.int4 AS pg_catalog.int4 CHECK (false)")
    connection.execute("GRANT USAGE ON SCHEMA traps TO public; GRANT ALL ON ALL TABLES IN SCHEMA traps TO public")
    connection.execute("RESET ROLE")


def sprung(connection: Connection) -> bool:
    return bool(value(connection, "SELECT is_called FROM public.sprung"))


HOSTILE = "SET search_path = traps, cron, public, pg_catalog"


@pytest.fixture
def trapped(conn: Connection) -> Iterator[Connection]:
    """A superuser's connection among traps that a user has laid."""
    make_role(conn, ANN)
    lay_traps(conn, ANN)
    conn.execute(HOSTILE.encode())
    yield conn
    conn.execute("RESET search_path; DROP SCHEMA traps CASCADE; DROP SEQUENCE public.sprung")


def test_the_traps_do_spring(trapped: Connection) -> None:
    trapped.execute("SELECT clock_timestamp()")
    assert sprung(trapped)
    trapped.execute("ALTER SEQUENCE public.sprung RESTART")
    assert not sprung(trapped)
    trapped.execute("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text")
    assert sprung(trapped)


CALLS = [
    "cron.schedule('5 4 * * *', 'x')",
    "cron.schedule('other', '@reboot', 'x')",
    "cron.schedule('kept', '@daily', 'y')",
    'cron.schedule(\'opted\', \'@reboot\', \'x\', \'{"timezone": "UTC", "active": false, "priority": 3, "managed_by": "m"}\')',
    'cron.schedule(\'kept\', \'@daily\', \'y\', \'{"retry_delay": "1 minute", "jitter": "0", "history": "all"}\')',
    "cron.schedule_in_database('far', '@reboot', 'x', 'template1', 'surface_ann', false)",
    "cron.alter_job({jobid}, '@hourly', 'z', 'template1', 'surface_ann', false)",
    'cron.alter_job({jobid}, \'{{"name": "new", "schedule": "@daily", "timezone": "UTC", "active": null}}\'::pg_catalog.jsonb)',
    "cron.unschedule({jobid})",
    "cron.unschedule('kept'::pg_catalog.text)",
]


@pytest.mark.parametrize("call", CALLS)
def test_no_function_springs_a_trap(trapped: Connection, call: str) -> None:
    jobid = value(trapped, "SELECT cron.schedule('kept', '@reboot', 'x')")
    trapped.execute(f"SELECT {call.format(jobid=jobid) if '{jobid}' in call else call}".encode())
    assert not sprung(trapped)
    assert rows(trapped, "SELECT * FROM traps.job") == []


@pytest.mark.parametrize(
    "call",
    [
        "cron.schedule('junk', 'x')",
        "cron.schedule('n', '@reboot', 'x', '{\"junk\": 1}')",
        "cron.schedule('n', '@reboot', 'x', '{\"on_overlap\": \"never\"}')",
        "cron.unschedule(-1)",
        "cron.unschedule('absent'::pg_catalog.text)",
        "cron.alter_job(-1, active => true)",
    ],
)
def test_no_refusal_springs_a_trap(trapped: Connection, call: str) -> None:
    assert refusal(trapped, f"SELECT {call}").sqlstate in {"22023", "42501", "0A000"}
    assert not sprung(trapped)


def test_no_policy_default_check_or_trigger_springs_a_trap(trapped: Connection, server: Server) -> None:
    trapped.execute("INSERT INTO cron.job (schedule, command, settings, timeout) VALUES ('@reboot', 'x', '{}', '1 s')")
    trapped.execute("UPDATE cron.job SET command = 'y', jitter = '1 s', priority = 2")
    trapped.execute("INSERT INTO cron.job_run_details (username) VALUES ('surface_ann')")
    with session_of(server, ANN) as ann:
        ann.execute(HOSTILE.encode())
        ann.execute("SELECT * FROM cron.job")
        ann.execute("SELECT * FROM cron.job_run_details")
        ann.execute("DELETE FROM cron.job_run_details")
        own = value(ann, "SELECT cron.schedule('n', '@reboot', 'x')")
        ann.execute("SELECT cron.unschedule(%s)", [own])
    trapped.execute("DELETE FROM cron.job")
    trapped.execute("TRUNCATE cron.job")
    assert not sprung(trapped)


def test_a_temporary_object_is_no_better_than_a_hostile_schema(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    with session_of(server, ANN) as ann:
        ann.execute("CREATE TEMPORARY TABLE job (jobid bigint, jobname text, username text)")
        ann.execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false)")
        ann.execute("CREATE DOMAIN pg_temp.int4 AS pg_catalog.int4 CHECK (false)")
        ann.execute("SET search_path = pg_temp, pg_catalog")
        jobid = value(ann, "SELECT cron.schedule('n', '@reboot', 'x', '{\"priority\": 1}'::jsonb)")
        ann.execute("SELECT cron.alter_job(%s, '{\"active\": false}'::jsonb)", [jobid])
        assert value(ann, "SELECT cron.unschedule('n'::pg_catalog.text)") is True


def test_the_search_path_of_the_caller_is_left_as_it_was(conn: Connection) -> None:
    conn.execute("SET search_path = public, cron")
    try:
        jobid = value(conn, "SELECT cron.schedule('n', '@reboot', 'x')")
        conn.execute("SELECT cron.alter_job(%s, active => false)", [jobid])
        refusal(conn, "SELECT cron.unschedule('absent')")
        assert value(conn, "SHOW search_path") == "public, cron"
    finally:
        conn.execute("RESET search_path")


def test_a_hostile_search_path_of_the_whole_server_does_not_reach_the_launcher(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        make_role(connection, ANN)
        lay_traps(connection, ANN)
        connection.execute("ALTER DATABASE postgres SET search_path = traps, cron, public, pg_catalog")
        connection.execute("ALTER ROLE postgres SET search_path = traps, cron, public, pg_catalog")
    server.restart()
    with server.connect() as connection:
        connection.execute("SET search_path = pg_catalog")
        jobid = value(connection, "SELECT cron.schedule('1 second', 'VALUES (1)')")
        done = "SELECT count(*) > 1 FROM cron.job_run_details WHERE jobid = %s AND status = 'succeeded'"
        wait_until(lambda: value(connection, done, jobid), message="two runs")
        connection.execute("SELECT cron.unschedule(%s)", [jobid])
        assert not sprung(connection)
        assert rows(connection, "SELECT * FROM traps.job_run_details") == []


@pytest.mark.parametrize("where", ["public", "temporary"])
def test_creating_the_extension_springs_no_trap(make_server: ServerMaker, where: str) -> None:
    """pg_cron's own case among them: a type with an implicit cast that would take current_setting's place."""
    server = make_server()
    with server.connect() as connection:
        make_role(connection, ANN)
        lay_traps(connection, ANN)
        connection.execute("DROP EXTENSION pg_clockwork")
        connection.execute(
            "CREATE TYPE public.bait AS (t pg_catalog.text);"
            " CREATE FUNCTION public.bite(pg_catalog.text) RETURNS public.bait LANGUAGE plpgsql"
            "  AS $$ BEGIN PERFORM pg_catalog.nextval('public.sprung'); RETURN ROW($1); END $$;"
            " CREATE CAST (pg_catalog.text AS public.bait) WITH FUNCTION public.bite(pg_catalog.text) AS IMPLICIT;"
            " CREATE FUNCTION public.current_setting(public.bait, pg_catalog.bool DEFAULT true) RETURNS pg_catalog.text"
            "  LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.nextval('public.sprung'); RETURN 'x'; END $$"
        )
        if where == "temporary":
            connection.execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false)")
            connection.execute("CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (false)")
            connection.execute("SET search_path = pg_temp, traps, public, pg_catalog")
        else:
            connection.execute("SET search_path = traps, public, pg_catalog")
        connection.execute("CREATE EXTENSION pg_clockwork")
        assert not sprung(connection)
        connection.execute("SET search_path = pg_catalog")
        strange = (
            "SELECT attname FROM pg_attribute WHERE attrelid IN ('cron.job'::regclass, 'cron.job_run_details'::regclass)"
            " AND attnum > 0 AND (SELECT typnamespace FROM pg_type WHERE oid = atttypid) <> 'pg_catalog'::regnamespace"
        )
        assert rows(connection, strange) == []
        foreign = (
            "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend"
            " WHERE refobjid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'traps'::regnamespace"
            "   UNION SELECT oid FROM pg_operator WHERE oprnamespace = 'traps'::regnamespace)"
            " AND classid NOT IN ('pg_proc'::regclass, 'pg_operator'::regclass)"
        )
        assert rows(connection, foreign) == []
        assert value(connection, "SELECT cron.schedule('n', '@reboot', 'x')") == 1
