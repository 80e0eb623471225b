"""A job belongs to a role, not to a name: roles that are renamed, dropped, created again, or given each other's names.

The role is pinned by its OID in `owner`; the visible `username` follows a rename. What was
pinned to a role that is gone is nobody's until a superuser says whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.server.support.jobs import at, insert_job, one, rows, runs_of, wait_for_runs
from tests.server.surface import Connection, make_role, refusal, session_of
from tests.support.servers import Server
from tests.support.waiting import wait_until

OLD, NEW = "identity_old", "identity_new"


@pytest.fixture
def roles(conn: Connection) -> Iterator[Callable[[str], str]]:
    """Makes roles; they and their jobs are gone before and after the test."""

    def clean() -> None:
        for name in (OLD, NEW):
            if one(conn, "SELECT count(*) FROM pg_roles WHERE rolname = %s", name):
                conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
        conn.execute("DELETE FROM cron.job WHERE username = ANY (%s)", [[OLD, NEW]])

    clean()
    yield lambda name: make_role(conn, name)
    clean()


def drop(conn: Connection, name: str) -> None:
    conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def schedule_as(server: Server, role: str, name: str, when: str, command: str = "SELECT current_user") -> int:
    with session_of(server, role) as session:
        return int(one(session, "SELECT cron.schedule(%s, %s, %s)", name, when, command))


# --- created again -----------------------------------------------------------------------------


def test_a_role_created_again_under_the_same_name_does_not_run_the_old_jobs(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "1 second", "SELECT 'secret'")
    wait_for_runs(conn, jobid)
    drop(conn, OLD)
    roles(OLD)
    refused = wait_until(
        lambda: [run for run in runs_of(conn, jobid) if run.reason == "role_replaced"], message="a run that is refused"
    )[0]
    assert (refused.status, refused.sqlstate) == ("failed", "42704")
    assert refused.return_message is not None
    assert refused.return_message.splitlines()[0] == f'FATAL: role "{OLD}" is not the role that the job belongs to'
    assert refused.hint is not None
    assert f"cron.adopt({jobid})" in refused.hint
    assert refused.job_pid is None
    # The newcomer sees neither the job nor the runs, old or new.
    with session_of(server, OLD) as newcomer:
        assert rows(newcomer, "SELECT jobid FROM cron.job") == []
        assert rows(newcomer, "SELECT jobid FROM cron.job_run_details") == []
        assert refusal(newcomer, f"SELECT cron.unschedule({jobid})").sqlstate == "42501"
        assert refusal(newcomer, "SELECT cron.unschedule('j')").sqlstate == "22023"
        assert refusal(newcomer, f"SELECT cron.adopt({jobid})").sqlstate == "42501"
        assert one(newcomer, "SELECT cron.adopt()") == 0
    assert rows(conn, "SELECT jobid, reason LIKE '%%dropped and created again' FROM cron.held_jobs") == [(jobid, True)]


@pytest.mark.parametrize("how", ["adopt_one", "adopt_all", "alter_job"])
def test_a_superuser_gives_the_jobs_to_the_role_of_today(
    conn: Connection, server: Server, roles: Callable[[str], str], how: str
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "1 second")
    drop(conn, OLD)
    roles(OLD)
    wait_until(
        lambda: [run for run in runs_of(conn, jobid) if run.reason == "role_replaced"], message="a run that is refused"
    )
    if how == "adopt_one":
        assert one(conn, "SELECT cron.adopt(%s)", jobid) is True
        assert one(conn, "SELECT cron.adopt(%s)", jobid) is False
    elif how == "adopt_all":
        assert one(conn, "SELECT cron.adopt()") == 1
        assert one(conn, "SELECT cron.adopt()") == 0
    else:
        conn.execute("SELECT cron.alter_job(%s, username => %s)", [jobid, OLD])
    assert one(conn, "SELECT owner = %s::regrole FROM cron.job WHERE jobid = %s", OLD, jobid) is True
    wait_until(lambda: [run for run in runs_of(conn, jobid) if run.status == "succeeded"], message="a run")
    assert rows(conn, "SELECT jobid FROM cron.held_jobs") == []


def test_the_newcomer_may_use_the_name_of_a_job_that_was_left_behind(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    """As before: scheduling by name sets what is run, so nothing of the former role's is run."""
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "@reboot", "SELECT 'secret'")
    drop(conn, OLD)
    roles(OLD)
    assert schedule_as(server, OLD, "j", "@reboot", "SELECT 'mine'") == jobid
    assert rows(conn, "SELECT command, owner = %s::regrole FROM cron.job", OLD) == [("SELECT 'mine'", True)]


