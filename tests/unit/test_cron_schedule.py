"""The schedule language from Python: the tables of tests/vectors, the API, and the zones behind it."""

from __future__ import annotations

import importlib.resources
import random
import re
import struct
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest

from scheduler import errors
from scheduler.cron import Condition, Kind, Parent, Schedule, ScheduleError, _zones
from tests.unit.cron_reference import Reference, offset_at
from tests.unit.cron_tables import ROOT, read_table

UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REFUSALS = read_table("refusals.tsv") + read_table("refusals_bytes.tsv")
ACCEPTANCES = read_table("acceptances.tsv")
NEXT_RUNS = read_table("next_runs.tsv")


def name_of(row: dict[str, str]) -> str:
    return f"{row['topic']}: {row['text'][:40]!a}"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---------- the tables ----------


@pytest.mark.parametrize("row", REFUSALS, ids=name_of)
def test_a_mistake_is_refused_with_its_place_and_its_remedy(row: dict[str, str]) -> None:
    with pytest.raises(ScheduleError) as refused:
        Schedule(row["text"])
    assert refused.value.message == f"invalid schedule: {row['text']}"
    assert (refused.value.detail, refused.value.hint) == (row["detail"], row["hint"])


@pytest.mark.parametrize("row", ACCEPTANCES, ids=name_of)
def test_a_schedule_is_normalised_and_described(row: dict[str, str]) -> None:
    schedule = Schedule(row["text"], hash_key=row["hash_key"])
    notice = schedule.notice
    assert schedule.normalised == row["normalised"]
    assert schedule.describe() == row["words"]
    said = (notice.message, notice.detail, notice.hint) if notice else ("", "", "")
    assert said == (row["notice"], row["notice_detail"], row["notice_hint"])
    assert (schedule.never_runs() or "") == row["never_runs"]
    assert Schedule(schedule.normalised) == schedule


@pytest.mark.parametrize("row", NEXT_RUNS, ids=lambda row: f"{name_of(row)} {row['zone']} {row['after']}")
def test_due_times_follow_the_table(row: dict[str, str]) -> None:
    schedule = Schedule(row["text"])
    anchor = instant(row["anchor"]) if row["anchor"] else None
    match = row["match_dom_and_dow"] == "t"
    expected = row["due"].split()
    due = schedule.upcoming(instant(row["after"]), row["zone"], anchor=anchor, match_dom_and_dow=match)
    found = [moment.astimezone(UTC) for moment in islice(due, len(expected))]
    assert found == [instant(text) for text in expected if text != "never"]
    if expected[-1] == "never":
        last = found[-1] if found else instant(row["after"])
        assert schedule.next(last, row["zone"], anchor=anchor, match_dom_and_dow=match) is None


CALENDARS = [
    row for row in NEXT_RUNS if not row["text"].startswith(("@at", "@every", "@reboot")) and "s" not in row["text"]
]


@pytest.mark.parametrize("row", CALENDARS, ids=lambda row: f"{name_of(row)} {row['zone']} {row['after']}")
def test_the_table_follows_from_the_definition(row: dict[str, str]) -> None:
    reference = Reference(row["text"], row["match_dom_and_dow"] == "t")
    after = int(instant(row["after"]).timestamp())
    expected = [int(instant(text).timestamp()) for text in row["due"].split() if text != "never"]
    end = min(expected[-1] + 1 if expected else after + 400 * 86_400, after + 20 * 366 * 86_400)
    assert list(reference.members(ZoneInfo(row["zone"]), after + 1, end)) == [due for due in expected if due < end]


def test_the_tables_are_not_empty() -> None:
    assert len(REFUSALS) > 200
    assert len(ACCEPTANCES) > 150
    assert len(NEXT_RUNS) > 180
    assert len(CALENDARS) > 150


# ---------- the manual, and the words ----------


def test_the_manual_quotes_refusals_as_they_are() -> None:
    manual = (ROOT / "docs" / "schedules.md").read_text()
    quoted = re.findall(r"^ERROR:  invalid schedule: (.*)\nDETAIL:  (.*)\n(?:HINT:  (.*)\n)?", manual, re.MULTILINE)
    assert len(quoted) >= 4
    for text, detail, hint in quoted:
        with pytest.raises(ScheduleError) as refused:
            Schedule(text)
        assert (refused.value.detail, refused.value.hint) == (detail, hint)


