"""What is measured: each function measures one side once and returns named figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench import machine
from bench.sides import Side

AT_ONCE = 32
BURSTS = (500, 2000)
RATES = (1, 10, 100)

# A side's figures of one repetition, by name.
Figures = dict[str, float]


@dataclass(slots=True)
class Plan:
    """How much of everything: the sizes of the table, or smaller ones."""

    repetitions: int = 5
    bursts: Sequence[int] = BURSTS
    rates: Sequence[int] = RATES
    tick_s: float = 20.0
    idle_s: float = 60.0
    many_jobs: int = 100_000
    history: int = 5_000_000
    day_s: float = 120.0


@dataclass(slots=True)
class Results:
    """Every figure of every repetition: name → side → list."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, side: str, found: Figures) -> None:
        for name, value in found.items():
            self.figures.setdefault(name, {}).setdefault(side, []).append(value)

    def values(self, name: str, side: str) -> list[float]:
        return self.figures.get(name, {}).get(side, [])

    def median(self, name: str, side: str) -> float | None:
        values = self.values(name, side)
        return statistics.median(values) if values else None


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the sorted values do not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


# --- bursts ------------------------------------------------------------------------------------


def floor(side: Side, count: int, at_once: int = AT_ONCE) -> Figures:
    before = side.cpu_s()
    start = time.perf_counter()
    side.sql("SELECT floor_burst(%s, %s)", (count, at_once))
    elapsed = time.perf_counter() - start
    time.sleep(0.2)
    return {
        f"burst {count}: runs/s": count / elapsed,
        f"burst {count}: CPU ms/run": (side.cpu_s() - before) / count * 1e3,
    }


def burst(side: Side, count: int, suffix: str = "") -> Figures:
    runs, costs = side.burst(count)
    if runs.failed:
        raise AssertionError(f"{side.key}: {runs.failed} of {count} runs did not succeed")
    name = f"burst {count}{suffix}"
    return {
        f"{name}: runs/s": count / runs.elapsed,
        f"{name}: p50 late ms": quantile(runs.lateness, 0.5) * 1e3,
        f"{name}: p99 late ms": quantile(runs.lateness, 0.99) * 1e3,
        f"{name}: earliest ms": runs.lateness[0] * 1e3,
        f"{name}: CPU ms/run": costs.cpu_s * 1e3,
        f"{name}: fdatasync/run": costs.syncs,
        f"{name}: WAL B/run": costs.wal,
    }


# --- punctuality -------------------------------------------------------------------------------


def punctuality(side: Side, rate: int, seconds: float) -> Figures:
    """`rate` jobs with the schedule `1 second`, spread over the second."""
    mark = side.mark()
    for number in range(rate):
        side.sql("SELECT cron.schedule(%s, '1 second', 'SELECT 1')", (f"tick{number}",))
        if rate > 1:
            time.sleep(1 / rate)
    time.sleep(2.0)
    before_runs, before = side.mark(), side.cpu_s()
    time.sleep(seconds)
    spent = (side.cpu_s() - before) / max(1, side.mark() - before_runs)
    side.remove_jobs("tick")
    time.sleep(1.5)
    late = side.tick_lateness(mark)
    found = {
        f"{rate}/s: p50 late ms": quantile(late, 0.5) * 1e3,
        f"{rate}/s: p99 late ms": quantile(late, 0.99) * 1e3,
        f"{rate}/s: worst late ms": late[-1] * 1e3,
        f"{rate}/s: CPU ms/run": spent * 1e3,
        f"{rate}/s: drift ms/run": drift(side, mark) * 1e3,
    }
    if not side.theirs:
        found[f"{rate}/s: earliest ms"] = late[0] * 1e3
    return found


def drift(side: Side, mark: int) -> float:
    """How much longer than a second the mean distance between the runs of a job is, in seconds."""
    rows = side.sql(
        "SELECT extract(epoch FROM max(start_time) - min(start_time))::float8, count(*) - 1"
        " FROM cron.job_run_details WHERE runid > %s AND start_time IS NOT NULL GROUP BY jobid HAVING count(*) > 2",
        (mark,),
    )
    return statistics.fmean(span / steps - 1 for span, steps in rows)


