"""Years of schedules in seconds: the rules of docs/policies.md, executed on clocks that only count.

    >>> job = Job(1, "0 3 * * *", behave=lambda due, attempt: Behaviour(lasts=60 * SECOND))
    >>> world = World([job], start=0)
    >>> world.run(until=2 * DAY)
    >>> [(record.status, record.due // HOUR) for record in world.records]
    [('succeeded', 3), ('succeeded', 27)]

Each decision is made by the code that the server runs (scheduler.cron.policy,
scheduler.cron.Schedule); what is here is what the launcher does with it:
lists of runs, slots, timers. Nothing is random: a behaviour is a function of
the due time and the attempt, an `Incident` happens when it is told to, and the
same world gives the same records.

`check` compares the records with what must hold whatever happens.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final, Literal

from scheduler.cron import Kind, Schedule
from scheduler.cron.policy import (
    HOUR,
    MISSED_AFTER,
    SECOND,
    Action,
    Arrival,
    Limits,
    Outcome,
    Rules,
    next_streak,
    watch,
)

__all__ = ["DAY", "HOUR", "SECOND", "Behaviour", "Incident", "Job", "Record", "World", "check"]

DAY: Final = 24 * HOUR

# The launcher sleeps no longer than this: then it notices a clock that was set.
_MAX_SLEEP: Final = 30 * SECOND

Status = Literal["succeeded", "failed", "skipped"]
Happening = Literal["launcher", "crash", "step", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one attempt goes, if it is left to itself."""

    lasts: int = 0
    """None of its own accord: use a number beyond the end of the world."""
    outcome: Outcome = Outcome.SUCCEEDED
    sqlstate: str = "22012"
    """Of the error, if it fails."""
    is_stubborn: bool = False
    """Does not end when it is canceled, only when it is terminated."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens to the world, at a moment of the monotonic clock."""

    at: int
    what: Happening
    """The launcher is away; so is the server; the wall clock is set; a job is paused or resumed."""
    amount: int = 0
    """How long away; by how much the clock is set."""
    job: int = 0


@dataclass(slots=True)
class Job:
    number: int
    text: str
    rules: Rules = field(default_factory=Rules)
    zone: tzinfo | None = None
    role: str = "somebody"
    behave: Callable[[int, int], Behaviour] = lambda due, attempt: Behaviour()

    schedule: Schedule = field(init=False)
    due: int | None = field(init=False, default=None)
    start: int | None = field(init=False, default=None)
    anchor: int = field(init=False, default=0)
    since: int = field(init=False, default=0)
    is_paused: bool = field(init=False, default=False)
    streak: int = field(init=False, default=0)
    under_way: list[Run] = field(init=False, default_factory=list)
    waiting: list[Run] = field(init=False, default_factory=list)
    resting: list[Run] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.text)

    def next_due(self, after: int) -> int | None:
        """The first due time after `after`, within starts_at and ends_at."""
        due = self.schedule.next_instant(self.rules.look_after(after), self.zone, anchor=self.anchor)
        return due if due is not None and self.rules.in_bounds(due) else None

    def start_of(self, due: int) -> int:
        if not self.rules.jitter:
            return due
        return due + self.rules.offset(self.number, due, self.next_due(due))

    def next_start(self, due: int) -> int | None:
        """When the run of the due time after `due` is to start."""
        following = self.next_due(due)
        return None if following is None else self.start_of(following)

    def set_next(self, due: int | None) -> None:
        self.due = None if self.is_paused else due
        self.start = None if self.due is None else self.start_of(self.due)

    def set_next_from(self, moment: int) -> None:
        """The next due time is the first one whose run is to start after `moment`."""
        due = self.next_due(moment - self.rules.jitter)
        while due is not None and (self.start_of(due) <= moment or due <= self.since):
            due = self.next_due(due)
        self.set_next(due)


