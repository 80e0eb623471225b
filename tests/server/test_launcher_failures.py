"""One bad row, one lost role, one broken trigger: whoever it concerns is told why, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    Task,
    insert_job,
    launcher_pid,
    one,
    rows,
    run_each,
    run_once,
    runs,
    runs_of,
    schedule,
    wait_for_no_gap,
    wait_for_runs,
)
from tests.server.support.watching import log_since, sample, wait_for_launcher
from tests.support.servers import Server
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]


def assert_unharmed(conn: Connection, jobid: int, more: int = 2) -> None:
    """The job goes on, and none of its due times is missing or double."""
    wait_for_runs(conn, jobid, one(conn, "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s", jobid) + more)
    wait_for_no_gap(conn, jobid)
    assert {run.status for run in runs_of(conn, jobid)} <= {"succeeded", "skipped", *OPEN}


# --- rows written by hand ----------------------------------------------------------------------

GARBAGE: Mapping[str, tuple[dict[str, Any], str]] = {
    "schedule": ({"schedule": "never ever"}, "invalid schedule: never ever"),
    "empty schedule": ({"schedule": ""}, "invalid schedule: "),
    "long schedule": ({"schedule": "*" * 5000}, f"invalid schedule: {'*' * 5000}"),
    "number": ({"schedule": "99 * * * *"}, "invalid schedule: 99 * * * *"),
    "zone": ({"timezone": "Mars/Olympus"}, 'time zone "Mars/Olympus" not recognized'),
    "long zone": ({"timezone": "x" * 5000}, f'time zone "{"x" * 5000}" not recognized'),
}


def test_garbage_rows_are_reported_once_and_stop_nobody(
    server: Server, conn: Connection, wait_until: WaitUntil
) -> None:
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    with conn.transaction():
        jobs = {name: insert_job(conn, **columns) for name, (columns, _) in GARBAGE.items()}
    reported = "SELECT count(*) FROM cron.job_run_details WHERE jobid = ANY (%s)"
    wait_until(lambda: one(conn, reported, list(jobs.values())) >= len(jobs), message="each of them to be reported")
    server.reload()
    conn.execute("UPDATE cron.job SET command = 'SELECT 2' WHERE jobid = ANY (%s)", [list(jobs.values())])
    wait_for_runs(conn, witness, 4)
    logged = {name: server.log().count(f"cron job {jobid} cannot run:") for name, jobid in jobs.items()}
    assert logged == dict.fromkeys(jobs, 1)
    pid = wait_for_launcher(conn)
    conn.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_for_launcher(conn, other_than=pid)
    assert_unharmed(conn, witness)
    for name, (_, message) in GARBAGE.items():
        (run,) = runs_of(conn, jobs[name])
        assert (run.status, run.reason, run.due_time, run.job_pid) == ("failed", "invalid_job", None, None)
        assert (run.return_message or "").split("\nDETAIL:")[0] == f"ERROR: {message}"
        assert run.start_time is not None
        assert run.end_time is not None


def test_a_garbage_row_that_is_corrected_runs(conn: Connection, wait_until: WaitUntil) -> None:
    jobid = insert_job(conn, schedule="never")
    wait_until(lambda: runs_of(conn, jobid), message="the report")
    conn.execute("UPDATE cron.job SET schedule = '1 second' WHERE jobid = %s", [jobid])
    wait_for_runs(conn, jobid, 3)
    assert {run.status for run in runs_of(conn, jobid)[:2]} == {"succeeded"}
    conn.execute("UPDATE cron.job SET schedule = 'never again' WHERE jobid = %s", [jobid])
    wait_until(
        lambda: runs(conn, "jobid = %s AND return_message LIKE '%%never again%%'", jobid), message="a new report"
    )


@pytest.mark.parametrize(
    "columns",
    [{"username": "nobody_at_all"}, {"database": "nowhere_at_all"}, {"username": ""}, {"database": "x" * 300}],
    ids=["role", "database", "empty_role", "long_database"],
)
def test_a_row_for_nobody_or_nowhere_fails_at_each_due_time(conn: Connection, columns: dict[str, str]) -> None:
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    jobid = insert_job(conn, **columns)
    found = wait_for_runs(conn, jobid, 2)[:2]
    (kind,) = ("role" if key == "username" else key for key in columns)
    (name,) = columns.values()
    for run in found:
        assert (run.status, run.reason, run.job_pid) == ("failed", f"{kind}_missing", None)
        assert run.return_message == f'FATAL: {kind} "{name}" does not exist'
        assert run.sqlstate == ("42704" if kind == "role" else "3D000")
        assert run.due_time is not None
        assert run.end_time is not None
    assert_unharmed(conn, witness)


# --- roles and databases that change -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens to the role or database `~` of a job, what its runs then say, and how it is made good."""

    name: str
    damage: str
    reason: str
    sqlstate: str
    message: str
    repair: str = ""
    where: str = field(default="postgres")