def lone_run(side: Side) -> Figures:
    """Flushes and log of a job that runs alone, once a second; what autovacuum commits is not the run's."""
    side.set_autovacuum("off")
    side.sql("SELECT cron.schedule('lone', '1 second', 'SELECT 1')")
    time.sleep(2.5)
    mark, syncs, wal = side.mark(), side.syncs(), side.wal_bytes()
    time.sleep(20)
    runs = side.mark() - mark
    found = {
        "lone run: fdatasync/run": (side.syncs() - syncs) / runs,
        "lone run: WAL B/run": (side.wal_bytes() - wal) / runs,
    }
    side.remove_jobs("lone")
    side.set_autovacuum("on")
    return found


# --- changes and idleness ----------------------------------------------------------------------


def noticed(side: Side) -> Figures:
    """From the commit of a new job until the launcher knows it, and until its first run."""
    ticks, known = [], []
    for number in range(5):
        # Off the second, so that a launcher that looks once a second has no luck.
        time.sleep(1.37 + number * 0.2)
        mark = side.mark()
        side.sql("SELECT cron.schedule('new', '1 second', 'SELECT 1')")
        committed = datetime.now(UTC)
        if not side.theirs:
            known.append(launcher_rested(side, committed))
        side.wait_for(
            "SELECT count(*) > 0 FROM cron.job_run_details WHERE runid > %s AND start_time IS NOT NULL", (mark,), 10
        )
        first = side.sql("SELECT min(start_time) FROM cron.job_run_details WHERE runid > %s", (mark,))[0][0]
        ticks.append((first - committed).total_seconds())
        side.remove_jobs("new")
    if side.theirs:
        # It counts the second from when it has read the job.
        known = [tick - 1 for tick in ticks]
    return {"new job: noticed ms": statistics.median(known) * 1e3, "new job: first tick s": statistics.median(ticks)}