def test_the_manual_begins_with_texts_that_are_accepted() -> None:
    manual = (ROOT / "docs" / "schedules.md").read_text()
    first = manual.split("## Cron expressions")[0]
    texts = re.findall(
        r"`([^`]+)`", "\n".join(line.split("|")[1] for line in first.splitlines() if line.startswith("| `"))
    )
    assert len(texts) > 12
    for text in texts:
        Schedule(text)


def test_schedules_in_the_same_words_run_at_the_same_times() -> None:
    """Patterns that differ a little, in many combinations: what reads alike must be alike."""
    fields = (
        ("0", "*", "*/2", "1", "0-58/2", "0,59", "0-59"),
        ("0", "*", "*/2", "1", "0,1", "0-22", "9-17", "0-23"),
        ("*", "1", "*/2", "1-31", "L", "L-1", "15W", "LW", "L-1W", "1,L", "1-30"),
        ("*", "1", "1-2", "*/2"),
        ("*", "1", "+1", "*/2", "1#1", "1L", "0-6", "1-5", "+1#1", "5-7"),
    )
    dice = random.Random(7)
    said: dict[str, tuple[str, list[datetime]]] = {}
    repeated = 0
    for _ in range(6000):
        text = " ".join(dice.choice(choices) for choices in fields)
        schedule = Schedule(text)
        runs = list(islice(schedule.upcoming(datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC)), 150))
        other, theirs = said.setdefault(schedule.describe(), (text, runs))
        repeated += other != text
        assert runs == theirs, (text, other, schedule.describe())
    assert repeated > 100


# ---------- the API ----------


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        Schedule("* * * * *").next(datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="without a time zone"):
        Schedule("* * * * *").upcoming(datetime(2030, 1, 1), "UTC")


def test_a_zone_that_does_not_exist_is_refused() -> None:
    for name in ("Mars/Olympus", "", "../etc/passwd", "\0"):
        with pytest.raises(ScheduleError, match="not recognized"):
            Schedule("* * * * *").next(EPOCH, name)


def test_errors_belong_to_the_tree() -> None:
    assert issubclass(ScheduleError, errors.ScheduleError)
    with pytest.raises(errors.ClockworkError):
        Schedule("61 * * * *")


def test_the_answer_is_in_the_zone_asked_for() -> None:
    schedule = Schedule("0 3 * * *")
    after = datetime(2030, 1, 1, tzinfo=UTC)
    assert schedule.next(after) == datetime(2030, 1, 1, 3, tzinfo=UTC)
    here = schedule.next(after, "America/New_York")
    assert here is not None
    assert here.isoformat() == "2030-01-01T03:00:00-05:00"
    assert schedule.next(after, NEW_YORK) == here


def test_the_second_pass_of_an_overlap_is_told_apart() -> None:
    schedule = Schedule("*/30 1 * * *")
    moments = list(islice(schedule.upcoming(datetime(2030, 11, 3, tzinfo=NEW_YORK)), 4))
    assert [(m.hour, m.minute, m.fold) for m in moments] == [(1, 0, 0), (1, 30, 0), (1, 0, 1), (1, 30, 1)]
    walked = moments[0]
    for moment in moments[1:]:
        following = schedule.next(walked)
        assert following is not None
        assert (following, following.fold) == (moment, moment.fold)
        walked = following


def test_walking_with_next_is_the_same_as_upcoming() -> None:
    schedule = Schedule("7-59/13 */5 * * 1-5")
    after = datetime(2030, 3, 8, 12, 30, 15, 250000, tzinfo=NEW_YORK)
    walked = []
    moment: datetime | None = after
    for _ in range(1000):
        assert moment is not None
        moment = schedule.next(moment)
        walked.append(moment)
    assert walked == list(islice(schedule.upcoming(after), 1000))


def test_one_schedule_serves_many_zones_and_starts() -> None:
    schedule = Schedule("30 2 * * *")
    after = datetime(2030, 3, 9, tzinfo=UTC)
    first = schedule.next(after, "Europe/Berlin")
    assert schedule.next(after, "Asia/Tokyo") != first
    assert schedule.next(after, "Europe/Berlin") == first
    assert first is not None
    assert schedule.next(first, "Asia/Tokyo") == datetime(2030, 3, 9, 17, 30, tzinfo=UTC)


