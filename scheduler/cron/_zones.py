"""Time zones as tables of offset changes, made from any tzinfo by asking it.

A zone is asked for its offset every few days, and wherever two answers differ
the very second of the change is found by halving. No stretch of constant
offset since 1970 is shorter than the pace of asking (a test reads the whole
tz database to see that), so no change is missed. A table starts with a few
years and grows when a schedule looks further. Tables are replaced, never
changed: a thread that is using one keeps it alive.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any, Final

from scheduler.cron._core import ffi

DAY: Final = 86_400
PACE: Final = 3 * DAY
YEAR: Final = 366 * DAY

# Where offsets can matter: 1970 to 2199, and the days around that the search looks at.
FIRST: Final = -30 * DAY
LAST: Final = 84_040 * DAY

# More zones than this at a time are the work of a program that makes its own.
ZONES_MAX: Final = 2_000

_EPOCH: Final = datetime(1970, 1, 1)
_ALWAYS: Final = 2**62

UTC_TABLE: Final[Any] = ffi.NULL

_tables: dict[tzinfo | None, Any] = {None: UTC_TABLE, timezone.utc: UTC_TABLE}


def table_of(zone: tzinfo | None) -> Any:
    """The table of a zone, as far as it is known; None is UTC."""
    try:
        return _tables[zone]
    except KeyError:
        return _keep(zone, _make_table([(-_ALWAYS, 0)], 0, 0))


def extend(zone: tzinfo | None, reach: int) -> None:
    """Let the table of a zone include the second `reach`, and a good deal around it."""
    assert zone is not None, "UTC has no table"
    old = table_of(zone)
    start, until = _within(old.start), _within(old.until)
    if start >= until:
        start = until = _within(reach - YEAR)
    new_start = min(start, _within(reach - YEAR))
    new_until = max(until, _within(reach + (until - start) // 2 + 2 * YEAR))

    offset = offset_at(zone, new_start)
    changes = [(-_ALWAYS, offset)]
    changes += find_changes(zone, new_start, start)
    changes += [(change.at, change.offset) for change in old.changes[1 : old.count]]
    changes += find_changes(zone, until, new_until)
    _keep(zone, _make_table(changes, new_start, new_until))


def find_changes(zone: tzinfo, start: int, until: int) -> list[tuple[int, int]]:
    """The seconds in (start, until] at which another offset comes into force, with that offset."""
    stops = [*range(start, until, PACE), until]
    offsets = [offset_at(zone, stop) for stop in stops]
    changes = []
    for (low, high), (before, after) in zip(pairwise(stops), pairwise(offsets), strict=True):
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if offset_at(zone, middle) == before:
                low = middle
            else:
                high = middle
        changes.append((high, after))
    return changes


def offset_at(zone: tzinfo, second: int) -> int:
    """Seconds east of Greenwich at a second since 1970-01-01 00:00 UTC."""
    moment = _EPOCH + timedelta(seconds=second)
    offset = zone.fromutc(moment.replace(tzinfo=zone)).replace(tzinfo=None) - moment
    return offset.days * DAY + offset.seconds


def _within(second: int) -> int:
    return max(FIRST, min(second, LAST))


def _make_table(changes: list[tuple[int, int]], start: int, until: int) -> Any:
    # What is known to the ends of what can matter is known for ever.
    if start < until:
        start = -_ALWAYS if start <= FIRST else start
        until = _ALWAYS if until >= LAST else until
    return ffi.new("ZoneTable *", (start, until, len(changes), changes))


def _keep(zone: tzinfo | None, table: Any) -> Any:
    if len(_tables) >= ZONES_MAX:
        _tables.clear()
        _tables.update({None: UTC_TABLE, timezone.utc: UTC_TABLE})
    _tables[zone] = table
    return table
