"""The rules of a job's options, each with the cases at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cron.policy import (
    CATCH_UP_MAX,
    HOUR,
    MINUTE,
    SECOND,
    Action,
    Arrival,
    Limits,
    Missed,
    Outcome,
    Overlap,
    Rules,
    is_sqlstate,
    next_streak,
    watch,
)

LIMITS = Limits(max_running=4, max_running_per_role=2, grace=10 * SECOND, max_retry_delay=HOUR)
TAKE, DROP, TAKE_OVER = Arrival.TAKE, Arrival.DROP, Arrival.TAKE_OVER


# --- overlap and caps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "answers"),
    [
        # Of earlier due times: nothing; one runs; one runs and one waits; one waits; one catches up.
        (Rules(), [TAKE, TAKE, DROP, DROP, TAKE]),
        (Rules(on_overlap=Overlap.SKIP), [TAKE, DROP, DROP, DROP, DROP]),
        (Rules(on_overlap=Overlap.REPLACE), [TAKE_OVER] * 5),
        (Rules(on_overlap=Overlap.PARALLEL), [TAKE] * 5),
        (Rules(on_overlap=Overlap.PARALLEL, max_parallel=2), [TAKE, TAKE, DROP, TAKE, TAKE]),
        (Rules(on_overlap=Overlap.PARALLEL, max_parallel=1), [TAKE, DROP, DROP, DROP, TAKE]),
    ],
)
def test_what_becomes_of_a_due_time(rules: Rules, answers: list[Arrival]) -> None:
    loads = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1)]
    found = [rules.arrive(LIMITS, running=r, unstarted=u, catching_up=c) for r, u, c in loads]
    assert found == answers


def test_parallel_runs_are_bounded_by_the_cap_too() -> None:
    assert Rules(on_overlap=Overlap.PARALLEL).width(LIMITS) == LIMITS.max_running
    assert Rules(on_overlap=Overlap.PARALLEL, max_parallel=99).width(LIMITS) == LIMITS.max_running
    assert Rules(on_overlap=Overlap.PARALLEL, max_parallel=3).width(LIMITS) == 3
    assert Rules(max_parallel=3).width(LIMITS) == 1
    assert Rules(on_overlap=Overlap.PARALLEL).arrive(LIMITS, running=4, unstarted=0) is DROP


def test_the_caps() -> None:
    assert LIMITS.may_start(3, 1)
    assert not LIMITS.may_start(4, 0)
    assert not LIMITS.may_start(2, 2)
    assert Limits(max_running=4).may_start(3, 3), "no cap per role"


def test_age_counts_more_than_priority_in_the_end() -> None:
    young, old = 1000 * MINUTE, 0
    assert Rules(priority=5).rank(young) < Rules().rank(young)
    assert Rules(priority=1000).rank(young) == Rules().rank(old)
    assert Rules(priority=999).rank(young) > Rules().rank(old)
    assert Rules(priority=1000).rank(-(2**63)) == -(2**63), "no overflow"


# --- jitter ------------------------------------------------------------------------------------


@given(
    job=st.integers(1, 2**62),
    due=st.integers(-(2**60), 2**60),
    gap=st.integers(1, 2**50),
    jitter=st.integers(0, 2**50),
)
def test_an_offset_is_repeatable_and_stays_before_the_next_due_time(job: int, due: int, gap: int, jitter: int) -> None:
    rules = Rules(jitter=jitter)
    offset = rules.offset(job, due, due + gap)
    assert offset == Rules(jitter=jitter).offset(job, due, due + gap)
    assert 0 <= offset < max(min(jitter, gap), 1)


def test_offsets_are_spread_evenly_over_jobs_and_due_times() -> None:
    rules = Rules(jitter=HOUR)
    for offsets in (
        [rules.offset(job, 0, None) for job in range(1, 2001)],
        [rules.offset(7, due * HOUR, (due + 1) * HOUR) for due in range(2000)],
    ):
        tenths = [
            sum(part * HOUR // 10 <= offset < (part + 1) * HOUR // 10 for offset in offsets) for part in range(10)
        ]
        assert min(tenths) > 150
        assert max(tenths) < 250


# --- missed due times --------------------------------------------------------------------------


def catch_up(
    rules: Rules, due: list[int], horizon: int, now: int
) -> tuple[tuple[int, ...], int, int | None, int | None]:
    plan = rules.catch_up(due, due, after=-1, horizon=horizon, now=now)
    assert not plan.is_more
    return plan.due, plan.dropped, plan.first_dropped, plan.last_dropped


def test_missed_due_times_are_counted_or_made_up_for() -> None:
    due = [hour * HOUR for hour in range(10)]
    now = 5 * HOUR + 30 * MINUTE
    assert catch_up(Rules(), due, now, now) == ((), 6, 0, 5 * HOUR)
    assert catch_up(Rules(on_missed=Missed.RUN_ONCE), due, now, now) == ((5 * HOUR,), 5, 0, 4 * HOUR)
    assert catch_up(Rules(on_missed=Missed.RUN_ALL), due, now, now) == (tuple(due[:6]), 0, None, None)
    bounded = Rules(on_missed=Missed.RUN_ALL, start_deadline=2 * HOUR)
    assert catch_up(bounded, due, now, now) == ((4 * HOUR, 5 * HOUR), 4, 0, 3 * HOUR)
    late = Rules(on_missed=Missed.RUN_ONCE, start_deadline=HOUR // 2)
    assert catch_up(late, due, now, now) == ((5 * HOUR,), 5, 0, 4 * HOUR), "just in time"
    assert catch_up(late, due, now, now + 1) == ((), 6, 0, 5 * HOUR), "just too late"


def test_of_a_flood_the_newest_are_made_up_for() -> None:
    due = [second * SECOND for second in range(100_000)]
    horizon = 99_000 * SECOND
    for missed, kept in ((Missed.SKIP, 0), (Missed.RUN_ONCE, 1), (Missed.RUN_ALL, CATCH_UP_MAX)):
        plan = Rules(on_missed=missed).catch_up(due, due, after=-1, horizon=horizon, now=horizon)
        assert list(plan.due) == due[99_001 - kept : 99_001]
        assert plan.is_more
        assert plan.first_dropped == 0
        assert plan.last_dropped == due[99_000 - kept]


@given(
    gaps=st.lists(st.integers(1, 40 * MINUTE), max_size=3000),
    missed=st.sampled_from(list(Missed)),
    deadline=st.none() | st.integers(1, 100 * HOUR),
    horizon=st.integers(0, 3000 * 20 * MINUTE),
)
def test_each_missed_due_time_is_made_up_for_or_counted(
    gaps: list[int], missed: Missed, deadline: int | None, horizon: int
) -> None:
    due = [sum(gaps[: i + 1]) for i in range(len(gaps))] if len(gaps) < 50 else list(_running_sum(gaps))
    plan = Rules(on_missed=missed, start_deadline=deadline).catch_up(due, due, after=0, horizon=horizon, now=horizon)
    all_missed = [one for one in due if one <= horizon]
    most = {Missed.SKIP: 0, Missed.RUN_ONCE: 1, Missed.RUN_ALL: CATCH_UP_MAX}[missed]
    in_time = [one for one in all_missed if deadline is None or one + deadline >= horizon]
    kept = in_time[len(in_time) - min(most, len(in_time)) :]
    assert list(plan.due) == kept
    dropped = all_missed[: len(all_missed) - len(kept)]
    assert (plan.first_dropped, plan.last_dropped) == ((dropped[0], dropped[-1]) if dropped else (None, None))
    assert plan.dropped == len(dropped) or (plan.is_more and plan.dropped < len(dropped))


def _running_sum(gaps: list[int]) -> list[int]:
    total, sums = 0, []
    for gap in gaps:
        total += gap
        sums.append(total)
    return sums


# --- deadline and timeout ----------------------------------------------------------------------


def test_the_deadline_counts_from_the_start() -> None:
    assert Rules().deadline(5) is None
    assert Rules(start_deadline=SECOND).deadline(5) == 5 + SECOND


def test_a_run_is_canceled_at_its_timeout_and_terminated_after_the_grace_period() -> None:
    def look(now: int, stopped: int | None = None, terminated: int | None = None) -> tuple[Action, int | None]:
        return watch(
            timeout=MINUTE, grace=10 * SECOND, began=0, stopped=stopped, terminated=terminated, now=now * SECOND
        )

    assert look(0) == (Action.LEAVE, MINUTE)
    assert look(59) == (Action.LEAVE, MINUTE)
    assert look(60) == (Action.CANCEL, 70 * SECOND)
    assert look(65, stopped=MINUTE) == (Action.LEAVE, 70 * SECOND)
    assert look(70, stopped=MINUTE) == (Action.TERMINATE, 80 * SECOND)
    assert look(75, stopped=MINUTE, terminated=70 * SECOND) == (Action.LEAVE, 80 * SECOND)
    assert look(80, stopped=MINUTE, terminated=70 * SECOND) == (Action.TERMINATE, 90 * SECOND), "again"
    assert watch(timeout=None, grace=SECOND, began=0, stopped=None, terminated=None, now=HOUR) == (Action.LEAVE, None)
    assert watch(timeout=None, grace=0, began=0, stopped=5, terminated=None, now=5) == (Action.TERMINATE, 5 + SECOND)


# --- retries -----------------------------------------------------------------------------------


def retry(rules: Rules, attempt: int = 1, sqlstate: str | None = "40001", **more: object) -> int | None:
    given = {"job": 1, "due": 0, "next_start": None, "outcome": Outcome.FAILED, "now": 0, **more}
    return rules.retry(LIMITS, attempt=attempt, sqlstate=sqlstate, **given)  # type: ignore[arg-type]


def test_delays_double_up_to_the_cap_with_a_repeatable_spread() -> None:
    rules = Rules(max_attempts=100, retry_delay=MINUTE)
    for attempt, delay in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (99, 60)]:
        at = retry(rules, attempt)
        assert at is not None
        assert abs(at - delay * MINUTE) <= delay * MINUTE // 8
        assert at == retry(rules, attempt)
    assert len({retry(rules, job=job) for job in range(50)}) == 50
    assert retry(rules, 100) is None
    assert retry(Rules(max_attempts=2, retry_delay=0), now=5) == 5
    long = retry(Rules(max_attempts=9, retry_delay=3 * HOUR), 5)
    assert long is not None
    assert abs(long - 3 * HOUR) <= 3 * HOUR // 8, "the cap does not shorten a delay that was asked for"


def test_no_retry_at_or_after_the_next_due_time() -> None:
    rules = Rules(max_attempts=2, retry_delay=MINUTE)
    at = retry(rules)
    assert at is not None
    assert retry(rules, next_start=at + 1) == at
    assert retry(rules, next_start=at) is None


def test_what_is_tried_again() -> None:
    rules = Rules(max_attempts=2)
    assert retry(rules, outcome=Outcome.CRASHED, sqlstate=None) is not None
    assert retry(rules, outcome=Outcome.CANCELED, sqlstate="57014") is None
    assert retry(rules, outcome=Outcome.SUCCEEDED) is None
    assert retry(Rules()) is None
    listed = Rules(max_attempts=2, retry_on=("40", "57P02"))
    assert retry(listed, sqlstate="40001") is not None
    assert retry(listed, sqlstate="40P01") is not None
    assert retry(listed, sqlstate="22012") is None
    assert retry(listed, sqlstate="57014") is None
    assert retry(listed, outcome=Outcome.CRASHED, sqlstate=None) is not None, "crash_shutdown"
    assert retry(Rules(max_attempts=2, retry_on=()), sqlstate="40001") is None


def test_sqlstates_and_classes() -> None:
    assert all(is_sqlstate(text) for text in ("40", "40001", "57P01", "P0", "XX000", "0A000", "03"))
    assert not any(
        is_sqlstate(text) for text in ("", "4", "400", "4000", "400011", "40p01", "00", "01000", "02", "4 001")
    )


# --- pausing -----------------------------------------------------------------------------------


def test_failures_in_a_row_pause_a_job() -> None:
    streak = 0
    for outcome, expected in [
        (Outcome.FAILED, 1),
        (Outcome.CANCELED, 1),
        (Outcome.CRASHED, 2),
        (Outcome.SUCCEEDED, 0),
        (Outcome.CANCELED, 0),
        (Outcome.FAILED, 1),
    ]:
        streak = next_streak(streak, outcome)
        assert streak == expected
    rules = Rules(pause_after=3)
    assert [rules.must_pause(streak) for streak in (0, 2, 3, 4)] == [False, False, True, True]
    assert not Rules().must_pause(10**6)
