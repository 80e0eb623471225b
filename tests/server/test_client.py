"""scheduler.client: every option and every control from Python, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import psycopg
import pytest

from scheduler.client import Changes, Client, Options
from tests.server.support.jobs import one, rows, run_of, wait_for_status
from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]

NEVER = "0 0 1 1 *"


@pytest.fixture
def client(conn: Connection) -> Client:
    return Client(conn)


def test_it_knows_the_options_that_the_server_knows(conn: Connection, client: Client) -> None:
    jobid = client.schedule("load", NEVER, "SELECT 1")
    for keys, ask in (
        (Options, lambda: client.schedule("load", NEVER, "SELECT 1", nonsense=1)),  # type: ignore[call-arg]
        (Changes, lambda: client.alter(jobid, nonsense=1)),  # type: ignore[call-arg]
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
            ask()
        assert refused.value.diag.message_primary == 'unrecognized option "nonsense"'
        listed = str(refused.value.diag.message_hint).removeprefix("Options are: ").removesuffix(".").split(", ")
        assert sorted(listed) == sorted(get_type_hints(keys))


def test_every_option_arrives_as_it_is_meant(conn: Connection, client: Client) -> None:
    begin = datetime(2030, 1, 1, 12, tzinfo=UTC)
    options: Options = {
        "database": "postgres",
        "username": "postgres",
        "active": False,
        "timezone": "Europe/Berlin",
        "on_overlap": "parallel",
        "max_parallel": 2,
        "on_missed": "run_once",
        "start_deadline": timedelta(seconds=90),
        "timeout": "2 hours",
        "max_attempts": 3,
        "retry_delay": timedelta(milliseconds=1500),
        "retry_on": ("40001", "57"),
        "jitter": timedelta(minutes=1),
        "priority": -5,
        "starts_at": begin,
        "ends_at": "2031-01-01 00:00Z",
        "pause_after": 7,
        "settings": {"work_mem": "8MB", "enable_seqscan": False, "statement_timeout": 1000},
        "fresh_session": True,
        "history": "failures",
        "notify": "outcomes",
        "managed_by": "deploy",
    }
    assert set(options) == set(get_type_hints(Options))
    jobid = client.schedule("load", NEVER, "SELECT 1", **options)
    meant = dict(options) | {
        "timeout": timedelta(hours=2),
        "retry_on": ["40001", "57"],
        "ends_at": datetime(2031, 1, 1, tzinfo=UTC),
    }
    found = rows(conn, f"SELECT {', '.join(options)} FROM cron.job WHERE jobid = %s", jobid)[0]
    assert dict(zip(options, found, strict=True)) == meant

    client.alter(jobid, name="other", schedule="@daily", command="SELECT 2", timeout=None, priority=None)
    changed = "SELECT jobname, schedule, command, timeout, priority, max_attempts FROM cron.job WHERE jobid = %s"
    assert rows(conn, changed, jobid) == [("other", "@daily", "SELECT 2", None, 0, 3)]


@pytest.mark.parametrize("by_name", [False, True])
def test_jobs_and_runs_are_controlled(conn: Connection, client: Client, by_name: bool) -> None:
    jobid = client.schedule("load", NEVER, "SELECT pg_sleep(60) FROM cron.current_run() WHERE label = 'long'")
    job = "load" if by_name else jobid
    quick = client.run(job)
    assert client.wait(quick, timedelta(seconds=20)) == "succeeded"
    long = client.run(job, "long")
    wait_for_status(conn, long, "running")
    assert client.wait(long, timedelta(0)) is None
    assert client.cancel(long, timedelta(seconds=5))
    assert client.wait(long, timedelta(seconds=20)) == "failed"
    assert run_of(conn, long).reason == "canceled"
    assert not client.cancel(long)
    assert client.pause(job, "because")
    assert one(conn, "SELECT paused_reason FROM cron.job WHERE jobid = %s", jobid) == "because"
    assert client.resume(job)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    (line,) = client.backfill(job, begin, begin + timedelta(days=1), dry_run=True)
    assert (line.due_time, line.action, line.runid) == (begin, "run", None)
    (line,) = client.backfill(job, begin, begin)
    assert line.runid is not None
    assert client.wait(line.runid, timedelta(seconds=20)) == "succeeded"
    client.unschedule(job)
    assert one(conn, "SELECT count(*) FROM cron.job") == 0


def test_everything_is_paused_and_resumed(fresh_server: Server) -> None:
    with fresh_server.connect() as conn:
        client = Client(conn)
        assert client.pause_all("incident")
        assert client.resume_all()
        assert client.drain(timedelta(seconds=20), "maintenance")
        assert one(conn, "SELECT reason FROM cron.pause_state") == "maintenance"
        assert client.resume_all()


def test_what_cannot_be_an_option_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="an option cannot be"):
        client.schedule("load", NEVER, "SELECT 1", managed_by=object())  # type: ignore[typeddict-item]