def test_a_role_that_comes_after_its_job_does_not_get_it(conn: Connection, roles: Callable[[str], str]) -> None:
    jobid = insert_job(conn, username=NEW)
    wait_until(lambda: [r for r in runs_of(conn, jobid) if r.reason == "role_missing"], message="a refused run")
    roles(NEW)
    wait_until(lambda: [r for r in runs_of(conn, jobid) if r.reason == "role_replaced"], message="a refused run")
    assert one(conn, "SELECT cron.adopt(%s)", jobid) is True
    wait_until(lambda: [r for r in runs_of(conn, jobid) if r.status == "succeeded"], message="a run")


def test_the_owner_is_not_for_a_statement_to_say(conn: Connection, roles: Callable[[str], str]) -> None:
    roles(OLD)
    jobid = insert_job(conn, schedule="@reboot", username=OLD, owner=10)
    pinned = "SELECT owner = %s::regrole, username FROM cron.job WHERE jobid = %s"
    assert rows(conn, pinned, OLD, jobid) == [(True, OLD)]
    conn.execute("UPDATE cron.job SET owner = 10, command = 'x' WHERE jobid = %s", [jobid])
    assert rows(conn, pinned, OLD, jobid) == [(True, OLD)]
    conn.execute("SET session_replication_role = replica")
    conn.execute("UPDATE cron.job SET owner = 10 WHERE jobid = %s", [jobid])
    conn.execute("RESET session_replication_role")
    assert rows(conn, pinned, OLD, jobid) == [(True, OLD)]
    with pytest.raises(psycopg.errors.GeneratedAlways):
        conn.execute("UPDATE cron.job_run_details SET owner = 10")


@pytest.mark.parametrize("change", ["active = false", "command = 'x'", "jobname = 'other'"])
def test_no_other_change_of_a_job_gives_it_to_the_newcomer(
    conn: Connection, server: Server, roles: Callable[[str], str], change: str
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "@reboot")
    before = one(conn, "SELECT owner FROM cron.job WHERE jobid = %s", jobid)
    drop(conn, OLD)
    roles(OLD)
    conn.execute(f"UPDATE cron.job SET {change} WHERE jobid = {jobid}".encode())
    assert one(conn, "SELECT owner FROM cron.job WHERE jobid = %s", jobid) == before


# --- renamed -----------------------------------------------------------------------------------


def test_a_renamed_role_keeps_its_jobs_and_their_rows_say_its_new_name(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "1 second")
    wait_for_runs(conn, jobid)
    before = one(conn, "SELECT max(runid) FROM cron.job_run_details")
    conn.execute(f"ALTER ROLE {OLD} RENAME TO {NEW}".encode())
    wait_until(
        lambda: rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", jobid) == [(NEW,)], message="the new name"
    )
    later = wait_until(
        lambda: [r for r in runs_of(conn, jobid) if r.runid > before + 1 and r.status == "succeeded"], message="a run"
    )
    assert later[-1].username == NEW
    assert {run.status for run in runs_of(conn, jobid)} <= {"succeeded", "starting", "running", "queued"}
    with session_of(server, NEW) as renamed:
        seen = rows(renamed, "SELECT DISTINCT username FROM cron.job_run_details WHERE jobid = %s ORDER BY 1", jobid)
        assert seen == [(NEW,), (OLD,)]
        assert one(renamed, "SELECT cron.unschedule('j')") is True


