"""The due times of our core beside those of croniter, cronsim and the plain reference of the tests.

Cases are drawn at random, but the same ones for the same seed: a pattern, a zone
and an instant, more often than not within two days of a change of the clock.
Everybody is asked for the next five due times. Where somebody answers otherwise,
the first due time on which we differ is looked at: the reference, which shares no
code with the core, must side with ours, and there must be a reason, one of those
below. What has none is printed with all that is needed to repeat it, and makes
the report a failure.
"""

from __future__ import annotations

import random
import re
import signal
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from functools import cache
from importlib.metadata import version
from itertools import islice, zip_longest
from types import FrameType
from zoneinfo import ZoneInfo

from croniter import CroniterBadCronError, CroniterBadDateError, croniter
from cronsim import CronSim, CronSimError

from scheduler.cron import Schedule
from tests.unit.cron_reference import ZONES, Reference, changes_around

UTC = timezone.utc
DAY = 86_400
MINUTE = 60
DUE_TIMES = 5

# The reference lists every reading of every date, which takes its time.
REFERENCE_EVERY = 10

START = int(datetime(2005, 1, 1, tzinfo=UTC).timestamp())
END = int(datetime(2045, 1, 1, tzinfo=UTC).timestamp())

# Of processor time: one of them has endless loops.
PATIENCE_S = 5.0

# Everybody gives up on rare schedules after a number of years of his own.
HORIZON = 40 * 366 * DAY

DAYS = ["*", "*", "*", "L", "LW", "15W", "1W", "31W", "29W", "L-3", "L-30", "1,L", "L-2W", "?", "$", "5,*/9", "*/2"]
WEEKDAYS = [
    "*",
    "*",
    "*",
    "MON",
    "mon-FRI",
    "SUN,WED",
    "7",
    "5-7",
    "MON#1",
    "5#5",
    "5L",
    "FRI#L",
    "1#1,3#3",
    "+FRI",
    "+1-5",
    "?",
    "FRI-SUN",
    "+MON#2",
    "7L",
    "0-7",
    "*/2",
]
MONTHS = ["*", "*", "*", "JAN", "feb", "MAR-MAY,oct"]
NIGHTS = ["0", "1", "2", "3", "0-3", "*/2", "22-23", "*", "23", "0,2"]
SECONDS = ["0", "30", "*/20", "15,45", "*"]


# --- cases -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    text: str
    zone: str
    after: int

    @property
    def start(self) -> datetime:
        return datetime.fromtimestamp(self.after, ZoneInfo(self.zone))

    def __str__(self) -> str:
        return f"`{self.text}` in {self.zone} after {self.start.isoformat()}"


@cache
def changes_of(zone: str) -> list[tuple[int, int, int]]:
    """(second, offset before, offset after) of each change that a case can meet."""
    return changes_around(ZoneInfo(zone), START - 30 * DAY, END + HORIZON, pace=3 * DAY)


