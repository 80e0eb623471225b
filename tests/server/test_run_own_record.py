"""The success of a run in the home database commits with its effects, or not at all.

Rows that one transaction wrote have one commit timestamp: that is how these tests tell who wrote a record.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    OPEN,
    Run,
    Task,
    at,
    one,
    run_each,
    run_once,
    runs,
    runs_of,
    schedule,
    wait_for_runs,
    workers,
)
from tests.server.support.watching import wait_for_launcher
from tests.support.servers import LocalServer, Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

TRACK: dict[str, Any] = {"track_commit_timestamp": True, "max_prepared_transactions": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """A command that writes into `done`; `own`: does it write its own record?"""

    name: str
    command: str
    own: bool
    status: str = "succeeded"
    sqlstate: str | None = None
    username: str | None = None

    @property
    def task(self) -> Task:
        return Task(
            self.command.replace("~", f"INSERT INTO public.done VALUES ('{self.name}')"), username=self.username
        )


CASES = [
    Case("plain", "~", True),
    Case("several", "SELECT 1; ~; SELECT 2", True),
    Case("ordinary_role", "~", True, username="plain_role"),
    Case("function", "SELECT public.writes('function')", True),
    Case("do", "DO $$ BEGIN ~; END $$", True),
    Case("caught_error", "DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN ~; END $$", True),
    Case("call", "CALL public.writes_once('call')", True),
    Case("create_table", "CREATE TABLE public.made AS SELECT 1; ~", True),
    Case("temporary", "CREATE TEMP TABLE t (i int) ON COMMIT DROP; ~", True),
    Case("cursor", "DECLARE c CURSOR WITH HOLD FOR SELECT 1; ~", True),
    Case("notify", "NOTIFY c, 'x'; ~", True),
    Case("copy", "COPY public.done (name) FROM PROGRAM 'echo copy'", True),
    Case("repeatable_read", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; ~", True),
    Case("deferred_trigger", "INSERT INTO public.deferred VALUES (1); ~", True),
    # What the command left behind does not matter.
    Case("replica", "SET session_replication_role = replica; ~", True),
    Case("row_security", "SET row_security = off; ~", True),
    Case("search_path", "SET search_path = evil, pg_catalog; ~", True),
    Case("set_role", "SET ROLE plain_role; ~", True),
    Case("set_local_role", "~; SET LOCAL ROLE plain_role", True),
    Case("session_authorization", "SET SESSION AUTHORIZATION plain_role; ~", True),
    Case("role_none", "SET ROLE NONE; ~", True, username="plain_role"),
    Case("lock_timeout", "SET lock_timeout = 1; ~", True),
    Case("statement_timeout", "SET statement_timeout = '5s'; ~", True),
    Case(
        "planner",
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_custom_plan; ~",
        True,
    ),
    # Not one transaction, or not sure to be harmless.
    Case("block", "BEGIN; ~; COMMIT", False),
    Case("commit", "~; COMMIT", False),
    Case("commit_then_more", "SELECT 1; COMMIT; ~", False),
    Case("do_commit", "DO $$ BEGIN COMMIT; ~; END $$", False),
    Case("call_commit", "CALL public.writes_twice('call_commit')", False),
    Case("prepared", "BEGIN; ~; PREPARE TRANSACTION 'p'", False),
    Case("serializable", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; ~", False),
    Case("serializable_role", "~", False, username="serializable_role"),
    Case("read_only_at_last", "~; SET TRANSACTION READ ONLY", False),
    Case(
        "own_record_deleted",
        "~; DELETE FROM cron.job_run_details WHERE runid = current_setting('cron.run_id')::bigint",
        False,
    ),
    # Failures are never recorded by the run.
    Case("deferred_failure", "INSERT INTO public.deferred VALUES (-1); ~", False, "failed", "P0001"),
    Case("deferred_unique", "INSERT INTO public.late_unique VALUES (1), (1); ~", False, "failed", "23505"),
    Case("error", "~; SELECT 1 / 0", False, "failed", "22012"),
    Case("terminated", "~; SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)", False, "failed", "57P01"),
]

SETUP = """
CREATE TABLE public.done (name text);
CREATE TABLE public.deferred (i int);
CREATE TABLE public.late_unique (i int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION public.refuse_negative() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN IF NEW.i < 0 THEN RAISE 'too late'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON public.deferred DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION public.refuse_negative();
CREATE FUNCTION public.writes(text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES ($1)';
CREATE PROCEDURE public.writes_once(text) LANGUAGE sql AS 'INSERT INTO public.done VALUES ($1)';
CREATE PROCEDURE public.writes_twice(n text) LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.done VALUES (n); COMMIT; PERFORM 1; END $$;
CREATE SCHEMA evil;
CREATE FUNCTION evil.boom(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.boom);
CREATE ROLE plain_role LOGIN;
CREATE ROLE serializable_role LOGIN;
ALTER ROLE serializable_role SET default_transaction_isolation = 'serializable';
GRANT ALL ON ALL TABLES IN SCHEMA public TO plain_role, serializable_role;
"""


# Whether the row of `done` and the record carry one commit timestamp; NULL: no such row.
TOGETHER = """
SELECT pg_xact_commit_timestamp(d.xmin) = (SELECT pg_xact_commit_timestamp(w.xmin) FROM public.done w WHERE name = %s)
FROM cron.job_run_details d WHERE runid = %s
"""


@dataclass(frozen=True, slots=True)
class Result:
    run: Run
    together: bool | None


def run_cases(conn: Connection, cases: list[Case]) -> dict[str, Result]:
    conn.execute("TRUNCATE public.done")
    found = run_each(conn, {case.name: case.task for case in cases}, lead=1)
    return {
        case.name: Result(found[case.name], one(conn, TOGETHER, case.name, found[case.name].runid)) for case in cases
    }


@pytest.fixture(scope="module")
def results(target: Any, request: pytest.FixtureRequest) -> Iterator[dict[str, Result]]:
    """All cases, run on a server of their own.

    A run leaves its record to the launcher if that has locked it at that very moment, which is rare: such a case gets
    another chance.
    """
    from tests.support.plugin import _launch

    server = _launch(target, request, TRACK)
    try:
        with server.connect() as conn:
            conn.execute(SETUP.encode())
            found = run_cases(conn, CASES)
            conn.execute("COMMIT PREPARED 'p'")
            found["prepared"] = Result(found["prepared"].run, False)
            for _ in range(10):
                again = [case for case in CASES if case.own and not found[case.name].together]
                if not again:
                    break
                conn.execute("DROP TABLE IF EXISTS public.made")
                found |= run_cases(conn, again)
            yield found
    finally:
        server.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_record_is_written_by_whom_it_must_be(results: dict[str, Result], case: Case) -> None:
    run, together = results[case.name].run, results[case.name].together
    assert (run.status, run.sqlstate, run.effects) == (case.status, case.sqlstate, None), run.return_message
    assert (together or False) == case.own
    assert (together is not None) == (case.status == "succeeded"), "a failure leaves nothing behind, a success does"
    assert run.job_pid
    assert run.start_time
    assert run.end_time
    assert run.start_time <= run.end_time
    if case.status == "succeeded":
        assert run.command_tag
        assert run.return_message
        assert run.reason is None


# --- the launcher is not needed, and believes the record -----------------------------------------


def hold(conn: Connection, command: str = "INSERT INTO public.kept VALUES (1)") -> str:
    """A command that waits, having done its work, for the advisory lock that `conn` now holds."""
    conn.execute("SELECT pg_advisory_lock(42)")
    return f"{command}; SELECT pg_advisory_lock(42)"


def wait_until_held(conn: Connection, wait_until: WaitUntil, count: int = 1) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    wait_until(lambda: one(conn, waiting) == count, message="the runs to wait for the lock")


@pytest.mark.local_only
def test_the_run_records_its_success_without_the_launcher(fresh_server: LocalServer, wait_until: WaitUntil) -> None:
    """The launcher stands still; then it is killed, and the next one believes what it finds."""
    with fresh_server.connect() as conn:
        conn.execute("CREATE TABLE public.kept (i int)")
        conn.execute("CREATE DATABASE elsewhere")
        with fresh_server.connect("elsewhere") as other:
            other.execute("CREATE TABLE public.kept (i int)")
        when = at(conn)
        command = hold(conn)
        own = schedule(conn, "own", when, command)
        cut = schedule(conn, "cut", when, "INSERT INTO public.kept VALUES (2); SELECT pg_sleep(600)")
        maybe = schedule(
            conn, "maybe", when, "DO $$ BEGIN INSERT INTO public.kept VALUES (3); COMMIT; PERFORM pg_sleep(600); END $$"
        )
        with fresh_server.connect("elsewhere") as other:
            schedule_elsewhere = schedule(
                conn, "elsewhere", when, "INSERT INTO public.kept VALUES (4)", database="elsewhere"
            )
            wait_until_held(conn, wait_until)
            wait_until(lambda: len(runs(conn, "status = 'running'")) == 3, message="the long runs to be shown")
            wait_for_runs(conn, schedule_elsewhere)
            # The next run elsewhere ends unseen.
            unseen = schedule(
                conn,
                "unseen",
                at(conn),
                "SELECT pg_sleep(0.5); INSERT INTO public.kept VALUES (5)",
                database="elsewhere",
            )
            wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", unseen), message="the run elsewhere")
            launcher = wait_for_launcher(conn)
            fresh_server.kill(launcher, signal.SIGSTOP)
            conn.execute("SELECT pg_advisory_unlock(42)")
            wait_until(
                lambda: runs(conn, "jobid = %s AND status = 'succeeded'", own), message="the run to record itself"
            )
            wait_until(
                lambda: one(other, "SELECT count(*) FROM public.kept") == 2, message="the run elsewhere to commit"
            )
            wait_until(lambda: len(workers(conn)) == 2, message="the other workers to go")
        before = runs_of(conn, own)[0]
        assert (before.return_message, before.command_tag, before.row_count) == ("SELECT 1", "SELECT", 1)
        assert before.end_time
        fresh_server.kill(launcher)
        wait_until(lambda: "all server processes terminated" in fresh_server.log(), message="the server to notice")
    fresh_server.wait_until_ready()
    with fresh_server.connect() as conn:
        wait_until(lambda: not runs(conn, "status = ANY (%s)", list(OPEN)), message="the open records to be closed")
        assert runs_of(conn, own) == [before]
        for jobid, effects, words in (
            (cut, "none", "nothing of it was committed"),
            (maybe, "unknown", "may have been committed"),
            (unseen, "unknown", "may have been committed"),
        ):
            (run,) = runs_of(conn, jobid)
            assert (run.status, run.reason, run.effects) == ("failed", "server_restart", effects)
            assert words in (run.return_message or "")
            assert run.end_time
        assert [i for (i,) in conn.execute("SELECT i FROM public.kept ORDER BY i")] == [1, 3]


@pytest.mark.local_only
def test_a_transaction_that_commits_without_its_record_says_so_first(
    fresh_server: LocalServer, wait_until: WaitUntil
) -> None:
    """SERIALIZABLE: the doubt is noted before the commit, which a deferred trigger here holds up."""
    with fresh_server.connect() as conn:
        conn.execute(
            """
            CREATE TABLE public.kept (i int);
            CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM pg_advisory_lock(42); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON public.kept DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW EXECUTE FUNCTION public.linger()
            """
        )
        conn.execute("SELECT pg_advisory_lock(42)")
        jobid = schedule(
            conn,
            "doubtful",
            at(conn),
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; INSERT INTO public.kept VALUES (1)",
        )
        wait_until_held(conn, wait_until)
        (run,) = runs_of(conn, jobid)
        assert (run.status, run.effects) == ("running", "unknown")
        fresh_server.kill(wait_for_launcher(conn))
        wait_until(lambda: "all server processes terminated" in fresh_server.log(), message="the server to notice")
    fresh_server.wait_until_ready()
    with fresh_server.connect() as conn:
        (run,) = wait_for_runs(conn, jobid)
        assert (run.status, run.reason, run.effects) == ("failed", "server_restart", "unknown")


# --- the record is never what a command fails of ---------------------------------------------------

IN_A_RUN = "current_setting('cron.run_id') <> ''"
OBSTACLES = {
    "a trigger that fails": (
        f"""CREATE FUNCTION public.obstacle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF {IN_A_RUN} THEN RAISE 'no'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER obstacle BEFORE UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.obstacle()""",
        "DROP TRIGGER obstacle ON cron.job_run_details; DROP FUNCTION public.obstacle",
    ),
    "a trigger that sleeps": (
        f"""CREATE FUNCTION public.obstacle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF {IN_A_RUN} THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$;
            CREATE TRIGGER obstacle BEFORE UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.obstacle()""",
        "DROP TRIGGER obstacle ON cron.job_run_details; DROP FUNCTION public.obstacle",
    ),
    "a trigger that waits for a lock": (
        f"""CREATE FUNCTION public.obstacle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF {IN_A_RUN} THEN PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NEW; END $$;
            CREATE TRIGGER obstacle BEFORE UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.obstacle();
            SELECT pg_advisory_lock(4711)""",
        "DROP TRIGGER obstacle ON cron.job_run_details; DROP FUNCTION public.obstacle; SELECT pg_advisory_unlock(4711)",
    ),
    "a trigger that swallows the update": (
        f"""CREATE FUNCTION public.obstacle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RETURN CASE WHEN {IN_A_RUN} THEN NULL ELSE NEW END; END $$;
            CREATE TRIGGER obstacle BEFORE UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION public.obstacle()""",
        "DROP TRIGGER obstacle ON cron.job_run_details; DROP FUNCTION public.obstacle",
    ),
    "a trigger that fails at the commit": (
        f"""CREATE FUNCTION public.obstacle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF {IN_A_RUN} THEN RAISE 'no'; END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER obstacle AFTER UPDATE ON cron.job_run_details DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION public.obstacle()""",
        "DROP TRIGGER obstacle ON cron.job_run_details; DROP FUNCTION public.obstacle",
    ),
    "an index that fails": (
        f"""CREATE FUNCTION public.obstacle(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN IF {IN_A_RUN} THEN RAISE 'no'; END IF; RETURN $1; END $$;
            CREATE INDEX obstacle ON cron.job_run_details (public.obstacle(status))""",
        "DROP INDEX cron.obstacle; DROP FUNCTION public.obstacle",
    ),
    "a forced policy": (
        f"""ALTER TABLE cron.job_run_details FORCE ROW LEVEL SECURITY;
            CREATE POLICY obstacle ON cron.job_run_details AS RESTRICTIVE USING (NOT {IN_A_RUN})""",
        "DROP POLICY obstacle ON cron.job_run_details; ALTER TABLE cron.job_run_details NO FORCE ROW LEVEL SECURITY",
    ),
}

# What the server lets nobody do in a restricted operation, so that the launcher has to wait until it is gone.
FOR_EVERYONE = {"a trigger that fails at the commit"}


@pytest.mark.parametrize("name", OBSTACLES)
def test_nothing_on_the_history_makes_a_run_fail(conn: Connection, wait_until: WaitUntil, name: str) -> None:
    create, drop = OBSTACLES[name]
    conn.execute("CREATE TABLE public.kept (i int)")
    conn.execute(create.encode())
    try:
        jobid = schedule(conn, "obstructed", at(conn), "INSERT INTO public.kept VALUES (1)")
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.kept") == 1, message="the run to commit")
        if name in FOR_EVERYONE:
            conn.execute(drop.encode())
        (run,) = wait_for_runs(conn, jobid)
        assert (run.status, run.return_message, run.effects) == ("succeeded", "INSERT 0 1", None)
    finally:
        if name not in FOR_EVERYONE:
            conn.execute(drop.encode())
        conn.execute("DROP TABLE public.kept")


@pytest.mark.parametrize("lock", ["row", "table"])
def test_a_lock_on_the_history_does_not_hold_up_the_commit(
    server: Server, conn: Connection, wait_until: WaitUntil, lock: str
) -> None:
    conn.execute("DROP TABLE IF EXISTS public.kept; CREATE TABLE public.kept (i int)")
    jobid = schedule(conn, f"lock {lock}", at(conn), hold(conn))
    wait_until_held(conn, wait_until)
    with server.connect() as holder:
        holder.execute("BEGIN")
        if lock == "row":
            holder.execute("SELECT FROM cron.job_run_details WHERE jobid = %s FOR UPDATE", [jobid])
        else:
            holder.execute("LOCK TABLE cron.job_run_details IN SHARE MODE")
        conn.execute("SELECT pg_advisory_unlock(42)")
        wait_until(lambda: one(conn, "SELECT count(*) FROM public.kept") == 1, message="the run to commit")
        assert runs_of(conn, jobid)[0].status in OPEN
        holder.execute("COMMIT")
    (run,) = wait_for_runs(conn, jobid)
    assert (run.status, run.return_message) == ("succeeded", "SELECT 1")
    conn.execute("DROP TABLE public.kept")


def test_a_record_changed_meanwhile_is_no_conflict(conn: Connection, wait_until: WaitUntil) -> None:
    """REPEATABLE READ: the launcher shows the run as running after its snapshot was taken."""
    conn.execute("DROP TABLE IF EXISTS public.kept; CREATE TABLE public.kept (i int)")
    command = hold(conn, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO public.kept VALUES (1)")
    jobid = schedule(conn, "repeatable", at(conn), command)
    wait_until_held(conn, wait_until)
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="the run to be shown")
    conn.execute("SELECT pg_advisory_unlock(42)")
    (run,) = wait_for_runs(conn, jobid)
    assert (run.status, run.effects) == ("succeeded", None)
    assert one(conn, "SELECT count(*) FROM public.kept") == 1
    conn.execute("DROP TABLE public.kept")


# --- runs that touch their own job and history -----------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM cron.job_run_details",
        "TRUNCATE cron.job_run_details",
        "SELECT cron.unschedule(current_setting('cron.job_id')::bigint); DELETE FROM cron.job_run_details",
        "DELETE FROM cron.job_run_details; COMMIT",
    ],
)
def test_a_run_that_deletes_the_history_is_recorded_again(conn: Connection, damage: str) -> None:
    command = f"SELECT pg_sleep(0.3); {damage}"
    jobid = schedule(conn, "vandal", at(conn), command)
    (run,) = wait_for_runs(conn, jobid)
    assert (run.status, run.database, run.username, run.command) == ("succeeded", "postgres", "postgres", command)
    assert run.job_pid
    assert run.due_time
    assert run.start_time
    assert run.end_time
    assert (run.trigger, run.attempt) == ("schedule", 1)


def test_a_run_that_unschedules_its_job_is_recorded(conn: Connection) -> None:
    jobid = schedule(conn, "leaver", "1 second", "SELECT cron.unschedule('leaver')")
    (run,) = wait_for_runs(conn, jobid)
    assert (run.status, run.return_message) == ("succeeded", "SELECT 1")
    assert one(conn, "SELECT count(*) FROM cron.job WHERE jobid = %s", jobid) == 0


def test_last_words_are_heard_where_the_log_is_silent(conn: Connection) -> None:
    """A role whose settings keep FATAL errors out of the log."""
    conn.execute("CREATE ROLE quiet LOGIN; ALTER ROLE quiet SET log_min_messages = 'panic'")
    try:
        run = run_once(conn, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)", username="quiet")
        assert (run.status, run.reason, run.sqlstate) == ("failed", "terminated", "57P01")
        assert "due to administrator command" in (run.return_message or "")
    finally:
        conn.execute("DROP ROLE quiet")
