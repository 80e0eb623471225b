"""What a run can read of itself, and the settings that its job gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import Run, at, one, rows, run_once, schedule, wait_for_runs
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]

NAMES = ("cron.job_id", "cron.run_id", "cron.due_time", "cron.attempt")


@pytest.fixture
def notes(conn: Connection) -> Iterator[Connection]:
    """A table that every role may write into."""
    conn.execute("CREATE TABLE public.notes (name text, value text); GRANT ALL ON public.notes TO PUBLIC")
    conn.execute("CREATE ROLE modest LOGIN; GRANT USAGE ON SCHEMA cron TO modest")
    yield conn
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
    conn.execute("DROP TABLE public.notes; DROP OWNED BY modest; DROP ROLE modest")


def noted(conn: Connection) -> dict[str, str]:
    return dict(rows(conn, "SELECT name, value FROM public.notes"))


def note(name: str) -> str:
    return f"INSERT INTO public.notes VALUES ('{name}', current_setting('{name}'))"


def run_with(conn: Connection, settings: dict[str, Any], command: str, username: str | None = None) -> Run:
    """One run of a job with these settings."""
    options = {"settings": settings} | ({"username": username} if username else {})
    jobid = one(conn, "SELECT cron.schedule('set', %s, %s, %s::jsonb)", at(conn), command, json.dumps(options))
    (run,) = wait_for_runs(conn, jobid)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    return run


# --- what a run can read of itself ---------------------------------------------------------------


def test_a_run_knows_which_run_it_is(notes: Connection) -> None:
    run = run_once(notes, "; ".join(note(name) for name in NAMES), username="modest")
    assert run.status == "succeeded", run.return_message
    seen = noted(notes)
    assert seen["cron.job_id"] == str(run.jobid)
    assert seen["cron.run_id"] == str(run.runid)
    assert datetime.fromisoformat(seen["cron.due_time"]) == run.due_time
    assert seen["cron.attempt"] == "1"


def test_parallel_workers_of_a_run_know_it_too(notes: Connection) -> None:
    """The server computes the value in its parallel workers, which is forced here."""
    parallel = "force_parallel_mode" if notes.info.server_version < 160000 else "debug_parallel_query"
    run = run_once(
        notes,
        f"SET {parallel} = on; DO $$ DECLARE v text; BEGIN"
        " EXECUTE 'SELECT max(current_setting(''cron.run_id'')) FROM generate_series(1, 10)' INTO v;"
        " INSERT INTO public.notes VALUES ('parallel', v); END $$",
    )
    assert run.status == "succeeded", run.return_message
    assert noted(notes)["parallel"] == str(run.runid)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["SET {} = 7", "SET LOCAL {} = 7", "SELECT set_config('{}', '7', false)"])
def test_nobody_can_lie_about_it(conn: Connection, name: str, how: str) -> None:
    run = run_once(conn, how.format(name))
    assert (run.status, run.sqlstate) == ("failed", "55P02"), run.return_message
    with pytest.raises(psycopg.errors.CantChangeRuntimeParam):
        conn.execute(how.format(name).encode())


def test_nor_keep_a_lie_for_later(conn: Connection) -> None:
    for statement in ("ALTER ROLE postgres SET cron.run_id = 7", "ALTER DATABASE postgres SET cron.job_id = 7"):
        with pytest.raises(psycopg.errors.CantChangeRuntimeParam):
            conn.execute(statement.encode())
    with pytest.raises(psycopg.Error):
        conn.execute("ALTER SYSTEM SET cron.run_id = 7")


def test_resetting_changes_nothing(notes: Connection) -> None:
    run = run_once(notes, f"RESET ALL; RESET cron.run_id; SET cron.run_id TO DEFAULT; {note('cron.run_id')}")
    assert run.status == "succeeded", run.return_message
    assert noted(notes)["cron.run_id"] == str(run.runid)


def test_other_sessions_read_nothing(server: Server, conn: Connection) -> None:
    conn.execute("CREATE ROLE onlooker LOGIN")
    try:
        with server.connect(user="onlooker") as other:
            assert [one(other, "SELECT current_setting(%s)", name) for name in NAMES] == [""] * 4
    finally:
        conn.execute("DROP ROLE onlooker")


# --- the settings of a job -----------------------------------------------------------------------


def test_settings_are_those_of_the_session(notes: Connection) -> None:
    """Strings, numbers and booleans; over what the role says; and RESET returns to them."""
    notes.execute("ALTER ROLE modest SET work_mem = '7MB'")
    settings = {
        "work_mem": "9MB",
        "statement_timeout": 12345,
        "enable_seqscan": False,
        "search_path": 'public, "Größe"',
        "myapp.tenant": "žluť 'n' \"q\"",
        "application_name": "mine",
    }
    command = "; ".join(note(name) for name in settings)
    run = run_with(notes, settings, f"SET work_mem = '1MB'; RESET work_mem; {command}", "modest")
    assert run.status == "succeeded", run.return_message
    assert noted(notes) == {
        "work_mem": "9MB",
        "statement_timeout": "12345ms",
        "enable_seqscan": "off",
        "search_path": 'public, "Größe"',
        "myapp.tenant": "žluť 'n' \"q\"",
        "application_name": "mine",
    }


def test_a_statement_timeout_of_the_job_counts(conn: Connection) -> None:
    run = run_with(conn, {"statement_timeout": "50ms"}, "SELECT pg_sleep(9)")
    assert (run.status, run.sqlstate) == ("failed", "57014")


def test_settings_can_be_changed_and_taken_away(conn: Connection) -> None:
    jobid = schedule(conn, "changing", "0 0 29 2 *", "SELECT 1")
    for value in ({"work_mem": "2MB"}, None):
        conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [jobid, json.dumps({"settings": value})])
        assert one(conn, "SELECT settings FROM cron.job WHERE jobid = %s", jobid) == value


@pytest.mark.parametrize(
    ("settings", "sqlstate"),
    [
        ({"no_such_setting": 1}, "42704"),
        ({"work_mem": "lots"}, "22023"),
        ({"work_mem": 1}, "22023"),
        ({"work_mem": None}, "22023"),
        ({"work_mem": ["1MB"]}, "22023"),
        ({"shared_buffers": "1GB"}, "55P02"),
        ({"log_checkpoints": True}, "55P02"),
        ({"cron.run_id": 1}, "55P02"),
        ({"cron.made_up": 1}, "42602"),
        ({"transaction_isolation": "serializable"}, "55P02"),
        ({"": "x"}, "42704"),
    ],
)
def test_what_cannot_be_set_is_refused_when_scheduled(
    conn: Connection, settings: dict[str, Any], sqlstate: str
) -> None:
    with pytest.raises(psycopg.Error) as refusal:
        run_with(conn, settings, "SELECT 1")
    assert refusal.value.sqlstate == sqlstate
    assert one(conn, "SELECT count(*) FROM cron.job") == 0


def test_the_owners_rights_are_what_counts(server: Server, notes: Connection) -> None:
    """Neither may a role set what it may not, nor does a superuser's word help it."""
    settings = {"session_replication_role": "replica"}
    options = json.dumps({"settings": settings})
    with server.connect(user="modest") as modest, pytest.raises(psycopg.errors.InsufficientPrivilege):
        modest.execute("SELECT cron.schedule('x', '@hourly', 'SELECT 1', %s::jsonb)", [options])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run_with(notes, settings, "SELECT 1", "modest")
    notes.execute("GRANT SET ON PARAMETER session_replication_role TO modest")
    run = run_with(notes, settings, note("session_replication_role"), "modest")
    assert run.status == "succeeded", run.return_message
    assert noted(notes) == {"session_replication_role": "replica"}


