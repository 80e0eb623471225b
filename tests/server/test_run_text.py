"""Texts of every size and in every encoding: commands, errors, notices and results.

What is recorded is exactly what was said, and nobody else waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import Run, Task, one, rows, run_each, run_once, runs_of, schedule
from tests.support.servers import Server
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]

MEGABYTE = 1024 * 1024
NOTICES = 200_000
# The server's log gets these too; the launcher must not read one of them.
ALL_NOTICES = f"DO $$ BEGIN FOR i IN 1 .. {NOTICES} LOOP RAISE NOTICE 'notice %', i; END LOOP; END $$"


@pytest.fixture(scope="module")
def heavy(server: Server) -> Iterator[dict[str, Run]]:
    """Everything large at once, beside a one-second job that must not notice."""
    with server.connect() as conn:
        conn.execute("DROP TABLE IF EXISTS public.heavy; CREATE TABLE public.heavy (name text, bytes bigint)")
        bystander = schedule(conn, "bystander", "1 second", "SELECT 1")
        found = run_each(
            conn,
            {
                "notices": ALL_NOTICES,
                "notices then an error": f"{ALL_NOTICES}; DO $$ BEGIN RAISE 'after the flood'; END $$",
                "error": f"DO $$ BEGIN RAISE '%', repeat('é', {MEGABYTE // 2}); END $$",
                "all fields": f"DO $$ BEGIN RAISE '%', repeat('m', {MEGABYTE})"
                f" USING DETAIL = repeat('d', {MEGABYTE}), HINT = repeat('h', {MEGABYTE}); END $$",
                "longest error": f"DO $$ BEGIN RAISE '%', repeat('x', {20 * MEGABYTE}); END $$",
                "result": "SELECT repeat('x', 1000) FROM generate_series(1, 300000)",
                "value": f"INSERT INTO public.heavy SELECT 'value', length(repeat('x', {64 * MEGABYTE}))",
                "returned value": f"SELECT repeat('x', {64 * MEGABYTE})",
                "command": f"INSERT INTO public.heavy SELECT 'command', length('{'c' * MEGABYTE}')",
                "huge command": f"/* {'c' * (16 * MEGABYTE)} */ SELECT 1",
                "failing command": f"SELECT '{'é' * MEGABYTE}'::int",
                "deep": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
                "too deep": "SELECT " + "- " * 300_000 + "1",
            },
            lead=2,
            timeout=90,
        )
        conn.execute("SELECT cron.unschedule(%s::bigint)", [bystander])
        # A run of it may be under way, or about to be.
        poll(lambda: all(run.end_time for run in runs_of(conn, bystander)), message="the last run of the bystander")
        ran = [run for run in runs_of(conn, bystander) if run.start_time]
        late = [run.lateness for run in ran]
        found["bystander"] = ran[-1]
        assert max(late) < 10, "a one-second job waited for somebody's large texts"
        yield found
        conn.execute("DROP TABLE public.heavy")
        conn.execute("DELETE FROM cron.job_run_details")


def test_two_hundred_thousand_notices_are_not_the_outcome(heavy: dict[str, Run]) -> None:
    assert (heavy["notices"].status, heavy["notices"].return_message) == ("succeeded", "DO")
    run = heavy["notices then an error"]
    assert (run.status, (run.return_message or "").split("\n")[0]) == ("failed", "ERROR: after the flood")


def test_a_megabyte_of_error_is_stored_whole(heavy: dict[str, Run]) -> None:
    context = "PL/pgSQL function inline_code_block line 1 at RAISE"
    assert heavy["error"].return_message == f"ERROR: {'é' * (MEGABYTE // 2)}\nCONTEXT: {context}"
    run = heavy["all fields"]
    assert (run.detail, run.hint, run.context) == ("d" * MEGABYTE, "h" * MEGABYTE, context)
    assert run.return_message == f"ERROR: {'m' * MEGABYTE}\nDETAIL: {run.detail}\nHINT: {run.hint}\nCONTEXT: {context}"


def test_an_error_too_long_to_keep_says_that_it_was_cut(heavy: dict[str, Run]) -> None:
    run = heavy["longest error"]
    message = run.return_message or ""
    assert run.status == "failed"
    if "x" * (20 * MEGABYTE) in message:
        return
    head, _, tail = message.partition("x" * MEGABYTE)
    assert head == "ERROR: "
    assert "cut" in tail.lstrip("x") or "truncated" in tail.lstrip("x")


def test_large_results_and_values_are_no_burden(heavy: dict[str, Run], server: Server) -> None:
    assert (heavy["result"].return_message, heavy["result"].row_count) == ("SELECT 300000", 300_000)
    assert heavy["returned value"].return_message == "SELECT 1"
    with server.connect() as conn:
        assert dict(rows(conn, "SELECT * FROM public.heavy")) == {"value": 64 * MEGABYTE, "command": MEGABYTE}


def test_large_commands_run_and_are_recorded_whole(heavy: dict[str, Run]) -> None:
    assert heavy["huge command"].status == "succeeded"
    assert len(heavy["huge command"].command or "") > 16 * MEGABYTE
    assert heavy["failing command"].sqlstate == "22P02"
    assert heavy["failing command"].return_message == (
        f'ERROR: invalid input syntax for type integer: "{"é" * MEGABYTE}"'
    )


def test_a_command_nested_too_deeply_fails_and_harms_nobody(heavy: dict[str, Run]) -> None:
    assert heavy["deep"].status == "succeeded", heavy["deep"].return_message
    # The parser's own stack, or the server's: both have a limit.
    assert heavy["too deep"].status == "failed"
    assert heavy["too deep"].sqlstate in ("42601", "54001"), (heavy["too deep"].return_message or "")[:200]
    assert heavy["bystander"].status == "succeeded"


# --- encodings ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encodings(server: Server) -> Iterator[dict[str, str]]:
    """A database of each encoding."""
    names = {encoding: f"text_{encoding.lower()}" for encoding in ("LATIN1", "SQL_ASCII", "EUC_JP", "UTF8")}
    with server.connect() as conn:
        for encoding, name in names.items():
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode())
        yield names
        for name in names.values():
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


ECHO = "DO $$ BEGIN RAISE '%', '{0}' USING DETAIL = '{0}', HINT = '{0}'; END $$"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("LATIN1", "Größe Übergröße ¿qué?"),
        ("EUC_JP", "日本語 テキスト"),
        ("UTF8", "日本語 Größe 🐘 \u200d"),
        ("SQL_ASCII", "plain"),
    ],
)
def test_text_survives_the_way_to_another_encoding_and_back(
    server: Server, conn: Connection, encodings: dict[str, str], encoding: str, text: str
) -> None:
    database = encodings[encoding]
    with server.connect(database) as there:
        there.execute("SET client_encoding = 'UTF8'")
        there.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (value text)")
        found = run_each(
            conn,
            {
                "kept": Task(f"INSERT INTO kept VALUES ('{text}')", database),
                "echo": Task(ECHO.format(text), database),
                "name": Task(f'SELECT * FROM "{text}"', database),
            },
        )
        assert found["kept"].status == "succeeded", found["kept"].return_message
        assert rows(there, "SELECT value FROM kept WHERE length(value) > 0") == [(text,)]
    assert (found["echo"].detail, found["echo"].hint) == (text, text)
    assert (found["echo"].return_message or "").startswith(f"ERROR: {text}\nDETAIL: {text}\nHINT: {text}\n")
    assert found["name"].return_message == f'ERROR: relation "{text}" does not exist'
    assert found["echo"].command == ECHO.format(text)


@pytest.mark.parametrize(("encoding", "text"), [("LATIN1", "日本"), ("LATIN1", "€"), ("EUC_JP", "é🐘")])
def test_a_command_that_cannot_be_said_in_its_database_fails_and_says_so(
    conn: Connection, encodings: dict[str, str], encoding: str, text: str
) -> None:
    run = run_once(conn, f"SELECT '{text}'", database=encodings[encoding])
    assert (run.status, run.sqlstate) == ("failed", "22P05"), run.return_message
    assert f'in encoding "UTF8" has no equivalent in encoding "{encoding}"' in (run.return_message or "")
    assert run.end_time is not None


def test_bytes_that_are_no_text_elsewhere_do_not_spoil_the_record(conn: Connection, encodings: dict[str, str]) -> None:
    """An SQL_ASCII database can say anything; the history stays valid in the home database's encoding."""
    command = r"DO $$ BEGIN RAISE '%', E'bad \xff\xfe end' USING DETAIL = E'\xe4'; END $$"
    run = run_once(conn, command, database=encodings["SQL_ASCII"])
    assert run.status == "failed"
    assert run.return_message is not None
    assert run.return_message.startswith("ERROR: bad ")
    assert " end\nDETAIL: " in run.return_message
    assert one(
        conn,
        "SELECT convert_to(return_message, 'UTF8') IS NOT NULL FROM cron.job_run_details WHERE runid = %s",
        run.runid,
    )
