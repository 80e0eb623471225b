"""cron.wait and cron.wait_for: until a run has ended, without harm to anybody, and never in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.support.jobs import (
    Connection,
    launcher_pid,
    one,
    rows,
    run_now,
    run_of,
    schedule,
    wait_for_runs,
    wait_for_status,
)
from tests.server.support.watching import processor_seconds, sample, wait_for_launcher, wakeups
from tests.server.surface import ANN, BEN, Refusal, make_role, refusal, session_of
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

NEVER = "0 0 1 1 *"
# Far less than a look at the record that nobody asked for: whoever is quicker was woken.
SOON_S = 0.6


def ask(conn: Connection, name: str, command: str) -> int:
    return run_now(conn, schedule(conn, name, NEVER, command))


def begin(conn: Connection, statement: str) -> None:
    """Send a statement and do not wait for its end."""
    conn.pgconn.send_query(statement.encode())


def answer(conn: Connection) -> str | None:
    """The first value that the statement gives, once it does."""
    found = None
    result = conn.pgconn.get_result()
    while result is not None:
        assert not result.error_message, result.error_message
        if result.ntuples:
            value = result.get_value(0, 0)
            found = value.decode() if value is not None else None
        result = conn.pgconn.get_result()
    return found


def is_waiting(watcher: Connection, waiter: Connection) -> bool:
    """Is that session asleep in the wait, or rather in whatever it was sent?"""
    state = "SELECT state = 'active' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %s"
    return bool(one(watcher, state, waiter.info.backend_pid))


WAITS = {"function": "SELECT cron.wait({})", "procedure": "CALL cron.wait_for({})"}


@pytest.mark.parametrize("how", WAITS)
def test_it_gives_the_final_status(conn: Connection, how: str) -> None:
    found = {}
    for name, command in {"good": "SELECT 1", "bad": "SELECT 1 / 0", "slow": "SELECT pg_sleep(0.4)"}.items():
        found[name] = one(conn, WAITS[how].format(ask(conn, name, command)))
    assert found == {"good": "succeeded", "bad": "failed", "slow": "succeeded"}


@pytest.mark.parametrize("how", WAITS)
def test_a_run_that_has_ended_is_not_waited_for(conn: Connection, how: str) -> None:
    run = wait_for_status(conn, ask(conn, "ended", "SELECT 1"))
    assert one(conn, WAITS[how].format(f"{run.runid}, '0'")) == "succeeded"


@pytest.mark.parametrize("how", WAITS)
def test_it_gives_null_after_the_timeout(conn: Connection, how: str) -> None:
    runid = ask(conn, "slow", "SELECT pg_sleep(60)")
    started = time.monotonic()
    assert one(conn, WAITS[how].format(f"{runid}, '300 ms'")) is None
    assert time.monotonic() - started >= 0.3
    conn.execute("SELECT cron.cancel(%s)", [runid])
    assert one(conn, WAITS[how].format(f"{runid}, '1 minute'")) == "failed"


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_it_sees_the_end_whatever_the_isolation_level(conn: Connection, server: Server, isolation: str) -> None:
    runid = ask(conn, "slow", "SELECT pg_sleep(0.5)")
    with server.connect() as other:
        other.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        assert one(other, "SELECT count(*) > 0 FROM cron.job")
        assert one(other, f"SELECT cron.wait({runid}, '30 s')") == "succeeded"
        other.execute("COMMIT")


def test_who_waits_is_woken_and_costs_nothing_meanwhile(
    conn: Connection, server: Server, wait_until: WaitUntil
) -> None:
    """One second between looks at the record is all there is without a word from the launcher."""
    late = []
    with server.connect() as waiter:
        for _ in range(2):
            runid = ask(conn, "nap", "SELECT pg_sleep(1.35)")
            begin(waiter, f"SELECT cron.wait({runid})")
            assert answer(waiter) == "succeeded"
            late.append((one(conn, "SELECT clock_timestamp()") - run_of(conn, runid).end_time).total_seconds())
        # The looks come after 1 and 2 seconds: without a wake-up none is quicker than this.
        assert min(late) < SOON_S, late

        runid = ask(conn, "long", "SELECT pg_sleep(60)")
        wait_for_status(conn, runid, "running")
        begin(waiter, f"SELECT cron.wait({runid})")
        wait_until(lambda: is_waiting(conn, waiter), message="the session to wait")
        pid = waiter.info.backend_pid
        before, woken = processor_seconds(pid), wakeups(pid)
        other = schedule(conn, "others", "1 second", "SELECT 1")
        wait_for_runs(conn, other, 2)
        assert processor_seconds(pid) - before < 0.2
        assert wakeups(pid) - woken < 60
        conn.execute("SELECT cron.cancel(%s)", [runid])
        assert answer(waiter) == "failed"


def test_the_procedure_holds_no_snapshot_and_no_transaction_of_the_callers(
    conn: Connection, server: Server, wait_until: WaitUntil
) -> None:
    runid = ask(conn, "slow", "SELECT pg_sleep(60)")
    wait_for_status(conn, runid, "running")
    with server.connect() as waiter:
        begin(waiter, f"CALL cron.wait_for({runid})")
        wait_until(lambda: is_waiting(conn, waiter), message="the session to wait")
        held = "SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s"
        # It looks at the record once a second, and has a snapshot for that.
        seen = sample(1.5, lambda: rows(conn, held, waiter.info.backend_pid)[0])
        assert seen.count((None, None)) > len(seen) / 2, seen
        locks = "SELECT locktype FROM pg_locks WHERE pid = %s"
        assert ("relation",) not in rows(conn, locks, waiter.info.backend_pid)
        conn.execute("SELECT cron.cancel(%s)", [runid])
        assert answer(waiter) == "failed"


def test_the_procedure_is_refused_where_it_cannot_commit(conn: Connection) -> None:
    runid = ask(conn, "short", "SELECT 1")
    expected = Refusal(
        "2D000",
        "cron.wait_for cannot be called inside a transaction block or a function",
        "It commits, so that it holds nothing while it waits.",
        "Use cron.wait there.",
    )
    conn.execute("BEGIN")
    assert refusal(conn, f"CALL cron.wait_for({runid})") == expected
    conn.execute("ROLLBACK")
    conn.execute(
        "CREATE OR REPLACE FUNCTION pg_temp.f(r int8) RETURNS void LANGUAGE plpgsql AS"
        " $$ DECLARE s text; BEGIN CALL cron.wait_for(r, NULL, s); END $$"
    )
    assert refusal(conn, f"SELECT pg_temp.f({runid})") == expected
    wait_for_status(conn, runid)


def test_a_procedure_of_the_users_may_call_it(conn: Connection) -> None:
    runid = ask(conn, "short", "SELECT pg_sleep(0.3)")
    conn.execute("DROP TABLE IF EXISTS heard; CREATE TABLE heard (status text)")
    conn.execute(
        f"DO $$ DECLARE s text; BEGIN CALL cron.wait_for({runid}, '1 min', s); INSERT INTO heard VALUES (s); END $$".encode()
    )
    assert rows(conn, "SELECT * FROM heard") == [("succeeded",)]
    conn.execute("DROP TABLE heard")


def test_a_request_of_the_same_transaction_cannot_be_waited_for(conn: Connection) -> None:
    jobid = schedule(conn, "own", NEVER, "SELECT 1")
    conn.execute("BEGIN")
    runid = run_now(conn, jobid)
    assert refusal(conn, f"SELECT cron.wait({runid})") == Refusal(
        "55000",
        f"cannot wait for run {runid} before it is committed",
        "The run was asked for in this transaction, and starts when that has committed.",
        "Commit before waiting.",
    )
    conn.execute("ROLLBACK")


def test_a_run_cannot_wait_for_itself(conn: Connection) -> None:
    command = "SELECT cron.wait(runid) FROM cron.current_run()"
    run = wait_for_status(conn, ask(conn, "self", command))
    assert (run.status, run.sqlstate) == ("failed", "55000")
    assert run.return_message == f"ERROR: run {run.runid} cannot wait for itself"


def test_a_deadlock_with_the_waiter_is_an_error(conn: Connection, server: Server) -> None:
    conn.execute("DROP TABLE IF EXISTS mine; CREATE TABLE mine ()")
    with server.connect() as waiter:
        waiter.execute("BEGIN; LOCK TABLE mine")
        runid = ask(conn, "wants it", "SELECT * FROM mine")
        run = wait_for_status(conn, runid, "running")
        expected = Refusal(
            "40P01",
            "deadlock detected",
            f"Run {runid} (process {run.job_pid}) waits for a lock that is held by this session, which waits for the run.",
            "Commit or roll back before waiting.",
        )
        assert refusal(waiter, f"SELECT cron.wait({runid})") == expected
        waiter.execute("ROLLBACK")
    assert wait_for_status(conn, runid).status == "succeeded"
    conn.execute("DROP TABLE mine")


def test_a_deadlock_over_others_is_an_error_too(conn: Connection, server: Server, wait_until: WaitUntil) -> None:
    """A run that waits behind one that waits for a session that waits for us."""
    conn.execute("DROP TABLE IF EXISTS mine; CREATE TABLE mine (); DROP TABLE IF EXISTS theirs; CREATE TABLE theirs ()")
    with server.connect() as waiter, server.connect() as middle:
        waiter.execute("BEGIN; LOCK TABLE mine")
        middle.execute("BEGIN; LOCK TABLE theirs")
        begin(middle, "LOCK TABLE mine")
        blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        wait_until(lambda: one(conn, blocked, middle.info.backend_pid), message="the session between to wait")
        jobid = schedule(conn, "wants it", NEVER, "SELECT * FROM theirs")
        first, second = run_now(conn, jobid), run_now(conn, jobid)
        wait_for_status(conn, first, "running")
        wait_for_status(conn, second, "queued")
        refused = refusal(waiter, f"SELECT cron.wait({second})")
        assert (refused.sqlstate, refused.message) == ("40P01", "deadlock detected")
        assert (refused.detail or "").startswith(f"Run {first} ")
        waiter.execute("ROLLBACK")
        assert answer(middle) is None
        middle.execute("ROLLBACK")
    assert one(conn, "SELECT cron.wait(%s)", second) == "succeeded"
    conn.execute("DROP TABLE mine, theirs")


def test_a_lock_that_others_hold_is_no_deadlock(conn: Connection, server: Server) -> None:
    conn.execute("DROP TABLE IF EXISTS mine; CREATE TABLE mine ()")
    with server.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE mine")
        runid = ask(conn, "wants it", "SELECT * FROM mine")
        assert one(conn, f"SELECT cron.wait({runid}, '2500 ms')") is None
        holder.execute("ROLLBACK")
    assert one(conn, f"SELECT cron.wait({runid})") == "succeeded"
    conn.execute("DROP TABLE mine")


def test_a_wait_can_be_cancelled(conn: Connection, server: Server, wait_until: WaitUntil) -> None:
    runid = ask(conn, "slow", "SELECT pg_sleep(60)")
    with server.connect() as waiter:
        begin(waiter, f"SELECT cron.wait({runid})")
        wait_until(lambda: is_waiting(conn, waiter), message="the session to wait")
        conn.execute("SELECT pg_cancel_backend(%s)", [waiter.info.backend_pid])
        result = waiter.pgconn.get_result()
        assert result is not None
        assert b"canceling statement due to user request" in result.error_message
        assert waiter.pgconn.get_result() is None
        assert one(waiter, "SELECT 1") == 1


def test_a_wait_outlives_the_launcher(conn: Connection, server: Server, wait_until: WaitUntil) -> None:
    runid = ask(conn, "slow", "SELECT pg_sleep(1.5)")
    wait_for_status(conn, runid, "running")
    launcher = wait_for_launcher(conn)
    with server.connect() as waiter:
        begin(waiter, f"SELECT cron.wait({runid})")
        conn.execute("SELECT pg_terminate_backend(%s)", [launcher])
        wait_until(lambda: launcher_pid(conn) != launcher, message="the launcher to be gone")
        assert answer(waiter) == "succeeded"


def test_who_may_wait(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    runid = run_now(conn, schedule(conn, "hers", NEVER, "SELECT 1", username=ANN))
    refused = Refusal("42501", f"run {runid} does not exist or you don't own it")
    with session_of(server, BEN) as ben:
        assert refusal(ben, f"SELECT cron.wait({runid})") == refused
        assert refusal(ben, f"CALL cron.wait_for({runid})") == refused
    with session_of(server, ANN) as ann:
        assert one(ann, f"SELECT cron.wait({runid})") == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("NULL", Refusal("22004", "runid can not be NULL")),
        ("-1", Refusal("42501", "run -1 does not exist or you don't own it")),
        ("1, '-1 s'", Refusal("22023", "timeout can not be negative")),
    ],
)
def test_what_cannot_be_waited_for_is_refused(conn: Connection, arguments: str, expected: Refusal) -> None:
    assert refusal(conn, f"SELECT cron.wait({arguments})") == expected
    assert refusal(conn, f"CALL cron.wait_for({arguments})") == expected
