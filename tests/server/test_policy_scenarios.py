"""docs/scenarios.md, step by step on a real server: the SQL, and the records that the page says it leaves."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.house.sources import ROOT
from tests.server.support.jobs import one, rows
from tests.support.servers import Server
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]

PAGE = ROOT / "docs" / "scenarios.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^-- (until:|the server is down for) (.*)$", re.MULTILINE)

RECORDS = """
  SELECT concat_ws('  ', jobname, attempt, trigger, status, reason)
    FROM cron.job_run_details JOIN cron.job USING (jobid) ORDER BY runid"""
IS_OPEN = "SELECT count(*) FROM cron.job_run_details WHERE status IN ('queued', 'starting', 'running')"


@dataclass(frozen=True)
class Scenario:
    title: str
    settings: dict[str, str]
    blocks: list[tuple[str, str]]


def read_scenarios() -> Iterator[Scenario]:
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        settings = dict(re.findall(r"^With `([\w.]+) = (\w+)`:$", text, re.MULTILINE))
        yield Scenario(title, settings, BLOCK.findall(text))


SCENARIOS = list(read_scenarios())


class Stage:
    """A server, and the connection that outlives its restarts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.conn = server.connect()

    def run(self, text: str) -> list[str]:
        """Run SQL with its steps in between; the rows of the last statement, columns apart by two blanks."""
        shown: list[str] = []
        position = 0
        for step in [*STEP.finditer(text), None]:
            statement = text[position : step.start() if step else len(text)]
            if statement.strip():
                shown = self.query(statement)
            if step is None:
                break
            position = step.end()
            if step[1] == "until:":
                poll(lambda asked=step[2]: one(self.conn, asked), 40, step[2])
            else:
                self.go_down(float(step[2].removesuffix(" seconds")))
        return shown

    def query(self, statement: str) -> list[str]:
        cursor = self.conn.execute(statement.encode())
        while cursor.nextset():
            pass
        if cursor.description is None:
            return []
        texts = [[{True: "t", False: "f"}.get(value, value) for value in row] for row in cursor.fetchall()]
        return ["  ".join(str(value) for value in row if value is not None) for row in texts]

    def go_down(self, seconds: float) -> None:
        self.conn.close()
        back = time.monotonic() + seconds
        self.server.stop()
        poll(lambda: time.monotonic() >= back, seconds + 5, "time to pass")
        self.server.start()
        self.conn = self.server.connect()

    def records(self, count: int) -> list[str]:
        """All records, once there are that many and none is open."""
        found = "SELECT count(*) FROM cron.job_run_details"
        poll(lambda: one(self.conn, found) >= count and not one(self.conn, IS_OPEN), 40, f"{count} final records")
        return [row[0] for row in rows(self.conn, RECORDS)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.title for scenario in SCENARIOS])
def test_a_scenario_leaves_the_records_that_the_page_shows(make_server: Any, scenario: Scenario) -> None:
    stage = Stage(make_server(scenario.settings))
    try:
        shown: list[str] = []
        for kind, text in scenario.blocks:
            if kind == "sql":
                shown = stage.run(text)
            elif kind == "result":
                assert shown == text.splitlines()
            else:
                assert kind == "records"
                assert stage.records(len(text.splitlines())) == text.splitlines()
    finally:
        stage.conn.close()


def test_the_page_has_a_scenario_for_each_policy() -> None:
    titles = " ".join(scenario.title for scenario in SCENARIOS)
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    # Headings of policies begin with an option, all others with a capital letter.
    headings = re.findall(r"^## ([a-z][^:\n]*)", page, re.MULTILINE)
    options = {option for heading in headings for option in re.findall(r"[a-z_]{4,}", heading.partition(" and ")[0])}
    assert {"on_overlap", "retry_on", "ends_at", "priority", "settings", "history"} <= options
    assert {option for option in options if option not in titles} == set()
    assert all({"records", "result"} & {kind for kind, _ in scenario.blocks} for scenario in SCENARIOS)
