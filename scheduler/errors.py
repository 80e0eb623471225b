"""Everything that can go wrong, as one small tree.

    ClockworkError
     ├── ScheduleError     a schedule or a time zone does not parse
     ├── PackagingError    the extension could not be built or installed
     └── ClusterError      a private PostgreSQL could not be run

The message says what happened and why; the hint, kept apart, says what to do
about it. Both follow PostgreSQL's voice: the message is one line in lower case
without a period, the hint is made of sentences.
"""

from __future__ import annotations


class ClockworkError(Exception):
    """The root of the tree: catch this to catch all of them."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ScheduleError(ClockworkError):
    """A schedule or a time zone does not parse."""


class PackagingError(ClockworkError):
    """The extension could not be built or installed."""


class ClusterError(ClockworkError):
    """A private PostgreSQL could not be created, started or reached."""
