"""Primaries and standbys: following, rejoining, and clocks that differ from node to node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scheduler.cluster import Setting
from scheduler.errors import ClusterError
from tests.server.support.jobs import Connection, launcher_pid, one, rows, workers
from tests.support.servers import LocalServer
from tests.support.waiting import wait_until

# What pg_rewind, and a backup from a standby, ask of a server. pg_rewind's query is dear enough for JIT, whose
# library some installations have without LLVM.
REWINDABLE: Mapping[str, Setting] = {
    "wal_log_hints": True,
    "full_page_writes": True,
    "wal_keep_size": "256MB",
    "jit": False,
}

# Stands before the C library's: every reading of the calendar clock is off by so many seconds.
CLOCK_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long
offset(void)
{
	const char *text = getenv("CLOCK_OFFSET_SECONDS");

	return text ? atol(text) : 0;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			result;

	if (!real)
		*(void **) &real = dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, now);
	if (result == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += offset();
	return result;
}

int
gettimeofday(struct timeval *now, void *zone)
{
	struct timespec exact;
	int			result = clock_gettime(CLOCK_REALTIME, &exact);

	(void) zone;
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return result;
}

time_t
time(time_t *place)
{
	struct timespec exact;

	(void) clock_gettime(CLOCK_REALTIME, &exact);
	if (place)
		*place = exact.tv_sec;
	return exact.tv_sec;
}
"""


def set_clock(server: LocalServer, seconds: int) -> None:
    """Let a server that is not running live that many seconds in the future (or, negative, in the past)."""
    source = server.directory / "clock.c"
    library = source.with_suffix(".so")
    source.write_text(CLOCK_SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    server.environment = {
        **server.environment,
        "LD_PRELOAD": os.fspath(library),
        "CLOCK_OFFSET_SECONDS": str(seconds),
    }


@contextmanager
def standby_of(
    upstream: LocalServer, settings: Mapping[str, Setting] | None = None, *, clock: int = 0
) -> Iterator[LocalServer]:
    """A running standby of a primary, or of another standby; its clock may differ."""
    standby = upstream.standby(settings)
    try:
        if clock:
            set_clock(standby, clock)
        standby.start()
        yield standby
    finally:
        standby.close()


def rejoin(old: LocalServer, new: LocalServer) -> None:
    """Make a former primary, stopped now, a standby of the one that took its place."""
    # The control file has to know the new timeline, which a promotion leaves to the next checkpoint.
    new.sql("CHECKPOINT")
    # pg_rewind puts the other server's configuration in the place of ours.
    configuration = old.data / "postgresql.conf"
    kept = configuration.read_text()
    try:
        old._run("pg_rewind", "--target-pgdata", old.data, "--source-server", new.dsn(), "--no-sync")
    except ClusterError as exc:
        raise AssertionError(exc.hint) from exc
    configuration.write_text(kept)
    Path(old.data, "postgresql.auto.conf").write_text(f"primary_conninfo = '{new.dsn()}'\n")
    Path(old.data, "standby.signal").touch()
    old.account.own(old.data)
    old.start()


def wait_for_replay(upstream: Connection, standby: Connection) -> None:
    """Wait until the standby shows what the upstream has written by now."""
    written = one(
        upstream,
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END",
    )
    wait_until(
        lambda: one(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written), message="the standby to follow"
    )


def assert_idle(conn: Connection) -> None:
    """A standby on which nothing of ours goes on."""
    assert one(conn, "SELECT pg_is_in_recovery()")
    assert launcher_pid(conn) is None
    assert workers(conn) == []


def assert_once_per_due_time(conn: Connection) -> None:
    """No due time of a job has two runs."""
    doubled = rows(
        conn,
        "SELECT jobid, due_time, array_agg(timeline) FROM cron.job_run_details"
        " WHERE due_time IS NOT NULL AND status <> 'skipped' GROUP BY 1, 2 HAVING count(*) > 1",
    )
    assert doubled == []
