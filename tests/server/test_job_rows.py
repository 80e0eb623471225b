"""The rows of cron.job are read without SQL: whatever stands in them, and whatever was done to the table."""

from __future__ import annotations

import random

from tests.server.support.jobs import one, runs_of, wait_for_runs
from tests.server.surface import refusal
from tests.support.plugin import ServerMaker
from tests.support.waiting import wait_until

# Of a length that stands outside of its row, compressed or not.
LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=200_000))


def test_a_row_is_read_with_and_without_the_primary_key(make_server: ServerMaker) -> None:
    server = make_server()
    options = '{"retry_on": ["40001", "40P01"], "settings": {"work_mem": "1234kB"}, "notify": "c"}'
    name = "å \\ ' \" %s"
    with server.connect() as conn:
        for number, statement in enumerate(["SELECT 1", "ALTER TABLE cron.job DROP CONSTRAINT job_pkey"]):
            conn.execute(statement.encode())
            jobid = int(
                one(
                    conn,
                    "SELECT cron.schedule(%s, '1 second', %s, %s::jsonb)",
                    f"{name}{number}",
                    f"SELECT current_setting('work_mem') /* {LONG} */",
                    options,
                )
            )
            wait_for_runs(conn, jobid, 1)
            record = next(run for run in runs_of(conn, jobid) if run.status == "succeeded")
            assert record.command.endswith(f"{LONG} */")
            conn.execute("SELECT cron.alter_job(%s, command => 'SELECT 2')", (jobid,))
            wait_until(
                lambda jobid=jobid: [r for r in runs_of(conn, jobid) if r.command == "SELECT 2"],
                message="a run of the job as it is now",
            )
            assert one(conn, "SELECT cron.unschedule(%s::bigint)", jobid) is True
            other = int(one(conn, "SELECT cron.schedule('other', '1 second', 'SELECT 3')"))
            wait_for_runs(conn, other, 3)
            last = "SELECT max(due_time) FROM cron.job_run_details WHERE jobid = %s"
            assert one(conn, last, jobid) < one(conn, last.replace("max", "min"), other)
            conn.execute("SELECT cron.unschedule('other')")


def test_a_column_is_read_where_it_stands_now(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as conn:
        jobid = int(one(conn, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        wait_for_runs(conn, jobid, 1)
        with conn.transaction():
            conn.execute("ALTER TABLE cron.job ADD COLUMN moved text NOT NULL DEFAULT 'SELECT 2'")
            conn.execute("ALTER TABLE cron.job RENAME COLUMN command TO former")
            conn.execute("ALTER TABLE cron.job RENAME COLUMN moved TO command")
        wait_until(lambda: [r for r in runs_of(conn, jobid) if r.command == "SELECT 2"], message="the new command")


def test_a_column_that_is_missing_is_named_and_can_come_back(make_server: ServerMaker) -> None:
    server = make_server()
    complaint = 'table cron.job has no column "priority" of type integer'
    with server.connect() as conn:
        jobid = int(one(conn, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        wait_for_runs(conn, jobid, 1)
        conn.execute("ALTER TABLE cron.job RENAME COLUMN priority TO urgency")
        error = refusal(conn, f"SELECT cron.unschedule({jobid}::bigint)")
        assert (error.sqlstate, error.message) == ("42703", complaint)
        # One is this session's.
        wait_until(lambda: server.log().count(complaint) > 1, message="the launcher's complaint")
        conn.execute("ALTER TABLE cron.job RENAME COLUMN urgency TO priority")
        conn.execute("SELECT cron.alter_job(%s, command => 'SELECT 2')", (jobid,))
        wait_until(lambda: [r for r in runs_of(conn, jobid) if r.command == "SELECT 2"], message="the new command")
