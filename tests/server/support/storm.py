"""A storm: jobs of every kind, and a seeded sequence of faults from which nothing is safe.

The order and the details of the faults depend on the seed alone. What the machine makes of them does not, so a
seed repeats the storm and not every interleaving. When it is over the storm heals what it broke, waits until every
job runs again and every record is final, and gives the history to the checker.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.server.support.checker import JOURNAL, NOTE_RUN, Span, Timeline, check
from tests.server.support.jobs import OPEN, Connection, launcher_pid, one, rows, schedule, workers
from tests.support.complaints import find_complaints
from tests.support.servers import LocalServer
from tests.support.waiting import wait_until

CAP = 6

SETTINGS = {
    "cron.max_running_jobs": CAP,
    "max_worker_processes": 16,
    "max_parallel_workers": 16,
    "max_parallel_workers_per_gather": 16,
    "log_min_messages": "warning",
    "deadlock_timeout": "200ms",
}

# How long the launcher may take to act on a change that it can read.
NOTICE_S = 10.0

BACK_TIMEOUT_S = 60.0

# The longest time without a launcher: a crash, its recovery, and the postmaster's second.
ABSENCE = timedelta(seconds=10)

# How late a launcher may be on a machine that has a lot to do.
LATENESS = timedelta(seconds=1)

# A parallel plan that holds as many workers as it gets for a while.
HOG = """
CREATE TABLE public.hog AS SELECT i FROM generate_series(1, 32) AS i;
ALTER TABLE public.hog SET (parallel_workers = 16);
CREATE FUNCTION public.nap(i int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE COST 1000000 AS
  $$ BEGIN PERFORM pg_sleep(0.05); RETURN i; END $$;
"""

CREATE_ROLE = "DO $$ BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"

COMMANDS = {
    "quick": NOTE_RUN,
    "half": f"{NOTE_RUN}; SELECT pg_sleep(0.5)",
    "long": f"{NOTE_RUN}; SELECT pg_sleep(2.5)",
    "failing": f"{NOTE_RUN}; SELECT 1 / 0",
    "at commit": f"{NOTE_RUN}; INSERT INTO public.deferred VALUES (1)",
    "large error": f"{NOTE_RUN}; DO $$ BEGIN RAISE '%', repeat('e', 3000000); END $$",
    "notices": f"{NOTE_RUN}; DO $$ BEGIN FOR i IN 1 .. 500 LOOP RAISE NOTICE 'n'; END LOOP; END $$",
    "suicide": f"{NOTE_RUN}; SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(1)",
}


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Churned:
    """A job that the storm itself changes."""

    jobid: int
    name: str
    schedule: str
    active: bool = True


@dataclass(slots=True)
class Storm:
    server: LocalServer
    seed: int
    random: random.Random = field(init=False)
    faults: Counter[str] = field(default_factory=Counter)
    timelines: dict[int, Timeline] = field(default_factory=dict)
    churned: dict[int, Churned] = field(default_factory=dict)
    deaths: list[datetime] = field(default_factory=list)
    absences: list[datetime] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    statistics: str = ""
    _conn: Connection | None = None
    _holders: list[tuple[float, Connection]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # --- the course of it ----------------------------------------------------------------------

    def run(self, seconds: float = 0.0) -> None:
        """Each kind of fault once, in an order that the seed decides; again and again for so many seconds."""
        self.prepare()
        started = time.monotonic()
        deadline = started + seconds
        rounds = 0
        while rounds == 0 or time.monotonic() < deadline:
            deck = self.deck()
            self.random.shuffle(deck)
            for fault in deck:
                fault()
                self.faults[fault.__name__] += 1
                self.breathe()
            rounds += 1
        stormed = time.monotonic() - started
        self.heal()
        self.rest()
        self.report(stormed)

    def deck(self) -> list[Callable[[], None]]:
        mild = [self.cancel_launcher, self.cancel_worker, self.terminate_worker, self.reload]
        grave = [self.kill_launcher, self.kill_worker, self.crash, self.restart, self.kill_postmaster]
        locks = [self.lock_jobs, self.lock_history, self.lock_history, self.lock_rows]
        changes = [self.add_job, self.add_job, self.reschedule, self.rename, self.switch, self.remove, self.delete_row]
        others = [
            self.terminate_launcher,
            self.terminate_launcher,
            self.exhaust_workers,
            self.lose_role,
            self.lose_database,
        ]
        return [*mild, *grave, *locks, *changes, *others]

    def breathe(self) -> None:
        """Go on for a moment, and let go of the locks whose time has come."""
        # The pause is the rhythm of the storm; nothing is asserted after it.
        time.sleep(self.random.uniform(0.05, 0.6))
        for holder in [held for held in self._holders if held[0] <= time.monotonic()]:
            self._holders.remove(holder)
            with contextlib.suppress(psycopg.Error):
                holder[1].close()

    def prepare(self) -> None:
        conn = self.connect()
        conn.execute(JOURNAL.encode())
        conn.execute(HOG.encode())
        # Refuses every row, but only when the transaction commits.
        conn.execute(
            "CREATE TABLE public.deferred (i int);"
            " CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;"
            " CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.deferred DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION public.refuse()"
        )
        conn.execute("CREATE DATABASE elsewhere")
        for name, command in COMMANDS.items():
            self.add(name, "1 second", command)
        self.add("calendar", "*/2 * * * * *", NOTE_RUN)
        self.add("minutely", "* * * * *", NOTE_RUN)
        self.add("elsewhere", "1 second", "SELECT pg_sleep(0.1)", database="elsewhere", journal=False)
        self.add("own commits", "1 second", f"{NOTE_RUN}; COMMIT; SELECT 1 / 0", journal=False)
        for _ in range(3):
            self.add_job()

    # --- jobs and what is known of them ---------------------------------------------------------

    def add(self, name: str, when: str, command: str, *, database: str = "postgres", journal: bool = True) -> int:
        before = now()
        jobid = self.retry(lambda conn: schedule(conn, name, when, command, database=database))
        self.timelines[jobid] = Timeline(name, journal=journal)
        self.note(jobid, before, when)
        return jobid

    def note(self, jobid: int, before: datetime, when: str | None) -> None:
        """The job's definition changed since `before`; None if there is none in force now."""
        after = now()
        # What fell due while there was no launcher, of a definition that was changed before there was one, is unknown.
        # So is what a launcher was late for when it died. One absence may have followed upon another.
        for at in sorted(self.absences, reverse=True):
            if before - ABSENCE < at < before:
                before = at - LATENESS
        known = max(after, self.locked_until()) + timedelta(seconds=NOTICE_S)
        span = None
        if when is not None:
            anchor = self.retry(lambda conn: rows(conn, "SELECT schedule_anchor FROM cron.job WHERE jobid = %s", jobid))
            span = Span(when, since=before - timedelta(seconds=1), surely_since=known, anchor=anchor[0][0])
            if not self.timelines[jobid].spans and not self._holders:
                span.surely_since = after + timedelta(seconds=NOTICE_S)
        self.timelines[jobid].change(before, known, span)

    def locked_until(self) -> datetime:
        """When the last lock that is held now will be gone."""
        left = max((until - time.monotonic() for until, _ in self._holders), default=0.0)
        return now() + timedelta(seconds=max(left, 0.0) + 1)

    def pick(self) -> Churned | None:
        return self.random.choice(list(self.churned.values())) if self.churned else None

    # --- faults: processes -----------------------------------------------------------------------

    def launcher(self) -> int | None:
        return self.retry(launcher_pid)

    def some_worker(self) -> int | None:
        found = self.retry(workers)
        return self.random.choice(found) if found else None

    def signal(self, pid: int | None, number: signal.Signals) -> None:
        with contextlib.suppress(Exception):
            if pid is not None:
                self.server.kill(pid, number)

    def cancel_launcher(self) -> None:
        self.signal(self.launcher(), signal.SIGINT)

    def cancel_worker(self) -> None:
        self.signal(self.some_worker(), signal.SIGINT)

    def terminate_worker(self) -> None:
        self.signal(self.some_worker(), signal.SIGTERM)

    def terminate_launcher(self) -> None:
        self.absences.append(now())
        self.signal(self.launcher(), signal.SIGTERM)

    def reload(self) -> None:
        self.server.reload()

    def kill_launcher(self) -> None:
        self.died()
        self.signal(self.launcher(), signal.SIGKILL)
        self.back()

    def kill_worker(self) -> None:
        self.died()
        self.signal(self.some_worker(), signal.SIGKILL)
        self.back()

    def crash(self) -> None:
        self.died()
        self.server.crash()
        self.server.start()
        self.back()

    def kill_postmaster(self) -> None:
        self.died()
        self.server.kill_postmaster()
        self.server.start()
        self.back()

    def restart(self) -> None:
        self.died()
        self.drop_holders()
        self.server.restart()
        self.back()

    def died(self) -> None:
        self.deaths.append(now())
        self.absences.append(now())

    def back(self) -> None:
        """The server answers again; its launcher may not be there yet."""
        # It died between the intention and now: picking a victim takes its time.
        self.deaths.append(now())
        self.drop_holders()
        # A killed process is noticed a moment later; until then the old connections work.
        time.sleep(0.1)
        self.retry(lambda conn: one(conn, "SELECT 1"))

    # --- faults: locks ----------------------------------------------------------------------------

    def hold(self, statement: str) -> None:
        """A transaction that keeps what the statement locked for up to two and a half seconds."""
        try:
            holder = self.server.connect()
            holder.execute("SET lock_timeout = '1s'; SET statement_timeout = '10s'")
            holder.execute("BEGIN")
            holder.execute(statement.encode())
        except psycopg.Error:
            return
        self._holders.append((time.monotonic() + self.random.uniform(0.3, 2.5), holder))

    def drop_holders(self) -> None:
        for _, holder in self._holders:
            with contextlib.suppress(psycopg.Error):
                holder.close()
        self._holders.clear()

    def lock_jobs(self) -> None:
        self.hold("LOCK TABLE cron.job IN ACCESS EXCLUSIVE MODE")

    def lock_history(self) -> None:
        self.hold("LOCK TABLE cron.job_run_details IN ACCESS EXCLUSIVE MODE")

    def lock_rows(self) -> None:
        self.hold("SELECT FROM cron.job_run_details WHERE end_time IS NULL FOR UPDATE SKIP LOCKED")

    # --- faults: changes ----------------------------------------------------------------------------

    def free(self) -> None:
        """Changes wait until nobody holds a lock: they are what is tried here, not waiting."""
        wait = max((until - time.monotonic() for until, _ in self._holders), default=0.0)
        time.sleep(max(wait, 0.0))
        self.drop_holders()

    def add_job(self) -> None:
        self.free()
        self._count += 1
        name, when = f"churned {self._count}", self.random.choice(["1 second", "2 seconds", "* * * * * *"])
        jobid = self.add(name, when, self.random.choice([COMMANDS["quick"], COMMANDS["half"]]))
        self.churned[jobid] = Churned(jobid, name, when)

    def change(self, job: Churned, statement: str, *parameters: Any, when: str | None) -> None:
        self.free()
        before = now()
        self.retry(lambda conn: conn.execute(statement.encode(), parameters))
        self.note(job.jobid, before, when)

    def reschedule(self) -> None:
        if (job := self.pick()) and job.active:
            job.schedule = self.random.choice(["1 second", "3 seconds", "*/3 * * * * *"])
            self.change(job, "SELECT cron.alter_job(%s, schedule := %s)", job.jobid, job.schedule, when=job.schedule)

    def switch(self) -> None:
        if job := self.pick():
            job.active = not job.active
            statement = "SELECT cron.alter_job(%s, active := %s)"
            self.change(job, statement, job.jobid, job.active, when=job.schedule if job.active else None)

    def rename(self) -> None:
        if job := self.pick():
            options = f'{{"name": "{job.name} again"}}'
            job.name += " again"
            when = job.schedule if job.active else None
            self.change(job, "SELECT cron.alter_job(%s, %s::jsonb)", job.jobid, options, when=when)

    def remove(self) -> None:
        if job := self.pick():
            del self.churned[job.jobid]
            self.change(job, "SELECT cron.unschedule(%s::bigint)", job.jobid, when=None)

    def delete_row(self) -> None:
        if job := self.pick():
            del self.churned[job.jobid]
            self.change(job, "DELETE FROM cron.job WHERE jobid = %s", job.jobid, when=None)

    def lose_role(self) -> None:
        """A role with a job comes and goes; the job stays."""
        self._count += 1
        role = f"storm_{self._count}"
        self.free()
        self.retry(lambda conn: conn.execute(CREATE_ROLE.format(role).encode()))
        before = now()
        jobid = self.retry(lambda conn: schedule(conn, role, "1 second", "SELECT 1", username=role))
        self.timelines[jobid] = Timeline(role, journal=False)
        self.note(jobid, before, "1 second")
        self.breathe()
        self.retry(lambda conn: conn.execute(f"DROP ROLE IF EXISTS {role}".encode()))

    def lose_database(self) -> None:
        self.retry(lambda conn: conn.execute(b"DROP DATABASE IF EXISTS elsewhere WITH (FORCE)"))
        self.breathe()
        with contextlib.suppress(psycopg.errors.DuplicateDatabase):
            self.retry(lambda conn: conn.execute(b"CREATE DATABASE elsewhere"))

    # --- faults: resources --------------------------------------------------------------------------

    def exhaust_workers(self) -> None:
        """A parallel query takes every background worker that is free."""
        with contextlib.suppress(psycopg.Error), self.server.connect() as conn:
            conn.execute("SET statement_timeout = '20s'")
            conn.execute(
                "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"
            )
            conn.execute("SELECT sum(public.nap(i)) FROM public.hog")

    # --- afterwards ---------------------------------------------------------------------------------

    def heal(self) -> None:
        self.drop_holders()
        self.free()

    def rest(self) -> None:
        """Every job runs again; then none does, and nothing is open."""
        living = [
            jobid
            for jobid, timeline in self.timelines.items()
            if timeline.spans[-1].schedule and not timeline.spans[-1].is_over
        ]
        since = now()

        def silent() -> list[str]:
            statement = (
                "SELECT jobid FROM cron.job_run_details WHERE jobid = ANY (%s) AND due_time > %s"
                " AND status = ANY ('{succeeded,failed,skipped}')"
            )
            seen = {row[0] for row in self.retry(lambda conn: rows(conn, statement, living, since))}
            return [
                self.timelines[jobid].name
                for jobid in living
                if jobid not in seen and self.timelines[jobid].name != "minutely"
            ]

        try:
            wait_until(lambda: not silent(), BACK_TIMEOUT_S, "every job to run again after the storm")
        except AssertionError:
            self.violations.append(f"after the storm these jobs stood still: {silent()}")
        before = now()
        self.retry(lambda conn: conn.execute("SELECT cron.unschedule(jobid) FROM cron.job"))
        for jobid in living:
            self.note(jobid, before, None)
        statement = "SELECT count(*) FROM cron.job_run_details WHERE status = ANY (%s)"
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: self.retry(lambda conn: one(conn, statement, list(OPEN))) == 0,
                BACK_TIMEOUT_S,
                "every run to end",
            )

    def report(self, stormed: float) -> None:
        conn = self.connect()
        self.violations += check(conn, self.timelines, until=now(), cap=CAP, deaths=self.deaths)
        kinds = dict(
            rows(
                conn,
                "SELECT concat_ws(' ', status, reason), count(*) FROM cron.job_run_details GROUP BY 1 ORDER BY 2 DESC",
            )
        )
        self.violations += [f"the server's log says {line}" for line in find_complaints(self.server.log())]
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        outcomes = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        self.statistics = (
            f"storm: seed {self.seed}, PostgreSQL {self.server.version}, {stormed:.0f} s\n"
            f"  {sum(self.faults.values())} faults: {faults}\n"
            f"  {len(self.timelines)} jobs, {sum(kinds.values())} records: {outcomes}\n"
            f"  {len(self.violations)} violations"
        )

    # --- connections ----------------------------------------------------------------------------------

    def connect(self) -> Connection:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = self.server.connect()
        return self._conn

    def retry(self, work: Callable[[Connection], Any]) -> Any:
        """Do it on a connection that works, as soon as the server gives one."""
        deadline = time.monotonic() + BACK_TIMEOUT_S
        while True:
            try:
                return work(self.connect())
            except (psycopg.OperationalError, psycopg.errors.ObjectInUse):
                if time.monotonic() > deadline:
                    raise
                if self._conn is not None and self._conn.broken:
                    self._conn.close()
                time.sleep(0.05)
