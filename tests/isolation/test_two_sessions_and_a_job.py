"""Two sessions and one job: altered, dropped and renamed by one while it is due, while it runs, and while another does so too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import OPEN, at, one, rows, runs, runs_of, schedule, wait_for_no_gap, wait_for_runs
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]
WaitUntil = Callable[..., Any]

ALTER = "SELECT cron.alter_job(%s, %s::jsonb)"


@pytest.fixture
def other(server: Server, conn: Connection) -> Iterator[Connection]:
    """The second session."""
    with server.connect() as connection:
        yield connection
        connection.execute("ROLLBACK")


class Blocked:
    """A statement that waits for another session, in a thread of its own."""

    def __init__(self, session: Connection, statement: str, *parameters: Any) -> None:
        self.error: psycopg.Error | None = None
        self._thread = threading.Thread(target=self._run, args=(session, statement, parameters))
        self._thread.start()

    def _run(self, session: Connection, statement: str, parameters: tuple[Any, ...]) -> None:
        try:
            session.execute(statement.encode(), parameters)
        except psycopg.Error as error:
            self.error = error

    def end(self) -> psycopg.Error | None:
        """Wait for its end; the error, if there was one."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "still blocked"
        return self.error


def wait_until_blocked(conn: Connection, session: Connection, wait_until: WaitUntil) -> None:
    statement = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    wait_until(lambda: one(conn, statement, session.info.backend_pid), message="the second session to wait")


@pytest.fixture
def block(conn: Connection, other: Connection, wait_until: WaitUntil) -> Iterator[Callable[..., Blocked]]:
    """Start a statement in the second session and return when it waits for a lock."""
    started: list[Blocked] = []

    def start(statement: str, *parameters: Any) -> Blocked:
        started.append(Blocked(other, statement, *parameters))
        wait_until_blocked(conn, other, wait_until)
        return started[-1]

    yield start
    for blocked in started:
        blocked.end()


@pytest.fixture
def first(server: Server, conn: Connection) -> Iterator[Connection]:
    """The session that is first."""
    with server.connect() as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


# --- two changes of one job --------------------------------------------------------------------


def test_two_sessions_that_alter_one_job_both_have_their_way(
    conn: Connection, first: Connection, block: Callable[..., Blocked]
) -> None:
    jobid = schedule(conn, "shared", "0 0 29 2 *", "SELECT 'old'")
    first.execute(ALTER, [jobid, '{"schedule": "1 second"}'])
    second = block(ALTER, jobid, """{"command": "SELECT 'new'"}""")
    first.execute("COMMIT")
    assert second.end() is None
    assert rows(conn, "SELECT schedule, command FROM cron.job WHERE jobid = %s", jobid) == [
        ("1 second", "SELECT 'new'")
    ]
    found = wait_for_runs(conn, jobid, 2)
    assert found[-1].command == "SELECT 'new'"


@pytest.mark.parametrize("second", ["alter", "unschedule", "rename"])
def test_a_job_that_another_session_has_just_dropped_is_not_found(
    conn: Connection, first: Connection, block: Callable[..., Blocked], second: str
) -> None:
    jobid = schedule(conn, "dropped", "1 second", "SELECT 1")
    wait_for_runs(conn, jobid)
    first.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    statements = {
        "alter": (ALTER, jobid, '{"command": "SELECT 2"}'),
        "rename": (ALTER, jobid, '{"name": "another"}'),
        "unschedule": ("SELECT cron.unschedule(%s::bigint)", jobid),
    }
    blocked = block(*statements[second])
    first.execute("COMMIT")
    error = blocked.end()
    assert error is not None
    assert error.sqlstate not in (None, "XX000"), error
    assert rows(conn, "SELECT FROM cron.job WHERE jobid = %s", jobid) == []
    count = len(runs_of(conn, jobid))
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness, 2)
    assert len(runs_of(conn, jobid)) == count


def test_two_sessions_that_schedule_the_same_name_make_one_job(
    conn: Connection, first: Connection, block: Callable[..., Blocked]
) -> None:
    one_of_them = int(one(first, "SELECT cron.schedule('same', '0 0 29 2 *', 'SELECT 1')"))
    second = block("SELECT cron.schedule('same', '1 second', 'SELECT 2')")
    first.execute("COMMIT")
    assert second.end() is None
    found = rows(conn, "SELECT jobid, schedule, command FROM cron.job WHERE jobname = 'same'")
    assert found == [(one_of_them, "1 second", "SELECT 2")]
    assert wait_for_runs(conn, one_of_them)[0].command == "SELECT 2"


