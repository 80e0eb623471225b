"""pg_dump and restore: jobs, history and both numberings travel, for a superuser and for an ordinary user.

Needs pg_dump and psql beside the server, and a cluster of the tests' own; where they are missing
the tests are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.surface import ANN, Connection, make_role, rows, session_of, value
from tests.support.plugin import ServerMaker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.local_only

# The owner is a number that each cluster gives its role anew.
JOBS = "SELECT to_jsonb(job) - 'owner' FROM cron.job ORDER BY jobid"
RUNS = "SELECT to_jsonb(run) - 'owner' FROM cron.job_run_details AS run ORDER BY runid"
NUMBERS = "SELECT (SELECT last_value FROM cron.jobid_seq), (SELECT last_value FROM cron.runid_seq)"


def program(server: Any, name: str) -> Path:
    """A client program of the server's own version."""
    places = [server.installation.bindir, server.origin.bindir]
    for place in places:
        if (place / name).exists():
            return Path(place / name)
    found = shutil.which(name)
    if (
        found
        and f" {server.major}"
        in subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    ):
        return Path(found)
    pytest.skip(f"PostgreSQL {server.version} came without {name}: dump and restore are not tested")


def run(server: Any, name: str, *arguments: str, feed: str | None = None) -> str:
    """What the program wrote; its own words when it fails."""
    environment = {**os.environ, **server.environment, "LC_ALL": "C.UTF-8"}
    # pg_dump of a private replica is a link, which finds its libraries by where it leads.
    done = subprocess.run(
        [str(program(server, name)), *arguments],
        input=feed,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower(), done.stderr
    return done.stdout


def dump(server: Any, *arguments: str, user: str = "postgres") -> str:
    return run(server, "pg_dump", *arguments, server.dsn(user=user))


def restore(server: Any, text: str) -> None:
    run(
        server,
        "psql",
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--single-transaction",
        "--dbname",
        server.dsn(),
        feed=text,
    )


def fill(connection: Connection) -> None:
    """Jobs and history with every kind of value in them."""
    make_role(connection, ANN)
    connection.execute("SELECT cron.schedule('it''s\n\\a \"job\" — é', '5 4 * * *', E'SELECT ''x\\\\y''\\n')")
    connection.execute("SELECT cron.schedule_in_database('ann', '@daily', 'y', 'template1', %s, false)", [ANN])
    connection.execute(
        'SELECT cron.schedule(\'opted\', \'@daily\', \'z\', \'{"timezone": "Asia/Tokyo", "priority": -3, "managed_by": "me"}\')'
    )
    connection.execute("SELECT cron.schedule('0 0 1 1 *', 'nameless')")
    connection.execute("SELECT cron.unschedule(cron.schedule('gone', '@daily', 'x'))")
    connection.execute(
        "INSERT INTO cron.job_run_details (jobid, username, command, status, return_message, start_time, end_time, due_time, attempt)"
        " VALUES (1, 'postgres', E'a\\nb', 'failed', E'ERROR: x\\tü', now(), now(), '2026-01-01', 1), (2, %s, 'y', 'succeeded', '1 row', now(), now(), '2026-01-02', 1)",
        [ANN],
    )


@pytest.fixture
def filled(make_server: ServerMaker) -> Any:
    server: Any = make_server()
    program(server, "pg_dump")
    program(server, "psql")
    with server.connect() as connection:
        fill(connection)
    return server


def test_a_dump_creates_the_extension_and_says_nothing_of_its_parts(filled: Any) -> None:
    text = dump(filled)
    assert "CREATE EXTENSION IF NOT EXISTS pg_clockwork WITH SCHEMA pg_catalog;" in text
    assert "COPY cron.job (jobid, schedule, command, nodename, nodeport, database, username, active, jobname" in text
    assert (
        "COPY cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message" in text
    )
    assert "SELECT pg_catalog.setval('cron.jobid_seq', 5, true);" in text
    for part in (
        "CREATE TABLE cron",
        "CREATE FUNCTION cron",
        "CREATE POLICY",
        "CREATE SCHEMA cron",
        "CREATE SEQUENCE cron",
        "CREATE TRIGGER",
    ):
        assert part not in text


def test_a_restored_database_has_the_same_jobs_history_and_numbering(filled: Any, make_server: ServerMaker) -> None:
    text = dump(filled)
    copy: Any = make_server()
    with filled.connect() as connection, copy.connect() as there:
        there.execute("DROP EXTENSION pg_clockwork")
        there.execute(f"CREATE ROLE {ANN} LOGIN".encode())
        restore(copy, text)
        for statement in (JOBS, RUNS, NUMBERS):
            assert rows(there, statement) == rows(connection, statement)
        assert value(there, "SELECT cron.schedule('next', '@daily', 'x')") == 6


def test_an_ordinary_user_dumps_his_own_rows(filled: Any) -> None:
    with filled.connect() as connection, session_of(filled, ANN) as ann:
        assert len(rows(ann, JOBS)) == 1
        connection.execute(f"GRANT USAGE ON SCHEMA cron TO {ANN}".encode())
    text = dump(filled, "--data-only", "--enable-row-security", "--inserts", "--column-inserts", user=ANN)
    assert text.count("INSERT INTO cron.job (") == 1
    assert text.count("INSERT INTO cron.job_run_details (") == 1
    assert ANN in text
    assert "nameless" not in text


def test_a_dump_made_without_row_security_is_refused_to_an_ordinary_user(filled: Any) -> None:
    """As with pg_cron: pg_dump asks for all rows, and PostgreSQL refuses rather than give some."""
    with pytest.raises(AssertionError, match='query would be affected by row-level security policy for table "job"'):
        dump(filled, user=ANN)


def test_rows_of_pg_crons_table_are_copied_as_they_are(make_server: ServerMaker) -> None:
    """How one moves from pg_cron: its dump of the table, or INSERT ... SELECT, names its nine columns."""
    server = make_server()
    with server.connect() as connection:
        connection.execute(
            "CREATE SCHEMA old; CREATE TABLE old.job (jobid bigint PRIMARY KEY, schedule text, command text, nodename text,"
            " nodeport int, database text, username text, active boolean, jobname text);"
            " INSERT INTO old.job VALUES (7, '*/5 * * * *', 'SELECT 1', 'localhost', 5432, 'postgres', 'postgres', false, 'a'),"
            " (9, '@yearly', 'SELECT 2', 'db.example', 5433, 'other', 'gone', true, NULL),"
            " (12, '0 0 * * * root', 'junk', 'localhost', 5432, 'postgres', 'postgres', true, 'junk')"
        )
        connection.execute(
            "INSERT INTO cron.job (jobid, schedule, command, nodename, nodeport, database, username, active, jobname)"
            " SELECT jobid, schedule, command, nodename, nodeport, database, username, active, jobname FROM old.job"
        )
        connection.execute("SELECT setval('cron.jobid_seq', (SELECT max(jobid) FROM cron.job))")
        columns = "jobid, schedule, command, nodename, nodeport, database, username, active, jobname"
        assert rows(connection, f"SELECT {columns} FROM cron.job ORDER BY 1") == rows(
            connection, "SELECT * FROM old.job ORDER BY 1"
        )
        assert value(connection, "SELECT cron.schedule('new', '1 second', 'SELECT 1')") == 13
        # One row that cannot run stops no other.
        done = "SELECT count(*) FROM cron.job_run_details WHERE jobid = 13 AND status = 'succeeded'"
        wait_until(lambda: value(connection, done) > 0, message="a run beside the orphan and the junk")
    assert "0 0 * * * root" in server.log()
