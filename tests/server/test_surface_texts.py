"""Hostile and huge names and commands, in UTF-8 and in a LATIN1 database.

Text is stored as given, runs as given, and comes back as given; what cannot be is refused in
one clear line, never cut.
"""

from __future__ import annotations

import pytest
from psycopg import sql

from tests.server.surface import Connection, job, make_role, refusal, rows, session_of, value
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

NAMES = [
    "it's",
    'quo"te',
    "back\\slash",
    "two\nlines\r\n\tand a tab",
    "; DROP TABLE cron.job; --",
    "$$ dollar $1 $body$",
    "%s %n %% {}",
    "Zoë, 時計仕掛け, часы, 🕰",
    " leading and trailing ",
    "\x01\x7f",
    "1",
    "NULL",
    "a" * 63,
    "ü" * 64,
]

MEGABYTE = 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_be_any_text(conn: Connection, name: str) -> None:
    jobid = value(conn, "SELECT cron.schedule(%s, '@reboot', 'x')", name)
    assert value(conn, "SELECT cron.schedule(%s, '@daily', 'y')", name) == jobid
    assert job(conn, jobid, "jobname, command") == (name, "y")
    conn.execute(
        "SELECT cron.alter_job(%s, jsonb_build_object('name', %s::text, 'managed_by', %s::text))", [jobid, "n", name]
    )
    assert job(conn, jobid, "jobname, managed_by") == ("n", name)
    conn.execute("SELECT cron.alter_job(%s, jsonb_build_object('name', %s::text))", [jobid, name])
    assert value(conn, "SELECT cron.unschedule(%s)", name) is True
    refused = refusal(conn, "SELECT cron.unschedule(%s)", name)
    assert refused.message == f"could not find valid entry for job '{name}'"


@pytest.mark.parametrize("name", [name for name in NAMES if "\x01" not in name])
def test_a_role_and_a_database_may_have_any_name(conn: Connection, server: Server, name: str) -> None:
    name = name.encode()[:63].decode(errors="ignore")
    if server.major >= 19:  # which refuses lines in such names
        name = name.replace("\n", " ").replace("\r", " ")
    make_role(conn, name)
    conn.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY wal_log").format(sql.Identifier(name)))
    call = "SELECT cron.schedule_in_database('n', '@reboot', 'x', %s, %s)"
    jobid = value(conn, call, name, name)
    assert job(conn, jobid, "database, username") == (name, name)
    conn.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM public").format(sql.Identifier(name)))
    assert refusal(conn, call, name, name).message == f"User {name} does not have CONNECT privilege on {name}"
    with session_of(server, name) as session:
        assert value(session, "SELECT cron.unschedule('n')") is True
    conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def test_commands_with_every_kind_of_text_run_as_written(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS public.said; CREATE TABLE public.said (name text PRIMARY KEY)")
    for number, name in enumerate(NAMES):
        literal = sql.Literal(name).as_string(conn)
        command = f"INSERT INTO public.said VALUES ({literal}) ON CONFLICT DO NOTHING /* {name} */"
        conn.execute("SELECT cron.schedule(%s, '1 second', %s)", [f"{number}", command])
    said = "SELECT name FROM public.said"
    wait_until(lambda: len(rows(conn, said)) == len(NAMES), timeout=30, message="every command to run")
    assert {name for (name,) in rows(conn, said)} == set(NAMES)
    recorded = "SELECT count(*) FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE d.command <> j.command"
    assert value(conn, recorded) == 0
    conn.execute("DROP TABLE public.said")


def test_a_command_of_a_megabyte_is_kept_run_and_recorded_whole(conn: Connection) -> None:
    command = f"SELECT length('{'é' * MEGABYTE}')"
    jobid = value(conn, "SELECT cron.schedule('large', '1 second', %s)", command)
    assert job(conn, jobid, "command") == (command,)
    run = "SELECT command = %s, status FROM cron.job_run_details WHERE jobid = %s AND end_time IS NOT NULL LIMIT 1"
    assert wait_until(lambda: rows(conn, run, command, jobid), message="the run") == [(True, "succeeded")]
    conn.execute("SELECT cron.alter_job(%s, command => %s, active => false)", [jobid, command + " "])
    assert value(conn, "SELECT length(command) FROM cron.job") == len(command) + 1


def test_a_name_of_a_megabyte_is_kept_where_it_can_be_and_refused_clearly_where_not(conn: Connection) -> None:
    """A name is a key of an index, which compresses what it can and has a limit."""
    repetitive = "long " * (10_000 // 5)
    jobid = value(conn, "SELECT cron.schedule(%s, '@reboot', 'x')", repetitive)
    assert value(conn, "SELECT cron.schedule(%s, '@reboot', 'x')", repetitive) == jobid
    assert value(conn, "SELECT cron.unschedule(%s)", repetitive) is True
    random = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 31250) i)"
    refused = refusal(conn, f"SELECT cron.schedule({random}, '@reboot', 'x')")
    # PostgreSQL's own words: program_limit_exceeded, the index row is too large.
    assert (refused.sqlstate, refused.message.startswith("index row")) == ("54000", True)
    assert refusal(conn, f"SELECT cron.unschedule({random})").sqlstate == "22023"
    assert rows(conn, "SELECT * FROM cron.job") == []


