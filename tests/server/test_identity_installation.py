"""Restored and copied databases do not run another system's jobs unnoticed: they are held until somebody adopts them.

Every way to carry jobs away is taken for real: pg_dump in its formats, COPY, CREATE DATABASE ... TEMPLATE.
What goes on by itself, pg_upgrade, is tested in tests/upgrade.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.support.jobs import launcher_pid, one, rows, runs_of, wait_for_runs
from tests.server.surface import ANN, BEN, Connection, make_role, refusal, session_of
from tests.server.test_surface_dump import dump, program, restore
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

# A number that no installation has by chance.
FOREIGN = "11111111-2222-3333-4444-555555555555"

HELD_LINE = "jobs are held: they belong to another installation of pg_clockwork"


def insert_foreign(conn: Connection, name: str, username: str = "postgres", schedule: str = "1 second") -> int:
    """A job as a restored dump brings it."""
    return int(
        one(
            conn,
            "INSERT INTO cron.job (schedule, command, username, jobname, installation)"
            " VALUES (%s, 'SELECT 1', %s, %s, %s) RETURNING jobid",
            schedule,
            username,
            name,
            FOREIGN,
        )
    )


def check_held(conn: Connection, *jobids: int) -> None:
    """What was scheduled later runs twice, and these do not run."""
    assert {jobid for (jobid,) in rows(conn, "SELECT jobid FROM cron.held_jobs")} >= set(jobids)
    before = one(conn, "SELECT coalesce(max(runid), 0) FROM cron.job_run_details")
    beside = int(one(conn, "SELECT cron.schedule('beside', '1 second', 'SELECT 1')"))
    wait_for_runs(conn, beside, 2)
    conn.execute("SELECT cron.unschedule(%s::bigint)", [beside])
    assert [run for jobid in jobids for run in runs_of(conn, jobid) if run.runid > before] == []


# --- held, and how one sees it -----------------------------------------------------------------


def test_a_job_of_another_installation_is_held_and_says_so(conn: Connection) -> None:
    jobid = insert_foreign(conn, "foreign")
    check_held(conn, jobid)
    assert rows(conn, "SELECT jobid, jobname, database, username, reason FROM cron.held_jobs") == [
        (
            jobid,
            "foreign",
            "postgres",
            "postgres",
            "the job belongs to another installation: it came with a restored or copied database",
        )
    ]
    assert rows(conn, "SELECT * FROM cron.upcoming()") == []
    # No record: it would take the number of one that is still to be restored.
    assert runs_of(conn, jobid) == []


def test_one_log_line_counts_them_and_says_what_to_do(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        with connection.transaction():
            jobs = [insert_foreign(connection, f"j{i}") for i in range(7)]
        check_held(connection, *jobs)
        lines = [line for line in server.log().splitlines() if HELD_LINE in line]
        assert len(lines) == 1
        assert f"7 {HELD_LINE}" in lines[0]
        assert "To let them run here, use SELECT cron.adopt()." in server.log()
        assert "cannot run" not in server.log()
    server.restart()
    with server.connect() as connection:
        wait_until(lambda: server.log().count(HELD_LINE) == 2, message="the line of the new launcher")
        check_held(connection, *jobs)


def test_people_who_do_not_know_the_column_get_the_identity_of_here(conn: Connection) -> None:
    conn.execute("INSERT INTO cron.job (schedule, command) SELECT '@reboot', 'x'")
    with conn.cursor().copy("COPY cron.job (schedule, command, nodename, nodeport) FROM STDIN") as copy:
        copy.write_row(("1 second", "SELECT 1", "localhost", 5432))
    assert rows(conn, "SELECT * FROM cron.held_jobs") == []
    jobid = int(one(conn, "SELECT max(jobid) FROM cron.job"))
    wait_for_runs(conn, jobid)


# --- adopting ----------------------------------------------------------------------------------


def test_one_call_adopts_all(conn: Connection) -> None:
    jobs = [insert_foreign(conn, f"j{i}") for i in range(3)]
    check_held(conn, *jobs)
    assert one(conn, "SELECT cron.adopt()") == 3
    assert one(conn, "SELECT cron.adopt()") == 0
    for jobid in jobs:
        wait_until(lambda job=jobid: [r for r in runs_of(conn, job) if r.status == "succeeded"], message="a run")  # type: ignore[misc]
        assert not [run for run in runs_of(conn, jobid) if run.reason == "missed"]


def test_one_job_is_adopted_alone(conn: Connection) -> None:
    first, second = insert_foreign(conn, "a"), insert_foreign(conn, "b")
    check_held(conn, first, second)
    assert one(conn, "SELECT cron.adopt(%s)", first) is True
    assert one(conn, "SELECT cron.adopt(%s)", first) is False
    wait_until(lambda: [r for r in runs_of(conn, first) if r.status == "succeeded"], message="a run")
    check_held(conn, second)
    assert rows(conn, "SELECT jobid FROM cron.held_jobs") == [(second,)]
    missing = refusal(conn, "SELECT cron.adopt(0)")
    assert (missing.sqlstate, missing.message) == ("42501", "Job 0 does not exist or you don't own it")


def test_a_user_adopts_his_own_jobs_and_no_other(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    make_role(conn, BEN)
    mine = insert_foreign(conn, "mine", ANN, "@reboot")
    other = insert_foreign(conn, "other", BEN, "@reboot")
    with session_of(server, ANN) as ann:
        assert refusal(ann, f"SELECT cron.adopt({other})").sqlstate == "42501"
        assert one(ann, "SELECT cron.adopt()") == 1
        assert rows(ann, "SELECT jobid FROM cron.held_jobs") == []
    assert rows(conn, "SELECT jobid FROM cron.held_jobs") == [(other,)]
    assert one(conn, "SELECT installation = cron.installation() FROM cron.job WHERE jobid = %s", mine) is True


def test_scheduling_a_held_job_by_name_adopts_it(conn: Connection) -> None:
    jobid = insert_foreign(conn, "j")
    check_held(conn, jobid)
    assert one(conn, "SELECT cron.schedule('j', '1 second', 'SELECT 2')") == jobid
    wait_until(lambda: [r for r in runs_of(conn, jobid) if r.status == "succeeded"], message="a run")


def test_a_number_from_elsewhere_in_the_place_of_the_owner_gives_nobody_a_right(
    conn: Connection, server: Server
) -> None:
    """As data restored with the triggers disabled: the owner is whoever had that number there."""
    make_role(conn, ANN)
    make_role(conn, BEN)
    conn.execute("ALTER TABLE cron.job DISABLE TRIGGER ALL")
    try:
        ann_oid = one(conn, "SELECT %s::regrole::oid", ANN)
        jobid = one(
            conn,
            "INSERT INTO cron.job (schedule, command, username, owner, installation) VALUES ('@reboot', 'x', %s, %s, %s) RETURNING jobid",
            BEN,
            ann_oid,
            FOREIGN,
        )
    finally:
        conn.execute("ALTER TABLE cron.job ENABLE TRIGGER ALL")
        for (name,) in rows(
            conn, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'cron.job'::regclass AND NOT tgisinternal"
        ):
            conn.execute(f"ALTER TABLE cron.job ENABLE ALWAYS TRIGGER {name}".encode())
    with session_of(server, ANN) as ann:
        assert refusal(ann, f'SELECT cron.alter_job({jobid}, options => \'{{"command": "y"}}\')').sqlstate == "42501"
        assert refusal(ann, f"SELECT cron.unschedule({jobid}::bigint)").sqlstate == "42501"
        assert one(ann, "SELECT cron.adopt()") == 0
    assert one(conn, "SELECT cron.adopt(%s)", jobid) is True
    assert one(conn, "SELECT owner = %s::regrole FROM cron.job WHERE jobid = %s", BEN, jobid) is True


def test_an_identity_that_was_lost_holds_everything_until_it_is_made_anew(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        connection.execute("TRUNCATE cron.installation_identity")
        assert (
            refusal(connection, "INSERT INTO cron.job (schedule, command) VALUES ('@reboot', '')").sqlstate == "23502"
        )
        connection.execute("UPDATE cron.job SET priority = 1")
        assert rows(connection, "SELECT jobid FROM cron.held_jobs") == [(jobid,)]
        wait_until(lambda: f"1 {HELD_LINE}" in server.log(), message="the line that it is held")
        assert one(connection, "SELECT cron.adopt()") == 1
        wait_until(lambda: [r for r in runs_of(connection, jobid) if r.status == "succeeded"][-1:], message="a run")
        assert one(connection, "SELECT count(*) FROM cron.installation_identity") == 1


# --- dumps -------------------------------------------------------------------------------------


def pg_restore(server: Any, archive: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(program(server, "pg_restore")), *arguments, "--dbname", server.dsn(), str(archive)],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def restore_plain(source: Any, copy: Any, path: Path, *arguments: str) -> None:
    restore(copy, dump(source, *arguments))


def restore_custom(source: Any, copy: Any, path: Path, *arguments: str) -> None:
    dump(source, "--format=custom", f"--file={path}", *arguments)
    pg_restore(copy, path, *(argument for argument in arguments if argument == "--no-owner"))


@pytest.mark.local_only
@pytest.mark.parametrize("how", [restore_plain, restore_custom])
@pytest.mark.parametrize("options", [(), ("--no-owner",), ("--data-only",), ("--data-only", "--inserts")], ids=" ".join)
def test_a_restored_dump_is_held_until_adopted(
    make_server: ServerMaker, tmp_path: Path, how: Callable[..., None], options: tuple[str, ...]
) -> None:
    source, copy = make_server(), make_server()
    program(source, "pg_dump")
    with source.connect() as connection:
        make_role(connection, ANN)
        jobid = int(
            one(connection, "SELECT cron.schedule_in_database('j', '1 second', 'SELECT 1', 'postgres', %s)", ANN)
        )
        wait_for_runs(connection, jobid)
    with copy.connect() as there:
        # Another number for the role than it has at home.
        there.execute(f"CREATE ROLE somebody; CREATE ROLE {ANN} LOGIN".encode())
        if "--data-only" not in options:
            there.execute("DROP EXTENSION pg_clockwork")
        how(source, copy, tmp_path / "archive", *options)
        check_held(there, jobid)
        newest = one(there, "SELECT max(start_time) FROM cron.job_run_details WHERE status = 'succeeded'")
        assert one(there, "SELECT count(*) FROM cron.held_jobs") == 1
        assert one(there, "SELECT cron.adopt()") == 1
        later = wait_until(
            lambda: [r for r in runs_of(there, jobid) if r.status == "succeeded" and r.start_time > newest],  # type: ignore[operator]
            message="a run of the adopted job",
        )
        assert later[0].username == ANN
        assert one(there, "SELECT owner = %s::regrole FROM cron.job", ANN) is True
    with source.connect() as connection:
        assert rows(connection, "SELECT * FROM cron.held_jobs") == []


@pytest.mark.local_only
def test_what_is_restored_into_the_installation_it_came_from_goes_on(make_server: ServerMaker, tmp_path: Path) -> None:
    """The extension stayed, only its rows were brought back: they are its own."""
    server: Any = make_server()
    program(server, "pg_dump")
    with server.connect() as connection:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        text = dump(server, "--data-only", "--table=cron.job")
        connection.execute("TRUNCATE cron.job")
        restore(server, text)
        last = one(connection, "SELECT coalesce(max(runid), 0) FROM cron.job_run_details")
        wait_until(
            lambda: [r for r in runs_of(connection, jobid) if r.runid > last and r.status == "succeeded"],
            message="a run",
        )


@pytest.mark.local_only
def test_a_database_that_was_dropped_and_restored_is_held_as_any_copy(make_server: ServerMaker) -> None:
    """Nobody can tell whether another copy of the same dump runs elsewhere: one call says that none does."""
    server: Any = make_server()
    program(server, "pg_dump")
    with server.connect() as connection:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        wait_for_runs(connection, jobid)
        restore(server, dump(server, "--clean", "--if-exists"))
        check_held(connection, jobid)
        assert one(connection, "SELECT cron.adopt()") == 1


def test_a_copy_made_from_a_template_is_held(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        make_role(connection, ANN)
        jobid = int(
            one(connection, "SELECT cron.schedule_in_database('j', '1 second', 'SELECT 1', 'postgres', %s)", ANN)
        )
        wait_for_runs(connection, jobid)
        identity = one(connection, "SELECT cron.installation()")
    server.configure({"cron.database_name": "twin"})
    server.restart()
    with server.connect("template1") as connection:
        wait_until(lambda: launcher_pid(connection) is None, message="no launcher in the template")
        connection.execute("CREATE DATABASE twin TEMPLATE postgres")
    server.restart()
    with server.connect("twin") as twin:
        assert one(twin, "SELECT cron.installation()") != identity
        check_held(twin, jobid)
        assert one(twin, "SELECT cron.adopt()") == 1
        last = one(twin, "SELECT max(runid) FROM cron.job_run_details")
        done = wait_until(
            lambda: [r for r in runs_of(twin, jobid) if r.runid >= last and r.status == "succeeded"], message="a run"
        )
        assert done[0].username == ANN
    server.configure({"cron.database_name": "postgres"})
    server.restart()
    with server.connect() as connection:
        assert rows(connection, "SELECT * FROM cron.held_jobs") == []
        assert one(connection, "SELECT cron.installation()") == identity