def test_fractions_of_a_second() -> None:
    schedule = Schedule("@every 1.5 seconds")
    anchor = datetime(2030, 1, 1, tzinfo=UTC)
    due = schedule.next(anchor, anchor=anchor)
    assert due == anchor + timedelta(seconds=1.5)
    assert schedule.matches(anchor + timedelta(seconds=4.5), anchor=anchor)
    assert not schedule.matches(anchor + timedelta(seconds=4), anchor=anchor)
    last = datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert Schedule("@at 2199-12-31 23:59:59.999999Z").next(EPOCH) == last
    assert Schedule("@at 2199-12-31 23:59:59.999999Z").next(last) is None


def test_an_event_is_never_due_by_the_clock_and_names_its_parents() -> None:
    schedule = Schedule(' @after "load","say ""hi""" failed, "täglich"  finished ')
    assert schedule.kind is Kind.AFTER
    assert schedule.parents == (
        Parent("load", Condition.SUCCEEDED),
        Parent('say "hi"', Condition.FAILED),
        Parent("täglich", Condition.FINISHED),
    )
    assert schedule.next(EPOCH) is None
    assert not schedule.matches(EPOCH)
    assert list(schedule.upcoming(EPOCH)) == []
    assert Schedule("@daily").parents == ()


@pytest.mark.parametrize(
    "other",
    [
        '@after "load" failed',
        '@after "loaD"',
        '@after "load", "clean"',
        '@after "loa", "d"',
        '@after """load"',
        "@reboot",
    ],
)
def test_schedules_after_other_jobs_are_other_schedules(other: str) -> None:
    assert Schedule('@after "load"') != Schedule(other)
    assert hash(Schedule('@after "load"')) == hash(Schedule('@after   "load" succeeded'))


def test_an_event_is_explained_however_long_its_names_are() -> None:
    names = [f"{number:02}" + "ü" * 120 for number in range(32)]
    schedule = Schedule("@after " + ", ".join(f'"{name}" finished' for name in names))
    assert [parent.name for parent in schedule.parents] == names
    lines = schedule.explain(EPOCH)
    assert lines[0] == f"Schedule: {schedule.normalised}"
    assert lines[1] == f"Meaning: {schedule.describe()}."
    assert lines[2] == "Due when those runs have ended, with their due time, never by the clock."
    assert len(lines) == 3


def test_a_text_whose_normalised_form_would_be_too_long_is_refused() -> None:
    names = [f"{number:02}" for number in range(32)]
    names[0] += "x" * (8191 - len("@after " + ",".join(f'"{name}"' for name in names)))
    with pytest.raises(ScheduleError) as refused:
        Schedule("@after " + ",".join(f'"{name}"' for name in names))
    assert refused.value.detail == "The names are too long together."
    names[0] = names[0][:-31]
    assert Schedule("@after " + ",".join(f'"{name}"' for name in names)).parents[0].name == names[0]


def test_a_reboot_is_never_due_by_the_clock() -> None:
    schedule = Schedule("@reboot")
    assert schedule.kind is Kind.REBOOT
    assert schedule.next(EPOCH) is None
    assert list(schedule.upcoming(EPOCH)) == []
    assert schedule.never_runs() is None


def test_kinds() -> None:
    kinds = {text: Schedule(text).kind for text in ("0 3 * * *", "@daily", "30 seconds", "@every 1h", "@at 2030-01-01")}
    assert list(kinds.values()) == [Kind.CALENDAR, Kind.CALENDAR, Kind.INTERVAL, Kind.INTERVAL, Kind.AT]


def test_the_number_of_fields_is_told() -> None:
    assert [Schedule(text).fields for text in ("* * * * *", "* * * * * *", "* * * * * * *", "@daily")] == [5, 6, 7, 0]


def test_what_has_passed_never_runs() -> None:
    schedule = Schedule("0 0 0 1 1 * 2020")
    assert schedule.never_runs() is None
    assert schedule.never_runs(datetime(2030, 1, 1, tzinfo=UTC)) == "The last year of the schedule, 2020, has passed."
    impossible = Schedule("0 0 31 2 MON")
    assert impossible.never_runs() is None
    assert impossible.never_runs(match_dom_and_dow=True) is not None