DAMAGES = [
    Damage("role_dropped", "DROP OWNED BY ~; DROP ROLE ~", "role_missing", "42704", 'role "~" does not exist'),
    Damage(
        "no_login",
        "ALTER ROLE ~ NOLOGIN",
        "could_not_start",
        "28000",
        'role "~" is not permitted to log in',
        "ALTER ROLE ~ LOGIN",
    ),
    Damage(
        "no_connect",
        "REVOKE CONNECT ON DATABASE ~_db FROM PUBLIC",
        "could_not_start",
        "42501",
        'permission denied for database "~_db"',
        "GRANT CONNECT ON DATABASE ~_db TO ~",
        "~_db",
    ),
    Damage(
        "database_dropped",
        "DROP DATABASE ~_db WITH (FORCE)",
        "database_missing",
        "3D000",
        'database "~_db" does not exist',
        "",
        "~_db",
    ),
    Damage(
        "database_renamed",
        "ALTER DATABASE ~_db RENAME TO ~_db2",
        "database_missing",
        "3D000",
        'database "~_db" does not exist',
        "ALTER DATABASE ~_db2 RENAME TO ~_db",
        "~_db",
    ),
    Damage(
        "no_connections",
        "ALTER DATABASE ~_db ALLOW_CONNECTIONS false",
        "could_not_start",
        "55000",
        'database "~_db" is not currently accepting connections',
        "ALTER DATABASE ~_db ALLOW_CONNECTIONS true",
        "~_db",
    ),
]


def fill(damage: Damage, text: str) -> str:
    return text.replace("~", f"lost_{damage.name}")


def perform(conn: Connection, damage: Damage, text: str) -> None:
    """Run the statements one by one, again where a run is in the way."""
    for statement in filter(None, fill(damage, text).split("; ")):
        for attempt in range(100):
            try:
                conn.execute(statement.encode())
                break
            except psycopg.errors.ObjectInUse:
                assert attempt < 99
                sample(0.05, lambda: None, 0.05)


@pytest.fixture(scope="module")
def damaged(server: Server) -> Iterator[dict[str, int]]:
    """All of them damaged while their one-second jobs run, seen to fail, made good, and seen to run again."""
    with server.connect() as conn:
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        for damage in DAMAGES:
            conn.execute(fill(damage, "CREATE ROLE ~ LOGIN").encode())
            if damage.where != "postgres":
                conn.execute(fill(damage, "CREATE DATABASE ~_db").encode())
        jobs = {
            d.name: schedule(conn, d.name, "1 second", "SELECT 1", database=fill(d, d.where), username=fill(d, "~"))
            for d in DAMAGES
        }
        jobs["witness"] = schedule(conn, "damage witness", "1 second", "SELECT 1")
        for jobid in jobs.values():
            wait_for_runs(conn, jobid, 1)
        for damage in DAMAGES:
            perform(conn, damage, damage.damage)
        since = one(conn, "SELECT clock_timestamp()")
        failed = "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND due_time > %s AND status = 'failed'"
        for damage in DAMAGES:
            reaches(conn, failed, jobs[damage.name], since)
        for damage in DAMAGES:
            perform(conn, damage, damage.repair)
        repaired = one(conn, "SELECT clock_timestamp()")
        again = failed.replace("'failed'", "'succeeded'")
        for damage in DAMAGES:
            if damage.repair:
                reaches(conn, again, jobs[damage.name], repaired)
        yield jobs
        conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        for damage in DAMAGES:
            conn.execute(fill(damage, "DROP DATABASE IF EXISTS ~_db WITH (FORCE)").encode())
        for damage in DAMAGES:
            conn.execute(fill(damage, "DROP ROLE IF EXISTS ~").encode())


def reaches(conn: Connection, count: str, jobid: int, since: Any) -> None:
    """Wait until the count is at least two."""
    poll(lambda: one(conn, count, jobid, since) >= 2, message=f"job {jobid}: {count}")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_lost_role_or_database_fails_its_own_runs_with_a_reason(
    server: Server, damaged: dict[str, int], damage: Damage
) -> None:
    with server.connect() as conn:
        failed = runs(conn, "jobid = %s AND status = 'failed' AND reason <> 'terminated'", damaged[damage.name])
    assert {(run.reason, run.sqlstate) for run in failed} == {(damage.reason, damage.sqlstate)}
    assert {(run.return_message or "").split("\n")[0] for run in failed} == {f"FATAL: {fill(damage, damage.message)}"}
    assert all(run.start_time and run.end_time for run in failed)


