"""pg_upgrade from an older major to the target: the jobs go on by themselves, as the same roles, in the same installation.

The older one is the nearest that is here, complete, and not of a later minor release than the target can
read; where there is none, or where the target came without pg_upgrade, the test is skipped and says so. An upgrade is told from a restored dump by the identity
of the installation, which pg_upgrade takes along and pg_dump does not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scheduler.cluster import Cluster
from scheduler.packaging import stage
from tests.server.support.jobs import one, rows, runs_of, wait_for_runs
from tests.support.plugin import ServerMaker
from tests.support.servers import LocalServer
from tests.support.targets import MAJORS, Target, parse_targets
from tests.support.waiting import wait_until

pytestmark = pytest.mark.local_only

NEEDED_OF_OLD = ("postgres", "initdb", "pg_ctl", "pg_controldata", "pg_resetwal")
NEEDED_OF_NEW = (
    *NEEDED_OF_OLD,
    "pg_upgrade",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "psql",
    "vacuumdb",
    "pg_checksums",
)

# From here on initdb turns checksums on by itself, and pg_upgrade wants both sides alike.
CHECKSUMS_MAJOR = 18

OWNER = "upgrade_owner"


def find_missing(pg_config: Path, needed: tuple[str, ...]) -> list[str]:
    return [name for name in needed if not (pg_config.parent / name).exists()]


def find_older(target: Target) -> Iterator[Path]:
    """The pg_configs of older majors, the nearest first; skips when there is none to upgrade to."""
    assert target.pg_config is not None  # or extension_files had skipped
    missing = find_missing(target.pg_config, NEEDED_OF_NEW)
    if missing:
        pytest.skip(f"{target.label} came without {', '.join(missing)}: pg_upgrade to it is NOT TESTED")
    major = int(target.label.removeprefix("pg").partition(".")[0].partition("rc")[0].partition("beta")[0])
    for older in sorted((m for m in MAJORS if m < major), reverse=True):
        (found,) = parse_targets(str(older))
        if found.pg_config is not None and not find_missing(found.pg_config, NEEDED_OF_OLD):
            yield found.pg_config


def find_unreadable(old: Cluster, new: Cluster) -> str:
    """What the columns of any table carry that the newer server does not know; empty if it can read them all.

    A minor release may add such a thing to all majors: then the newer one has to be of that release, too.
    """
    with old.connect() as connection:
        connection.execute("CREATE TABLE public.plain (a int)")
        options = one(
            connection,
            "SELECT array_to_string(attoptions, ', ') FROM pg_attribute"
            " WHERE attrelid = 'public.plain'::regclass AND attname = 'a'",
        )
        connection.execute("DROP TABLE public.plain")
    with new.connect() as connection:
        connection.execute("CREATE TABLE public.plain (a int)")
        try:
            if options:
                connection.execute(f"ALTER TABLE public.plain ALTER a SET ({options})".encode())
        except psycopg.errors.InvalidParameterValue:
            return str(options)
        finally:
            connection.execute("DROP TABLE public.plain")
    return ""


@pytest.fixture
def older(
    target: Target,
    extension_files: Path,
    make_server: ServerMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LocalServer]:
    """A running server of the older major, with the extension."""
    candidates = list(find_older(target))
    newer: Any = make_server()
    # pg_upgrade looks for the library where it is installed, and not along extension_control_path.
    monkeypatch.setattr("scheduler.cluster.CONTROL_PATH_MAJOR", 1000)
    for number, pg_config in enumerate(candidates):
        server = LocalServer.launch(pg_config, stage(pg_config, tmp_path / f"older{number}"))
        try:
            if unreadable := find_unreadable(server, newer):
                print(f"{server.version} cannot be upgraded to {newer.version}, which does not know {unreadable}")
                continue
            newer.stop()
            with server.connect() as connection:
                connection.execute("CREATE EXTENSION pg_clockwork")
            yield server
            return
        finally:
            server.close()
    pytest.skip(f"no PostgreSQL that can be upgraded to {target.label} is here: pg_upgrade to it is NOT TESTED")


def run(cluster: Cluster, program: str, *arguments: str | Path) -> str:
    """A program of the cluster's own installation, as its user; what it wrote."""
    path = cluster.installation.bindir / program
    done = subprocess.run(
        cluster.account.command(path if path.exists() else cluster.origin.bindir / program, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cluster.directory,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cluster.directory), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        **cluster.account.process_options(),
    )
    logs = "".join(file.read_text(errors="replace")[-2000:] for file in cluster.directory.rglob("*.log"))
    assert done.returncode == 0, f"{program}: {done.stdout}\n{logs}"
    return done.stdout


def upgrade(old: Cluster, new: Cluster, *options: str) -> str:
    return run(
        new,
        "pg_upgrade",
        *("--old-bindir", old.installation.bindir),
        *("--new-bindir", new.installation.bindir),
        *("--old-datadir", old.data),
        *("--new-datadir", new.data),
        *("--socketdir", new.directory),
        *("--username", "postgres"),
        *options,
    )


def test_jobs_go_on_by_themselves_after_pg_upgrade(older: LocalServer, make_server: ServerMaker) -> None:
    with older.connect() as connection:
        connection.execute(f"CREATE ROLE {OWNER} LOGIN; GRANT USAGE ON SCHEMA cron TO {OWNER}".encode())
        connection.execute("CREATE DATABASE elsewhere")
        jobid = one(connection, "SELECT cron.schedule('lively', '1 second', 'SELECT 1')")
        theirs = one(
            connection,
            "SELECT cron.schedule_in_database('theirs', '1 second', 'SELECT current_user', 'elsewhere', %s)",
            OWNER,
        )
        wait_for_runs(connection, jobid)
        wait_for_runs(connection, theirs)
        identity = one(connection, "SELECT cron.installation()")
        definition = "SELECT to_jsonb(job) FROM cron.job ORDER BY jobid"
        jobs = rows(connection, definition)
    older.stop()
    with older.log_file.open() as log:
        before = len(log.read())

    new: Any = make_server()
    with new.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
    new.stop()
    if new.major >= CHECKSUMS_MAJOR > older.major:
        run(new, "pg_checksums", "--disable", "--pgdata", new.data)

    # The library is preloaded on both sides, as the configuration files say; nothing runs meanwhile.
    checked = upgrade(older, new, "--check")
    assert "Clusters are compatible" in checked
    upgrade(older, new)
    assert "pg_clockwork" not in older.log_file.read_text()[before:]

    new.start()
    with new.connect() as connection:
        assert one(connection, "SELECT cron.installation()") == identity
        assert rows(connection, "SELECT jobid FROM cron.held_jobs") == []
        assert rows(connection, definition) == jobs
        started = one(connection, "SELECT pg_postmaster_start_time()")
        for job in (jobid, theirs):
            wait_until(
                lambda job=job: [  # type: ignore[misc]
                    run
                    for run in runs_of(connection, job)
                    if run.status == "succeeded" and run.start_time and run.start_time > started
                ],
                message=f"a run of job {job} after the upgrade",
            )
        assert {run.username for run in runs_of(connection, theirs)} == {OWNER}
        assert rows(connection, "SELECT reason FROM cron.job_run_details WHERE reason = 'held'") == []
        assert one(connection, "SELECT cron.schedule('next', '@daily', 'x')") > theirs
    assert "jobs are held" not in new.log()
