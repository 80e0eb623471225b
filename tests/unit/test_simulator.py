"""Years of schedules under every policy, with outages, clocks that are set, DST, failures and hung runs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.cron.policy import Limits, Overlap, Rules
from scheduler.simulator import DAY, HOUR, SECOND, Behaviour, Job, World, check
from scheduler.worlds import simulate, survey

# CLOCKWORK_SIMULATE=2000 simulates that many worlds instead of a few.
WORLDS = int(os.environ.get("CLOCKWORK_SIMULATE", "60"))


@settings(max_examples=WORLDS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(min_value=0, max_value=2**32))
def test_whatever_happens_the_invariants_hold(seed: int) -> None:
    assert check(simulate(seed)) == []


def test_the_same_world_gives_the_same_records() -> None:
    assert simulate(7).records == simulate(7).records
    assert simulate(7).records != simulate(8).records


def test_statistics_say_what_happened() -> None:
    worlds = [simulate(seed) for seed in range(4)]
    found = survey(range(4))
    assert (found.worlds, found.violations) == (4, [])
    assert found.simulated == sum(world.mono for world in worlds)
    assert found.schedules == sum(len(world.jobs) for world in worlds)
    assert found.events == sum(world.events for world in worlds)
    assert found.records.total() == sum(len(world.records) for world in worlds)
    assert found.attempts == sum(record.began is not None for world in worlds for record in world.records)
    assert found.due_times >= found.records["succeeded"] > 0
    assert found.incidents.total() == sum(len(world.incidents) for world in worlds) > 0


# --- what is wrong is noticed --------------------------------------------------------------------


@pytest.fixture
def quiet() -> World:
    """Two days without an incident: a run at each full hour."""
    job = Job(1, "0 * * * *", Rules(max_attempts=2), behave=lambda due, attempt: Behaviour(lasts=60 * SECOND))
    world = World([job], start=0, limits=Limits(max_running=2))
    world.run(2 * DAY)
    assert check(world) == []
    return world


def test_a_due_time_without_a_record_is_noticed(quiet: World) -> None:
    lost = quiet.records.pop(20)
    assert check(quiet) == [f"job 1, due {lost.due}: accounted for 0 times"]


def test_a_second_run_of_a_due_time_is_noticed(quiet: World) -> None:
    quiet.records.append(quiet.records[20])
    assert f"job 1, due {quiet.records[20].due}: accounted for 2 times" in check(quiet)


def test_an_attempt_after_a_success_is_noticed(quiet: World) -> None:
    again = replace(quiet.records[-1], attempt=2)
    quiet.records.append(again)
    assert f"{again} follows no failure" in check(quiet)


def test_two_runs_at_once_are_noticed(quiet: World) -> None:
    first = quiet.records[20]
    quiet.records[20] = replace(first, ended=(first.began or 0) + HOUR + SECOND)
    assert check(quiet) == ["job 1: 2 runs at once"]
    quiet.jobs[1].rules = Rules(on_overlap=Overlap.PARALLEL)
    assert check(quiet) == []
    quiet.limits = Limits(max_running=1)
    assert "2 runs at once" in check(quiet)


def test_a_run_out_of_bounds_is_noticed(quiet: World) -> None:
    quiet.jobs[1].rules = Rules(ends_at=quiet.records[-2].due)
    assert check(quiet) == [f"{quiet.records[-1]} is out of bounds"]
