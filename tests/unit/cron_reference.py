"""The schedule language a second time, as slowly and plainly as its definition.

An oracle for tests: it expands a pattern value by value, lists every reading
of every date, and places each by asking the zone. It shares no code and no
idea with the core, except the text of docs/schedules.md. It reads accepted
patterns only, and no H.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo

EPOCH = datetime(1970, 1, 1)
DAY = 86_400
NAMES = {
    name: number
    for names, first in (("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", 1), ("SUN MON TUE WED THU FRI SAT", 0))
    for number, name in enumerate(names.split(), first)
}
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LIMITS = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "dom": (1, 31), "month": (1, 12), "dow": (0, 7)}

# Zones that change their clocks in every way there is, or never.
ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Cairo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Pacific/Apia",
    "Asia/Pyongyang",
    "Africa/Casablanca",
    "Europe/Dublin",
    "Asia/Kathmandu",
]


def plain_values(term: str, low: int, high: int) -> set[int]:
    body, _, step = term.partition("/")
    if body == "*":
        first, last = low, high
    else:
        left, dash, right = body.partition("-")
        first = NAMES.get(left.upper(), -1) if left.isalpha() else int(left)
        last = first
        if dash:
            last = NAMES[right.upper()] if right.isalpha() else int(right)
            if right.upper() == "SUN":
                first, last = (0, 0) if first in (0, 7) else (first, 7)
    return set(range(first, last + 1, int(step or 1)))


def last_of(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def is_nearest_weekday(day: date, target: int) -> bool:
    if not 1 <= target <= last_of(day):
        return False
    weekdays = [d for d in range(1, last_of(day) + 1) if date(day.year, day.month, d).weekday() < 5]
    # Saturday goes back before it goes on, Sunday goes on before it goes back.
    aimed = date(day.year, day.month, target).weekday()
    lean = -1 if aimed == 5 else 1
    best = min(weekdays, key=lambda d: (abs(d - target), (d - target) * -lean))
    return day.day == best


def matches_dom(field: str, day: date) -> bool:
    for term in field.split(","):
        if term in ("?", "*"):
            return True
        if term == "$":
            term = "L"
        if found := re.fullmatch(r"L(?:-(\d+))?(W?)", term):
            target = last_of(day) - int(found[1] or 0)
            if is_nearest_weekday(day, target) if found[2] else day.day == target:
                return True
        elif term.endswith("W"):
            if is_nearest_weekday(day, int(term[:-1])):
                return True
        elif day.day in plain_values(term, 1, 31):
            return True
    return False


def matches_dow(field: str, day: date) -> bool:
    weekday = day.isoweekday() % 7
    for term in field.split(","):
        if term in ("?", "*"):
            return True
        if found := re.fullmatch(r"(\w+?)(?:#(\d|L)|L)", term):
            number = NAMES[found[1].upper()] if found[1].isalpha() else int(found[1]) % 7
            nth = found[2] or "L"
            wanted = day.day + 7 > last_of(day) if nth == "L" else (day.day - 1) // 7 + 1 == int(nth)
            if weekday == number and wanted:
                return True
        elif weekday in {value % 7 for value in plain_values(term, 0, 7)}:
            return True
    return False


@dataclass(frozen=True)
class Reference:
    """One pattern."""

    text: str
    match_dom_and_dow: bool = False

    def __post_init__(self) -> None:
        fields = NICKNAMES.get(self.text.strip(), self.text).split()
        if len(fields) == 5:
            fields = ["0", *fields]
        if len(fields) == 6:
            fields = [*fields, "*"]
        put = object.__setattr__
        put(self, "fields", fields)
        put(
            self, "wildcard", any(field.startswith("*") for field in fields[0 if len(self.text.split()) > 5 else 1 : 3])
        )
        values = [
            set().union(*(plain_values(term, *LIMITS[name]) for term in field.split(",")))
            for name, field in zip(("second", "minute", "hour"), fields, strict=False)
        ]
        put(
            self,
            "times",
            [h * 3600 + m * 60 + s for h in sorted(values[2]) for m in sorted(values[1]) for s in sorted(values[0])],
        )
        put(self, "months", set().union(*(plain_values(term, 1, 12) for term in fields[4].split(","))))
        put(self, "years", set().union(*(plain_values(term, 1970, 2199) for term in fields[6].split(","))))

    def has_date(self, day: date) -> bool:
        dom, dow = self.fields[3], self.fields[5]
        both = self.match_dom_and_dow or dom[0] in "*?" or dow[0] in "*?+"
        by_month, by_week = matches_dom(dom, day), matches_dow(dow.removeprefix("+"), day)
        on_day = by_month and by_week if both else by_month or by_week
        return day.year in self.years and day.month in self.months and on_day

    def members(self, zone: tzinfo, start: int, end: int) -> Iterator[int]:
        """Every due second in [start, end), in order."""
        first = (EPOCH + timedelta(seconds=start)).date() - timedelta(days=3)
        last = (EPOCH + timedelta(seconds=end)).date() + timedelta(days=3)
        found: set[int] = set()
        day = first
        while day <= last:
            if self.has_date(day):
                midnight = (datetime(day.year, day.month, day.day) - EPOCH) // timedelta(seconds=1)
                found |= self.placed(zone, midnight)
            day += timedelta(days=1)
        yield from sorted(second for second in found if start <= second < end)

    def placed(self, zone: tzinfo, midnight: int) -> set[int]:
        """The instants of one date."""
        changes = changes_around(zone, midnight - 30 * 3600, midnight + DAY + 30 * 3600)
        offsets = {offset for _, before, after in changes for offset in (before, after)}
        offsets |= {offset_at(zone, midnight)}
        instants = set()
        for time in self.times:
            reading = midnight + time
            readable = sorted(reading - offset for offset in offsets if offset_at(zone, reading - offset) == offset)
            if self.wildcard:
                instants.update(readable)
            elif readable:
                instants.add(readable[0])
            else:
                instants.update(
                    change
                    for change, before, after in changes
                    if change + before <= reading < change + after and after - before < 3 * 3600
                )
        return instants

    def next(self, zone: tzinfo, after: int, days: int = 400) -> int | None:
        """The first member after `after`, looked for so many days ahead."""
        for start in range(after + 1, after + days * DAY, 10 * DAY):
            for member in self.members(zone, start, start + 10 * DAY):
                return member
        return None


def offset_at(zone: tzinfo, second: int) -> int:
    moment = (EPOCH + timedelta(seconds=second)).replace(tzinfo=timezone.utc).astimezone(zone)
    offset = moment.utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def changes_around(zone: tzinfo, start: int, end: int, pace: int = 12 * 3600) -> list[tuple[int, int, int]]:
    """(second, offset before, offset after) of each change; looked for at a pace, then by the second."""
    changes = []
    for low in range(start, end, pace):
        high = low + pace
        before, after = offset_at(zone, low), offset_at(zone, high)
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if offset_at(zone, middle) == before:
                low = middle
            else:
                high = middle
        changes.append((high, before, after))
    return changes
