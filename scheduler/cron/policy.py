"""The rules of a job's options in Python: the very code by which the server decides.

    >>> Rules(jitter=60_000_000).offset(job=7, due=0, next_due=None)
    51801682

Times are whole microseconds, due times since 1970-01-01 00:00 UTC; None
stands for never. docs/policies.md tells the rules; nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from scheduler.cron._core import ffi, lib

__all__ = ["Action", "Arrival", "CatchUp", "Limits", "Missed", "Outcome", "Overlap", "Rules", "watch"]

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

MISSED_AFTER: Final[int] = lib.POLICY_MISSED_AFTER_USEC
"""A due time noticed later than this was missed, and is not merely late."""
CATCH_UP_MAX: Final[int] = lib.POLICY_CATCH_UP_MAX
"""So many missed due times are made up for."""

_NEVER: Final[int] = lib.POLICY_NEVER
_EVER: Final = -(2**63)


class Overlap(Enum):
    QUEUE = lib.POLICY_QUEUE
    SKIP = lib.POLICY_SKIP
    REPLACE = lib.POLICY_REPLACE
    PARALLEL = lib.POLICY_PARALLEL


class Missed(Enum):
    SKIP = lib.POLICY_MISSED_SKIP
    RUN_ONCE = lib.POLICY_MISSED_ONCE
    RUN_ALL = lib.POLICY_MISSED_ALL


class Arrival(Enum):
    """What becomes of a due time."""

    TAKE = lib.POLICY_TAKE
    DROP = lib.POLICY_DROP
    TAKE_OVER = lib.POLICY_TAKE_OVER


class Action(Enum):
    """What to do with a run that goes on."""

    LEAVE = lib.POLICY_LEAVE
    CANCEL = lib.POLICY_CANCEL
    TERMINATE = lib.POLICY_TERMINATE


class Outcome(Enum):
    SUCCEEDED = lib.POLICY_SUCCEEDED
    FAILED = lib.POLICY_FAILED
    CRASHED = lib.POLICY_CRASHED
    CANCELED = lib.POLICY_CANCELED


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for all jobs: settings of the server."""

    max_running: int = 32
    max_running_per_role: int = 0
    grace: int = 10 * SECOND
    max_retry_delay: int = HOUR
    _c: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        c = ffi.new("PolicyLimits *")
        c.max_running = self.max_running
        c.max_running_per_role = self.max_running_per_role
        c.grace = self.grace
        c.max_retry_delay = self.max_retry_delay
        object.__setattr__(self, "_c", c)

    def may_start(self, running: int, running_of_role: int) -> bool:
        """May one more run start?"""
        return bool(lib.clockwork_policy_may_start(self._c, running, running_of_role))


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What becomes of missed due times."""

    due: tuple[int, ...]
    """These get a run, oldest first."""
    dropped: int
    """So many get none."""
    is_more: bool
    """They are more than that."""
    first_dropped: int | None
    last_dropped: int | None


@dataclass(frozen=True, slots=True)
class Rules:
    """The options of a job; None where there is no bound."""

    on_overlap: Overlap = Overlap.QUEUE
    max_parallel: int | None = None
    on_missed: Missed = Missed.SKIP
    start_deadline: int | None = None
    timeout: int | None = None
    max_attempts: int = 1
    retry_delay: int = MINUTE
    retry_on: tuple[str, ...] | None = None
    jitter: int = 0
    priority: int = 0
    starts_at: int | None = None
    ends_at: int | None = None
    pause_after: int | None = None
    _c: Any = field(init=False, repr=False, compare=False)
    _alive: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        listed = ffi.NULL if self.retry_on is None else ffi.new("char[]", " ".join(self.retry_on).encode("ascii"))
        c = ffi.new("PolicyRules *")
        c.on_overlap = self.on_overlap.value
        c.max_parallel = self.max_parallel or 0
        c.on_missed = self.on_missed.value
        c.start_deadline = self.start_deadline or 0
        c.timeout = self.timeout or 0
        c.max_attempts = self.max_attempts
        c.retry_delay = self.retry_delay
        c.retry_on = listed
        c.jitter = self.jitter
        c.priority = self.priority
        c.starts_at = _EVER if self.starts_at is None else self.starts_at
        c.ends_at = _NEVER if self.ends_at is None else self.ends_at
        c.pause_after = self.pause_after or 0
        object.__setattr__(self, "_c", c)
        object.__setattr__(self, "_alive", listed)

    def look_after(self, after: int) -> int:
        """Where to look for the next due time after `after`."""
        return int(lib.clockwork_policy_look_after(self._c, after))

    def in_bounds(self, due: int) -> bool:
        return bool(lib.clockwork_policy_in_bounds(self._c, due))

    def offset(self, job: int, due: int, next_due: int | None) -> int:
        """How long after its due time a run starts."""
        return int(lib.clockwork_policy_offset(self._c, job, due, _time(next_due)))

    def catch_up(self, due: Sequence[int], starts: Sequence[int], *, after: int, horizon: int, now: int) -> CatchUp:
        """What becomes of the due times after `after` that should have started by `horizon`."""
        plan = ffi.new("PolicyCatchUp *")
        columns = ffi.new("int64_t[]", list(due)), ffi.new("int64_t[]", list(starts))
        lib.policy_catch_up(self._c, *columns, len(due), after, horizon, now, plan)
        dropped = plan.dropped > 0
        return CatchUp(
            tuple(plan.due[0 : plan.kept]),
            plan.dropped,
            plan.is_more,
            plan.first_dropped if dropped else None,
            plan.last_dropped if dropped else None,
        )

    def arrive(self, limits: Limits, *, running: int, unstarted: int, catching_up: int = 0) -> Arrival:
        """What becomes of a due time, when so much of earlier ones is left."""
        load = ffi.new("PolicyLoad *", (running, unstarted, catching_up))
        return Arrival(lib.clockwork_policy_arrive(self._c, limits._c, load))

    def width(self, limits: Limits) -> int:
        """How many runs of the job may be under way at once."""
        return int(lib.clockwork_policy_width(self._c, limits._c))

    def deadline(self, start: int) -> int | None:
        """Until when a run may start."""
        return _or_none(lib.clockwork_policy_deadline(self._c, start))

    def rank(self, start: int) -> int:
        """Who starts first: the smaller."""
        return int(lib.clockwork_policy_rank(self._c, start))

    def retry(
        self,
        limits: Limits,
        *,
        job: int,
        due: int,
        next_start: int | None,
        attempt: int,
        outcome: Outcome,
        sqlstate: str | None,
        now: int,
    ) -> int | None:
        """When the next attempt begins."""
        code = ffi.NULL if sqlstate is None else sqlstate.encode("ascii")
        return _or_none(
            lib.clockwork_policy_retry(
                self._c, limits._c, job, due, _time(next_start), attempt, outcome.value, code, now
            )
        )

    def must_pause(self, streak: int) -> bool:
        return bool(lib.clockwork_policy_must_pause(self._c, streak))


def watch(
    *, timeout: int | None, grace: int, began: int, stopped: int | None, terminated: int | None, now: int
) -> tuple[Action, int | None]:
    """What to do now with a run that goes on, and when to look again."""
    answer = lib.clockwork_policy_watch(timeout or 0, grace, began, _time(stopped), _time(terminated), now)
    return Action(answer.action), _or_none(answer.look_again)


def next_streak(streak: int, outcome: Outcome) -> int:
    """The number of failures in a row after another outcome."""
    return int(lib.clockwork_policy_streak(streak, outcome.value))


def is_sqlstate(text: str) -> bool:
    """Is it a SQLSTATE of an error, or the class of one?"""
    return bool(lib.clockwork_policy_is_sqlstate(text.encode("utf-8", "replace")))


def _time(moment: int | None) -> int:
    return _NEVER if moment is None else moment


def _or_none(moment: int) -> int | None:
    return None if moment == _NEVER else moment
