"""@after schedules that are refused: unknown jobs, circles and mistakes, whichever way they come in."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from scheduler.cron import Schedule
from tests.server.support.jobs import insert_job, one, rows
from tests.server.surface import Notice, Refusal, make_role, notices, refusal, session_of
from tests.support.servers import Server
from tests.unit.cron_tables import read_table

Connection = psycopg.Connection[tuple[Any, ...]]

NEVER = "@at 2199-01-01"
REFUSED = [row for row in read_table("refusals.tsv") if row["text"].startswith("@after")]
ACCEPTED = [row for row in read_table("acceptances.tsv") if row["topic"] == "G30 events"]


def schedule(conn: Connection, name: str, text: str = NEVER) -> int:
    return int(one(conn, "SELECT cron.schedule(%s, %s, 'SELECT 1')", name, text))


def invalid(text: str, detail: str, hint: str | None = None) -> Refusal:
    return Refusal("22023", f"invalid schedule: {text}", detail, hint)


# Every way in that is refused, with %s for the schedule of the job "child".
WAYS = {
    "schedule": "SELECT cron.schedule('child', %s, 'SELECT 1')",
    "options": "SELECT cron.schedule('child', %s, 'SELECT 1', '{\"priority\": 3}'::jsonb)",
    "in database": "SELECT cron.schedule_in_database('child', %s, 'SELECT 1', 'postgres')",
    "alter": "SELECT cron.alter_job(jobid, schedule := %s) FROM cron.job WHERE jobname = 'child'",
    "alter options": "SELECT cron.alter_job(jobid, jsonb_build_object('schedule', %s::text))"
    " FROM cron.job WHERE jobname = 'child'",
    "update": "UPDATE cron.job SET schedule = %s WHERE jobname = 'child'",
    "insert": "INSERT INTO cron.job (jobname, schedule, command) VALUES ('child', %s, 'SELECT 1')"
    " ON CONFLICT ON CONSTRAINT jobname_username_uniq DO UPDATE SET schedule = excluded.schedule",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_circle_is_refused_with_its_jobs(conn: Connection, way: str) -> None:
    schedule(conn, "child")
    schedule(conn, "b", '@after "child"')
    schedule(conn, 'c "x"', '@after "b" finished')
    text = '@after "c ""x"""'
    circle = '"child" waits for "c "x"" waits for "b" waits for "child"'
    assert refusal(conn, WAYS[way], text) == invalid(text, f"The jobs would wait for each other: {circle}.")
    itself = '@after "b" failed, "child"'
    assert refusal(conn, WAYS[way], itself) == invalid(itself, "The job would wait for itself.")
    assert one(conn, "SELECT schedule FROM cron.job WHERE jobname = 'child'") == NEVER


@pytest.mark.parametrize("way", WAYS)
def test_a_mistake_is_refused_with_the_words_of_the_table(conn: Connection, way: str) -> None:
    schedule(conn, "child")
    assert len(REFUSED) > 30
    for row in REFUSED:
        found = refusal(conn, WAYS[way], row["text"])
        assert (found.sqlstate, found.message, found.detail) == (
            "22023",
            f"invalid schedule: {row['text']}",
            row["detail"],
        )
        if row["hint"]:
            assert found.hint == row["hint"]
    assert one(conn, "SELECT schedule FROM cron.job WHERE jobname = 'child'") == NEVER


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("update", "insert")])
def test_an_unknown_job_is_refused_by_the_functions(conn: Connection, way: str) -> None:
    schedule(conn, "child")
    schedule(conn, "Load")
    assert refusal(conn, WAYS[way], '@after "Load", "clean"') == invalid(
        '@after "Load", "clean"', 'Role "postgres" has no job named "clean".', "Schedule that job first."
    )
    assert refusal(conn, WAYS[way], '@after "load"') == invalid(
        '@after "load"', 'Role "postgres" has no job named "load".', 'Perhaps you meant "Load".'
    )
    assert one(conn, "SELECT schedule FROM cron.job WHERE jobname = 'child'") == NEVER


@pytest.mark.parametrize("way", ["update", "insert"])
def test_an_unknown_job_is_pointed_out_to_those_who_write_by_hand(conn: Connection, way: str) -> None:
    schedule(conn, "child")
    text = '@after "clean"'
    assert notices(conn, WAYS[way], text) == [
        Notice(
            "WARNING",
            f'schedule "{text}" waits for a job that does not exist',
            'Role "postgres" has no job named "clean".',
            "It cannot run until there is such a job.",
        )
    ]
    assert one(conn, "SELECT schedule FROM cron.job WHERE jobname = 'child'") == text


def test_one_statement_may_write_child_and_parent_in_any_order(conn: Connection) -> None:
    statement = (
        "INSERT INTO cron.job (jobname, schedule, command) VALUES"
        " ('child', '@after \"parent\"', 'SELECT 1'), ('parent', '@daily', 'SELECT 1')"
    )
    assert notices(conn, statement) == []
    both = statement.replace("@daily", '@after "child"').replace("'child'", "'a'").replace("'parent'", "'b'")
    circle = both.replace('"child"', '"a"').replace('"parent"', '"b"')
    found = refusal(conn, circle)
    assert (found.sqlstate, found.detail) == (
        "22023",
        'The jobs would wait for each other: "a" waits for "b" waits for "a".',
    )


