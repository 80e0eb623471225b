"""The option notify: listeners hear of a run's end when, and only when, its record is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import (
    Connection,
    insert_job,
    one,
    run_now,
    run_of,
    schedule,
    wait_for_status,
)
from tests.server.surface import Refusal, refusal
from tests.support.servers import Server

WaitUntil = Callable[..., Any]

NEVER = "0 0 1 1 *"
CHANNEL = "outcomes"


class Listener:
    """A session that listens, and what it has heard."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.heard: list[dict[str, Any]] = []

    def collect(self) -> list[dict[str, Any]]:
        for notice in self.conn.notifies(timeout=0.1):
            assert notice.channel == CHANNEL
            self.heard.append(json.loads(notice.payload))
        return self.heard

    def of(self, runid: int) -> list[dict[str, Any]]:
        return [heard for heard in self.collect() if heard["runid"] == runid]


@pytest.fixture
def listener(server: Server) -> Iterator[Listener]:
    with server.connect() as conn:
        conn.execute(f"LISTEN {CHANNEL}")
        yield Listener(conn)


def job(conn: Connection, name: str, command: str = "SELECT 1", when: str = NEVER) -> int:
    options = json.dumps({"notify": CHANNEL})
    return int(one(conn, "SELECT cron.schedule(%s, %s, %s, %s::jsonb)", name, when, command, options))


