"""The server fixtures keep their word: nothing of one test reaches the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from scheduler.cluster import Cluster
from tests.support import targets
from tests.support.complaints import find_complaints
from tests.support.plugin import ServerMaker, forget_jobs
from tests.support.servers import Server
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]

UNFINISHED = "SELECT count(*) FROM cron.job_run_details WHERE status IN ('queued', 'starting', 'running')"


def test_jobs_and_runs_of_earlier_tests_are_forgotten(conn: Connection, wait_until: Callable[..., Any]) -> None:
    conn.execute("SELECT cron.schedule('lasting', '1 second', 'SELECT pg_sleep(600)')")
    wait_until(
        lambda: conn.execute(UNFINISHED + " AND status = 'running'").fetchone() != (0,), message="the run to start"
    )
    forget_jobs(conn)
    assert conn.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
    assert conn.execute(UNFINISHED).fetchone() == (0,)


def test_a_connection_finds_no_jobs(conn: Connection) -> None:
    assert conn.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
    assert conn.autocommit


@pytest.mark.settings({"work_mem": "7MB"})
def test_a_marked_test_gets_its_settings(fresh_server: Server, server: Server) -> None:
    with fresh_server.connect() as ours, server.connect() as shared:
        assert ours.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert shared.execute("SHOW work_mem").fetchone() != ("7MB",)


@pytest.mark.local_only
def test_servers_of_one_test_differ_and_can_crash(make_server: ServerMaker) -> None:
    first, second = make_server(), make_server({"work_mem": "7MB"})
    assert isinstance(first, Cluster)
    assert first.dsn() != second.dsn()
    first.crash()
    first.start()
    assert first.sql("SELECT count(*) FROM cron.job") == [(0,)]


def test_waiting_returns_what_it_waited_for() -> None:
    values = iter([0, "", None, "there"])
    assert poll(lambda: next(values)) == "there"


def test_waiting_in_vain_says_for_what_and_what_was_seen_last() -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"the kettle: not within 0.1 s \(last seen: 0\)"):
        poll(lambda: 0, timeout=0.1, message="the kettle")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "label", "missing"),
    [
        ("/nowhere/pg_config", "pg:/nowhere/pg_config", "no such program"),
        ("12", "pg12", "tests/matrix fetch 12"),
        ("12-cassert", "pg12-cassert", "tests/matrix fetch 12-cassert"),
        ("docker:nobody/nothing", "docker:nobody/nothing", "no container engine answers: none here"),
    ],
)
def test_a_target_that_cannot_be_had_keeps_its_reason(
    text: str, label: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find_no_engine", lambda: "none here")
    (target,) = targets.parse_targets(text)
    assert target.label == label
    assert missing in target.missing


def test_a_target_named_twice_is_one() -> None:
    assert len(targets.parse_targets("12, 12,12")) == 1


def test_all_means_every_supported_major() -> None:
    assert [target.label[:4] for target in targets.parse_targets("all")] == ["pg15", "pg16", "pg17", "pg18", "pg19"]


@pytest.mark.parametrize(
    "line",
    [
        'TRAP: failed Assert("CurrentResourceOwner != NULL"), File: "dsa.c", Line: 1255, PID: 4711',
        "background worker (PID 4711) was terminated by signal 6: Aborted",
        "WARNING:  resource was not closed: relation 16420",
        'WARNING:  relcache reference leak: relation "job" not closed',
        "WARNING:  snapshot 0x55d0c4a2b3c8 still active",
        "WARNING:  problem in alloc set PortalContext: detected write past chunk end in block 0x1, chunk 0x2",
        "==4711==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000001234",
        "src/worker.c:120:7: runtime error: signed integer overflow",
    ],
)
def test_a_server_that_broke_its_own_rules_is_noticed(line: str) -> None:
    assert find_complaints(f"LOG:  before\n{line}\nLOG:  after") == [line]


@pytest.mark.parametrize(
    "line",
    [
        'LOG:  background worker "pg_clockwork worker for job 1" (PID 1) was terminated by signal 9: Killed',
        "LOG:  server process (PID 1) was terminated by signal 3: Quit",
        "WARNING:  cron job 7 cannot run: invalid schedule: x",
        "ERROR:  canceling statement due to lock timeout",
    ],
)
def test_what_tests_provoke_is_no_complaint(line: str) -> None:
    assert find_complaints(line) == []