class Draw:
    """Random cases, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def term(self, low: int, high: int) -> str:
        first, last = sorted(self.random.sample(range(low, high + 1), 2))
        step = self.random.randint(2, max(2, (high - low) // 2))
        terms = [str(first), str(last), f"{first}-{last}", f"{first}-{last}/{step}", f"{first}-{first}"]
        return self.random.choices(terms, [8, 8, 8, 8, 1])[0]

    def numbers(self, low: int, high: int) -> str:
        kind = self.random.randrange(6)
        if kind == 0:
            return "*"
        if kind == 1:
            return f"*/{self.random.randint(2, max(2, (high - low) // 2))}"
        return ",".join(self.term(low, high) for _ in range(1 if kind < 4 else self.random.randint(1, 3)))

    def either(self, words: list[str], low: int, high: int) -> str:
        return self.random.choice(words) if self.random.random() < 0.6 else self.numbers(low, high)

    def pattern(self) -> str:
        minute = self.numbers(0, 59)
        if self.random.random() < 0.4:
            text = f"{minute} {self.random.choice(NIGHTS)} * * *"
        else:
            days, months = self.either(DAYS, 1, 31), self.either(MONTHS, 1, 12)
            text = f"{minute} {self.numbers(0, 23)} {days} {months} {self.either(WEEKDAYS, 0, 6)}"
        return f"{self.random.choice(SECONDS)} {text}" if self.random.random() < 0.15 else text

    def case(self) -> Case:
        text, zone = self.pattern(), self.random.choice(ZONES)
        changes = [change for change, _, _ in changes_of(zone) if START <= change < END]
        if changes and self.random.random() < 0.6:
            return Case(text, zone, self.random.choice(changes) + self.random.randint(-2 * DAY, 2 * DAY))
        return Case(text, zone, self.random.randint(START, END))


# --- who is asked ------------------------------------------------------------------------------


class NotAccepted(Exception):
    """The pattern is not in their language, or not in this combination."""


class NoAnswer(Exception):
    """They did not come back in time."""


@contextmanager
def processor_seconds(limit: float) -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise NoAnswer

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def seconds_of(step: Callable[[], datetime]) -> list[int]:
    found: list[int] = []
    while len(found) < DUE_TIMES:
        try:
            found.append(int(step().timestamp()))
        except (CroniterBadDateError, StopIteration):
            break
    return found


def ask_ours(case: Case) -> list[int]:
    return [int(due.timestamp()) for due in islice(Schedule(case.text).upcoming(case.start), DUE_TIMES)]


def respell(text: str, days: dict[str, str], weekdays: dict[str, str]) -> str:
    fields = text.split()
    fields[-3] = days.get(fields[-3], fields[-3])
    fields[-1] = weekdays.get(fields[-1], fields[-1])
    return " ".join(fields)


def ask_croniter(case: Case) -> list[int]:
    text = respell(case.text, {"$": "L"}, {"5L": "l5", "FRI#L": "l5", "7L": "l0"})
    try:
        found = croniter(text, case.start, second_at_beginning=len(text.split()) > 5)
    except CroniterBadCronError as exc:
        raise NotAccepted from exc
    return seconds_of(lambda: found.get_next(datetime))


def ask_cronsim(case: Case) -> list[int]:
    text = respell(case.text, {"$": "L", "?": "*"}, {"FRI#L": "5L", "FRI-SUN": "5-7", "?": "*"})
    try:
        found = CronSim(text, case.start)
    except CronSimError as exc:
        raise NotAccepted from exc
    return seconds_of(lambda: next(found))


def reference_finds(case: Case, previous: int, mine: int | None, theirs: int | None) -> bool:
    """Does the reference find our due time, and nothing before it where they have one?"""
    reference, zone = Reference(case.text), ZoneInfo(case.zone)
    claims = [due for due in (mine, theirs) if due is not None and due > previous]
    first = min(claims, default=None)
    if first is None:
        return True
    # From so far before that any mistake about a change of the clock would show.
    found = list(reference.members(zone, max(previous + 1, first - 3 * DAY), first + 1))
    return found == ([mine] if mine == first else [])


# --- why they differ ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """The first due time that is not the same: `mine` and `theirs`, None where there was none."""

    case: Case
    previous: int
    mine: int | None
    theirs: int | None

    @property
    def fields(self) -> list[str]:
        return self.case.text.split()

    @property
    def days(self) -> str:
        return self.fields[-3]

    @property
    def weekdays(self) -> str:
        return self.fields[-1]

    @property
    def first(self) -> int:
        """The due time that one of the two has and the other one has not."""
        return min(due for due in (self.mine, self.theirs) if due is not None)

    @property
    def extra(self) -> bool:
        """Is it theirs?"""
        return self.first == self.theirs

    def changes(self, before: int, after: int) -> Iterator[tuple[int, int, int]]:
        """The changes of the clock from `before` seconds before the due time to `after` seconds after it."""
        changes = changes_of(self.case.zone)
        start = bisect_right(changes, (self.first - before, 0, 0))
        return (change for change in islice(changes, start, None) if change[0] <= self.first + after)

    @property
    def second_pass(self) -> bool:
        return any(change <= self.first < change + old - new for change, old, new in self.changes(DAY, 0))

    @property
    def lost_before(self) -> int:
        """How much the clock has left out within the last minute."""
        return max((new - old for _, old, new in self.changes(MINUTE, 0)), default=0)

    @property
    def restricted(self) -> bool:
        """Both day fields are."""
        return not {self.days, self.weekdays} & {"*", "?"}

    @property
    def wildcard(self) -> bool:
        return any(text.startswith("*") for text in self.fields[: 2 if len(self.fields) == 5 else 3])

    def __str__(self) -> str:
        mine, theirs = (
            "none" if due is None else datetime.fromtimestamp(due, ZoneInfo(self.case.zone)).isoformat()
            for due in (self.mine, self.theirs)
        )
        return f"{self.case}: ours {mine}, theirs {theirs}"


def has_special(*texts: str) -> bool:
    return any(re.search(r"[LW#$]", text) for text in texts)


@dataclass(frozen=True)
class Misreading:
    """A reading that gives their answer: the text that says to us what they understand, or nothing."""

    words: str
    respell: Callable[[str], set[str]]


@dataclass(frozen=True)
class Reason:
    """What else explains an answer: seen from the due time that only one of us has."""

    words: str
    applies: Callable[[Difference], bool]


def with_days(text: str, days: str | None = None, weekdays: str | None = None) -> str:
    fields = text.split()
    fields[-3] = days or fields[-3]
    fields[-1] = weekdays or fields[-1]
    return " ".join(fields)


EQUAL_RANGE = re.compile(r"\b(\w+)-\1\b")


def widen_equal_ranges(text: str) -> set[str]:
    """As a star, or in the day fields as all that a star stands for, which is not the same beside the other one."""
    fields = text.split()
    days, weekdays = (EQUAL_RANGE.sub(every, fields[at]) for at, every in ((-3, "1-31"), (-1, "0-7")))
    return {EQUAL_RANGE.sub("*", written) for written in (text, with_days(text, days, weekdays))}


def forget_stars(text: str) -> set[str]:
    """The day fields with their steps written out, so that neither begins with a star."""
    fields = text.split()
    days = re.sub(r"^\*/", "1-31/", fields[-3])
    return {with_days(text, days, re.sub(r"^\*/", "0-6/", fields[-1]))}


def forget_a_day_field(text: str) -> set[str]:
    fields = text.split()
    if not any(re.search(r"[LW#$]", day_field) for day_field in (fields[-3], fields[-1])):
        return set()
    return {with_days(text, days="*"), with_days(text, weekdays="*")}


def require_both(text: str) -> set[str]:
    weekdays = text.split()[-1]
    every = all(Reference(f"0 0 * * {weekdays}").has_date(date(2030, 1, day)) for day in range(6, 13))
    return {with_days(text, weekdays="*")} if every else set()


HOURS_OF_3600 = Reason(
    "hours are counted in steps of 3600 s, so that minutes are lost after a change by another amount or within an hour",
    lambda d: (
        not d.extra and any((new - old) % 3600 or (change + old) % 3600 for change, old, new in d.changes(2 * DAY, 0))
    ),
)

CRONITER_READS = (
    Misreading("`a-a` is the whole field", widen_equal_ranges),
    Misreading("a day field that begins with a step on a star is no star: either field is enough", forget_stars),
    Misreading("weekdays that name every day are a star", require_both),
    Misreading("beside `L`, `W` or `#`, the other day field is forgotten, or they are", forget_a_day_field),
)

CRONITER = (
    Reason(
        "`L`, `W` or `#` beside a restricted day field: no due time at all, or one of a third reading",
        lambda d: has_special(d.days, d.weekdays) and d.restricted and (d.theirs is None or d.days.endswith("W")),
    ),
    Reason("`nW` in a month without day n is the last weekday", lambda d: d.extra and d.days.endswith("W")),
    Reason(
        "a fixed time that the clock shows twice runs twice", lambda d: d.extra and d.second_pass and not d.wildcard
    ),
    Reason(
        "after a gap of three hours or more, what was lost is made up for",
        lambda d: d.extra and d.lost_before >= 3 * 3600,
    ),
    Reason(
        "what a wildcard loses in a gap is made up for",
        lambda d: d.extra and d.wildcard and d.lost_before > 0,
    ),
    Reason(
        "with seconds, what a gap takes is not made up for at its end, but at the next of these seconds",
        lambda d: not d.extra and len(d.fields) > 5 and d.lost_before > 0,
    ),
    HOURS_OF_3600,
)

CRONSIM = (
    Reason(
        "from within the second pass of an overlap it answers with the past",
        lambda d: d.theirs is not None and d.theirs <= d.previous,
    ),
    Reason(
        "after a gap of three hours or more, what was lost is made up for",
        lambda d: d.extra and d.lost_before >= 3 * 3600,
    ),
    Reason(
        "what a wildcard loses at midnight is made up for",
        lambda d: (
            d.extra
            and d.wildcard
            and any(new > old and (change + old) % DAY == 0 for change, old, new in d.changes(MINUTE, 0))
        ),
    ),
    Reason(
        "with seconds, what a gap takes is lost, and what an overlap shows twice runs twice",
        lambda d: len(d.fields) > 5 and (d.second_pass if d.extra else d.lost_before > 0),
    ),
    HOURS_OF_3600,
)


# --- the report --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    name: str
    ask: Callable[[Case], list[int]]
    misreadings: tuple[Misreading, ...]
    reasons: tuple[Reason, ...]


PEERS = (Peer("croniter", ask_croniter, CRONITER_READS, CRONITER), Peer("cronsim", ask_cronsim, (), CRONSIM))

ENDLESS = "no answer: an endless loop"


@dataclass
class Tally:
    """What came of asking one of them."""

    not_accepted: int = 0
    asked: int = 0
    agreed: int = 0
    due_times: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def differ(self, reason: str, example: str) -> None:
        self.reasons[reason] += 1
        self.examples.setdefault(reason, example)


@dataclass
class Agreement:
    """All that was compared; `unexplained` is what nobody should see."""

    cases: int
    seed: int
    patterns: set[str] = field(default_factory=set)
    tallies: dict[str, Tally] = field(default_factory=lambda: {peer.name: Tally() for peer in PEERS})
    referred: int = 0
    unexplained: list[str] = field(default_factory=list)


def find_difference(case: Case, mine: list[int], theirs: list[int]) -> Difference | None:
    previous = case.after
    for ours, other in zip_longest(mine, theirs):
        if ours != other:
            # Who looks less far ahead does not differ.
            too_far = other is None and ours > case.after + HORIZON
            return None if too_far else Difference(case, previous, ours, other)
        previous = ours
    return None


def find_reason(peer: Peer, difference: Difference) -> str | None:
    texts = {difference.case.text}
    for misreading in peer.misreadings:
        # On top of each other: one text may be misread in two ways.
        respelled = {again for text in texts for again in misreading.respell(text)} - texts
        if any(difference.theirs == answer(text, difference) for text in respelled):
            return misreading.words
        texts |= respelled
    # As it is written comes first.
    for text in sorted(texts, key=lambda text: (text != difference.case.text, text)):
        misread = replace(difference, case=replace(difference.case, text=text), mine=answer(text, difference))
        for reason in peer.reasons:
            if reason.applies(misread):
                return reason.words
    return None


def answer(text: str, difference: Difference) -> int | None:
    """What we would say to this text."""
    due = Schedule(text).next(datetime.fromtimestamp(difference.previous, ZoneInfo(difference.case.zone)))
    return None if due is None else int(due.timestamp())


def compare(peer: Peer, case: Case, mine: list[int], found: Agreement) -> None:
    tally = found.tallies[peer.name]
    try:
        with processor_seconds(PATIENCE_S):
            theirs = peer.ask(case)
    except NotAccepted:
        tally.not_accepted += 1
        return
    except NoAnswer:
        tally.asked += 1
        tally.differ(ENDLESS, str(case))
        return
    tally.asked += 1
    tally.due_times += len(mine)
    difference = find_difference(case, mine, theirs)
    if difference is None:
        tally.agreed += 1
        return
    reason = find_reason(peer, difference)
    if not reference_finds(case, difference.previous, difference.mine, difference.theirs):
        found.unexplained.append(f"the reference is not on our side, {peer.name}: {difference}")
    elif reason is None:
        found.unexplained.append(f"{peer.name}: {difference}")
    else:
        tally.differ(reason, str(difference))


def compare_all(cases: int, seed: int) -> Agreement:
    found = Agreement(cases, seed)
    draw = Draw(seed)
    for number in range(cases):
        case = draw.case()
        found.patterns.add(case.text)
        mine = ask_ours(case)
        if number % REFERENCE_EVERY == 0:
            found.referred += 1
            first = mine[0] if mine else None
            if not reference_finds(case, case.after, first, first):
                found.unexplained.append(f"the reference: {case}: ours {first}")
        for peer in PEERS:
            compare(peer, case, mine, found)
    return found


def write_agreement(found: Agreement) -> str:
    """The report, as Markdown."""
    lines = [
        f"{found.cases:,} cases (seed {found.seed}): {len(found.patterns):,} patterns, {len(ZONES)} zones, "
        f"{DUE_TIMES} due times each.",
        f"The reference was asked about {found.referred:,} of them, and about every case in which somebody differs.",
        "",
        "| | accepts | due times compared | cases agreed | cases differed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, tally in found.tallies.items():
        lines.append(
            f"| {name} {version(name)} | {tally.asked:,} | {tally.due_times:,} | "
            f"{tally.agreed:,} ({tally.agreed / max(tally.asked, 1):.1%}) | {tally.asked - tally.agreed:,} |"
        )
    for name, tally in found.tallies.items():
        lines += ["", f"| cases | how {name} differs | the first |", "| ---: | --- | --- |"]
        lines += [
            f"| {count:,} | {reason} | {tally.examples[reason]} |" for reason, count in tally.reasons.most_common()
        ]
    lines += ["", f"Without a reason: {len(found.unexplained)}."]
    lines += [f"- {line}" for line in found.unexplained]
    return "\n".join(lines) + "\n"
