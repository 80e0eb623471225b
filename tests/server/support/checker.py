"""What must be true of a whole history, whatever happened while it was written.

A test keeps a `Timeline` of each job: which schedule was in force from when until when, as far as it can know.
`check` compares that with cron.job_run_details and, where the jobs leave rows of their own in public.journal, with
those. It returns the violations as sentences; an empty list means that every guarantee held:

*   every due time of every job has one record, or is counted by a `missed` record that stands after it;
*   no due time has two runs, and the attempts at one are numbered from 1 and follow one another;
*   no two runs of a job at once, in the records or in the journal (each run takes a lock of its job);
*   never more runs at once than cron.max_running_jobs;
*   no record is open, each has an end, each that failed or was skipped has a reason and a message;
*   `succeeded` if and only if the run's journal row was committed.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from scheduler.cron import Schedule
from tests.server.support.jobs import FINAL, Connection, Run, rows, runs
from tests.server.support.watching import most_at_once

# A run's row in public.journal, written in the run's own transaction. `alone` says whether the job's lock was free.
JOURNAL = """
CREATE TABLE public.journal (runid bigint, jobid bigint, alone boolean, at timestamptz DEFAULT clock_timestamp())
"""
NOTE_RUN = (
    "INSERT INTO public.journal SELECT split_part(name, ' ', 5)::bigint, split_part(name, ' ', 3)::bigint,"
    " pg_try_advisory_xact_lock(split_part(name, ' ', 3)::bigint)"
    " FROM current_setting('application_name') AS name"
)

FOREVER = datetime.max.replace(tzinfo=UTC)

# What a record of missed due times says of the first of them (the test server is in UTC).
MISSED_FROM = re.compile(r"from (\S+ [\d:.]+)\S* on")

# Between the clock of the test and the server's deeds.
SLACK = timedelta(seconds=1)

# Of these nobody can know whether their effects were committed.
UNCERTAIN = frozenset({"server_restart"})


@dataclass(slots=True)
class Span:
    """One definition of a job, in force from about `since` to about `until`.

    Due times after `surely_since` and before `until` must have been dealt with; those after `since` and before
    `surely_until` may have been. `schedule` is None while the job is inactive or gone.
    """

    schedule: str | None
    since: datetime
    surely_since: datetime
    until: datetime = FOREVER
    surely_until: datetime = FOREVER
    anchor: datetime | None = None
    zone: str = "UTC"

    @property
    def is_over(self) -> bool:
        return self.until != FOREVER


@dataclass(slots=True)
class Timeline:
    """What a test knows about one job."""

    name: str
    spans: list[Span] = field(default_factory=list)

    journal: bool = True
    """Does each successful run leave exactly one row in public.journal, in its own transaction?"""

    def change(self, before: datetime, after: datetime, span: Span | None) -> None:
        """The definition in force ends, and another (or none) begins, at some moment in between."""
        if self.spans:
            self.spans[-1].until = before
            self.spans[-1].surely_until = after
        if span is not None:
            self.spans.append(span)

    def due_times(self, end: datetime) -> tuple[set[datetime], set[datetime]]:
        """The due times up to `end` that must have been dealt with, and all that may have been."""
        required: set[datetime] = set()
        allowed: set[datetime] = set()
        for span in self.spans:
            if span.schedule is None:
                continue
            schedule = Schedule(span.schedule, hash_key=self.name)
            for moment in schedule.upcoming(span.since, ZoneInfo(span.zone), anchor=span.anchor):
                due = moment.astimezone(UTC)
                if due > min(span.surely_until, end):
                    break
                allowed.add(due)
                if span.surely_since < due < span.until:
                    required.add(due)
        return required, allowed


def check(
    conn: Connection,
    timelines: Mapping[int, Timeline],
    *,
    until: datetime,
    cap: int,
    deaths: Sequence[datetime] = (),
) -> list[str]:
    """The violations in the history of these jobs, up to an instant by which everything had come to rest.

    `deaths` are the moments at which the server died: only what was open then may be recorded as uncertain.
    """
    found = runs(conn, "jobid = ANY (%s)", list(timelines))
    by_job: dict[int, list[Run]] = defaultdict(list)
    for run in found:
        by_job[run.jobid or 0].append(run)
    violations = [*check_ends(found), *check_cap(found, cap)]
    for jobid, timeline in timelines.items():
        mine = by_job[jobid]
        try:
            violations += check_due_times(timeline, mine, until)
            violations += check_attempts(timeline.name, mine)
            violations += check_intervals(timeline.name, mine)
        except ValueError as exc:
            raise AssertionError(f"job {timeline.name}: {exc}") from exc
    violations += check_journal(conn, timelines, by_job)
    violations += check_uncertain(found, deaths)
    return violations


def label(run: Run) -> str:
    return f"run {run.runid} of job {run.jobid}, due {run.due_time}, {run.status} {run.reason or ''}"


def check_ends(found: Iterable[Run]) -> list[str]:
    """Nothing is open, and whatever is final says when it ended and why."""
    wrong = []
    for run in found:
        if run.status not in FINAL:
            wrong.append(f"{label(run)}: no final status")
            continue
        if run.end_time is None:
            wrong.append(f"{label(run)}: no end_time")
        if run.status != "succeeded" and not run.reason:
            wrong.append(f"{label(run)}: no reason")
        if not run.return_message:
            wrong.append(f"{label(run)}: no message")
        if run.start_time and run.end_time and run.end_time < run.start_time:
            wrong.append(f"{label(run)}: ended before it started")
        if run.start_time and run.due_time and run.start_time < run.due_time - timedelta(milliseconds=1):
            wrong.append(f"{label(run)}: started before it was due, at {run.start_time}")
    return wrong


def check_uncertain(found: Iterable[Run], deaths: Sequence[datetime]) -> list[str]:
    """A run is recorded as interrupted only if the server died between its due time and the end of its record."""
    return [
        f"{label(run)}: the server did not die before {run.end_time}"
        for run in found
        if run.reason in UNCERTAIN
        and run.due_time
        and run.end_time
        and not any(run.due_time - SLACK <= death <= run.end_time + SLACK for death in deaths)
    ]


def ran(found: Iterable[Run]) -> list[Run]:
    """The runs whose start and end are both known. Of an interrupted run the end is only when it was found out."""
    return [run for run in found if run.status in ("succeeded", "failed") and run.reason not in UNCERTAIN]


def check_cap(found: Iterable[Run], cap: int) -> list[str]:
    most = most_at_once(ran(found))
    return [f"{most} runs at once, more than {cap}"] if most > cap else []


def check_due_times(timeline: Timeline, found: Sequence[Run], end: datetime) -> list[str]:
    """Each due time that counts has a record or is counted by one; no record stands at another instant."""
    required, allowed = timeline.due_times(end)
    scheduled = [
        run for run in found if run.due_time is not None and run.trigger in (None, "schedule", "retry", "catch_up")
    ]
    wrong = [
        f"{label(run)}: {timeline.name} was not due then"
        for run in scheduled
        if run.due_time not in allowed and run.due_time and run.due_time <= end
    ]
    covered = {run.due_time for run in scheduled}
    inside = sorted(allowed)
    for run in scheduled:
        if run.reason != "missed" or run.due_time is None:
            continue
        # It counts the due times from the one it names, if it counts any, up to itself.
        first = MISSED_FROM.search(run.return_message or "")
        since = datetime.fromisoformat(first[1]).replace(tzinfo=UTC) if first else run.due_time
        covered.update(inside[bisect_left(inside, since) : bisect_right(inside, run.due_time)])
    lost = sorted(required - covered)
    if lost:
        shown = ", ".join(str(due) for due in lost[:5])
        near = [
            f"{run.due_time} {run.status} {run.reason or ''}"
            for run in scheduled
            if run.due_time and abs(run.due_time - lost[0]) < timedelta(seconds=6)
        ]
        wrong.append(
            f"{timeline.name}: {len(lost)} of {len(required)} due times have no record: {shown};"
            f" its records around the first: {near}; its definitions: {timeline.spans}"
        )
    return wrong


def check_attempts(name: str, found: Iterable[Run]) -> list[str]:
    """One record per attempt, numbered from 1, each begun after the one before it had ended."""
    wrong = []
    by_due: dict[datetime, list[Run]] = defaultdict(list)
    for run in found:
        if run.due_time is not None:
            by_due[run.due_time].append(run)
    for due, attempts in by_due.items():
        attempts.sort(key=lambda run: run.attempt or 0)
        numbers = [run.attempt for run in attempts]
        if numbers != list(range(1, len(numbers) + 1)):
            wrong.append(f"{name}: the attempts at {due} are {numbers}")
        for earlier, later in pairwise(attempts):
            if earlier.status == "succeeded" or (
                earlier.end_time and later.start_time and later.start_time < earlier.end_time
            ):
                wrong.append(f"{name}: attempt {later.attempt} at {due} does not follow a failure")
    return wrong


def check_intervals(name: str, found: Iterable[Run]) -> list[str]:
    """No two runs of a job at once."""
    intervals = sorted(
        ((run.start_time, run.end_time, run) for run in ran(found) if run.start_time and run.end_time),
        key=lambda item: (item[0], item[1]),
    )
    return [
        f"{name}: {label(later[2])} started at {later[0]}, before {label(earlier[2])} ended at {earlier[1]}"
        for earlier, later in pairwise(intervals)
        if later[0] < earlier[1]
    ]


def check_journal(
    conn: Connection, timelines: Mapping[int, Timeline], by_job: Mapping[int, Sequence[Run]]
) -> list[str]:
    """The journal and the records tell the same story."""
    written: Counter[int] = Counter()
    wrong = []
    for runid, jobid, alone in rows(conn, "SELECT runid, jobid, alone FROM public.journal"):
        written[runid] += 1
        if not alone:
            wrong.append(f"run {runid} of job {jobid} found another run of its job at work")
    known = set()
    for jobid, timeline in timelines.items():
        if not timeline.journal:
            continue
        for run in by_job[jobid]:
            known.add(run.runid)
            if run.status == "succeeded" and written[run.runid] != 1:
                wrong.append(f"{label(run)}: {written[run.runid]} rows in the journal")
            elif run.status != "succeeded" and written[run.runid] and run.reason not in UNCERTAIN:
                wrong.append(f"{label(run)}: its row in the journal was committed")
    everybody = {run.runid for found in by_job.values() for run in found}
    wrong += [f"run {runid} left a row in the journal and no record" for runid in written if runid not in everybody]
    return wrong
