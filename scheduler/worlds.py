"""Worlds for the simulator, each made of nothing but a number, and what comes of many of them.

    >>> statistics = survey(range(3))
    >>> statistics.worlds, statistics.violations
    (3, [])

A world has a few jobs under random options, in zones whose clocks change, and
a dozen incidents: the launcher or the server is away, the clock is set, jobs
are paused and resumed; its runs succeed, fail, crash, hang and ignore that
they are canceled. The same number gives the same world everywhere, so a
violation is reported by its number.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from scheduler.cron.policy import Limits, Missed, Outcome, Overlap, Rules
from scheduler.simulator import DAY, HOUR, SECOND, Behaviour, Happening, Incident, Job, World, check

__all__ = ["Statistics", "make_world", "simulate", "survey"]

MINUTE: Final = 60 * SECOND
YEAR: Final = 365.25 * DAY

# A Friday before the clocks of Berlin go forward.
SPRING: Final = 1_900_368_000 * SECOND

SCHEDULES: Final = [
    "*/5 * * * *",
    "*/30 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "15 1-3 * * *",
    "0 0 * * 1",
    "30 4 L * *",
    "@every 45 minutes",
    "@every 7 hours",
]

HAPPENINGS: Final[list[Happening]] = ["launcher", "crash", "step", "pause", "resume", "step"]

# A quiet day for each of these at most, until what is under way has come to its end.
_QUIET_DAYS: Final = 400


def make_world(seed: int, days: int | None = None) -> tuple[World, int]:
    """A world of a few jobs and incidents, and how long it lasts: 2, 7 or 30 days unless given."""
    rng = random.Random(seed)
    pick = rng.choice
    lasts = pick([2, 7, 30])
    days = lasts if days is None else days
    jobs = []
    for number in range(1, rng.randint(2, 5)):
        overlap = pick(list(Overlap))
        begin = SPRING + rng.randrange(-40, 40) * DAY
        rules = Rules(
            on_overlap=overlap,
            max_parallel=pick([None, 1, 2, 3]) if overlap is Overlap.PARALLEL else None,
            on_missed=pick(list(Missed)),
            start_deadline=pick([None, None, 10 * SECOND, 3 * MINUTE, 2 * HOUR]),
            timeout=pick([None, 30 * SECOND, 20 * MINUTE]),
            max_attempts=pick([1, 1, 2, 5]),
            retry_delay=pick([0, 10 * SECOND, MINUTE, HOUR]),
            retry_on=pick([None, None, ("40",), ("22012", "57")]),
            jitter=pick([0, 0, MINUTE, HOUR, DAY]),
            priority=pick([-1000, -1, 0, 0, 5, 1000]),
            starts_at=pick([None, None, begin]),
            ends_at=pick([None, None, begin + 20 * DAY]),
            pause_after=pick([None, None, 1, 3]),
        )
        zone = pick([None, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")])
        job = Job(number, pick(SCHEDULES), rules, zone, pick(["anna", "ben"]))
        job.behave = _make_behave(rng.random(), seed, number)
        jobs.append(job)
    incidents = [
        Incident(
            rng.randrange(days * DAY),
            what := pick(HAPPENINGS),
            pick([1, 30, 61, 400, 4000, 90000]) * SECOND * (pick([1, 1, -1]) if what == "step" else 1),
            rng.randint(1, len(jobs)),
        )
        for _ in range(rng.randrange(12))
    ]
    limits = Limits(
        max_running=pick([1, 2, 8]),
        max_running_per_role=pick([0, 0, 1, 3]),
        grace=pick([0, 10 * SECOND]),
        max_retry_delay=pick([MINUTE, HOUR]),
    )
    return World(jobs, start=SPRING, limits=limits, incidents=incidents), days * DAY


def _make_behave(mood: float, seed: int, number: int) -> Callable[[int, int], Behaviour]:
    def behave(due: int, attempt: int) -> Behaviour:
        rng = random.Random(f"{seed} {number} {due} {attempt}")
        outcome = Outcome.SUCCEEDED
        if rng.random() < mood:
            outcome = rng.choice([Outcome.FAILED, Outcome.FAILED, Outcome.CRASHED, Outcome.CANCELED])
        lasts = rng.choice([0, 1, 1, 20, 70, 400, 8000])
        return Behaviour(lasts * SECOND, outcome, rng.choice(["22012", "40001", "57014"]), rng.random() < 0.2)

    return behave


def simulate(seed: int, days: int | None = None) -> World:
    """The world, and after it a quiet time in which what is under way comes to its end."""
    world, length = make_world(seed, days)
    world.run(length)
    world.close()
    for _ in range(_QUIET_DAYS):
        if not world.unfinished:
            break
        world.run(world.mono + DAY)
    return world


@dataclass(slots=True)
class Statistics:
    """What happened in many worlds."""

    worlds: int = 0
    simulated: int = 0
    """Microseconds on the clocks of the worlds, quiet times at their ends included."""
    schedules: int = 0
    events: int = 0
    due_times: int = 0
    """Accounted for: by a run, or by a record that says why there was none."""
    attempts: int = 0
    incidents: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    """By status and reason."""
    violations: list[str] = field(default_factory=list)

    @property
    def years(self) -> float:
        return self.simulated / YEAR

    def add(self, seed: int, days: int | None = None) -> None:
        """Simulate a world more."""
        world = simulate(seed, days)
        self.worlds += 1
        self.simulated += world.mono
        self.schedules += len(world.jobs)
        self.events += world.events
        self.incidents.update(incident.what for incident in world.incidents)
        for record in world.records:
            self.due_times += record.count if record.attempt == 1 else 0
            self.attempts += record.began is not None
            self.records[" ".join(filter(None, (record.status, record.reason)))] += 1
        self.violations += [f"world {seed}: {violation}" for violation in check(world)]


def survey(seeds: Iterable[int], days: int | None = None) -> Statistics:
    """Simulate the worlds of these numbers."""
    statistics = Statistics()
    for seed in seeds:
        statistics.add(seed, days)
    return statistics
