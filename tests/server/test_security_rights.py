"""Who counts as a job's owner, and what the other users learn: members, monitors, SET ROLE, SECURITY DEFINER.

The rule is PostgreSQL's own for objects: whoever has the privileges of the owner (inherits its role) is an
owner too. A superuser is never asked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.support.jobs import one, rows, runs_of, wait_for_runs
from tests.server.surface import ANN, BEN, Connection, make_role, refusal, session_of
from tests.support.servers import Server
from tests.support.waiting import wait_until

TEAM = "security_team"


@pytest.fixture
def team(conn: Connection) -> str:
    """Ann is a member of a team that may log in; Ben is not."""
    make_role(conn, ANN)
    make_role(conn, BEN)
    make_role(conn, TEAM)
    conn.execute(f"GRANT {TEAM} TO {ANN}".encode())
    return TEAM


@pytest.fixture
def ann(team: str, server: Server) -> Iterator[Connection]:
    with session_of(server, ANN) as session:
        yield session


@pytest.fixture
def ben(team: str, server: Server) -> Iterator[Connection]:
    with session_of(server, BEN) as session:
        yield session


@pytest.fixture
def team_job(conn: Connection, team: str) -> int:
    return int(
        one(conn, "SELECT cron.schedule_in_database('t', '1 second', 'SELECT current_user', 'postgres', %s)", team)
    )


# --- members -----------------------------------------------------------------------------------


def test_a_member_of_the_owners_role_counts_as_the_owner(
    conn: Connection, ann: Connection, ben: Connection, team_job: int
) -> None:
    wait_for_runs(conn, team_job)
    seen = "SELECT DISTINCT jobid FROM cron.job_run_details"
    assert rows(ann, "SELECT jobid FROM cron.job") == rows(ann, seen) == [(team_job,)]
    assert rows(ben, "SELECT jobid FROM cron.job") == rows(ben, seen) == []

    ann.execute(
        'SELECT cron.alter_job(%s, options => \'{"name": "renamed", "command": "SELECT 2", "active": false}\')',
        [team_job],
    )
    assert rows(conn, "SELECT jobname, command, active, username FROM cron.job") == [
        ("renamed", "SELECT 2", False, TEAM)
    ]
    assert refusal(ben, f"SELECT cron.alter_job({team_job}, options => '{{\"active\": true}}')").sqlstate == "42501"
    assert refusal(ben, f"SELECT cron.unschedule({team_job}::bigint)").sqlstate == "42501"
    assert one(ann, "SELECT cron.unschedule(%s::bigint)", team_job) is True
    wait_until(lambda: all(run.status != "running" for run in runs_of(conn, team_job)), message="no run to go on")
    assert len(rows(ann, "DELETE FROM cron.job_run_details RETURNING runid")) >= 1


def test_membership_alone_is_not_enough_where_it_is_not_inherited(
    conn: Connection, ann: Connection, team_job: int
) -> None:
    """As with every object of PostgreSQL: SET ROLE first."""
    conn.execute(f"REVOKE {TEAM} FROM {ANN}; ALTER ROLE {ANN} NOINHERIT; GRANT {TEAM} TO {ANN}".encode())
    assert rows(ann, "SELECT jobid FROM cron.job") == []
    assert refusal(ann, f"SELECT cron.unschedule({team_job}::bigint)").sqlstate == "42501"
    ann.execute(f"SET ROLE {TEAM}".encode())
    assert rows(ann, "SELECT jobid FROM cron.job") == [(team_job,)]


def test_a_member_that_leaves_loses_the_job_at_once(conn: Connection, ann: Connection, team_job: int) -> None:
    assert rows(ann, "SELECT jobid FROM cron.job") == [(team_job,)]
    conn.execute(f"REVOKE {TEAM} FROM {ANN}".encode())
    assert rows(ann, "SELECT jobid FROM cron.job") == []
    assert refusal(ann, f"SELECT cron.alter_job({team_job}, options => '{{\"active\": true}}')").sqlstate == "42501"


def test_the_team_does_not_own_what_belongs_to_its_member(conn: Connection, ann: Connection, server: Server) -> None:
    jobid = int(one(ann, "SELECT cron.schedule('mine', '@reboot', 'x')"))
    with session_of(server, TEAM) as team:
        assert rows(team, "SELECT jobid FROM cron.job") == []
        assert refusal(team, f"SELECT cron.unschedule({jobid}::bigint)").sqlstate == "42501"


# --- monitors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["pg_monitor", "pg_read_all_stats"])
def test_a_monitor_reads_all_jobs_and_runs_and_changes_none(
    conn: Connection, ben: Connection, team_job: int, role: str
) -> None:
    wait_for_runs(conn, team_job)
    conn.execute(f"GRANT {role} TO {BEN}".encode())
    try:
        assert rows(ben, "SELECT jobid FROM cron.job") == [(team_job,)]
        assert len(rows(ben, "SELECT runid FROM cron.job_run_details WHERE jobid = %s", team_job)) >= 1
        assert rows(ben, "DELETE FROM cron.job_run_details RETURNING runid") == []
        assert refusal(ben, f"SELECT cron.unschedule({team_job}::bigint)").sqlstate == "42501"
        assert refusal(ben, f"SELECT cron.alter_job({team_job}, options => '{{\"active\": true}}')").sqlstate == "42501"
        assert one(ben, "SELECT cron.adopt()") == 0
        conn.execute(f"GRANT UPDATE, DELETE ON cron.job TO {BEN}".encode())
        assert rows(ben, "UPDATE cron.job SET command = 'x' RETURNING jobid") == []
        assert rows(ben, "DELETE FROM cron.job RETURNING jobid") == []
    finally:
        conn.execute(f"REVOKE {role} FROM {BEN}".encode())


def test_row_security_asks_once_per_row_at_most_and_a_superuser_never(conn: Connection, ben: Connection) -> None:
    plan = "EXPLAIN (COSTS OFF) SELECT count(*) FROM cron.job_run_details"
    assert "is_owner" not in "".join(line for (line,) in rows(conn, plan))
    asked = "\n".join(line for (line,) in rows(ben, plan))
    assert asked.count("is_owner") == 1
    # Whether one is a monitor does not depend on the row.
    assert "InitPlan" in asked
    assert "pg_has_role" not in asked.split("Filter:")[1].splitlines()[0]


# --- SET ROLE and SECURITY DEFINER -------------------------------------------------------------


def test_a_job_belongs_to_the_current_user_of_the_call(conn: Connection, ann: Connection, team: str) -> None:
    """A job scheduled under SET ROLE, or inside a SECURITY DEFINER function, runs as that role."""
    conn.execute("CREATE SCHEMA IF NOT EXISTS security_tools")
    conn.execute(f"GRANT USAGE, CREATE ON SCHEMA security_tools TO {TEAM}, {BEN}, {ANN}".encode())
    try:
        conn.execute(f"SET ROLE {BEN}".encode())
        conn.execute(
            "CREATE FUNCTION security_tools.plan(text) RETURNS bigint SECURITY DEFINER LANGUAGE sql"
            " SET search_path = pg_catalog, pg_temp AS $$ SELECT cron.schedule($1, '1 second', 'SELECT current_user') $$"
        )
        conn.execute("RESET ROLE")
        ann.execute(f"SET ROLE {TEAM}".encode())
        as_team = int(one(ann, "SELECT cron.schedule('set role', '1 second', 'SELECT current_user')"))
        ann.execute("RESET ROLE")
        as_ben = int(one(ann, "SELECT security_tools.plan('definer')"))
        assert rows(conn, "SELECT jobid, username FROM cron.job ORDER BY 1") == [(as_team, TEAM), (as_ben, BEN)]
        assert wait_for_runs(conn, as_team)[0].username == TEAM
        assert wait_for_runs(conn, as_ben)[0].username == BEN
        # The caller of the function does not own what it made.
        assert refusal(ann, f"SELECT cron.unschedule({as_ben}::bigint)").sqlstate == "42501"
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP SCHEMA security_tools CASCADE")


def test_nobody_becomes_another_by_naming_him(conn: Connection, ann: Connection) -> None:
    conn.execute(
        f"GRANT EXECUTE ON FUNCTION cron.schedule_in_database(text,text,text,text,text,boolean),"
        f" cron.alter_job(bigint,text,text,text,text,boolean) TO {ANN}".encode()
    )
    jobid = int(one(ann, "SELECT cron.schedule('mine', '@reboot', 'x')"))
    for name in ("postgres", BEN, TEAM):
        for call in (
            f"cron.schedule_in_database('n', '@reboot', 'x', 'postgres', '{name}')",
            f"cron.schedule('n', '@reboot', 'x', '{{\"username\": \"{name}\"}}')",
            f"cron.alter_job({jobid}, username => '{name}')",
            f'cron.alter_job({jobid}, options => \'{{"username": "{name}"}}\')',
        ):
            assert (call, refusal(ann, f"SELECT {call}").sqlstate) == (call, "42501")
    assert rows(conn, "SELECT username FROM cron.job") == [(ANN,)]