def test_a_listener_hears_what_the_record_says(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    good, bad = job(conn, "good"), job(conn, "bad", "SELECT 1 / 0")
    quiet = schedule(conn, "quiet", NEVER, "SELECT 1")
    runids = [run_now(conn, jobid, "a label") for jobid in (quiet, good, bad)]
    wait_until(lambda: len(listener.collect()) >= 2, message="two notifications")
    found = [run_of(conn, runid) for runid in runids]
    assert {run.status for run in found} == {"succeeded", "failed"}
    assert len(listener.heard) == 2, "one each, and none of the job that did not ask for it"
    (heard,) = listener.of(runids[2])
    run = found[2]
    times = {key: datetime.fromisoformat(heard.pop(key)) for key in ("due_time", "start_time", "end_time")}
    assert times == {"due_time": run.due_time, "start_time": run.start_time, "end_time": run.end_time}
    assert heard == {
        "runid": run.runid,
        "jobid": bad,
        "jobname": "bad",
        "database": "postgres",
        "username": "postgres",
        "attempt": 1,
        "trigger": "manual",
        "label": "a label",
        "status": "failed",
        "reason": "error",
        "sqlstate": "22012",
    }


def test_what_is_heard_can_be_read_at_once(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    for i in range(5):
        runid = run_now(conn, job(conn, f"job {i}"))
        wait_until(lambda runid=runid: listener.of(runid), message="the notification")
        assert run_of(conn, runid).status == "succeeded"


def test_skipped_and_cancelled_runs_are_told(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    jobid = job(conn, "busy", "SELECT pg_sleep(60)")
    first, second, third = (run_now(conn, jobid) for _ in range(3))
    wait_until(lambda: listener.of(third), message="the skipped one")
    assert (listener.of(third)[0]["status"], listener.of(third)[0]["reason"]) == ("skipped", "overlap")
    for runid in (second, first):
        conn.execute("SELECT cron.cancel(%s)", [runid])
        wait_until(lambda runid=runid: listener.of(runid), message="the cancelled one")
        assert (listener.of(runid)[0]["status"], listener.of(runid)[0]["reason"]) == ("failed", "canceled")


def test_runs_that_never_begin_are_told(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    lost = insert_job(conn, schedule=NEVER, jobname="lost", database="nowhere", notify=CHANNEL)
    runid = run_now(conn, lost)
    wait_until(lambda: listener.of(runid), message="the run that found no database")
    assert listener.of(runid)[0]["reason"] == "database_missing"
    junk = insert_job(conn, schedule="junk", jobname="junk", notify=CHANNEL)
    wait_until(lambda: [h for h in listener.collect() if h["jobid"] == junk], message="the job that cannot run")
    (heard,) = [h for h in listener.heard if h["jobid"] == junk]
    assert (heard["status"], heard["reason"], heard["due_time"]) == ("failed", "invalid_job", None)


def test_a_run_is_told_though_its_job_is_gone(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    runid = run_now(conn, job(conn, "leaving", "SELECT pg_sleep(0.5)"))
    wait_for_status(conn, runid, "running")
    conn.execute("SELECT cron.unschedule('leaving')")
    wait_until(lambda: listener.of(runid), message="the notification")
    assert (listener.of(runid)[0]["status"], listener.of(runid)[0]["jobname"]) == ("succeeded", None)


def test_a_long_name_fits(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    name = "é" * 5000
    runid = run_now(conn, job(conn, name))
    wait_until(lambda: listener.of(runid), message="the notification")
    assert listener.of(runid)[0]["jobname"] == name[:1000]


def test_a_new_channel_counts_from_the_next_run(conn: Connection, listener: Listener, wait_until: WaitUntil) -> None:
    jobid = schedule(conn, "later", NEVER, "SELECT 1")
    wait_for_status(conn, run_now(conn, jobid))
    conn.execute('SELECT cron.alter_job(%s, \'{"notify": "outcomes"}\'::jsonb)', [jobid])
    runid = run_now(conn, jobid)
    wait_until(lambda: listener.of(runid), message="the notification")
    conn.execute("SELECT cron.alter_job(%s, '{\"notify\": null}'::jsonb)", [jobid])
    wait_for_status(conn, run_now(conn, jobid))
    assert [heard["runid"] for heard in listener.collect()] == [runid]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            '""',
            Refusal("22023", 'option "notify" is out of range', "The name of a channel has 1 to 63 bytes; this has 0."),
        ),
        (
            json.dumps("é" * 32),
            Refusal(
                "22023", 'option "notify" is out of range', "The name of a channel has 1 to 63 bytes; this has 64."
            ),
        ),
        ("1", Refusal("22023", 'option "notify" must be a string')),
    ],
)
def test_what_is_no_channel_is_refused(conn: Connection, value: str, expected: Refusal) -> None:
    assert refusal(conn, "SELECT cron.schedule('n', '* * * * *', 'x', %s::jsonb)", f'{{"notify": {value}}}') == expected
    if value != "1":
        with pytest.raises(psycopg.errors.CheckViolation, match="job_notify_check"):
            insert_job(conn, notify=json.loads(value))


def hangs(conn: Connection, notify: bytes) -> bool:
    """Whether a commit that notifies is under way and waits: it is begun, again if the last one came through.

    A commit waits for standbys only once the checkpointer, not the session alone, has read the setting.
    """
    if conn.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
        conn.pgconn.send_query(b"CREATE TABLE IF NOT EXISTS written (); INSERT INTO written DEFAULT VALUES; " + notify)
    conn.pgconn.consume_input()
    if not conn.pgconn.is_busy():
        while conn.pgconn.get_result() is not None:
            pass
    return conn.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE


@pytest.mark.local_only
def test_a_record_is_written_though_it_cannot_be_told(fresh_server: Server, wait_until: WaitUntil) -> None:
    """A notifying transaction whose commit hangs holds up all others that notify, but no record."""
    with fresh_server.connect() as conn, fresh_server.connect() as holder:
        conn.execute("SET synchronous_commit = local")
        jobid = job(conn, "told")
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        conn.execute("SELECT pg_reload_conf()")
        held = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'object' AND objid = 0 AND granted"
        wait_until(
            lambda: hangs(holder, b"NOTIFY somebody") and one(conn, held, holder.info.backend_pid) == 1,
            message="a commit that hangs with the lock",
        )
        assert wait_for_status(conn, run_now(conn, jobid)).status == "succeeded"
        wait_until(lambda: "the end of a run was recorded, but not notified" in fresh_server.log(), message="a warning")
        conn.execute("SELECT pg_cancel_backend(%s)", [holder.info.backend_pid])
        while holder.pgconn.get_result() is not None:
            pass


def flood(conn: Connection, messages: int) -> None:
    """Notify, so many messages at a time, until the queue takes no more."""
    statement = f"SELECT pg_notify('other', repeat('x', 7000) || i) FROM generate_series(1, {messages}) i"
    while True:
        conn.execute(statement.encode())


@pytest.mark.local_only
def test_a_full_queue_of_notifications_stops_no_record(conn: Connection, make_server: Callable[..., Server]) -> None:
    if conn.info.server_version < 170000:
        pytest.skip("the size of the queue cannot be set")
    server = make_server({"max_notify_queue_pages": 64})
    with server.connect() as other, server.connect() as sleeper:
        jobid = job(other, "told")
        sleeper.execute("LISTEN other")
        sleeper.execute("BEGIN")
        for messages in (20, 1):
            with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many notifications"):
                flood(other, messages)
        runid = run_now(other, jobid)
        assert wait_for_status(other, runid).status == "succeeded"
        assert f"the end of run {runid} was not notified: the queue of notifications is nearly full" in server.log()
        sleeper.execute("COMMIT")