def test_what_cannot_be_set_is_refused_by_an_update_too(notes: Connection) -> None:
    jobid = one(notes, "SELECT cron.schedule('x', '@hourly', 'SELECT 1')")
    update = "UPDATE cron.job SET settings = %s WHERE jobid = %s"
    for settings, refusal in (
        ({"wrok_mem": "1MB"}, psycopg.errors.UndefinedObject),
        ({"work_mem": "lots"}, psycopg.errors.InvalidParameterValue),
        ({"cron.run_id": "7"}, psycopg.errors.CantChangeRuntimeParam),
    ):
        with pytest.raises(refusal):
            notes.execute(update, [json.dumps(settings), jobid])
    notes.execute(update, ['{"session_replication_role": "replica"}', jobid])
    # The new owner may not set what the old one may: said by every road.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        notes.execute("UPDATE cron.job SET username = 'modest' WHERE jobid = %s", [jobid])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        notes.execute("SELECT cron.alter_job(%s, username := 'modest')", [jobid])
    notes.execute(
        "SELECT cron.alter_job(%s, options => %s::jsonb)", [jobid, '{"username": "modest", "settings": null}']
    )
    # What a dump brings, or a replica applies, is believed: its runs will tell.
    notes.execute("SET session_replication_role = replica")
    notes.execute(update, ['{"wrok_mem": "1MB"}', jobid])
    notes.execute("RESET session_replication_role")
    notes.execute("UPDATE cron.job SET command = 'SELECT 2' WHERE jobid = %s", [jobid])


def test_what_changed_since_is_recorded_as_a_failed_run(notes: Connection) -> None:
    notes.execute("GRANT SET ON PARAMETER session_replication_role TO modest")
    options = json.dumps({"settings": {"session_replication_role": "replica"}, "username": "modest"})
    jobid = one(notes, "SELECT cron.schedule('later', %s, %s, %s::jsonb)", at(notes, 1), note("work_mem"), options)
    notes.execute("REVOKE SET ON PARAMETER session_replication_role FROM modest")
    (run,) = wait_for_runs(notes, jobid)
    assert (run.status, run.reason, run.sqlstate) == ("failed", "could_not_start", "42501")
    assert "session_replication_role" in (run.return_message or "")
    assert "settings" in (run.context or "")
    assert noted(notes) == {}
