"""The command `clockwork`: the only module that prints and exits.

Exit codes: 0 done, 1 could not be done (the reason is on standard error, with a
hint below it), 2 the command line itself is wrong, 130 interrupted. Data goes to
standard output, everything else to standard error; `--json` where data is
printed; NO_COLOR is respected.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import psycopg
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scheduler import __version__, packaging
from scheduler.cluster import Cluster
from scheduler.demo import RunRow, open_demo, read_history
from scheduler.errors import ClockworkError, PackagingError, ScheduleError

if TYPE_CHECKING:
    from scheduler.cron import Schedule
    from scheduler.worlds import Statistics

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

REFRESH_S = 0.25

# Tests mostly wait: so many at a time, whatever the machine.
TEST_PROCESSES = 4
LIVE_ROWS = 18

STATUS_STYLES = {"succeeded": "green", "failed": "red", "running": "cyan", "starting": "cyan", "skipped": "yellow"}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="clockwork")
def cli() -> None:
    """Run and try pg_clockwork, a job scheduler that lives inside PostgreSQL."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its code."""
    try:
        sys.exit(cli.main(arguments, prog_name="clockwork", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except ClockworkError as exc:
        _print_error(exc)
        sys.exit(EXIT_FAILED)
    except psycopg.Error as exc:
        _print_error(ClockworkError(f"could not ask PostgreSQL: {str(exc).strip().splitlines()[0]}"))
        sys.exit(EXIT_FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)


def _print_error(error: ClockworkError) -> None:
    err.print(f"[red]error:[/] {escape(error.message)}", soft_wrap=True)
    for line in error.hint.splitlines():
        err.print(f"  {escape(line)}", soft_wrap=True)


def _say(line: str) -> None:
    err.print(f"[dim]·[/] {escape(line)}", soft_wrap=True)


# --- demo --------------------------------------------------------------------------------------


@cli.command()
@click.option("--pg-config", metavar="PATH", help="Use this PostgreSQL instead of the one that came along.")
@click.option("--keep", is_flag=True, help="Keep the server's files after it has stopped.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after this time instead of at Ctrl-C.")
def demo(pg_config: str | None, keep: bool, seconds: float | None) -> None:
    """Start a private PostgreSQL with four real jobs, and show their history as it arrives."""
    chosen = Path(pg_config) if pg_config else packaging.find_embedded()
    with _signals_end_it(), open_demo(chosen, keep=keep, say=_say) as cluster:
        _print_welcome(cluster)
        try:
            watch = _watch_live if out.is_terminal else _watch_lines
            watch(cluster, None if seconds is None else time.monotonic() + seconds)
        except KeyboardInterrupt:
            # The ordinary end of a demo is no failure.
            pass
        _ignore_signals()
        _say("stopping the server")
    _print_farewell(cluster, keep=keep)


class _Terminated(SystemExit):
    """A signal asked us to end; the way out cleans up."""


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Turn signals that would end us on the spot into an exception, so that the server ends first."""

    def end(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise _Terminated(128 + number)

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # A shell starts what it puts in the background with Ctrl-C ignored; we can still be told to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """The way out has begun: a second Ctrl-C must not leave half of the server behind."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _psql(cluster: Cluster) -> str:
    return f"{cluster.origin.bindir / 'psql'} -h {cluster.directory} -U postgres postgres"


def _print_welcome(cluster: Cluster) -> None:
    _say(f"PostgreSQL {cluster.version} runs with pg_clockwork; while it does, look around with")
    err.print(f"    {_psql(cluster)}", soft_wrap=True, markup=False)
    _say("the run history, cron.job_run_details, as it arrives" + ("; Ctrl-C ends it" if out.is_terminal else ""))


def _print_farewell(cluster: Cluster, *, keep: bool) -> None:
    if keep:
        _say(f"kept: {cluster.directory}; start it again with")
        err.print(f"    {_restart_line(cluster)}", soft_wrap=True, markup=False)
    else:
        _say("stopped, nothing is left behind")
    _say("to have it in your own PostgreSQL:")
    err.print(
        f"    {_command()} install --pg-config /path/to/pg_config\n"
        "    shared_preload_libraries = 'pg_clockwork'      # in postgresql.conf, then restart\n"
        "    CREATE EXTENSION pg_clockwork;",
        soft_wrap=True,
        markup=False,
    )


def _command() -> str:
    """How the user calls us: a checkout has its own entry point."""
    return "./clockwork" if _find_checkout() else "clockwork"


def _find_checkout() -> Path | None:
    root = Path(__file__).resolve().parent.parent
    return root if (root / "tests" / "conftest.py").exists() else None


def _restart_line(cluster: Cluster) -> str:
    account = cluster.account
    start = f"{cluster.installation.bindir / 'pg_ctl'} -D {cluster.data} -l {cluster.log_file} start"
    if account.uid is not None:
        return f"setpriv --reuid={account.uid} --regid={account.gid} --clear-groups {start}"
    return " ".join([*account.wrapper, start])


def _watch_live(cluster: Cluster, deadline: float | None) -> None:
    """Redraw a table in place."""
    with Live(console=out, auto_refresh=False) as live:
        while deadline is None or time.monotonic() < deadline:
            live.update(_draw_history(read_history(cluster, limit=LIVE_ROWS)), refresh=True)
            time.sleep(REFRESH_S)


def _watch_lines(cluster: Cluster, deadline: float | None) -> None:
    """Append one line per finished run, in the order of their ends."""
    out.print(_line("run", "job", "database", "status", "start (UTC)", "duration", "message"), soft_wrap=True)
    printed: set[int] = set()
    floor = 0
    while deadline is None or time.monotonic() < deadline:
        rows = read_history(cluster, after=floor)
        for row in rows:
            if row.finished and row.runid not in printed:
                printed.add(row.runid)
                out.print(_line(*_cells(row)), soft_wrap=True, markup=False)
        out.file.flush()
        # Ask next time from the oldest run that is still to be printed, if any.
        unfinished = [row.runid for row in rows if not row.finished]
        floor = min(unfinished) - 1 if unfinished else max([floor, *printed])
        time.sleep(REFRESH_S)


def _line(*cells: str) -> str:
    run, job, database, status, start, duration, message = cells
    return f"{run:>5}  {job:<15} {database:<9} {status:<10} {start:<12} {duration:>9}  {message}".rstrip()


def _draw_history(rows: Sequence[RunRow]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, width in (("run", 5), ("job", 14), ("database", 8), ("status", 9), ("start (UTC)", 12), ("duration", 9)):
        table.add_column(name, justify="right" if name in ("run", "duration") else "left", no_wrap=True, width=width)
    # The message takes what the terminal leaves.
    table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        run, job, database, status, start, duration, message = map(Text, _cells(row))
        status.stylize(STATUS_STYLES.get(row.status, "default"))
        table.add_row(run, job, database, status, start, duration, message)
    return Group(table, Text("") if rows else Text("waiting for the first run", style="dim"))


def _cells(row: RunRow) -> tuple[str, ...]:
    start = f"{row.start:%H:%M:%S}.{row.start.microsecond // 1000:03}" if row.start else ""
    message = " ".join(row.message.split())
    return str(row.runid), row.job, row.database, row.status, start, _milliseconds(row.duration), message


def _milliseconds(duration: timedelta | None) -> str:
    return "" if duration is None else f"{duration.total_seconds() * 1000:.1f} ms"


# --- install -----------------------------------------------------------------------------------


@cli.command()
@click.option("--pg-config", default="pg_config", show_default=True, metavar="PATH", help="The PostgreSQL to extend.")
@click.option("--destdir", type=click.Path(path_type=Path), help="Install below this directory, as packagers do.")
def install(pg_config: str, destdir: Path | None) -> None:
    """Build the extension and install it into a PostgreSQL."""
    packaging.build_and_install(pg_config, destdir.absolute() if destdir is not None else None)
    _say(f"installed pg_clockwork {__version__} for {pg_config}{f' below {destdir}' if destdir else ''}; what is left:")
    err.print(
        "    shared_preload_libraries = 'pg_clockwork'      # in postgresql.conf, then restart\n"
        "    CREATE EXTENSION pg_clockwork;                 -- in the database cron.database_name",
        soft_wrap=True,
        markup=False,
    )


# --- test --------------------------------------------------------------------------------------


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the tests of a checkout, several at a time unless -n says otherwise: the arguments are pytest's."""
    root = _find_checkout()
    if root is None:
        raise PackagingError("could not find the tests", "They are part of a checkout, not of the installed package.")
    os.chdir(root)
    if not any(argument.startswith(("-n", "--numprocesses")) for argument in arguments):
        arguments = ("-n", str(TEST_PROCESSES), "--dist", "worksteal", *arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])


# --- simulate ----------------------------------------------------------------------------------


@cli.command()
@click.option("--seconds", type=click.FloatRange(min=0), help="Go on for so long instead of for --worlds.")
@click.option("--worlds", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--days", type=click.IntRange(min=1), help="How long each lasts, instead of 2, 7 or 30.")
@click.option(
    "--first", default=0, show_default=True, type=click.IntRange(min=0), help="The number of the first world."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(seconds: float | None, worlds: int, days: int | None, first: int, as_json: bool) -> None:
    """Simulate jobs under random options, outages and clocks that are set, and check every record.

    Exits with 1 if one breaks a rule.
    """
    from scheduler.worlds import Statistics

    statistics = Statistics()
    began = time.monotonic()
    for seed in range(first, sys.maxsize if seconds is not None else first + worlds):
        if seconds is not None and time.monotonic() - began >= seconds:
            break
        statistics.add(seed, days)
    _print_statistics(statistics, time.monotonic() - began, as_json=as_json)
    if statistics.violations:
        sys.exit(EXIT_FAILED)


def _print_statistics(statistics: Statistics, seconds: float, *, as_json: bool) -> None:
    facts = {
        "worlds": statistics.worlds,
        "years": round(statistics.years, 1),
        "schedules": statistics.schedules,
        "events": statistics.events,
        "incidents": dict(statistics.incidents.most_common()),
        "due times": statistics.due_times,
        "attempts": statistics.attempts,
        "records": dict(statistics.records.most_common()),
        "seconds": round(seconds, 1),
        "violations": statistics.violations,
    }
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name:<10}  {sum(value.values()):>12,}  " + ", ".join(f"{key} {n:,}" for key, n in value.items()))
        elif isinstance(value, list):
            print(f"{name:<10}  {len(value):>12,}")
            print("".join(f"  {line}\n" for line in value), end="")
        else:
            print(f"{name:<10}  {value:>12,}")


# --- schedules ---------------------------------------------------------------------------------

NEXT_DEFAULT = 5
NEXT_MAX = 10_000


@cli.command("next")
@click.argument("expression")
@click.option("--tz", default="UTC", show_default=True, help="The time zone, by its IANA name.")
@click.option("--job-name", metavar="NAME", default="", help="The job's name, on which H depends.")
@click.option("-n", "count", default=NEXT_DEFAULT, show_default=True, type=click.IntRange(1, NEXT_MAX))
@click.option("--after", metavar="INSTANT", help="Begin after this instant (ISO 8601) instead of now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def next_runs(expression: str, tz: str, job_name: str, count: int, after: str | None, as_json: bool) -> None:
    """Print the next due times of a schedule."""
    schedule, zone = _parse_schedule(expression, tz, job_name)
    start = _parse_instant(after, zone)
    # An interval is counted from there, as cron.next_runs() does.
    times = list(islice(schedule.upcoming(start, zone, anchor=start), count))
    if as_json:
        print(json.dumps({"schedule": expression, "timezone": tz, "next": [time.isoformat() for time in times]}))
        return
    for moment in times:
        print(moment.isoformat(sep=" "))
    if not times:
        _say(schedule.never_runs(start) or _no_due_times(schedule))


EXPLAIN_MAX = 100


@cli.command()
@click.argument("expression")
@click.option("--tz", default="UTC", show_default=True, help="The time zone, by its IANA name.")
@click.option("--job-name", metavar="NAME", default="", help="The job's name, on which H depends.")
@click.option("-n", "count", default=NEXT_DEFAULT, show_default=True, type=click.IntRange(0, EXPLAIN_MAX))
@click.option("--after", metavar="INSTANT", help="Begin after this instant (ISO 8601) instead of now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(expression: str, tz: str, job_name: str, count: int, after: str | None, as_json: bool) -> None:
    """Say in words when a schedule is due, as cron.explain() does, clock changes included."""
    schedule, zone = _parse_schedule(expression, tz, job_name)
    start = _parse_instant(after, zone)
    lines = schedule.explain(start, zone, count=count)
    if as_json:
        facts = {
            "schedule": expression,
            "timezone": tz,
            "kind": schedule.kind.name.lower(),
            "normalised": schedule.normalised,
            "words": schedule.describe(),
            "never": schedule.never_runs(start),
            "notice": schedule.notice.message if schedule.notice else None,
            "next": [time.isoformat() for time in islice(schedule.upcoming(start, zone, anchor=start), count)],
            "lines": lines,
        }
        print(json.dumps(facts))
        return
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    if schedule.notice is not None:
        advice = " ".join(filter(None, (schedule.notice.detail, schedule.notice.hint)))
        _say(f"{schedule.notice.message}. {advice}")


def _parse_schedule(expression: str, tz: str, job_name: str) -> tuple[Schedule, tzinfo]:
    # The compiled core is only needed here; a demo does without it.
    from scheduler import cron

    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ScheduleError(f'time zone "{tz}" not recognized', "Use an IANA name such as Europe/Berlin.") from exc
    try:
        return cron.Schedule(expression, hash_key=job_name), zone
    except cron.ScheduleError as exc:
        raise ScheduleError(exc.message, "\n".join(filter(None, (exc.detail, exc.hint)))) from exc


def _parse_instant(text: str | None, zone: tzinfo) -> datetime:
    """An instant given on the command line; without an offset it is meant in the zone."""
    if text is None:
        return datetime.now(zone)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.BadParameter(f'"{text}" is not an instant such as 2030-01-01T12:00+00:00') from exc
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=zone)


def _no_due_times(schedule: Schedule) -> str:
    return f"no due time on the calendar: {schedule.describe()}"
