"""Row security: whose jobs and runs a user sees, and what he can change of them.

As in pg_cron: people see and delete what is theirs, write only through the functions, and
what is granted on top works for them within row security.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.server.surface import ANN, BEN, Connection, make_role, refusal, rows, session_of, value
from tests.support.servers import Server
from tests.support.waiting import wait_until


@pytest.fixture
def ann(conn: Connection, server: Server) -> Iterator[Connection]:
    make_role(conn, ANN)
    with session_of(server, ANN) as session:
        yield session


@pytest.fixture
def ben(conn: Connection, server: Server) -> Iterator[Connection]:
    make_role(conn, BEN)
    with session_of(server, BEN) as session:
        yield session


@pytest.fixture
def history(conn: Connection, ann: Connection, ben: Connection) -> None:
    """One run of each of three roles, and one of nobody's."""
    conn.execute("TRUNCATE cron.job_run_details")
    conn.execute(
        "INSERT INTO cron.job_run_details (jobid, username, status) VALUES"
        " (1, %s, 'failed'), (2, %s, 'failed'), (3, 'postgres', 'failed'), (4, NULL, 'failed')",
        [ANN, BEN],
    )


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("INSERT INTO cron.job (schedule, command) VALUES ('@reboot', 'x')", "job"),
        ("UPDATE cron.job SET command = 'x'", "job"),
        ("DELETE FROM cron.job", "job"),
        ("TRUNCATE cron.job", "job"),
        ("BEGIN; LOCK TABLE cron.job IN EXCLUSIVE MODE", "job"),
        ("SELECT * FROM cron.job FOR UPDATE", "job"),
        ("INSERT INTO cron.job_run_details (status) VALUES ('succeeded')", "job_run_details"),
        ("UPDATE cron.job_run_details SET status = 'succeeded'", "job_run_details"),
        ("TRUNCATE cron.job_run_details", "job_run_details"),
    ],
)
def test_a_user_writes_to_no_table_but_to_forget_his_runs(ann: Connection, statement: str, table: str) -> None:
    refused = refusal(ann, statement)
    assert (refused.sqlstate, refused.message) == ("42501", f"permission denied for table {table}")


@pytest.mark.parametrize("sequence", ["jobid_seq", "runid_seq"])
def test_a_user_reads_a_sequence_and_takes_no_number_from_it(ann: Connection, sequence: str) -> None:
    assert value(ann, f"SELECT last_value > 0 FROM cron.{sequence}") is True
    for call in (f"nextval('cron.{sequence}')", f"setval('cron.{sequence}', 1)"):
        assert refusal(ann, f"SELECT {call}").message == f"permission denied for sequence {sequence}"


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("ALTER TABLE cron.job DISABLE ROW LEVEL SECURITY", "table job"),
        ("ALTER TABLE cron.job DISABLE TRIGGER ALL", "table job"),
        ("DROP POLICY cron_job_policy ON cron.job", "relation job"),
        ("CREATE POLICY p ON cron.job USING (true)", "table job"),
        ("CREATE TRIGGER t AFTER INSERT ON cron.job EXECUTE FUNCTION cron.job_cache_invalidate()", "table job"),
        ("CREATE RULE r AS ON SELECT TO cron.job DO INSTEAD NOTHING", "relation job"),
        ("ALTER FUNCTION cron.schedule(text, text) SECURITY DEFINER", "function cron.schedule"),
        ("CREATE FUNCTION cron.f() RETURNS int LANGUAGE sql RETURN 1", "schema cron"),
        ("CREATE TABLE cron.t ()", "schema cron"),
    ],
)
def test_a_user_changes_no_object_of_ours(ann: Connection, statement: str, what: str) -> None:
    refused = refusal(ann, statement)
    assert refused.sqlstate == "42501"
    assert what.split()[-1].removeprefix("cron.") in refused.message


# --- jobs --------------------------------------------------------------------------------------


def test_a_user_sees_his_own_jobs_only_and_a_superuser_sees_all(
    conn: Connection, ann: Connection, ben: Connection
) -> None:
    for session in (conn, ann, ben):
        session.execute("SELECT cron.schedule('n', '@reboot', 'secret of ' || current_user)")
    seen = "SELECT username, command FROM cron.job ORDER BY 1"
    assert rows(ann, seen) == [(ANN, f"secret of {ANN}")]
    assert rows(ben, seen) == [(BEN, f"secret of {BEN}")]
    assert [name for name, _ in rows(conn, seen)] == ["postgres", ANN, BEN]