def test_copy_brings_jobs_back_in_any_order(conn: Connection) -> None:
    with conn.cursor() as cursor, cursor.copy("COPY cron.job (jobname, schedule, command) FROM STDIN") as copy:
        copy.write_row(("child", '@after "parent"', "SELECT 1"))
        copy.write_row(("parent", "@daily", "SELECT 1"))
    assert rows(conn, "SELECT jobname FROM cron.job ORDER BY jobid") == [("child",), ("parent",)]


def test_a_new_name_or_role_can_close_a_circle_too(conn: Connection, server: Server) -> None:
    schedule(conn, "a")
    schedule(conn, "b", '@after "a"')
    other = schedule(conn, "other", '@after "b"')
    conn.execute("SELECT cron.unschedule('a')")
    refused = '@after "b"'
    detail = 'The jobs would wait for each other: "a" waits for "b" waits for "a".'
    for statement in (
        'SELECT cron.alter_job(%s, \'{"name": "a"}\'::jsonb)',
        "UPDATE cron.job SET jobname = 'a' WHERE jobid = %s",
    ):
        assert refusal(conn, statement, other) == invalid(refused, detail)
    ann = make_role(conn, "after_bea")
    with session_of(server, ann) as hers:
        schedule(hers, "b")
        hers_a = schedule(hers, "a", '@after "b"')
    conn.execute("UPDATE cron.job SET schedule = '@daily' WHERE jobname = 'b' AND username = 'postgres'")
    conn.execute("SELECT cron.alter_job(%s, schedule := '@after \"b\"')", [other])
    assert refusal(conn, "SELECT cron.alter_job(%s, username := 'after_bea', schedule := '@after \"zzz\"')", other) == (
        invalid('@after "zzz"', 'Role "after_bea" has no job named "zzz".', "Schedule that job first.")
    )
    conn.execute("SELECT cron.alter_job(%s, username := 'after_bea')", [other])
    conn.execute("SELECT cron.unschedule(%s)", [hers_a])


def test_other_roles_jobs_are_no_parents_and_are_not_given_away(conn: Connection, server: Server) -> None:
    schedule(conn, "secret")
    with session_of(server, make_role(conn, "after_cid")) as his:
        assert refusal(his, "SELECT cron.schedule('spy', '@after \"secret\"', 'SELECT 1')") == invalid(
            '@after "secret"', 'Role "after_cid" has no job named "secret".', "Schedule that job first."
        )
        assert refusal(his, "SELECT cron.schedule('spy', '@after \"SECRET\"', 'SELECT 1')").hint == (
            "Schedule that job first."
        )


def test_a_job_without_a_name_can_wait_for_others(conn: Connection) -> None:
    schedule(conn, "load")
    jobid = one(conn, "SELECT cron.schedule('@after \"load\"', 'SELECT 1')")
    assert rows(conn, "SELECT jobname, schedule FROM cron.job WHERE jobid = %s", jobid) == [(None, '@after "load"')]


def test_a_long_chain_is_searched_and_its_circle_shown_in_short(conn: Connection) -> None:
    schedule(conn, "j0")
    with conn.transaction():
        for number in range(1, 300):
            insert_job(conn, jobname=f"j{number}", schedule=f'@after "j{number - 1}"', command="SELECT 1")
    found = refusal(
        conn, "SELECT cron.alter_job(jobid, schedule := '@after \"j299\"') FROM cron.job WHERE jobname = 'j0'"
    )
    names = " waits for ".join(f'"j{number}"' for number in (0, *range(299, 290, -1)))
    assert found.detail == f'The jobs would wait for each other: {names} waits for ... waits for "j0".'


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row["text"][:30])
def test_what_the_table_accepts_is_accepted_and_explained(conn: Connection, row: dict[str, str]) -> None:
    for parent in Schedule(row["text"]).parents:
        schedule(conn, parent.name)
    jobid = schedule(conn, "the child", row["text"])
    assert one(conn, "SELECT schedule FROM cron.job WHERE jobid = %s", jobid) == row["text"]
    lines = [line for (line,) in rows(conn, "SELECT cron.explain(%s)", row["text"])]
    assert lines[:2] == [f"Schedule: {row['normalised']}", f"Meaning: {row['words']}."]
    assert lines[2].endswith("never by the clock.")
    assert rows(conn, "SELECT cron.next_runs(%s)", row["text"]) == []
    assert rows(conn, "SELECT cron.due_times(job, now(), now() + '1 year') FROM cron.job WHERE jobid = %s", jobid) == []


def test_the_check_of_a_trigger_needs_no_right_of_the_writer(conn: Connection, server: Server) -> None:
    role = make_role(conn, "after_dot")
    conn.execute("GRANT INSERT, UPDATE ON cron.job TO after_dot; GRANT USAGE ON SEQUENCE cron.jobid_seq TO after_dot")
    with session_of(server, role) as hers:
        hers.execute("CREATE TEMP TABLE job (jobname text, schedule text)")
        hers.execute("SET search_path = pg_temp, public")
        hers.execute("INSERT INTO cron.job (jobname, schedule, command) VALUES ('a', '@daily', 'SELECT 1')")
        hers.execute("INSERT INTO cron.job (jobname, schedule, command) VALUES ('b', '@after \"a\"', 'SELECT 1')")
        found = refusal(hers, "UPDATE cron.job SET schedule = '@after \"b\"' WHERE jobname = 'a'")
        assert found.detail == 'The jobs would wait for each other: "a" waits for "b" waits for "a".'
    conn.execute("DROP OWNED BY after_dot")
