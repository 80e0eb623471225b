"""The schedule core against others who read the same language: croniter, cronsim, and our own plain reference.

Each oracle is asked only what it answers by the same rules. Where it is known
to answer differently, the case is kept out by a named rule below, and a test
shows the difference, so that a rule that has become needless is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.cron import Schedule, ScheduleError
from tests.unit.cron_reference import ZONES, Reference, changes_around

UTC = timezone.utc
DAY = 86_400

# How many times the usual number of examples; for a long look.
SCALE = int(os.environ.get("CLOCKWORK_EXAMPLES", "1"))

START = int(datetime(2005, 1, 1, tzinfo=UTC).timestamp())
END = int(datetime(2045, 1, 1, tzinfo=UTC).timestamp())


# ---------- patterns ----------


def values(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted).filter(lambda pair: pair[0] < pair[1])
    step = st.integers(2, max(2, (high - low) // 2)).map(str)
    ranged = span.map(lambda pair: f"{pair[0]}-{pair[1]}")
    stepped = st.tuples(ranged, step).map("/".join)
    starred = step.map(lambda n: f"*/{n}")
    term = st.one_of(number, number, ranged, stepped)
    return st.one_of(st.just("*"), number, number, starred, st.lists(term, min_size=1, max_size=3).map(",".join))


MINUTES = values(0, 59)
HOURS = values(0, 23)
PLAIN_DAYS = values(1, 31)
MONTHS = st.one_of(st.just("*"), st.just("*"), values(1, 12), st.sampled_from(["JAN", "feb", "MAR-MAY,oct"]))
PLAIN_WEEKDAYS = st.one_of(values(0, 6), st.sampled_from(["MON", "mon-FRI", "SUN,WED", "7", "5-7"]))
LAST_DAYS = st.sampled_from(["L", "LW", "15W", "1W", "31W", "L-3", "L-30", "1,L", "L-2W", "?", "$", "5,*/9"])
NTH_WEEKDAYS = st.sampled_from(
    ["MON#1", "5#5", "5L", "FRI#L", "1#1,3#3", "+FRI", "+1-5", "?", "FRI-SUN", "+MON#2", "7L", "0-7"]
)

PLAIN = st.tuples(MINUTES, HOURS, PLAIN_DAYS, MONTHS, PLAIN_WEEKDAYS).map(" ".join)
WHOLE = st.tuples(
    MINUTES, HOURS, st.one_of(PLAIN_DAYS, LAST_DAYS), MONTHS, st.one_of(PLAIN_WEEKDAYS, NTH_WEEKDAYS)
).map(" ".join)
NIGHTS = st.tuples(MINUTES, st.sampled_from(["0", "1", "2", "3", "0-3", "*/2", "22-23", "*"]), st.just("* * *")).map(
    " ".join
)
SECONDS = st.tuples(st.sampled_from(["0", "30", "*/20", "15,45"]), NIGHTS).map(" ".join)


@st.composite
def instants(draw: st.DrawFn, zone: str) -> int:
    """A second; half of the time within two days of a change of the clock."""
    second = draw(st.integers(START, END))
    if draw(st.booleans()):
        return second
    for change, _, _ in changes_around(ZoneInfo(zone), second, second + 250 * DAY, pace=3 * DAY):
        return change + draw(st.integers(-2 * DAY, 2 * DAY))
    return second


CASES = st.sampled_from(ZONES).flatmap(lambda zone: st.tuples(st.just(zone), instants(zone)))


def moment(second: int, zone: str = "UTC") -> datetime:
    return datetime.fromtimestamp(second, ZoneInfo(zone))


def seconds_of(moments: Iterator[datetime], count: int) -> list[int]:
    return [int(due.timestamp()) for due in islice(moments, count)]


# ---------- the reference, in every zone and with every token ----------


@settings(max_examples=600 * SCALE, deadline=None)
@given(text=st.one_of(WHOLE, NIGHTS), case=CASES, match=st.booleans())
def test_the_reference_agrees_on_everything(text: str, case: tuple[str, int], match: bool) -> None:
    zone, after = case
    schedule = Schedule(text)
    span = 3 * DAY
    expected = list(Reference(text, match).members(ZoneInfo(zone), after + 1, after + span))
    found = []
    for due in schedule.upcoming(moment(after), zone, match_dom_and_dow=match):
        second = int(due.timestamp())
        if second >= after + span:
            break
        found.append(second)
    assert found == expected


@settings(max_examples=300 * SCALE, deadline=None)
@given(text=WHOLE, case=CASES, match=st.booleans())
def test_the_next_run_is_the_least_member(text: str, case: tuple[str, int], match: bool) -> None:
    zone, after = case
    schedule = Schedule(text)
    due = schedule.next(moment(after), zone, match_dom_and_dow=match)
    reference = Reference(text, match)
    if due is None:
        assert reference.next(ZoneInfo(zone), after, days=60) is None
        return
    second = int(due.timestamp())
    assert second > after
    assert schedule.matches(due, zone, match_dom_and_dow=match)
    assert list(reference.members(ZoneInfo(zone), second, second + 1)) == [second]
    # Between: everything if it is near, else the days around both ends.
    for start, end in [(after + 1, min(second, after + 5 * DAY)), (max(after + 1, second - 5 * DAY), second)]:
        assert list(reference.members(ZoneInfo(zone), start, end)) == []


@settings(max_examples=150 * SCALE, deadline=None)
@given(text=SECONDS, case=CASES)
def test_membership_is_the_same_asked_instant_by_instant(text: str, case: tuple[str, int]) -> None:
    zone, start = case
    schedule = Schedule(text)
    asked = {second for second in range(start, start + 1800) if schedule.matches(moment(second), zone)}
    assert asked == set(Reference(text).members(ZoneInfo(zone), start, start + 1800))


@settings(max_examples=500 * SCALE, deadline=None)
@given(text=st.one_of(WHOLE, SECONDS), key=st.text(max_size=5))
def test_parsing_the_normalised_text_gives_the_same_schedule(text: str, key: str) -> None:
    schedule = Schedule(text, hash_key=key)
    again = Schedule(schedule.normalised)
    assert again == schedule
    assert again.normalised == schedule.normalised
    assert again.describe() == schedule.describe()


@settings(max_examples=500 * SCALE, deadline=None)
@given(text=st.text(alphabet=st.characters(), max_size=40))
def test_any_text_is_accepted_or_refused_with_a_reason(text: str) -> None:
    answer = schedule_or_refusal(text)
    if isinstance(answer, Schedule):
        assert Schedule(answer.normalised) == answer
    else:
        assert answer.detail.endswith(".")
        assert answer.detail.isascii()
        assert answer.detail.isprintable()


def schedule_or_refusal(text: str) -> Schedule | ScheduleError:
    try:
        return Schedule(text)
    except ScheduleError as refused:
        return refused


# ---------- croniter ----------


def croniter_differs(text: str) -> str:
    """Why croniter 7 reads a pattern otherwise; empty if it does not."""
    _, _, dom, _, dow = text.split()
    if "*" not in (dom, dow) and "*" in (dom[0], dow[0]):
        return "a starred step in a day field: Vixie's rule takes both fields, croniter takes either"
    return ""


@settings(max_examples=600 * SCALE, deadline=None)
@given(text=PLAIN, after=st.integers(START, END))
def test_croniter_agrees_in_utc(text: str, after: int) -> None:
    assume(not croniter_differs(text))
    theirs = croniter(text, moment(after), max_years_between_matches=9)
    due = seconds_of(Schedule(text).upcoming(moment(after)), 5)
    for mine in due:
        if mine - after > 8 * 366 * DAY:
            return
        assert int(theirs.get_next(datetime).timestamp()) == mine


@settings(max_examples=300 * SCALE, deadline=None)
@given(
    times=st.tuples(MINUTES, HOURS).map(" ".join),
    days=st.sampled_from(["L * *", "* * 1#2", "* * 5#5", "* * l5", "* * 1#1,3#3", "15W * *", "? * 1-5"]),
    after=st.integers(START, END),
)
def test_croniter_agrees_on_last_and_nth_days(times: str, days: str, after: int) -> None:
    theirs = croniter(f"{times} {days}", moment(after))
    mine = Schedule(f"{times} {days.replace('l5', '5L')}")
    assert seconds_of(mine.upcoming(moment(after)), 5) == [int(theirs.get_next(datetime).timestamp()) for _ in range(5)]


@settings(max_examples=300 * SCALE, deadline=None)
@given(text=PLAIN, second=st.sampled_from(["0", "*/20", "7,37", "*"]), after=st.integers(START, END))
def test_croniter_agrees_on_seconds(text: str, second: str, after: int) -> None:
    assume(not croniter_differs(text))
    theirs = croniter(f"{second} {text}", moment(after), second_at_beginning=True, max_years_between_matches=9)
    due = seconds_of(Schedule(f"{second} {text}").upcoming(moment(after)), 3)
    for mine in due:
        if mine - after > 8 * 366 * DAY:
            return
        assert int(theirs.get_next(datetime).timestamp()) == mine


@pytest.mark.parametrize(
    ("text", "zone", "after", "ours", "theirs", "reason"),
    [
        (
            "5-5 * * * *",
            "UTC",
            "2030-01-01T00:00:00",
            "2030-01-01T00:05:00",
            "2030-01-01T00:01:00",
            "a-a is the whole field",
        ),
        (
            "0 0 */2 * 1",
            "UTC",
            "2030-01-01T00:00:00",
            "2030-01-07T00:00:00",
            "2030-01-03T00:00:00",
            "*/n is not a star",
        ),
        ("0 0 31W * *", "UTC", "2030-02-01T00:00:00", "2030-03-29T00:00:00", "2030-02-28T00:00:00", "31W is clamped"),
        (
            "30 1 * * *",
            "America/New_York",
            "2030-11-03T01:45:00",
            "2030-11-04T01:30:00",
            "2030-11-03T01:30:00",
            "twice in an overlap",
        ),
        (
            "*/15 2 * * *",
            "America/New_York",
            "2030-03-10T00:00:00",
            "2030-03-11T02:00:00",
            "2030-03-10T03:00:00",
            "a wildcard made up for",
        ),
    ],
)
def test_where_croniter_is_known_to_differ(
    text: str, zone: str, after: str, ours: str, theirs: str, reason: str
) -> None:
    start = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    mine = Schedule(text).next(start)
    assert mine is not None
    assert mine.replace(tzinfo=None).isoformat() == ours
    assert croniter(text, start).get_next(datetime).replace(tzinfo=None).isoformat() == theirs, f"no longer: {reason}"


# ---------- cronsim ----------


def cronsim_differs(text: str, zone: str, after: int, until: int) -> str:
    """Why cronsim 2.8 answers otherwise around here; empty if it does not."""
    near = changes_around(ZoneInfo(zone), after - 2 * DAY, until + 2 * DAY)
    for change, before, later in near:
        if abs(later - before) % 3600 or change % 3600:
            return "steps by whole hours, so it loses minutes where the clock moves by less or within an hour"
        if later < before and change <= after < change + (before - later) + 3600:
            return "from inside the second pass of an overlap it may answer with the past"
        if later - before >= 3 * 3600:
            return "makes up for readings lost in a gap of any length"
        if (
            (change + before) % DAY == 0
            or (change + later) % DAY == 0
            or (change + before) // DAY != (change + later) // DAY
        ):
            return "days that begin or end within a change"
    return ""


@settings(max_examples=600 * SCALE, deadline=None)
@given(text=PLAIN, after=st.integers(START, END))
def test_cronsim_agrees_in_utc(text: str, after: int) -> None:
    due = seconds_of(Schedule(text).upcoming(moment(after)), 5)
    assume(len(due) == 5 and due[-1] - after < 40 * 366 * DAY)
    assert seconds_of(CronSim(text, moment(after)), 5) == due


@settings(max_examples=600 * SCALE, deadline=None)
@given(text=NIGHTS, case=CASES)
def test_cronsim_agrees_across_clock_changes(text: str, case: tuple[str, int]) -> None:
    zone, after = case
    due = seconds_of(Schedule(text).upcoming(moment(after, zone)), 6)
    assume(not cronsim_differs(text, zone, after, due[-1]))
    assert seconds_of(CronSim(text, moment(after, zone)), 6) == due


@settings(max_examples=200 * SCALE, deadline=None)
@given(
    times=st.tuples(MINUTES, HOURS).map(" ".join),
    days=st.sampled_from(["L * *", "LW * *", "* * 1#2", "* * 5#5", "* * 5L", "* * 1#1,3#3", "1,15 * 2", "*/2 * 1"]),
    after=st.integers(START, END),
)
def test_cronsim_agrees_on_last_and_nth_days(times: str, days: str, after: int) -> None:
    text = f"{times} {days}"
    assert seconds_of(CronSim(text, moment(after)), 5) == seconds_of(Schedule(text).upcoming(moment(after)), 5)


@pytest.mark.parametrize(
    ("text", "zone", "after", "ours", "theirs", "reason"),
    [
        (
            "30 * * * *",
            "Australia/Lord_Howe",
            "2030-10-05T15:00:00",
            "2030-10-05T15:30:00",
            "2030-10-05T16:30:00",
            "30-minute gap",
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2030-11-03T06:10:00",
            "2030-11-04T06:30:00",
            "2030-11-03T05:30:00",
            "an answer in the past",
        ),
        (
            "0 12 30 12 *",
            "Pacific/Apia",
            "2011-12-29T12:00:00",
            "2012-12-29T22:00:00",
            "2011-12-30T10:00:00",
            "a gap of a day",
        ),
    ],
)
def test_where_cronsim_is_known_to_differ(
    text: str, zone: str, after: str, ours: str, theirs: str, reason: str
) -> None:
    start = datetime.fromisoformat(after).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    mine = Schedule(text).next(start)
    assert mine is not None
    assert mine.astimezone(UTC).replace(tzinfo=None).isoformat() == ours
    found = next(CronSim(text, start)).astimezone(UTC).replace(tzinfo=None).isoformat()
    assert found == theirs, f"no longer: {reason}"