def launcher_rested(side: Side, committed: datetime) -> float:
    """How long after `committed` the launcher lay down again, having read what changed; at least 0."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        time.sleep(0.02)
        rested = side.sql("SELECT state_change FROM pg_stat_activity WHERE backend_type = 'pg_clockwork launcher'")[0][
            0
        ]
        late = (rested - committed).total_seconds()
        # It may have been quicker than our own look at the clock.
        if late > -0.05:
            return max(0.0, late)
    return 5.0


def idle(side: Side, seconds: float, name: str = "idle") -> Figures:
    launcher = side.launcher
    # CREATE EXTENSION and VACUUM invalidate what is known of cron.job, and ours reads all jobs once more when it hears
    # of that, within half a minute as a rule: now, and not in the middle of the measurement.
    side.sql("SELECT cron.schedule('hear', '0 0 29 2 *', 'SELECT 1')")
    side.remove_jobs("hear")
    settle(side)
    side.stop_asking()
    # The launcher's timers of its last transaction are over by then.
    time.sleep(3.0)
    wakeups, spent = machine.wakeups(launcher), machine.cpu_s(launcher)
    time.sleep(seconds)
    wakeups, spent = machine.wakeups(launcher) - wakeups, machine.cpu_s(launcher) - spent
    side.idle_s = spent / seconds
    return {f"{name}: wake-ups/min": wakeups / seconds * 60, f"{name}: launcher CPU ms/min": spent / seconds * 6e4}


# --- many jobs ---------------------------------------------------------------------------------


@contextmanager
def many(side: Side, count: int) -> Iterator[None]:
    """So many jobs that are never due."""
    side.add_jobs(count, "0 0 29 2 *", "idle")
    side.sql("VACUUM ANALYZE cron.job")
    settle(side)
    yield
    side.remove_jobs("idle")
    side.sql("VACUUM cron.job")
    settle(side)


def settle(side: Side, timeout: float = 60.0) -> None:
    """Wait until the launcher has done what it had to do."""
    launcher, deadline = side.launcher, time.monotonic() + timeout
    spent = machine.cpu_s(launcher)
    while time.monotonic() < deadline:
        time.sleep(1.2)
        now = machine.cpu_s(launcher)
        if now - spent < (0.2 if side.theirs else 0.005):
            return
        spent = now


def schedule_cost(side: Side, jobs: int, calls: int = 300) -> Figures:
    """Milliseconds of one cron.schedule(), without the flush of its commit."""
    side.sql("SELECT cron.schedule('cost', '0 0 29 2 *', 'SELECT 1')")
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        side.sql(
            f"DO $$ BEGIN FOR i IN 1..{calls} LOOP PERFORM cron.schedule('cost' || i, '0 0 29 2 *', 'SELECT 1');"
            " END LOOP; RAISE EXCEPTION SQLSTATE 'CW000'; EXCEPTION WHEN SQLSTATE 'CW000' THEN NULL; END $$"
        )
        taken.append((time.perf_counter() - start) / calls)
    side.remove_jobs("cost")
    return {f"{jobs} jobs: cron.schedule() ms": min(taken) * 1e3}


def change_cost(side: Side, jobs: int) -> Figures:
    """Processor time of the launcher for one changed job: alone, out of its sleep, and (ours) one of many in a row."""
    count, pause = (5, 1.1) if side.theirs else (100, 0.02)
    side.sql("SELECT cron.schedule('change', '0 0 29 2 *', 'SELECT 1')")
    settle(side)
    launcher = side.launcher
    start, spent = time.monotonic(), machine.cpu_s(launcher)
    for number in range(count):
        side.sql("SELECT cron.schedule('change', %s, 'SELECT 1')", (f"{number % 60} 0 29 2 *",))
        time.sleep(pause)
    spent = machine.cpu_s(launcher) - spent - side.idle_s * (time.monotonic() - start)
    found = {f"{jobs} jobs: one change, launcher ms": max(0.0, spent) / count * 1e3}
    if not side.theirs:
        in_a_row, spent = 1000, machine.cpu_s(launcher)
        for number in range(in_a_row):
            side.sql("SELECT cron.schedule('change', %s, 'SELECT 1')", (f"{number % 60} 0 29 2 *",))
        found[f"{jobs} jobs: one change of many in a row, launcher ms"] = (
            (machine.cpu_s(launcher) - spent) / in_a_row * 1e3
        )
    side.remove_jobs("change")
    return found


def start_up(side: Side, name: str) -> Figures:
    """From the postmaster's start to the first run, of a job with the schedule @reboot."""
    side.sql("SELECT cron.schedule('boot', '@reboot', 'SELECT 1')")
    mark = side.mark()
    side.restart()
    side.wait_for(
        "SELECT count(*) > 0 FROM cron.job_run_details WHERE runid > %s AND start_time IS NOT NULL", (mark,), 120
    )
    ready = side.number(
        "SELECT extract(epoch FROM min(start_time) - pg_postmaster_start_time())"
        " FROM cron.job_run_details WHERE runid > %s",
        (mark,),
    )
    launcher = side.launcher
    found = {
        f"{name}: start-up s": ready,
        f"{name}: launcher CPU at start-up s": machine.cpu_s(launcher),
        f"{name}: launcher RSS MB": machine.status(launcher, "VmRSS") / 1024,
        f"{name}: launcher without shared memory MB": (
            machine.status(launcher, "VmRSS") - machine.status(launcher, "RssShmem")
        )
        / 1024,
        f"{name}: launcher private MB": machine.status(launcher, "RssAnon") / 1024,
    }
    side.remove_jobs("boot")
    return found


# --- a long history ----------------------------------------------------------------------------


def fill_history(side: Side, rows: int) -> None:
    side.sql(
        "INSERT INTO cron.job_run_details (jobid, runid, job_pid, database, username, command, status,"
        " return_message, start_time, end_time"
        + ("" if side.theirs else ", due_time, trigger, attempt, command_tag")
        + ")"
        " SELECT 1000000 + i %% 100, nextval('cron.runid_seq'), 1, 'postgres', 'postgres', 'SELECT 1', 'succeeded',"
        " 'SELECT 1', t, t + interval '1 ms'"
        + ("" if side.theirs else ", t, 'schedule', 1, 'SELECT'")
        + " FROM (SELECT i, now() - (%s - i) * interval '100 ms' AS t FROM generate_series(1, %s) i) AS s",
        (rows, rows),
    )
    side.sql("VACUUM ANALYZE cron.job_run_details")
    side.sql("CHECKPOINT")


