"""Hostile text in every argument that takes text: stored as it is, or refused with a clear error; never executed.

The texts are quotes of all kinds, ends of statements, formats, patterns, control characters, multi-byte
characters, and a megabyte.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.server.support.jobs import one, rows, run_once, wait_for_runs
from tests.server.surface import Connection
from tests.support.servers import Server
from tests.support.waiting import wait_until

HOSTILE = [
    "'; DROP TABLE public.canary; --",
    "'); DROP TABLE public.canary; --",
    '"; DROP TABLE public.canary; --',
    "$$; DROP TABLE public.canary; $$",
    "$1; $2::regclass",
    "\\'; DROP TABLE public.canary; --",
    "%s%n%d%m%%",
    "a\nb\r\n\tc\x01\x7f",
    "é漢🙂\u202e'",
    '{}[]|,"\\',
    " ",
    "",
    "x" * 1_000_000,
]
NAMES = [f"{number}:{text[:8]!r}" for number, text in enumerate(HOSTILE)]

# What a text that is no schedule, database, role or zone may be refused with.
REFUSALS = {
    "schedule": {"22023"},
    "database": {"3D000", "42622"},
    "username": {"42704", "42622"},
    "timezone": {"22023"},
}


@pytest.fixture
def canary(conn: Connection) -> None:
    conn.execute("DROP TABLE IF EXISTS public.canary; CREATE TABLE public.canary ()")


def is_alive(conn: Connection) -> bool:
    return one(conn, "SELECT to_regclass('public.canary')") is not None


@pytest.mark.parametrize("text", HOSTILE, ids=NAMES)
@pytest.mark.parametrize("argument", sorted(REFUSALS))
def test_what_must_name_something_is_refused(conn: Connection, canary: None, argument: str, text: str) -> None:
    jobid = one(conn, "SELECT cron.schedule('plain', '@reboot', 'x')")
    calls = {
        "schedule": [
            "SELECT cron.schedule('n', {0}, 'x')",
            f"SELECT cron.alter_job({jobid}, schedule => {{0}})",
            f"SELECT cron.alter_job({jobid}, jsonb_build_object('schedule', {{0}}))",
            "SELECT cron.next_runs({0})",
            "SELECT cron.explain({0})",
        ],
        "database": [
            "SELECT cron.schedule_in_database('n', '@reboot', 'x', {0})",
            f"SELECT cron.alter_job({jobid}, database => {{0}})",
            f"SELECT cron.alter_job({jobid}, jsonb_build_object('database', {{0}}))",
        ],
        "username": [
            "SELECT cron.schedule_in_database('n', '@reboot', 'x', 'postgres', {0})",
            f"SELECT cron.alter_job({jobid}, username => {{0}})",
            f"SELECT cron.alter_job({jobid}, jsonb_build_object('username', {{0}}))",
        ],
        "timezone": [
            "SELECT cron.schedule('n', '@reboot', 'x', jsonb_build_object('timezone', {0}))",
            f"SELECT cron.alter_job({jobid}, jsonb_build_object('timezone', {{0}}))",
            "SELECT cron.next_runs('@daily', {0})",
        ],
    }
    for call in calls[argument]:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(call.format("%s::text").encode(), [text])
        assert (call, caught.value.sqlstate in REFUSALS[argument]) == (call, True), caught.value
    assert is_alive(conn)
    assert rows(conn, "SELECT schedule, command, database, username, timezone FROM cron.job") == [
        ("@reboot", "x", "postgres", "postgres", None)
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=NAMES)
def test_what_may_be_any_text_is_kept_as_it_is(conn: Connection, canary: None, text: str) -> None:
    # An index holds the name: there the server has the last word on its length.
    name = text[:2000]
    jobid = one(conn, "SELECT cron.schedule(%s, '@reboot', %s)", name, text)
    assert one(conn, "SELECT cron.schedule(%s, '@daily', %s, '{}')", name, text) == jobid
    options = "jsonb_build_object('managed_by', %s::text, 'name', %s::text)"
    conn.execute(f"SELECT cron.alter_job(%s, {options})".encode(), [jobid, text, f"{name}2"])
    conn.execute("SELECT cron.alter_job(%s, command => %s)", [jobid, f"{text};"])
    assert rows(conn, "SELECT jobname, command, managed_by FROM cron.job") == [(f"{name}2", f"{text};", text)]
    assert one(conn, "SELECT count(*) FROM cron.held_jobs") == 0
    assert one(conn, "SELECT cron.unschedule(%s)", f"{name}2") is True
    assert is_alive(conn)


def test_a_nul_is_refused_by_the_server_before_it_reaches_us(conn: Connection) -> None:
    with pytest.raises(psycopg.Error):
        conn.execute("SELECT cron.schedule('n', '@reboot', 'x', '{\"managed_by\": \"a\\u0000b\"}')")
    with pytest.raises(psycopg.Error):
        conn.execute(b"SELECT cron.schedule(E'a\\000b', '@reboot', 'x')")


@pytest.mark.parametrize("text", HOSTILE[:10], ids=NAMES[:10])
def test_a_row_written_by_hand_with_hostile_text_harms_nobody(conn: Connection, canary: None, text: str) -> None:
    """Past every check: the launcher reads it, reports what cannot run, and goes on."""
    conn.execute(
        "INSERT INTO cron.job (schedule, command, jobname, database, username, timezone) VALUES"
        " (%(t)s, 'x', 'a', 'postgres', 'postgres', NULL), ('1 second', 'x', 'b', %(t)s, 'postgres', NULL),"
        " ('1 second', 'x', 'c', 'postgres', %(t)s, NULL), ('@daily', 'x', 'd', 'postgres', 'postgres', %(t)s)",
        {"t": text},
    )
    reasons = "SELECT DISTINCT j.jobname, d.reason FROM cron.job_run_details d JOIN cron.job j USING (jobid) ORDER BY 1"
    wait_until(
        lambda: (
            rows(conn, reasons)
            == [("a", "invalid_job"), ("b", "database_missing"), ("c", "role_missing"), ("d", "invalid_job")]
        ),
        message="a record of each",
    )
    assert is_alive(conn)


def test_an_error_full_of_formats_is_recorded_as_it_is(conn: Connection) -> None:
    run = run_once(conn, "DO $x$ BEGIN RAISE EXCEPTION USING MESSAGE = '%s%n%d', DETAIL = '%1$s', HINT = '%m'; END $x$")
    assert (run.return_message or "").startswith("ERROR: %s%n%d\nDETAIL: %1$s\nHINT: %m")
    assert (run.detail, run.hint) == ("%1$s", "%m")


def test_names_of_roles_and_databases_may_hold_anything(conn: Connection, server: Server) -> None:
    name = 'it\'s "odd"; -- %s é'
    role, database = psycopg.sql.Identifier(name), psycopg.sql.Identifier(name)
    for statement in ("DROP DATABASE IF EXISTS {0}", "CREATE DATABASE {0}"):
        conn.execute(psycopg.sql.SQL(statement).format(database))
    for statement in ("DROP ROLE IF EXISTS {0}", "CREATE ROLE {0} LOGIN"):
        conn.execute(psycopg.sql.SQL(statement).format(role))
    jobid = int(one(conn, "SELECT cron.schedule_in_database('n', '1 second', 'SELECT 1', %s, %s)", name, name))
    run = wait_for_runs(conn, jobid)[0]
    assert (run.status, run.username, run.database) == ("succeeded", name, name)