def test_the_others_do_not_notice(server: Server, damaged: dict[str, int]) -> None:
    with server.connect() as conn:
        assert_unharmed(conn, damaged["witness"])


@pytest.mark.settings({"cron.enable_superuser_jobs": False})
def test_superuser_jobs_that_are_forbidden_do_not_run(fresh_server: Server, wait_until: WaitUntil) -> None:
    """The role becomes a superuser after its job was scheduled, and stops being one."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE ROLE riser LOGIN")
        jobid = schedule(conn, "risen", "1 second", "SELECT 1", username="riser")
        wait_for_runs(conn, jobid)
        conn.execute("ALTER ROLE riser SUPERUSER")
        wait_until(lambda: runs(conn, "jobid = %s AND status = 'failed'", jobid), message="a refusal")
        by_hand = insert_job(conn, username="postgres", command="CREATE TABLE public.proof ()")
        for refused in (runs(conn, "jobid = %s AND status = 'failed'", jobid)[0], wait_for_runs(conn, by_hand)[0]):
            assert (refused.status, refused.reason, refused.sqlstate) == ("failed", "could_not_start", "42501")
            assert (refused.return_message or "").startswith("FATAL: cannot run jobs as superuser")
        assert one(conn, "SELECT to_regclass('public.proof') IS NULL")
        conn.execute("ALTER ROLE riser NOSUPERUSER")
        count = len(runs(conn, "jobid = %s AND status = 'succeeded'", jobid))
        wait_until(lambda: len(runs(conn, "jobid = %s AND status = 'succeeded'", jobid)) > count, message="a run again")


# --- a history table that resists --------------------------------------------------------------


OBSTACLES = {
    "trigger": (
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.command = 'TABLE trigger' THEN RAISE 'this one never'; END IF; RETURN new; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON cron.job_run_details"
        " FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        "DROP TRIGGER refuse ON cron.job_run_details; DROP FUNCTION public.refuse()",
    ),
    "index": (
        "CREATE INDEX refuse ON cron.job_run_details ((1 / (command <> 'TABLE index')::int))",
        "DROP INDEX cron.refuse",
    ),
    "constraint": (
        "ALTER TABLE cron.job_run_details ADD CONSTRAINT refuse CHECK (command <> 'TABLE constraint') NOT VALID",
        "ALTER TABLE cron.job_run_details DROP CONSTRAINT refuse",
    ),
}


def test_records_that_cannot_be_written_hold_up_only_their_own_jobs(
    server: Server, conn: Connection, wait_until: WaitUntil
) -> None:
    """A trigger, an index and a constraint of the user's, each of which fails for the records of one job."""
    conn.execute("DELETE FROM cron.job_run_details WHERE command LIKE 'TABLE %'")
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness)
    launcher, length = launcher_pid(conn), len(server.log())
    for set_up, _ in OBSTACLES.values():
        conn.execute(set_up.encode())
    try:
        hated = [schedule(conn, name, "1 second", f"TABLE {name}") for name in OBSTACLES]
        since = one(conn, "SELECT clock_timestamp()")
        # Five seconds with jobs whose records cannot be written: the others' runs are counted.
        sample(5, lambda: None, 1)
        during = runs(conn, "jobid = %s AND due_time > %s AND status = 'succeeded'", witness, since)
        log = log_since(server, length)
    finally:
        for _, tear_down in OBSTACLES.values():
            conn.execute(tear_down.encode())
    assert len(during) >= 3, "one record that cannot be written stopped everybody's jobs"
    assert log.count("ERROR:") <= 60, "the log is flooded"
    assert launcher_pid(conn) == launcher
    wait_until(lambda: len(runs(conn, "jobid = ANY (%s) AND start_time IS NOT NULL", hated)) >= 3, 30, "their runs")
    assert_unharmed(conn, witness)


