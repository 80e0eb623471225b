"""Years of schedules under every policy, with outages, clocks that are set, DST, failures and hung runs."""

from __future__ import annotations

import os
import random
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.cron.policy import Limits, Missed, Outcome, Overlap, Rules
from scheduler.simulator import DAY, HOUR, SECOND, Behaviour, Incident, Job, World, check

MINUTE = 60 * SECOND

# A Friday before the clocks of Berlin go forward.
SPRING = 1_900_368_000 * SECOND

# CLOCKWORK_SIMULATE=2000 simulates that many worlds instead of a few.
WORLDS = int(os.environ.get("CLOCKWORK_SIMULATE", "60"))

SCHEDULES = [
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


def make_world(seed: int) -> tuple[World, int]:
    """A world of a few jobs and incidents, and how long it lasts: all of it from the seed."""
    rng = random.Random(seed)
    pick = rng.choice
    days = pick([2, 7, 30])
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
        job.behave = make_behave(rng.random(), seed, number)
        jobs.append(job)
    incidents = [
        Incident(
            rng.randrange(days * DAY),
            what := pick(["launcher", "crash", "step", "pause", "resume", "step"]),
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


def make_behave(mood: float, seed: int, number: int) -> Any:
    def behave(due: int, attempt: int) -> Behaviour:
        rng = random.Random(f"{seed} {number} {due} {attempt}")
        outcome = Outcome.SUCCEEDED
        if rng.random() < mood:
            outcome = rng.choice([Outcome.FAILED, Outcome.FAILED, Outcome.CRASHED, Outcome.CANCELED])
        lasts = rng.choice([0, 1, 1, 20, 70, 400, 8000])
        return Behaviour(lasts * SECOND, outcome, rng.choice(["22012", "40001", "57014"]), rng.random() < 0.2)

    return behave


def simulate(seed: int) -> World:
    """The world, and after it a quiet time in which what is under way comes to its end."""
    world, length = make_world(seed)
    world.run(length)
    world.close()
    for _ in range(400):
        if not world.unfinished:
            break
        world.run(world.mono + DAY)
    return world


@settings(max_examples=WORLDS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(min_value=0, max_value=2**32))
def test_whatever_happens_the_invariants_hold(seed: int) -> None:
    assert check(simulate(seed)) == []


def test_the_same_world_gives_the_same_records() -> None:
    assert simulate(7).records == simulate(7).records
    assert simulate(7).records != simulate(8).records
