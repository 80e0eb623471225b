"""Library and SQL of different versions: a clear refusal that names both, a launcher that pauses and goes on, no crash."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.support.jobs import launcher_pid, one, rows, runs_of, wait_for_runs
from tests.server.support.watching import wakeups
from tests.server.surface import Connection, Refusal, refusal, value
from tests.support.plugin import ServerMaker
from tests.support.waiting import wait_until

UPDATE = "Run ALTER EXTENSION pg_clockwork UPDATE."
RESTART = "Install the library of the extension's version and restart the server."

CALLS = [
    "cron.schedule('@reboot', '')",
    "cron.schedule('n', '@reboot', '', '{}')",
    "cron.schedule_in_database('n', '@reboot', '', 'postgres')",
    "cron.unschedule(1)",
    "cron.unschedule('n')",
    "cron.alter_job(1, active => true)",
    "cron.alter_job(1, '{\"active\": true}'::jsonb)",
    "cron.adopt()",
    "cron.adopt(1)",
]

PAUSES = "pg_clockwork launcher pauses: the extension has version"


def library_version(connection: Connection) -> str:
    return str(value(connection, "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_clockwork'"))


def set_version(connection: Connection, version: str) -> None:
    connection.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'pg_clockwork'", [version])


@pytest.mark.local_only
@pytest.mark.parametrize(("wrong", "hint"), [("0.0.9", UPDATE), ("0.1", UPDATE), ("99.0", RESTART), ("what", RESTART)])
def test_another_version_of_the_sql_is_refused_and_the_launcher_waits_for_the_right_one(
    make_server: ServerMaker, wrong: str, hint: str
) -> None:
    server: Any = make_server()
    with server.connect() as connection:
        right = library_version(connection)
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        wait_for_runs(connection, jobid)
        set_version(connection, wrong)
    server.restart()
    wait_until(lambda: PAUSES in server.log(), message="a launcher that pauses")
    with server.connect() as connection:
        expected = Refusal(
            "55000",
            f'extension "pg_clockwork" has version {wrong},'
            f" but the library that the server has loaded has version {right}",
            None,
            hint,
        )
        assert {call: refusal(connection, f"SELECT {call}") for call in CALLS} == dict.fromkeys(CALLS, expected)
        # Rows can be read and changed, and wake nobody who would not understand them.
        connection.execute("UPDATE cron.job SET command = 'SELECT 2'")
        assert value(connection, "SELECT count(*) FROM cron.next_runs('@daily')") == 5
        before = one(connection, "SELECT max(runid) FROM cron.job_run_details")
        pid = launcher_pid(connection)
        assert pid is not None
        seen = wakeups(pid)
        wait_until(lambda: wakeups(pid) >= seen + 3, message="the launcher to look again and again")
        assert launcher_pid(connection) == pid
        assert one(connection, "SELECT max(runid) FROM cron.job_run_details") == before
        log = server.log()
        assert log.count(PAUSES) == 1
        assert f"{PAUSES} {wrong}, the library has version {right}" in log

        set_version(connection, right)
        wait_until(lambda: one(connection, "SELECT max(runid) FROM cron.job_run_details") > before, message="a record")
        wait_until(lambda: runs_of(connection, jobid)[-1].command == "SELECT 2", message="a run of the new command")
        assert launcher_pid(connection) == pid
    assert server.log().count("pg_clockwork launcher goes on") == 1


@pytest.mark.local_only
def test_alter_extension_update_puts_it_right(make_server: ServerMaker) -> None:
    server: Any = make_server()
    scripts = [Path(server.directory, "extension", "share", "extension"), server.installation.sharedir / "extension"]
    folder = next(folder for folder in scripts if (folder / "pg_clockwork.control").exists())
    with server.connect() as connection:
        right = library_version(connection)
        (folder / f"pg_clockwork--0.0.9--{right}.sql").write_text("UPDATE cron.job SET priority = 1;\n")
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        set_version(connection, "0.0.9")
    server.restart()
    wait_until(lambda: PAUSES in server.log(), message="a launcher that pauses")
    with server.connect() as connection:
        before = one(connection, "SELECT coalesce(max(runid), 0) FROM cron.job_run_details")
        connection.execute("ALTER EXTENSION pg_clockwork UPDATE")
        assert rows(connection, "SELECT priority FROM cron.job") == [(1,)]
        wait_until(
            lambda: [r for r in runs_of(connection, jobid) if r.runid > before and r.status == "succeeded"],
            message="a run",
        )


# The header of the control panel never changes place or meaning: magic, version, size.
SPOILER = """\
/* Spoils the header of pg_clockwork's shared memory, as another version of the library would lay it out. */
#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

PG_MODULE_MAGIC;

static shmem_startup_hook_type previous = NULL;

static void
spoil(void)
{
	bool found;
	uint32 *header;

	if (previous)
		previous();
	header = ShmemInitStruct("pg_clockwork", PANEL_SIZE, &found);
	if (!found)
		elog(FATAL, "there is no panel to spoil");
	header[FIELD] += 1;
}

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	previous = shmem_startup_hook;
	shmem_startup_hook = spoil;
}
"""

MAKEFILE = """\
MODULES = spoiler
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
override with_llvm = no
include $(PGXS)
override CFLAGS := $(filter-out -Wmissing-variable-declarations,$(CFLAGS))
"""


@pytest.mark.local_only
@pytest.mark.parametrize("field", [0, 1, 2], ids=["magic", "version", "size"])
def test_shared_memory_of_another_version_is_refused_before_it_is_used(
    make_server: ServerMaker, tmp_path: Path, field: int
) -> None:
    server: Any = make_server()
    with server.connect() as connection:
        size = value(connection, "SELECT size FROM pg_shmem_allocations WHERE name = 'pg_clockwork'")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "spoiler.c").write_text(SPOILER)
    build = subprocess.run(
        ["make", "-s", f"PG_CONFIG={server.origin.pg_config}", f"PG_CPPFLAGS=-DPANEL_SIZE={size} -DFIELD={field}"],
        cwd=tmp_path,
        env={name: text for name, text in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    library = Path(server.directory, "spoiler.so")
    library.write_bytes((tmp_path / "spoiler.so").read_bytes())
    library.chmod(0o755)
    server.configure({"shared_preload_libraries": f"pg_clockwork,{library}"})
    server.restart()
    with server.connect() as connection:
        for call in CALLS:
            refused = refusal(connection, f"SELECT {call}")
            assert refused.sqlstate == "55000"
            assert refused.message == "pg_clockwork's shared memory was laid out by another version of the library"
            assert refused.hint == "Restart the server."
        wait_until(
            lambda: "pg_clockwork's shared memory was laid out by another version" in server.log(),
            message="the launcher's refusal",
        )
        assert launcher_pid(connection) is None
    server.stop()
    assert "PANIC" not in server.log()
    assert "was terminated by signal" not in server.log()