@dataclass(eq=False, slots=True)
class Run:
    job: Job
    due: int
    start: int
    attempt: int
    trigger: str
    behaviour: Behaviour
    deadline: int | None = None
    wakes: int | None = None
    look: int | None = None
    began: int | None = None
    began_wall: int = 0
    ends: int = 0
    stopped: int | None = None
    terminated: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What is left of an attempt, or of due times that got none."""

    job: int
    role: str
    due: int
    attempt: int
    trigger: str
    status: Status
    reason: str | None
    wall: int
    """When it was written, or the attempt began, by the wall clock."""
    began: int | None = None
    ended: int | None = None
    """By the monotonic clock; None if it did not begin."""
    first: int | None = None
    """Of a record that counts missed due times: the first of them."""
    count: int = 1
    is_more: bool = False


class World:
    """Jobs, clocks, a server with so many slots, and what happens to it."""

    def __init__(
        self, jobs: Iterable[Job], *, start: int, limits: Limits | None = None, incidents: Iterable[Incident] = ()
    ) -> None:
        self.jobs = {job.number: job for job in jobs}
        self.limits = limits or Limits()
        self.records: list[Record] = []
        self.events = 0
        self.begin = start
        self.mono = 0
        self.shift = start
        """The wall clock is ahead of the monotonic one by this."""
        self.was_set_back = False
        self.closed: int | None = None
        self.pauses: dict[int, list[tuple[int, int | None]]] = {number: [] for number in self.jobs}
        self.incidents = tuple(incidents)
        self._incidents = sorted(self.incidents, key=lambda incident: incident.at)
        self._deferred: list[Incident] = []
        self._away_until = -1
        self._is_server_away = False
        self._cursor = start
        self._missed_until = start
        self._accounted: set[tuple[int, int]] = set()
        self._running: list[Run] = []
        self._lost: list[Run] = []
        for job in self.jobs.values():
            job.anchor = job.since = start
            job.set_next_from(start)

    @property
    def wall(self) -> int:
        return self.mono + self.shift

    @property
    def unfinished(self) -> int:
        """Runs that have not come to their end."""
        return sum(len(job.under_way) + len(job.waiting) + len(job.resting) for job in self.jobs.values())

    def close(self) -> None:
        """Nothing is due any more: what is under way may come to its end."""
        if self._away_until >= 0:
            self.run(self._away_until)
        self.closed = None if self.was_set_back else self.wall
        self._incidents.clear()
        for job in self.jobs.values():
            job.due = job.start = None

    def run(self, until: int) -> None:
        """Let time pass until the monotonic clock, which begins at 0, has come there."""
        while (moment := self._next_moment()) <= until:
            self.mono = max(self.mono, moment)
            self.events += 1
            self._pass()
        self.mono = until

    # -- time --

    def _next_moment(self) -> int:
        moments = [run.ends for run in self._running]
        if self._incidents:
            moments.append(self._incidents[0].at)
        if self._away_until >= 0:
            moments.append(self._away_until)
        else:
            moments += [max(job.start - self.shift, self.mono) for job in self.jobs.values() if job.start is not None]
            for job in self.jobs.values():
                moments += [run.wakes for run in job.resting if run.wakes is not None]
                for runs in (job.under_way, job.waiting):
                    for run in runs:
                        look = run.deadline if run.began is None else run.look
                        if look is not None:
                            moments.append(look + (run.began is None))
        return min(moments, default=2**62)

    def _pass(self) -> None:
        while self._incidents and self._incidents[0].at <= self.mono:
            self._suffer(self._incidents.pop(0))
        self._reap()
        if 0 <= self._away_until <= self.mono:
            self._come_back()
        if self._away_until < 0:
            self._collect()
            while self._deferred:
                incident = self._deferred.pop(0)
                (self._pause if incident.what == "pause" else self._resume)(self.jobs[incident.job])
            self._pause_failing()
            self._watch()
            self._launch()
            self._cursor = self.wall

    # -- what happens to the world --

    def _suffer(self, incident: Incident) -> None:
        if incident.what == "step":
            self.shift += incident.amount
            self.was_set_back |= incident.amount < 0
            if self._away_until < 0:
                self._missed_until = min(self._missed_until, self.wall)
                for job in self.jobs.values():
                    self._move_along(job, incident.amount)
                    if incident.amount < 0 and job.schedule.kind is Kind.CALENDAR:
                        job.set_next_from(self.wall)
        elif incident.what in ("pause", "resume"):
            self._deferred.append(incident)  # nobody can say so while nobody is there
        else:
            self._away_until = max(self._away_until, self.mono + incident.amount)
            if incident.what == "crash":
                self._is_server_away = True
                for run in list(self._running):
                    self._running.remove(run)
                    self._lost.append(run)
                    run.ends = self.mono

    def _move_along(self, job: Job, step: int) -> None:
        """An interval is elapsed time: its series follows the clock that was set."""
        if job.schedule.kind is Kind.INTERVAL:
            job.anchor += step
            if job.due is not None and job.start is not None:
                job.due += step
                job.start += step

    def _pause(self, job: Job) -> None:
        if job.is_paused:
            return
        job.is_paused = True
        job.due = job.start = None
        self.pauses[job.number].append((self.wall, None))
        for run in [*job.waiting, *job.under_way]:
            if run.began is None:
                self._skip(run, "paused")
        job.resting.clear()

    def _resume(self, job: Job) -> None:
        if not job.is_paused:
            return
        job.is_paused = False
        job.streak = 0
        job.since = self.wall
        began, _ = self.pauses[job.number].pop()
        self.pauses[job.number].append((began, self.wall))
        job.set_next_from(self.wall)

    def _come_back(self) -> None:
        """A new launcher: it counts from where the last one was; after a crash, from the newest record."""
        self._away_until = -1
        came_from = min(self._cursor, self.wall)
        if self._is_server_away:
            self._missed_until = self.wall
            self._is_server_away = False
            for run in self._lost:
                self._finish(run, "failed", "server_restart", Outcome.CRASHED, None)
            self._lost.clear()
            for job in self.jobs.values():
                for run in [*job.waiting, *job.under_way]:
                    if run.began is None and job.rules.on_missed.name == "SKIP":
                        self._skip(run, "server_restart")
        for job in self.jobs.values():
            if job.due is None or job.schedule.kind is not Kind.INTERVAL:
                continue
            # The clock may have been set meanwhile: the series as it is written down.
            job.anchor = max(job.anchor, job.since) if job.anchor <= self.wall else job.since
        for job in self.jobs.values():
            if not job.is_paused:
                job.set_next_from(came_from)

    # -- the launcher's verbs --

    def _reap(self) -> None:
        for run in [run for run in self._running if run.ends <= self.mono]:
            self._running.remove(run)
            behaviour = run.behaviour
            if run.why is not None and run.stopped is not None:
                outcome = Outcome.FAILED if run.why == "timeout" else Outcome.CANCELED
                self._finish(run, "failed", run.why, outcome, "57014")
            elif behaviour.outcome is Outcome.SUCCEEDED:
                self._finish(run, "succeeded", None, behaviour.outcome, None)
            elif behaviour.outcome is Outcome.CANCELED:
                self._finish(run, "failed", "canceled", behaviour.outcome, "57014")
            else:
                self._finish(run, "failed", "error", behaviour.outcome, behaviour.sqlstate)

    def _finish(self, run: Run, status: Status, reason: str | None, outcome: Outcome, sqlstate: str | None) -> None:
        job = run.job
        job.under_way.remove(run)
        self._write(run, status, reason)
        again = job.rules.retry(
            self.limits,
            job=job.number,
            due=run.due,
            next_start=job.next_start(run.due),
            attempt=run.attempt,
            outcome=outcome,
            sqlstate=sqlstate,
            now=run.ends + self.shift,
        )
        if again is not None and not job.is_paused:
            following = self._make(job, run.due, run.start, run.attempt + 1, "retry")
            following.wakes = max(again - self.shift, self.mono)
            following.deadline = None
            job.resting.append(following)
        else:
            job.streak = next_streak(job.streak, outcome)
        self._promote(job)

    def _make(self, job: Job, due: int, start: int, attempt: int, trigger: str) -> Run:
        run = Run(job, due, start, attempt, trigger, job.behave(due, attempt))
        deadline = job.rules.deadline(start)
        if deadline is not None:
            run.deadline = deadline - self.shift
        return run

    def _collect(self) -> None:
        horizon = max(self.wall - MISSED_AFTER, self._missed_until)
        while True:
            job = min(
                (job for job in self.jobs.values() if job.start is not None),
                key=lambda job: (job.start, job.number),
                default=None,
            )
            if job is None or job.start is None or job.due is None or job.start > self.wall:
                return
            if job.start <= horizon:
                self._catch_up(job, job.due, horizon)
            else:
                due = job.due
                self._arrive(job, due, job.start)
                job.set_next(job.next_due(due))

    def _catch_up(self, job: Job, first: int, horizon: int) -> None:
        missed: list[int] = []
        due: int | None = first
        while due is not None and job.start_of(due) <= horizon:
            missed.append(due)
            due = job.next_due(due)
        starts = [job.start_of(one) for one in missed]
        plan = job.rules.catch_up(missed, starts, after=first - 1, horizon=horizon, now=self.wall)
        self._give_up_retries(job)
        if plan.last_dropped is not None and (job.number, plan.last_dropped) not in self._accounted:
            self._accounted.add((job.number, plan.last_dropped))
            self.records.append(
                Record(
                    job.number,
                    job.role,
                    plan.last_dropped,
                    1,
                    "schedule",
                    "skipped",
                    "missed",
                    self.wall,
                    first=plan.first_dropped,
                    count=plan.dropped,
                    is_more=plan.is_more,
                )
            )
        for one in plan.due:
            if (job.number, one) in self._accounted:
                continue
            self._accounted.add((job.number, one))
            self._put(self._make(job, one, job.start_of(one), 1, "catch_up"))
        job.set_next(due)

    def _arrive(self, job: Job, due: int, start: int) -> None:
        self._give_up_retries(job)
        running = [run for run in job.under_way if run.began is not None]
        unstarted = [run for run in (*job.waiting, *job.under_way) if run.began is None]
        catching_up = sum(run.trigger == "catch_up" for run in unstarted)
        answer = job.rules.arrive(
            self.limits, running=len(running), unstarted=len(unstarted) - catching_up, catching_up=catching_up
        )
        if (job.number, due) in self._accounted:
            return  # as the unique index on the history has it: the clock was set back
        self._accounted.add((job.number, due))
        run = self._make(job, due, start, 1, "schedule")
        if answer is Arrival.DROP:
            self._write(run, "skipped", "overlap")
            return
        if answer is Arrival.TAKE_OVER:
            for other in unstarted:
                self._skip(other, "replaced")
            for other in running:
                self._stop(other, "replaced")
        self._put(run)

    def _give_up_retries(self, job: Job) -> None:
        """The next due time has come: no attempt at an earlier one begins any more."""
        for run in job.resting:
            self._settle_failed(run)
        job.resting.clear()
        for run in [*job.waiting, *job.under_way]:
            if run.began is None and run.attempt > 1:
                self._skip(run, "superseded")
                self._settle_failed(run)

    def _pause_failing(self) -> None:
        for job in self.jobs.values():
            if job.rules.must_pause(job.streak):
                self._pause(job)

    def _settle_failed(self, run: Run) -> None:
        run.job.streak = next_streak(run.job.streak, Outcome.FAILED)

    def _put(self, run: Run, first: bool = False) -> None:
        job = run.job
        if len(job.under_way) < job.rules.width(self.limits) and (first or not job.waiting):
            job.under_way.append(run)
        elif first:
            job.waiting.insert(0, run)
        else:
            job.waiting.append(run)

    def _promote(self, job: Job) -> None:
        while job.waiting and len(job.under_way) < job.rules.width(self.limits):
            job.under_way.append(job.waiting.pop(0))

    def _watch(self) -> None:
        for job in self.jobs.values():
            for run in [run for run in job.resting if run.wakes is not None and run.wakes <= self.mono]:
                job.resting.remove(run)
                self._put(run, first=True)
            for run in [*job.waiting, *job.under_way]:
                if run.began is None:
                    if run.deadline is not None and run.deadline < self.mono:
                        self._skip(run, "too_late")
                elif run.look is not None and run.look <= self.mono:
                    self._look_at(run)

    def _look_at(self, run: Run) -> None:
        assert run.began is not None
        action, run.look = watch(
            timeout=run.job.rules.timeout,
            grace=self.limits.grace,
            began=run.began,
            stopped=run.stopped,
            terminated=run.terminated,
            now=self.mono,
        )
        if action is Action.CANCEL:
            self._stop(run, "timeout")
        elif action is Action.TERMINATE:
            run.terminated = self.mono
            run.ends = min(run.ends, self.mono)
            self._reap()

    def _stop(self, run: Run, why: str) -> None:
        if run.stopped is not None:
            return
        run.stopped = self.mono
        run.why = why
        run.look = self.mono + self.limits.grace
        if not run.behaviour.is_stubborn:
            run.ends = min(run.ends, self.mono)
            self._reap()

    def _launch(self) -> None:
        ready = [run for job in self.jobs.values() for run in job.under_way if run.began is None]
        ready.sort(key=lambda run: (run.job.rules.rank(run.start), run.job.number, run.due))
        roles = Counter(run.job.role for run in self._running)
        for run in ready:
            if not self.limits.may_start(len(self._running), roles[run.job.role]):
                continue
            roles[run.job.role] += 1
            run.began = self.mono
            run.began_wall = self.wall
            run.ends = self.mono + run.behaviour.lasts
            self._running.append(run)
            _, run.look = watch(
                timeout=run.job.rules.timeout,
                grace=self.limits.grace,
                began=self.mono,
                stopped=None,
                terminated=None,
                now=self.mono,
            )

    # -- records --

    def _skip(self, run: Run, reason: str) -> None:
        for runs in (run.job.under_way, run.job.waiting):
            if run in runs:
                runs.remove(run)
        self._write(run, "skipped", reason)
        self._promote(run.job)

    def _write(self, run: Run, status: Status, reason: str | None) -> None:
        self.records.append(
            Record(
                run.job.number,
                run.job.role,
                run.due,
                run.attempt,
                run.trigger,
                status,
                reason,
                self.wall if run.began is None else run.began_wall,
                run.began,
                None if run.began is None else run.ends,
            )
        )


# --- what must hold ----------------------------------------------------------------------------


def check(world: World) -> list[str]:
    """What is wrong with the records of a world: a line for each violation."""
    return [
        *_check_attempts(world),
        *_check_due_times(world),
        *_check_overlap(world),
        *_check_caps(world),
    ]


def _check_attempts(world: World) -> Iterator[str]:
    """No due time has an attempt twice, attempts are in order, none begins after the next due time."""
    seen = Counter((record.job, record.due, record.attempt) for record in world.records)
    for what, times in seen.items():
        if times > 1:
            yield f"{what} is recorded {times} times"
    ends = {(record.job, record.due, record.attempt): record for record in world.records}
    for record in world.records:
        if record.attempt == 1:
            continue
        before = ends.get((record.job, record.due, record.attempt - 1))
        if before is None or before.status != "failed" or before.ended is None:
            yield f"{record} follows no failure"
        elif record.began is not None and record.began < before.ended:
            yield f"{record} began before attempt {before.attempt} ended"
        job = world.jobs[record.job]
        if record.attempt > job.rules.max_attempts:
            yield f"{record} is one attempt too many"
        if job.schedule.kind is not Kind.CALENDAR:
            continue  # the series may have moved along with the clock since
        following = job.next_start(record.due)
        if record.began is not None and following is not None and record.wall >= following:
            yield f"{record} began after the next due time, {following}"


def _check_due_times(world: World) -> Iterator[str]:
    """Every due time is accounted for exactly once, and those of a pause not at all."""
    by_job: dict[int, list[Record]] = {number: [] for number in world.jobs}
    for record in world.records:
        if record.attempt == 1:
            by_job[record.job].append(record)
    for number, records in by_job.items():
        job = world.jobs[number]
        if job.schedule.kind is not Kind.CALENDAR:
            continue
        singles: list[int] = []
        spans: list[tuple[int, int, Record]] = []
        for record in records:
            if record.first is None:
                insort(singles, record.due)
            else:
                spans.append((record.first, record.due, record))
        spans.sort(key=lambda span: span[0])
        last = max([world.begin, *(record.due for record in records)])
        if world.closed is not None:
            last = max(last, world.closed)
        pauses = world.pauses[number]
        counted: Counter[int] = Counter()
        due: int | None = world.begin
        while due is not None and (due := job.next_due(due)) is not None and due <= last:
            if world.closed is not None and job.start_of(due) > world.closed:
                break
            times = bisect_right(singles, due) - bisect_right(singles, due - 1)
            for begin, end, record in spans:
                if begin <= due <= end:
                    times += 1
                    counted[record.due] += 1
            is_paused = any(begin <= job.start_of(due) and (end is None or due <= end) for begin, end in pauses)
            # What was counted as missed may come again when the clock is set back: then it has its run.
            twice = times > 1 and not (world.was_set_back and spans)
            if twice or (times == 0 and not is_paused):
                yield f"job {number}, due {due}: accounted for {times} times"
        for _, end, record in [] if world.was_set_back else spans:
            if counted[end] != record.count and not (record.is_more and counted[end] > record.count):
                yield f"{record} counts {record.count}, and stands for {counted[end]}"
        for record in records:
            if not job.rules.in_bounds(record.due):
                yield f"{record} is out of bounds"
    for job in world.jobs.values():
        for run in (*job.under_way, *job.waiting):
            if run.began is None:
                yield f"job {job.number}, due {run.due}: has not started"


def _check_overlap(world: World) -> Iterator[str]:
    for number, job in world.jobs.items():
        most = _most_at_once(record for record in world.records if record.job == number)
        if most > job.rules.width(world.limits):
            yield f"job {number}: {most} runs at once"


def _check_caps(world: World) -> Iterator[str]:
    if (most := _most_at_once(world.records)) > world.limits.max_running:
        yield f"{most} runs at once"
    if world.limits.max_running_per_role:
        for role in {job.role for job in world.jobs.values()}:
            most = _most_at_once(record for record in world.records if record.role == role)
            if most > world.limits.max_running_per_role:
                yield f"{most} runs of {role} at once"


def _most_at_once(records: Iterable[Record]) -> int:
    changes: list[tuple[int, int]] = []
    for record in records:
        if record.began is not None and record.ended is not None:
            changes.append((record.began, 1))
            changes.append((max(record.ended, record.began), -1))
    changes.sort()
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
