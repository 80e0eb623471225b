"""Measurements against the real pg_cron, and how cost grows: python -m bench --help."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bench import growth, instructions, machine, report, rows
from bench.sides import ROOT, SETTINGS, open_sides
from scheduler import __version__, packaging

CACHE = Path(os.environ.get("PG_CLOCKWORK_CACHE") or Path.home() / ".cache" / "pg_clockwork")
OUTPUT = ROOT / "build" / "bench"


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure pg_clockwork on this machine, beside the real pg_cron."""


def describe(pg_config: Path, sides: list[Any]) -> dict[str, Any]:
    peers = {
        side.key: side.sql("SELECT extname || ' ' || extversion FROM pg_extension WHERE oid > 16383")[0][0]
        for side in sides
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            **machine.describe(),
            "load at the start": round(os.getloadavg()[0], 2),
            "fdatasync of 8 kB ms": round(machine.flush_ms(Path("/tmp")), 3),
        },
        "versions": {"PostgreSQL": sides[0].cluster.version, "pg_clockwork": __version__, "sides": peers},
        "settings": {**SETTINGS, "fsync": True, "full_page_writes": True},
        "titles": {side.key: side.title for side in sides},
    }


PG_CONFIG = click.option(
    "--pg-config", type=click.Path(path_type=Path), help="The PostgreSQL to use; 17 or 18, from tests/matrix fetch."
)
OUT = click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, show_default=True)


@bench.command("pg_cron")
@PG_CONFIG
@OUT
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(rows.SECTIONS), help="Only these parts of the table.")
@click.option("--side", "wanted", multiple=True, help="Only these sides: fresh, reuse, pg_cron.")
@click.option("--small", is_flag=True, help="A tenth of everything, to see that it works.")
@click.option("--tick-seconds", type=float, help="How long each rate of punctuality is watched.")
@click.option("--history", type=int, help="Rows of the long history.")
def against_pg_cron(
    pg_config: Path | None,
    output: Path,
    repetitions: int,
    only: tuple[str, ...],
    wanted: tuple[str, ...],
    small: bool,
    tick_seconds: float | None,
    history: int | None,
) -> None:
    """Fill the table: ours with fresh and with reused workers, the real pg_cron, and the floors."""
    plan = rows.Plan(repetitions=repetitions)
    if small:
        plan = rows.Plan(repetitions, (200,), (1, 20), 5.0, 10.0, 5000, 100_000, 15.0)
    plan.tick_s = tick_seconds or plan.tick_s
    plan.history = history or plan.history
    chosen = pg_config or packaging.find_embedded()
    results = rows.Results()
    with open_sides(chosen, CACHE, wanted) as sides:
        about = describe(chosen, sides)
        try:
            rows.measure_all(sides, plan, results, say, only or rows.SECTIONS)
        finally:
            about["load at the end"] = round(os.getloadavg()[0], 2)
            output.mkdir(parents=True, exist_ok=True)
            (output / "pg_cron.json").write_text(json.dumps({"about": about, "figures": results.figures}, indent=1))
            report.write_table(output, about, results, plan)
    print((output / "pg_cron.md").read_text())


@bench.command("growth")
@PG_CONFIG
@OUT
@click.option("--jobs", default="10,1000,10000,100000", show_default=True)
@click.option("--slots", default="1,2,4,8,16,32,64", show_default=True)
@click.option("--side", "wanted", multiple=True, help="Only these sides: fresh, reuse, pg_cron.")
def how_cost_grows(pg_config: Path | None, output: Path, jobs: str, slots: str, wanted: tuple[str, ...]) -> None:
    """How cost grows with the number of jobs, and speed with the number of slots."""
    chosen = pg_config or packaging.find_embedded()
    output.mkdir(parents=True, exist_ok=True)
    found = growth.measure(
        chosen, CACHE, [int(n) for n in jobs.split(",")], [int(n) for n in slots.split(",")], say, wanted
    )
    (output / "growth.json").write_text(json.dumps(found, indent=1))
    report.write_growth(output, found)
    print((output / "growth.md").read_text())


@bench.command("instructions")
@PG_CONFIG
@click.option("--runs", default=100, show_default=True, help="The difference of two bursts of this size and twice it.")
@click.option("--top", default=60, show_default=True, help="How many functions to list.")
def count_instructions(pg_config: Path | None, runs: int, top: int) -> None:
    """Instructions of launcher and reused worker for one run, with callgrind (needs valgrind)."""
    print(instructions.measure(pg_config or packaging.find_embedded(), runs, top, say))


@bench.command("agreement")
@OUT
@click.option("--cases", default=20_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="Another one draws other cases.")
def with_whom_we_agree(output: Path, cases: int, seed: int) -> None:
    """Due times beside croniter's and cronsim's: how many agree, and why the others do not."""
    # Its peers are not needed by the other commands.
    from bench.agreement import compare_all, write_agreement

    found = compare_all(cases, seed)
    output.mkdir(parents=True, exist_ok=True)
    (output / "agreement.md").write_text(write_agreement(found))
    print((output / "agreement.md").read_text(), end="")
    sys.exit(1 if found.unexplained else 0)


@bench.command("schedules")
@click.option("--zone", default="America/New_York", show_default=True)
def how_long_the_next_due_time_takes(zone: str) -> None:
    """The next due time in C and Python beside croniter's and cronsim's, and whether the targets are met."""
    from bench.schedule_next import compare_all

    sys.exit(0 if compare_all(zone) else 1)


if __name__ == "__main__":
    bench()
