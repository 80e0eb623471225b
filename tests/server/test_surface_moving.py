"""Moving from pg_cron: the steps of docs/compatibility.md, taken from the page and carried out.

pg_cron itself is not needed: its tables, filled as it fills them, stand in for it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server.surface import Connection, rows, value
from tests.support.plugin import ServerMaker
from tests.support.waiting import wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"

THEIRS = """
    CREATE SCHEMA cron;
    CREATE SEQUENCE cron.jobid_seq;
    CREATE SEQUENCE cron.runid_seq;
    CREATE TABLE cron.job (jobid bigint PRIMARY KEY DEFAULT nextval('cron.jobid_seq'), schedule text NOT NULL,
      command text NOT NULL, nodename text NOT NULL DEFAULT 'localhost', nodeport int NOT NULL DEFAULT 5432,
      database text NOT NULL DEFAULT current_database(), username text NOT NULL DEFAULT CURRENT_USER,
      active boolean NOT NULL DEFAULT 'true', jobname text, UNIQUE (jobname, username));
    CREATE TABLE cron.job_run_details (jobid bigint, runid bigint PRIMARY KEY DEFAULT nextval('cron.runid_seq'), job_pid int,
      database text, username text, command text, status text, return_message text, start_time timestamptz, end_time timestamptz)
"""

ROWS = """
    INSERT INTO cron.job (jobid, schedule, command, active, jobname) VALUES
      (3, '1 second', 'SELECT 1', true, 'lively'), (4, '*/5 * * * *', 'SELECT 2', false, 'paused'), (9, '@yearly', 'x', true, NULL);
    INSERT INTO cron.job (jobid, schedule, command, username) VALUES (11, '1 second', 'SELECT 3', 'long_gone');
    INSERT INTO cron.job (jobid, schedule, command) VALUES (12, '0 0 * * * root', 'SELECT 4');
    INSERT INTO cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message, start_time, end_time) VALUES
      (3, 70, 1, 'postgres', 'postgres', 'SELECT 1', 'succeeded', '1 row', '2026-01-01', '2026-01-01'),
      (3, 71, 1, 'postgres', 'postgres', 'SELECT 1', 'failed', 'server restarted', '2026-01-02', NULL),
      (3, 72, 1, 'postgres', 'postgres', 'SELECT 1', 'sending', NULL, NULL, NULL)