@pytest.mark.parametrize(
    "text",
    [
        "x" * MEGABYTE,
        "* " * (MEGABYTE // 2),
        "1," * (MEGABYTE // 2) + "1 * * * *",
        "@every " + "1" * MEGABYTE,
        "é" * MEGABYTE,
    ],
    ids=lambda text: text[:7],
)
def test_a_schedule_of_a_megabyte_is_refused_at_once_and_in_a_few_words(conn: Connection, text: str) -> None:
    conn.execute("SET statement_timeout = '5 s'")
    refused = refusal(conn, "SELECT cron.schedule(%s, 'x')", text)
    conn.execute("RESET statement_timeout")
    assert (refused.sqlstate, refused.message) == ("22023", f"invalid schedule: {text}")
    assert refused.detail == f"The text has {len(text.encode())} bytes; at most 8191 are accepted."


def test_a_schedule_may_have_8191_bytes(conn: Connection) -> None:
    text = "1," * 4091 + "1 * * * *"
    assert len(text) == 8191
    jobid = value(conn, "SELECT cron.schedule(%s, 'x')", text)
    assert job(conn, jobid, "schedule") == (text,)
    assert (
        refusal(conn, "SELECT cron.schedule(%s, 'x')", "0" + text).detail
        == "The text has 8192 bytes; at most 8191 are accepted."
    )


# --- a database of another encoding ------------------------------------------------------------


def create_latin1(connection: Connection, name: str) -> None:
    connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
    connection.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'".encode()
    )


def test_a_job_runs_in_a_latin1_database_with_its_letters(conn: Connection, server: Server) -> None:
    create_latin1(conn, "surface_latin1")
    command = "CREATE TABLE IF NOT EXISTS public.said AS SELECT 'Zoë'::text AS name"
    jobid = value(conn, "SELECT cron.schedule_in_database('Zoë', '1 second', %s, 'surface_latin1')", command)
    run = "SELECT status, command FROM cron.job_run_details WHERE jobid = %s AND end_time IS NOT NULL LIMIT 1"
    assert wait_until(lambda: rows(conn, run, jobid), message="the run") == [("succeeded", command)]
    with server.connect("surface_latin1") as there:
        assert rows(there, "SELECT name, octet_length(name) FROM public.said") == [("Zoë", 3)]


def test_letters_that_a_latin1_database_has_not_fail_the_run_and_nothing_else(conn: Connection) -> None:
    create_latin1(conn, "surface_latin1")
    jobid = value(conn, "SELECT cron.schedule_in_database('n', '1 second', $$SELECT '時計'$$, 'surface_latin1')")
    run = "SELECT status, sqlstate, return_message FROM cron.job_run_details WHERE jobid = %s AND end_time IS NOT NULL LIMIT 1"
    ((status, sqlstate, message),) = wait_until(lambda: rows(conn, run, jobid), message="the run")
    assert (status, sqlstate) == ("failed", "22P05")
    assert 'has no equivalent in encoding "LATIN1"' in message


def test_jobs_may_be_kept_in_a_latin1_database(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        create_latin1(connection, "surface_home")
    server.configure({"cron.database_name": "surface_home"})
    server.restart()
    with server.connect("surface_home") as home:
        home.execute("CREATE EXTENSION pg_clockwork")
        home.execute("SET client_encoding = 'UTF8'")
        home.execute("SELECT cron.schedule('Zoë', '1 second', $$SELECT 'Zoë'$$)")
        home.execute("SELECT cron.schedule_in_database('Zoé', '1 second', $$SELECT 1/length('ë') + 'ë'$$, 'postgres')")
        done = "SELECT DISTINCT jobname, status FROM cron.job_run_details JOIN cron.job USING (jobid) WHERE end_time IS NOT NULL ORDER BY 1"
        assert wait_until(lambda: len(found := rows(home, done)) == 2 and found, message="both runs") == [
            ("Zoé", "failed"),
            ("Zoë", "succeeded"),
        ]
        failed = "SELECT return_message FROM cron.job_run_details WHERE status = 'failed' LIMIT 1"
        # An error that was raised in UTF-8 is readable here.
        assert 'invalid input syntax for type integer: "ë"' in value(home, failed)
        assert value(home, "SELECT cron.unschedule('Zoë')") is True
        refused = refusal(home, "SELECT cron.schedule('n', 'ë * * * *', 'x')")
        assert refused.message == "invalid schedule: ë * * * *"
        assert refused.detail is not None
        # The parser thinks in UTF-8 and shows any other byte by its number.
        assert '"\\xEB"' in refused.detail
        # What LATIN1 has not, jsonb's escapes cannot smuggle in.
        assert refusal(home, "SELECT cron.schedule('n', '@reboot', 'x', '{\"managed_by\": \"\\u6642\"}')").sqlstate in {
            "22P02",
            "22P05",
        }