def test_a_history_that_refuses_everything_loses_no_due_time(server: Server, conn: Connection) -> None:
    jobid = schedule(conn, "tick", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    launcher, length = launcher_pid(conn), len(server.log())
    conn.execute(
        "CREATE FUNCTION public.refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;"
        " CREATE TRIGGER refuse_all BEFORE INSERT OR UPDATE ON cron.job_run_details"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_all()"
    )
    # Three seconds of refusal, which is what the test is about.
    sample(3, lambda: None, 1)
    conn.execute("DROP TRIGGER refuse_all ON cron.job_run_details; DROP FUNCTION public.refuse_all()")
    assert_unharmed(conn, jobid)
    assert launcher_pid(conn) == launcher
    assert 1 <= log_since(server, length).count("ERROR:  never") <= 12


def test_policies_of_the_history_do_not_bind_the_launcher(conn: Connection) -> None:
    conn.execute("CREATE POLICY none_at_all ON cron.job_run_details AS RESTRICTIVE USING (false) WITH CHECK (false)")
    conn.execute("ALTER TABLE cron.job_run_details FORCE ROW LEVEL SECURITY")
    conn.execute("ALTER TABLE cron.job FORCE ROW LEVEL SECURITY")
    try:
        assert run_once(conn, "SELECT 1").status == "succeeded"
    finally:
        conn.execute("DROP POLICY none_at_all ON cron.job_run_details")
        conn.execute("ALTER TABLE cron.job_run_details NO FORCE ROW LEVEL SECURITY")
        conn.execute("ALTER TABLE cron.job NO FORCE ROW LEVEL SECURITY")


# --- a hostile surrounding ---------------------------------------------------------------------

TRAPS = """
CREATE SCHEMA evil;
CREATE TABLE evil.log (who text, what text);
GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON evil.log TO PUBLIC;
CREATE FUNCTION evil.trap(what text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO evil.log VALUES (current_user, what); RETURN true; END $$;
CREATE FUNCTION evil.eq(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.trap('bigint') $$;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.trap('text') $$;
CREATE FUNCTION evil.eq(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT evil.trap('time') $$;
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = bigint, RIGHTARG = bigint);
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE OPERATOR evil.<> (FUNCTION = evil.eq, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS
  $$ SELECT CASE WHEN evil.trap('nextval') THEN -1::bigint END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS
  $$ SELECT CASE WHEN evil.trap('now') THEN 'epoch'::timestamptz END $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
  $$ SELECT CASE WHEN evil.trap('clock') THEN 'epoch'::timestamptz END $$;
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS
  $$ SELECT CASE WHEN evil.trap('setting') THEN '1' END $$;
CREATE TABLE evil.job AS SELECT 1 AS jobid; CREATE TABLE evil.job_run_details AS SELECT 1 AS runid;
ALTER DATABASE postgres SET search_path = evil, pg_catalog, public;
ALTER ROLE postgres SET search_path = evil, pg_catalog, public;
"""

HOSTILE = [
    ("search_path", TRAPS),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("session_replication_role", "replica"),
    ("lock_timeout", "1ms"),
    ("statement_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "1ms"),
    ("row_security", "off"),
    ("DateStyle", "German, DMY"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "Asia/Kathmandu"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("array_nulls", "off"),
    ("backslash_quote", "off"),
    ("quote_all_identifiers", "on"),
    ("client_min_messages", "error"),
    ("work_mem", "64kB"),
    ("enable_indexscan", "off"),
    ("plan_cache_mode", "force_custom_plan"),
    ("client_encoding", "LATIN1"),
]

# Whatever a format could take for something else, and what one encoding says otherwise than another.
ODD_TEXTS = ["a\tb\nc\r\nd", "\\N", "\\.", "\\\\x41", "'' \"\" , ;", "Größe", "日本 €🐘"]


def test_settings_of_the_surrounding_do_not_reach_the_bookkeeping(fresh_server: Server) -> None:
    """All of them at once, for the database, for the launcher's role and in the file; also after a restart."""
    with fresh_server.connect() as conn:
        conn.execute(TRAPS.encode())
        for name, value in HOSTILE[1:]:
            conn.execute(f"ALTER DATABASE postgres SET {name} = '{value}'".encode())
            conn.execute(f"ALTER ROLE postgres SET {name} = '{value}'".encode())
    fresh_server.configure({"default_transaction_read_only": True, "lock_timeout": "1ms"})
    fresh_server.restart()
    # The tester's own session, and the runs', are ordinary sessions: they get calm settings here.
    with psycopg.connect(
        fresh_server.dsn(),
        autocommit=True,
        options="-c search_path=pg_catalog -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0"
        " -c session_replication_role=origin -c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
        " -c client_encoding=UTF8 -c idle_in_transaction_session_timeout=0",
    ) as conn:
        conn.execute("CREATE DATABASE calm")
        conn.execute("CREATE ROLE calm LOGIN; ALTER ROLE calm SET statement_timeout = 0")
        conn.execute("ALTER ROLE calm SET default_transaction_read_only = off")
        jobid = schedule(conn, "tick", "1 second", "SELECT 1", database="calm", username="calm")
        zoned = schedule(conn, "zoned", "1 second", "SELECT 1 / 0", database="calm", username="calm")
        conn.execute("SELECT cron.alter_job(%s, %s::jsonb)", [zoned, '{"timezone": "Europe/Berlin", "priority": 3}'])
        assert_unharmed(conn, jobid, 3)
        assert wait_for_runs(conn, zoned)[0].sqlstate == "22012"
        conn.execute("SELECT cron.unschedule(%s::bigint)", [zoned])
        tasks = {text: Task(f"SELECT '{text}'", "calm", "calm") for text in ODD_TEXTS}
        for text, run in run_each(conn, tasks).items():
            assert (run.command, run.status) == (f"SELECT '{text}'", "succeeded")
        assert rows(conn, "SELECT DISTINCT who, what FROM evil.log") == []
        assert "ERROR" not in "".join(
            line for line in fresh_server.log().splitlines() if "pg_clockwork launcher" in line
        )


# --- signals -----------------------------------------------------------------------------------


def test_cancelling_the_launcher_is_harmless(server: Server, conn: Connection, wait_until: WaitUntil) -> None:
    """Again and again, in whatever it does, also between the commit of a record and what follows from it."""
    with conn.transaction():
        jobs = [schedule(conn, f"tick {number}", "1 second", "SELECT 1") for number in range(20)]
    wait_for_runs(conn, jobs[0])
    pid, length = launcher_pid(conn), len(server.log())
    cancel = (
        "DO $$ BEGIN FOR i IN 1..30000 LOOP PERFORM pg_catalog.pg_cancel_backend({});"
        " IF i % 10 = 0 THEN PERFORM pg_catalog.pg_sleep(0.0002); END IF; END LOOP; END $$"
    )
    conn.execute(cancel.format(pid).encode())
    assert launcher_pid(conn) == pid
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE jobid <> %s", [jobs[0]])
    assert_unharmed(conn, jobs[0])
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
    wait_until(lambda: not runs(conn, "status = ANY (%s)", list(OPEN)), message="every record to be final")
    assert "canceling statement" not in log_since(server, length)


def test_a_launcher_that_is_terminated_again_and_again_loses_and_doubles_nothing(
    conn: Connection, wait_until: WaitUntil
) -> None:
    """Beside a one-second job: a long run that must be adopted, one that waits behind it, and runs that end meanwhile."""
    conn.execute("DROP TABLE IF EXISTS public.counted; CREATE TABLE public.counted (name text)")
    tick = schedule(conn, "tick", "1 second", "INSERT INTO public.counted VALUES ('tick')")
    medium = schedule(conn, "medium", "1 second", "SELECT pg_sleep(0.5); INSERT INTO public.counted VALUES ('medium')")
    long = schedule(conn, "long", "1 second", "SELECT pg_sleep(9); INSERT INTO public.counted VALUES ('long')")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'queued'", long), message="a queued run")
    adopted, queued = runs_of(conn, long)[:2]
    for _ in range(10):
        pid = wait_for_launcher(conn)
        conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for_launcher(conn, other_than=pid)
    wait_until(lambda: runs(conn, "runid = %s AND status = 'running'", queued.runid), 20, "the queued run to begin")
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
    wait_until(lambda: not runs(conn, "status = ANY (%s)", list(OPEN)), 20, "every run to end")
    for jobid in (tick, medium, long):
        wait_for_no_gap(conn, jobid)
    (first,) = runs(conn, "runid = %s", adopted.runid)
    assert (first.status, first.return_message, first.job_pid) == ("succeeded", "INSERT 0 1", adopted.job_pid)
    (second,) = runs(conn, "runid = %s", queued.runid)
    assert (second.status, second.due_time) == ("succeeded", queued.due_time)
    done = rows(
        conn,
        "SELECT jobname_of.name, count(*) FROM (VALUES (%s::bigint, 'tick'), (%s, 'medium'), (%s, 'long')) AS jobname_of (jobid, name)"
        " JOIN cron.job_run_details USING (jobid) WHERE status = 'succeeded' GROUP BY 1",
        tick,
        medium,
        long,
    )
    assert dict(done) == dict(rows(conn, "SELECT name, count(*) FROM public.counted GROUP BY 1"))
    assert not runs(conn, "jobid = ANY (%s) AND status = 'failed'", [tick, medium, long])
    assert [a.end_time <= b.start_time for a, b in pairwise(ran_of(conn, medium)) if a.end_time and b.start_time].count(
        False
    ) == 0
    conn.execute("DROP TABLE public.counted")


def ran_of(conn: Connection, jobid: int) -> list[Any]:
    return [run for run in runs_of(conn, jobid) if run.start_time]
