"""The schedule language in Python: the very code that the server runs.

    >>> from datetime import datetime, timezone
    >>> nightly = Schedule("0 3 * * *")
    >>> nightly.next(datetime(2030, 1, 1, tzinfo=timezone.utc))
    datetime.datetime(2030, 1, 1, 3, 0, tzinfo=datetime.timezone.utc)

A `Schedule` is parsed once and never changes. Times go in and come out as
aware datetimes; a naive one is refused rather than guessed at. Zones are
`tzinfo` objects or IANA names. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from scheduler import errors
from scheduler.cron import _zones
from scheduler.cron._core import ffi, lib

__all__ = ["Condition", "Kind", "Notice", "Parent", "Schedule", "ScheduleError"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
_NEVER: Final[int] = lib.SCHEDULE_NEVER
_UNKNOWN: Final[int] = lib.SCHEDULE_UNKNOWN
_TEXT_MAX: Final[int] = lib.SCHEDULE_TEXT_MAX

# The first look ahead of `upcoming`, and the longest.
_BATCH_FIRST: Final = 4
_BATCH_MAX: Final = 256

_next = lib.zone_next
_table_of = _zones.table_of
_from_timestamp = datetime.fromtimestamp


class ScheduleError(errors.ScheduleError):
    """A text that is no schedule: `detail` says where and why, `hint` what to write instead."""

    def __init__(self, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.detail = detail


class Kind(Enum):
    """What makes a schedule due."""

    CALENDAR = lib.SCHEDULE_CALENDAR
    INTERVAL = lib.SCHEDULE_INTERVAL
    AT = lib.SCHEDULE_AT
    REBOOT = lib.SCHEDULE_REBOOT
    AFTER = lib.SCHEDULE_AFTER


class Condition(Enum):
    """What the run of a parent must have done."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Parent:
    """A job that an `@after` schedule waits for."""

    name: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth saying about a schedule that was accepted."""

    message: str
    detail: str
    hint: str


class Schedule:
    """A parsed schedule."""

    __slots__ = ("_bytes", "_c", "_last", "fields", "notice", "text")

    text: str
    """As given."""
    notice: Notice | None
    """What `cron.schedule()` would remark."""
    fields: int
    """5, 6 or 7 for a cron expression, else 0."""

    def __init__(self, text: str, *, hash_key: str = "") -> None:
        """Parse `text`, or raise ScheduleError. `hash_key` is what "H" is derived from: the job's name."""
        encoded = self._bytes = _to_bytes(text)
        key = _to_bytes(hash_key)
        report = ffi.new("ScheduleReport *")
        self._c: Any = ffi.new("Schedule *")
        if not lib.clockwork_schedule_parse(encoded, len(encoded), key, len(key), self._c, report):
            raise ScheduleError(f"invalid schedule: {text}", _string(report.detail), _string(report.hint))
        self._last: tuple[datetime | None, int] = (None, 0)
        self.text = text
        self.fields = report.fields
        self.notice = None
        if report.notice[0] != b"\0":
            self.notice = Notice(_string(report.notice), _string(report.notice_detail), _string(report.notice_hint))

    @classmethod
    def parse(cls, text: str, *, hash_key: str = "") -> Schedule:
        """The same as calling the class."""
        return cls(text, hash_key=hash_key)

    @property
    def kind(self) -> Kind:
        return Kind(self._c.kind)

    @property
    def normalised(self) -> str:
        """The shortest plain form; parsing it gives an equal schedule."""
        return _written(lib.clockwork_schedule_format, self._c, self._bytes, len(self._bytes))

    def describe(self) -> str:
        """The schedule in English words."""
        return _written(lib.clockwork_schedule_describe, self._c, self._bytes, len(self._bytes))

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The jobs that `@after` names, in the order of the text; empty for other kinds."""
        if self.kind is not Kind.AFTER:
            return ()
        found = []
        text = ffi.from_buffer(self._bytes)
        position, parent = ffi.new("size_t *"), ffi.new("ScheduleParent *")
        while lib.clockwork_schedule_next_parent(text, len(self._bytes), position, parent):
            word = _string(lib.clockwork_schedule_condition_word(parent.condition))
            found.append(Parent(_written(lib.clockwork_schedule_parent_name, parent), Condition(word)))
        return tuple(found)

    def next(
        self,
        after: datetime,
        zone: tzinfo | str | None = None,
        *,
        anchor: datetime | None = None,
        match_dom_and_dow: bool = False,
    ) -> datetime | None:
        """The first due time strictly after `after`, in `zone` (or else in the zone of `after`); None if there is none.

        `anchor` is where the series of an interval begins: 1970-01-01 00:00 UTC unless given.
        """
        tz = after.tzinfo if zone is None else zone if isinstance(zone, tzinfo) else _as_zone(zone)
        # Whoever walks on from the last answer hands back that very object, whose instant is known.
        moment, position = self._last
        if after is not moment:
            position = _to_instant(after)
        series = 0 if anchor is None else _to_instant(anchor)
        instant = _next(self._c, _table_of(tz), match_dom_and_dow, series, position)
        if instant == _UNKNOWN:
            instant = self._ask_further(tz, position, series, match_dom_and_dow)
        if instant == _NEVER:
            return None
        moment = _from_instant(instant, tz) if instant % 1_000_000 else _from_timestamp(instant // 1_000_000, tz)
        self._last = (moment, instant)
        return moment

    def next_instant(
        self, after: int, zone: tzinfo | None = None, *, anchor: int = 0, match_dom_and_dow: bool = False
    ) -> int | None:
        """`next` in microseconds since 1970-01-01 00:00 UTC, for those who count in them."""
        instant: int = _next(self._c, _table_of(zone), match_dom_and_dow, anchor, after)
        if instant == _UNKNOWN:
            instant = self._ask_further(zone, after, anchor, match_dom_and_dow)
        return None if instant == _NEVER else instant

    def upcoming(
        self,
        after: datetime,
        zone: tzinfo | str | None = None,
        *,
        anchor: datetime | None = None,
        match_dom_and_dow: bool = False,
    ) -> Iterator[datetime]:
        """The due times after `after`, one by one; many schedules have no last one."""
        tz = after.tzinfo if zone is None else _as_zone(zone)
        position = _to_instant(after)
        series = 0 if anchor is None else _to_instant(anchor)
        return self._walk(position, tz, series, match_dom_and_dow)

    def matches(
        self,
        instant: datetime,
        zone: tzinfo | str | None = None,
        *,
        anchor: datetime | None = None,
        match_dom_and_dow: bool = False,
    ) -> bool:
        """Is `instant` a due time?"""
        tz = instant.tzinfo if zone is None else _as_zone(zone)
        at = _to_instant(instant)
        series = 0 if anchor is None else _to_instant(anchor)
        while (answer := lib.zone_matches(self._c, _table_of(tz), match_dom_and_dow, series, at)) < 0:
            _zones.extend(tz, at // 1_000_000)
        return bool(answer)

    def never_runs(self, now: datetime | None = None, *, match_dom_and_dow: bool = False) -> str | None:
        """Why there is no due time (from `now` on), as a sentence; None if there may be one."""
        since = -(2**63) if now is None else _to_instant(now)
        buffer = ffi.new("char[]", 512)
        if not lib.clockwork_schedule_never_runs_after(self._c, match_dom_and_dow, since, buffer, len(buffer)):
            return None
        return _string(buffer)

    def explain(
        self, after: datetime, zone: tzinfo | str | None = None, *, count: int = 5, match_dom_and_dow: bool = False
    ) -> list[str]:
        """What `cron.explain()` says of the schedule, line by line, with the next `count` due times after `after`."""
        tz = after.tzinfo if zone is None else _as_zone(zone)
        buffer = ffi.new("char[]", 4096 + 4 * len(self._bytes) + 80 * count)
        reach = ffi.new("int64_t *")
        instant = _to_instant(after)
        name = _to_bytes(str(tz))
        while True:
            length = lib.zone_explain(
                self._c,
                self._bytes,
                len(self._bytes),
                _table_of(tz),
                name,
                match_dom_and_dow,
                instant,
                count,
                buffer,
                len(buffer),
                reach,
            )
            if length >= 0:
                return _string(buffer).splitlines()
            assert tz is not None
            _zones.extend(tz, reach[0])

    def _walk(self, position: int, zone: tzinfo | None, anchor: int, match_dom_and_dow: bool) -> Iterator[datetime]:
        count = _BATCH_FIRST
        instants = ffi.new("int64_t[]", _BATCH_MAX)
        while True:
            filled = lib.zone_upcoming(self._c, _table_of(zone), match_dom_and_dow, anchor, position, count, instants)
            for instant in ffi.unpack(instants, filled):
                if instant == _NEVER:
                    return
                if instant == _UNKNOWN:
                    self._extend(zone, position, anchor, match_dom_and_dow)
                    break
                position = instant
                seconds, fraction = divmod(instant, 1_000_000)
                yield _from_instant(instant, zone) if fraction else _from_timestamp(seconds, zone)
            count = min(2 * count, _BATCH_MAX)

    def _ask_further(self, zone: tzinfo | None, after: int, anchor: int, match_dom_and_dow: bool) -> int:
        """Ask again with a longer table of the zone, until the answer is within it."""
        instant: int = _UNKNOWN
        while instant == _UNKNOWN:
            self._extend(zone, after, anchor, match_dom_and_dow)
            instant = _next(self._c, _table_of(zone), match_dom_and_dow, anchor, after)
        return instant

    def _extend(self, zone: tzinfo | None, after: int, anchor: int, match_dom_and_dow: bool) -> None:
        _zones.extend(zone, lib.zone_reach(self._c, _table_of(zone), match_dom_and_dow, anchor, after))

    def __eq__(self, other: object) -> bool:
        """Two schedules are equal if they are due at the same instants for the same written reasons."""
        if not isinstance(other, Schedule):
            return NotImplemented
        return bool(lib.schedule_equal(self._c, other._c))

    def __hash__(self) -> int:
        return hash(bytes(ffi.buffer(self._c)))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Schedule({self.text!r})"


def _as_zone(zone: tzinfo | str) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ScheduleError(f'time zone "{zone}" not recognized') from exc


def _to_bytes(text: str) -> bytes:
    """UTF-8; bytes that Python had smuggled in are themselves again, and a lone surrogate is let through."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _to_instant(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("a datetime without a time zone does not name an instant")
    if moment.microsecond:
        return (moment - _EPOCH) // _MICROSECOND
    return int(moment.timestamp()) * 1_000_000


def _from_instant(instant: int, zone: tzinfo | None) -> datetime:
    seconds, fraction = divmod(instant, 1_000_000)
    moment = datetime.fromtimestamp(seconds, zone or timezone.utc)
    return moment.replace(microsecond=fraction) if fraction else moment


def _string(buffer: Any) -> str:
    text: bytes = ffi.string(buffer)
    return text.decode("utf-8", "surrogateescape")


def _written(write: Any, *asked: Any) -> str:
    """What a C function writes, however long."""
    size = 256
    while True:
        buffer = ffi.new("char[]", size)
        length = write(*asked, buffer, size)
        if length < size:
            return _string(buffer)
        size = length + 1