def test_a_job_that_changes_hands_is_no_longer_its_former_owners(
    conn: Connection, first: Connection, other: Connection, block: Callable[..., Blocked]
) -> None:
    """The former owner's change waits while the job is given away, and is then refused."""
    for role in ("isolation_former", "isolation_new"):
        conn.execute(f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$".encode())
        conn.execute(f"GRANT USAGE ON SCHEMA cron TO {role}".encode())
    jobid = schedule(conn, "handed on", "0 0 29 2 *", "SELECT 1", username="isolation_former")
    other.execute("SET SESSION AUTHORIZATION isolation_former")
    first.execute(ALTER, [jobid, '{"username": "isolation_new"}'])
    blocked = block("SELECT cron.unschedule(%s::bigint)", jobid)
    first.execute("COMMIT")
    error = blocked.end()
    other.execute("RESET SESSION AUTHORIZATION")
    assert error is not None, "the former owner removed another's job"
    assert error.sqlstate not in (None, "XX000"), error
    assert rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", jobid) == [("isolation_new",)]


# --- a change, and the job's own runs ----------------------------------------------------------


@pytest.mark.parametrize("change", ['{"name": "renamed"}', '{"priority": 5}', '{"command": "SELECT 2"}'])
def test_a_job_that_is_changed_again_and_again_misses_no_due_time(conn: Connection, change: str) -> None:
    """Changes that do not touch its schedule, at every moment of a few seconds."""
    jobid = schedule(conn, "changed", "1 second", "SELECT 1")
    names = [change, change.replace("renamed", "renamed again").replace("5", "6").replace("SELECT 2", "SELECT 3")]
    turn = 0
    while len(runs_of(conn, jobid)) < 4:
        conn.execute(ALTER, [jobid, names[turn % 2]])
        turn += 1
    assert turn > 4
    wait_for_no_gap(conn, jobid)
    anchor = one(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", jobid)
    first = runs_of(conn, jobid)[0].due_time
    assert first is not None
    assert (first - anchor).total_seconds() == 1


def test_a_job_dropped_by_its_own_run_and_by_another_session_is_dropped_once(
    conn: Connection, first: Connection, wait_until: WaitUntil
) -> None:
    jobid = schedule(conn, "twice", at(conn, 0.5), "SELECT cron.unschedule('twice')")
    first.execute("SELECT cron.unschedule('twice')")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", jobid), message="its run to wait")
    first.execute("COMMIT")
    (run,) = wait_for_runs(conn, jobid)
    assert run.status == "failed"
    assert run.sqlstate not in (None, "XX000")
    assert rows(conn, "SELECT FROM cron.job WHERE jobid = %s", jobid) == []


def test_a_due_job_whose_drop_is_rolled_back_has_run_meanwhile(conn: Connection, first: Connection) -> None:
    jobid = schedule(conn, "spared", "1 second", "SELECT 1")
    first.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
    wait_for_runs(conn, jobid, 2)
    first.execute("ROLLBACK")
    wait_for_runs(conn, jobid, 3)
    wait_for_no_gap(conn, jobid)


def test_a_running_job_that_is_dropped_and_scheduled_anew_has_two_histories(
    conn: Connection, first: Connection, wait_until: WaitUntil
) -> None:
    old = schedule(conn, "phoenix", "1 second", "SELECT pg_sleep(2)")
    wait_until(lambda: runs(conn, "jobid = %s AND status = 'running'", old), message="its run")
    first.execute("SELECT cron.unschedule('phoenix')")
    new = schedule(first, "phoenix", "1 second", "SELECT 1")
    first.execute("COMMIT")
    assert new != old
    wait_for_runs(conn, new, 2)
    wait_until(lambda: not runs(conn, "jobid = %s AND status = ANY (%s)", old, list(OPEN)), message="the old run's end")
    assert runs_of(conn, old)[0].status == "succeeded"
    wait_for_no_gap(conn, new)


def test_a_one_time_job_that_is_committed_after_its_time_runs_late(conn: Connection, first: Connection) -> None:
    """Its only due time comes while the transaction that schedules it is still open."""
    jobid = schedule(first, "late", at(conn, 1), "SELECT 1")
    witness = schedule(conn, "witness", "1 second", "SELECT 1")
    wait_for_runs(conn, witness, 3)
    assert runs_of(conn, jobid) == []
    first.execute("COMMIT")
    (run,) = wait_for_runs(conn, jobid)
    assert run.status == "succeeded"
    assert run.lateness > 1