def test_equal_schedules_are_equal_and_hash_alike() -> None:
    assert Schedule("@daily") == Schedule("0 0 * * *")
    assert hash(Schedule("0 0 * * 7")) == hash(Schedule("0 0 * * SUN"))
    assert Schedule("0 0 * * *") != Schedule("0 0 1-31 * *")
    assert Schedule("* * * * *") != "* * * * *"
    assert repr(Schedule(" @daily ")) == "Schedule(' @daily ')"


def test_a_hash_depends_on_the_key_and_the_field_only() -> None:
    assert Schedule("H H * * *", hash_key="a") == Schedule("H H * * *", hash_key="a")
    texts = {Schedule("H H * * *", hash_key=f"job {n}").normalised for n in range(200)}
    assert len(texts) > 150
    days = {int(Schedule("0 0 H * *", hash_key=str(n)).normalised.split()[2]) for n in range(2000)}
    assert days == set(range(1, 29))
    minutes = [int(Schedule("H * * * *", hash_key=f"nightly-{n}").normalised.split()[0]) for n in range(6000)]
    assert max(minutes.count(minute) for minute in range(60)) < 160
    assert min(minutes.count(minute) for minute in range(60)) > 50


def test_a_step_of_a_hash_follows_elapsed_time() -> None:
    """H/15 runs as */15 does when the clock changes, even after its text has been resolved."""
    night = datetime(2030, 3, 10, tzinfo=NEW_YORK)
    for key in map(str, range(40)):
        resolved = Schedule(Schedule("H/15 2 * * *", hash_key=key).normalised)
        first = resolved.next(night)
        assert first is not None
        assert first.day == 11, "no reading of that hour exists on the 10th"


# ---------- zones ----------


def test_no_stretch_of_constant_offset_is_shorter_than_the_pace_of_asking() -> None:
    """_zones asks every PACE seconds; two changes closer than that could hide one another."""
    base = importlib.resources.files("tzdata") / "zoneinfo"
    shortest = 10**9
    for name in sorted(available_timezones()):
        resource = base.joinpath(*name.split("/"))
        if not resource.is_file():
            continue
        changes = [second for second in read_changes(resource.read_bytes()) if second > _zones.FIRST]
        shortest = min([shortest, *(later - earlier for earlier, later in pairwise(changes))])
    assert _zones.PACE < shortest < 10**9


def read_changes(data: bytes) -> list[int]:
    """The seconds at which a compiled tz file changes the offset."""

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack(">6l", data[at + 20 : at + 44])

    isut, isstd, leap, times, types, chars = counts(0)
    at = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut
    _, _, _, times, types, _ = counts(at)
    at += 44
    seconds = struct.unpack(f">{times}q", data[at : at + 8 * times])
    indexes = data[at + 8 * times : at + 9 * times]
    kinds = at + 9 * times
    offsets = [struct.unpack(">l", data[kinds + 6 * i : kinds + 6 * i + 4])[0] for i in indexes]
    return [second for second, (before, after) in zip(seconds[1:], pairwise(offsets), strict=True) if before != after]


@pytest.mark.parametrize("name", ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"])
def test_a_table_of_a_zone_says_what_the_zone_says(name: str) -> None:
    zone = ZoneInfo.no_cache(name)
    for start in (0, 2_000_000_000, 1_000_000_000):
        _zones.extend(zone, start)
        table = _zones.table_of(zone)
        changes = [(change.at, change.offset) for change in table.changes[0 : table.count]]
        assert changes == sorted(changes)
        assert table.start <= start < table.until
        for (_, before), (second, after) in pairwise(changes):
            assert (offset_at(zone, second - 1), offset_at(zone, second)) == (before, after)


def test_zones_made_by_programs_work_too() -> None:
    schedule = Schedule("0 3 * * *")
    east = timezone(timedelta(hours=5, minutes=45))
    assert schedule.next(datetime(2030, 1, 1, tzinfo=UTC), east) == datetime(2030, 1, 1, 21, 15, tzinfo=UTC)


def test_many_zones_do_not_pile_up() -> None:
    schedule = Schedule("0 3 * * *")
    for minutes in range(_zones.ZONES_MAX + 50):
        zone = timezone(timedelta(seconds=minutes))
        assert schedule.next(datetime(2030, 1, 1, tzinfo=UTC), zone) is not None
    assert len(_zones._tables) <= _zones.ZONES_MAX
    assert schedule.next(EPOCH, UTC) == datetime(1970, 1, 1, 3, tzinfo=UTC)