# --- a day -------------------------------------------------------------------------------------


def day(side: Side, seconds: float) -> Figures:
    """100 jobs a second for a while: does memory grow, does the history bloat?"""
    side.restart({"autovacuum_naptime": "5s"})
    mark = side.mark()
    for number in range(100):
        side.sql("SELECT cron.schedule(%s, '1 second', 'SELECT 1')", (f"day{number}",))
    time.sleep(min(20.0, seconds / 4))
    launcher = side.launcher
    before = machine.status(launcher, "RssAnon")
    time.sleep(seconds)
    after = machine.status(launcher, "RssAnon")
    side.remove_jobs("day")
    time.sleep(7)
    updates, hot, dead, vacuums = side.sql(
        "SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count + autoanalyze_count"
        " FROM pg_stat_user_tables WHERE relid = 'cron.job_run_details'::regclass"
    )[0]
    runs = side.mark() - mark
    return {
        "day: runs": runs,
        "day: launcher grows kB/1000 runs": (after - before) / (seconds * 100) * 1000,
        "day: dead tuples/run": dead / max(1, runs),
        "day: HOT updates %": 100 * hot / updates if updates else 0.0,
        "day: autovacuum and autoanalyze runs": vacuums,
    }


# --- all of it ---------------------------------------------------------------------------------

Measure = Callable[[Side], Figures]


def repeat(sides: Sequence[Side], times: int, results: Results, measure: Measure, say: Callable[[str], None]) -> None:
    """Interleaved: every side once, then every side again, beginning with another one."""
    for turn in range(times):
        for place in range(len(sides)):
            side = sides[(turn + place) % len(sides)]
            found = measure(side)
            results.add(side.key, found)
            say(f"{side.key:8} " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()))


SECTIONS = ("bursts", "punctuality", "noticed", "idle", "many", "day", "history")


def measure_all(
    sides: Sequence[Side], plan: Plan, results: Results, say: Callable[[str], None], only: Sequence[str] = SECTIONS
) -> None:
    fresh = sides[0]
    times = plan.repetitions
    few = max(1, min(times, 3))

    def each(repetitions: int, measure: Measure) -> None:
        repeat(sides, repetitions, results, measure, say)

    if "bursts" in only:
        for side in sides:
            side.burst(100)  # plans, caches and full-page images
        for count in plan.bursts:
            for _ in range(times):
                results.add("floor", floor(fresh, count))
                each(1, lambda side, n=count: burst(side, n))
        each(few, lone_run)
    if "punctuality" in only:
        for rate in plan.rates:
            each(times, lambda side, n=rate: punctuality(side, n, plan.tick_s))
    if "noticed" in only:
        each(few, noticed)
    if "idle" in only:
        each(1, lambda side: idle(side, plan.idle_s, "idle, no job"))
    if "many" in only:
        for side in sides:
            for jobs in (10, plan.many_jobs):
                with many(side, jobs):
                    seconds = plan.idle_s if jobs == plan.many_jobs else 5.0
                    repeat([side], 1, results, lambda side, n=jobs, s=seconds: idle(side, s, f"idle, {n} jobs"), say)
                    for measure in (schedule_cost, change_cost):
                        repeat([side], few, results, lambda side, m=measure, n=jobs: m(side, n), say)
                    repeat([side], few, results, lambda side, n=jobs: burst(side, 200, f" among {n}"), say)
                    repeat([side], few, results, lambda side, n=jobs: start_up(side, f"{n} jobs"), say)
    if "day" in only:
        each(1, lambda side: day(side, plan.day_s))
    if "history" in only:
        each(times, lambda side: start_up(side, "empty history"))
        each(times, lambda side: burst(side, 500, ", empty history"))
        for side in sides:
            fill_history(side, plan.history)
        each(times, lambda side: start_up(side, "long history"))
        each(times, lambda side: burst(side, 500, ", long history"))