def test_a_renamed_role_manages_its_jobs_before_their_rows_follow(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "@reboot")
    conn.execute(f"ALTER ROLE {OLD} RENAME TO {NEW}".encode())
    with session_of(server, NEW) as renamed:
        assert rows(renamed, "SELECT jobid FROM cron.job") == [(jobid,)]
        renamed.execute("SELECT cron.alter_job(%s, options => '{\"active\": false}')", [jobid])
        assert one(renamed, "SELECT cron.unschedule('j')") is True


def test_whoever_takes_the_former_name_of_a_role_takes_nothing_else(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    first = schedule_as(server, OLD, "j", "1 second", "SELECT 'first'")
    with conn.transaction():
        conn.execute(f"ALTER ROLE {OLD} RENAME TO {NEW}".encode())
        make_role(conn, OLD)
        # At once, while the row still says the former name.
        conn.execute(f"SET LOCAL ROLE {OLD}".encode())
        assert rows(conn, "SELECT jobid FROM cron.job") == []
        second = one(conn, "SELECT cron.schedule('j', '1 second', 'SELECT ''second''')")
    assert second != first
    for jobid, name in ((first, NEW), (second, OLD)):
        wait_until(
            lambda jobid=jobid, name=name: [  # type: ignore[misc]
                run for run in runs_of(conn, jobid) if run.status == "succeeded" and run.username == name
            ],
            message=f"a run as {name}",
        )
    with session_of(server, OLD) as newcomer:
        assert rows(newcomer, "SELECT DISTINCT jobid FROM cron.job_run_details") == [(second,)]
    with session_of(server, NEW) as renamed:
        assert rows(renamed, "SELECT DISTINCT jobid FROM cron.job_run_details") == [(first,)]


def test_a_rename_that_is_rolled_back_changes_nothing(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    jobid = schedule_as(server, OLD, "j", "1 second")
    with conn.transaction(force_rollback=True):
        conn.execute(f"ALTER ROLE {OLD} RENAME TO {NEW}".encode())
    wait_for_runs(conn, jobid, 2)
    assert {(run.username, run.status) for run in runs_of(conn, jobid)} >= {(OLD, "succeeded")}
    assert rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", jobid) == [(OLD,)]


def test_a_name_that_cannot_follow_holds_up_nothing(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    """The new name has a job of that name already, left by a role that is gone."""
    roles(OLD)
    roles(NEW)
    left = schedule_as(server, NEW, "j", "@reboot")
    jobid = schedule_as(server, OLD, "j", "1 second")
    drop(conn, NEW)
    conn.execute(f"ALTER ROLE {OLD} RENAME TO {NEW}".encode())
    wait_until(lambda: "jobname_username_uniq" in server.log(), message="the reason in the log")
    wait_until(
        lambda: [r for r in runs_of(conn, jobid) if r.status == "succeeded" and r.username == NEW], message="a run"
    )
    assert rows(conn, "SELECT username FROM cron.job WHERE jobid = ANY (%s) ORDER BY jobid", [left, jobid]) == [
        (NEW,),
        (OLD,),
    ]
    # Once the name is free, the next change of a role brings it up to date.
    conn.execute("SELECT cron.unschedule(%s::bigint)", [left])
    conn.execute(f"ALTER ROLE {NEW} CONNECTION LIMIT 7".encode())
    wait_until(
        lambda: rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", jobid) == [(NEW,)], message="the new name"
    )


# --- dropped -----------------------------------------------------------------------------------


def test_a_role_can_be_dropped_while_its_job_runs_and_the_rest_goes_on(
    conn: Connection, server: Server, roles: Callable[[str], str]
) -> None:
    roles(OLD)
    long = schedule_as(server, OLD, "long", at(conn), "SELECT pg_sleep(2)")
    other = int(one(conn, "SELECT cron.schedule('other', '1 second', 'SELECT 1')"))
    wait_until(
        lambda: [run for run in runs_of(conn, long) if run.status == "running"], message="the run to be going on"
    )
    drop(conn, OLD)
    assert wait_for_runs(conn, long)[0].status == "succeeded"
    wait_for_runs(conn, other, 2)
    assert rows(conn, "SELECT username FROM cron.job WHERE jobid = %s", long) == [(OLD,)]