"""


def steps() -> list[str]:
    """The SQL of the section, block by block."""
    section = PAGE.read_text(encoding="utf-8").split("## How to move", 1)[1]
    return re.findall(r"```sql\n(.*?)```", section, flags=re.DOTALL)


def become_pg_cron(connection: Connection) -> None:
    connection.execute("DROP EXTENSION pg_clockwork")
    connection.execute(THEIRS.encode())
    connection.execute(ROWS.encode())


def test_the_steps_of_the_manual_move_jobs_history_and_numbering(make_server: ServerMaker) -> None:
    aside, back, grant, look = steps()
    server = make_server({"cron.host": "/elsewhere"})
    with server.connect() as connection:
        connection.execute("CREATE ROLE alice LOGIN")
        become_pg_cron(connection)
        before = rows(connection, "SELECT * FROM cron.job ORDER BY jobid")
        connection.execute(aside.replace("DROP EXTENSION pg_cron", "DROP SCHEMA cron CASCADE").encode())
        connection.execute(back.encode())
        columns = "jobid, schedule, command, nodename, nodeport, database, username, active, jobname"
        assert rows(connection, f"SELECT {columns} FROM cron.job ORDER BY jobid") == before
        # The launcher goes on numbering from there, with what it has to say of the row with six fields.
        moved = (
            "SELECT runid, status, return_message FROM cron.job_run_details"
            " WHERE runid < 73 AND trigger IS NULL ORDER BY runid"
        )
        assert rows(connection, moved) == [(70, "succeeded", "1 row"), (71, "failed", "server restarted")]
        connection.execute(grant.encode())
        assert value(connection, "SELECT has_schema_privilege('alice', 'cron', 'USAGE')") is True

        done = "SELECT count(*) FROM cron.job_run_details WHERE jobid = 3 AND runid > 71 AND status = 'succeeded'"
        wait_until(lambda: value(connection, done) > 0, message="a run of a job that was moved")
        assert value(connection, "SELECT cron.schedule('@daily', 'x')") == 13

        question = look.split(";")[0]

        def seen() -> set[tuple[int, str]]:
            return {(jobid, reason) for jobid, _, reason, _ in rows(connection, question)}

        wait_until(lambda: seen() == {(11, "role_missing"), (12, "invalid_job")}, message="what cannot run")
        connection.execute(look.encode())
        assert value(connection, "SELECT to_regnamespace('moved') IS NULL") is True


def test_the_steps_also_work_where_nothing_was_ever_scheduled(make_server: ServerMaker) -> None:
    aside, back, *_ = steps()
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        connection.execute(THEIRS.encode())
        connection.execute(aside.replace("DROP EXTENSION pg_cron", "DROP SCHEMA cron CASCADE").encode())
        connection.execute(back.encode())
        assert rows(connection, "SELECT * FROM cron.job") == []
        value(connection, "SELECT cron.schedule('@daily', 'x')")


def test_a_dump_of_pg_cron_with_its_name_replaced_is_restored(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
        for line in (
            "CREATE EXTENSION IF NOT EXISTS pg_cron WITH SCHEMA pg_catalog",
            "COMMENT ON EXTENSION pg_cron IS 'Job scheduler for PostgreSQL'",
        ):
            connection.execute(line.replace("pg_cron", "pg_clockwork").encode())
        copies = {
            "cron.job (jobid, schedule, command, nodename, nodeport, database, username, active, jobname)": "7\t5 4 * * *\tSELECT 1\tlocalhost\t5432\tpostgres\tpostgres\tt\t\\N\n",
            "cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message, start_time, end_time)": "7\t1\t99\tpostgres\tpostgres\tSELECT 1\tsucceeded\t1 row\t2026-01-01 00:00:00+00\t2026-01-01 00:00:00+00\n",
        }
        for target, line in copies.items():
            with connection.cursor().copy(f"COPY {target} FROM stdin".encode()) as copy:
                copy.write(line)
        connection.execute("SELECT pg_catalog.setval('cron.jobid_seq', 7, true)")
        connection.execute("SELECT pg_catalog.setval('cron.runid_seq', 1, true)")
        assert value(connection, "SELECT cron.schedule('@daily', 'x')") == 8
        assert rows(connection, "SELECT schedule, active, on_overlap FROM cron.job WHERE jobid = 7") == [
            ("5 4 * * *", True, "queue")
        ]


@pytest.mark.parametrize(
    "name", sorted({link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))})
)
def test_the_page_leads_nowhere_that_is_not_there(name: str) -> None:
    assert name.startswith("https://") or (PAGE.parent / name).exists()


def test_the_sections_that_the_page_points_at_are_there() -> None:
    text = (PAGE.parent / "schedules.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    wanted = re.findall(r"schedules\.md#([\w-]+)", PAGE.read_text(encoding="utf-8"))
    assert wanted
    assert set(wanted) <= headings


def test_the_search_for_six_fields_finds_them(conn: Connection) -> None:
    """The query that the page gives for looking through pg_cron's schedules."""
    ((pattern,),) = [re.findall(r"schedule ~ '([^']+)'", PAGE.read_text(encoding="utf-8"))]
    found = rows(
        conn,
        "SELECT s FROM unnest(%s::text[]) s WHERE s ~ %s",
        ["* * * * *", " 5 4 * * * ", "* * * * * *", "0 0 * * * root rm", "30 seconds", "@daily", "5\t4\t*\t*\t*\t2024"],
        pattern,
    )
    assert [schedule for (schedule,) in found] == ["* * * * * *", "0 0 * * * root rm", "5\t4\t*\t*\t*\t2024"]