def test_a_user_cannot_look_around_row_security_with_a_leaky_function(conn: Connection, ann: Connection) -> None:
    conn.execute("SELECT cron.schedule('n', '@reboot', 'secret')")
    heard: list[str] = []
    ann.add_notice_handler(lambda diag: heard.append(diag.message_primary or ""))
    ann.execute(
        "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001"
        " AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$"
    )
    assert rows(ann, "SELECT * FROM cron.job WHERE pg_temp.leak(command)") == []
    assert heard == []
    refused = refusal(ann, "SET row_security = off; SELECT * FROM cron.job")
    assert refused.message == 'query would be affected by row-level security policy for table "job"'


def test_a_role_that_bypasses_row_security_sees_all(conn: Connection, ann: Connection) -> None:
    conn.execute("SELECT cron.schedule('n', '@reboot', 'x')")
    conn.execute(f"ALTER ROLE {ANN} BYPASSRLS".encode())
    assert rows(ann, "SELECT username FROM cron.job") == [("postgres",)]


def test_what_is_granted_on_the_table_works_for_own_jobs_only(conn: Connection, ann: Connection) -> None:
    conn.execute("SELECT cron.schedule('n', '@reboot', 'x')")
    conn.execute(
        f"GRANT INSERT, UPDATE, DELETE ON cron.job TO {ANN}; GRANT USAGE ON SEQUENCE cron.jobid_seq TO {ANN}".encode()
    )
    ann.execute("INSERT INTO cron.job (schedule, command) VALUES ('@reboot', 'y')")
    assert rows(ann, "UPDATE cron.job SET command = 'z' RETURNING username") == [(ANN,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security policy"):
        ann.execute("UPDATE cron.job SET username = 'postgres'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security policy"):
        ann.execute("INSERT INTO cron.job (schedule, command, username) VALUES ('@reboot', 'y', 'postgres')")
    assert rows(ann, "DELETE FROM cron.job RETURNING command") == [("z",)]
    assert rows(conn, "SELECT command FROM cron.job") == [("x",)]


def test_a_job_follows_its_role_through_a_set_role(conn: Connection, ann: Connection) -> None:
    ann.execute("SELECT cron.schedule('n', '@reboot', 'x')")
    assert rows(conn, "SELECT count(*) FROM cron.job") == [(1,)]
    make_role(conn, BEN)
    conn.execute(f"GRANT {BEN} TO {ANN}".encode())
    ann.execute(f"SET ROLE {BEN}".encode())
    assert rows(ann, "SELECT * FROM cron.job") == []


# --- runs --------------------------------------------------------------------------------------


def test_a_user_sees_his_own_runs_only(history: None, conn: Connection, ann: Connection, ben: Connection) -> None:
    seen = "SELECT jobid FROM cron.job_run_details ORDER BY 1"
    assert rows(ann, seen) == [(1,)]
    assert rows(ben, seen) == [(2,)]
    assert rows(conn, seen) == [(1,), (2,), (3,), (4,)]


def test_a_user_forgets_his_own_runs_only(conn: Connection, ann: Connection, history: None) -> None:
    assert rows(ann, "DELETE FROM cron.job_run_details RETURNING jobid") == [(1,)]
    assert rows(ann, "DELETE FROM cron.job_run_details RETURNING jobid") == []
    assert rows(conn, "SELECT jobid FROM cron.job_run_details ORDER BY 1") == [(2,), (3,), (4,)]


def test_a_user_may_not_learn_of_foreign_runs_by_their_keys(history: None, conn: Connection, ann: Connection) -> None:
    # INSERT would tell by a conflict; it is not granted.
    runid = value(conn, "SELECT runid FROM cron.job_run_details WHERE jobid = 3")
    refused = refusal(ann, "INSERT INTO cron.job_run_details (runid) VALUES (%s) ON CONFLICT DO NOTHING", runid)
    assert refused.message == "permission denied for table job_run_details"


def test_a_run_is_recorded_for_the_role_it_ran_as(conn: Connection, ann: Connection) -> None:
    jobid = value(ann, "SELECT cron.schedule('1 second', 'SELECT 1')")
    done = "SELECT username FROM cron.job_run_details WHERE jobid = %s AND status = 'succeeded'"
    seen = wait_until(lambda: rows(ann, done, jobid), message="a run that its owner sees")
    assert seen[0] == (ANN,)


# --- dropping roles ----------------------------------------------------------------------------


def test_a_role_with_jobs_can_be_dropped_and_its_jobs_stay_visible_to_superusers(
    conn: Connection, server: Server
) -> None:
    name = "surface_leaver"
    make_role(conn, name)
    with session_of(server, name) as leaver:
        jobid = value(leaver, "SELECT cron.schedule('n', '@reboot', 'x')")
    conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
    assert rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", jobid) == [(name,)]
    refused = refusal(conn, "SELECT cron.alter_job(%s, active => false)", jobid)
    assert refused.sqlstate != "XX000"
    assert value(conn, "SELECT cron.unschedule(%s)", jobid) is True
