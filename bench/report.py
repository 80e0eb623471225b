"""The reports: one page each, Markdown with plots beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import plot
from bench.rows import Plan, Results


@dataclass(frozen=True, slots=True)
class Target:
    """One target: what it is about, what must be reached, and the figure that says so (None: not measured)."""

    what: str
    wanted: str
    figure: Callable[[Results], float | None]
    reached: Callable[[float], bool]
    unit: str = ""


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _at_least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


def targets(plan: Plan, titles: Mapping[str, str]) -> list[Target]:
    best = "reuse" if "reuse" in titles else "fresh"
    found: list[Target] = []

    def add(
        what: str,
        wanted: str,
        figure: Callable[[Results], float | None],
        reached: Callable[[float], bool],
        unit: str = "",
    ) -> None:
        found.append(Target(what, wanted, figure, reached, unit))

    def of(name: str, side: str) -> Callable[[Results], float | None]:
        return lambda results: results.median(name, side)

    def versus(name: str, side: str, other: str) -> Callable[[Results], float | None]:
        return lambda results: _ratio(results.median(name, side), results.median(name, other))

    def between(name: str, other: str, side: str) -> Callable[[Results], float | None]:
        return lambda results: _ratio(results.median(name, side), results.median(other, side))

    for count in plan.bursts:
        name = f"burst {count}: runs/s"
        add(f"burst of {count}, fresh: of the floor", "≥ 0.9", versus(name, "fresh", "floor"), _at_least(0.9))
        add(f"burst of {count}, fresh: times pg_cron", "≥ 1.4", versus(name, "fresh", "pg_cron"), _at_least(1.4))
    most = max(plan.bursts)
    if "reuse" in titles:
        add(
            f"burst of {most}, reused: times pg_cron",
            "≥ 15",
            versus(f"burst {most}: runs/s", "reuse", "pg_cron"),
            _at_least(15),
        )
        add(
            f"burst of {most}, reused: p99 late",
            "< 400",
            of(f"burst {most}: p99 late ms", "reuse"),
            _at_most(400),
            "ms",
        )
        add(
            f"burst of {most}, reused: CPU of pg_cron's",
            "≤ 1/15",
            versus(f"burst {most}: CPU ms/run", "reuse", "pg_cron"),
            _at_most(1 / 15),
        )
    for rate in plan.rates:
        for side in dict.fromkeys(("fresh", best)):
            for share, limit, part in (("p50", 0.5, 5), ("p99", 3.0, 10)):
                name = f"{rate}/s: {share} late ms"
                add(f"{rate}/s, {side}: {share} late", f"< {limit}", of(name, side), _at_most(limit), "ms")
                add(
                    f"{rate}/s, {side}: {share} of pg_cron's",
                    f"≤ 1/{part}",
                    versus(name, side, "pg_cron"),
                    _at_most(1 / part),
                )
            add(f"{rate}/s, {side}: earliest", "≥ 0", _least(f"{rate}/s: earliest ms", side), _at_least(0), "ms")
    add("new job: noticed", "≤ 5", of("new job: noticed ms", best), _at_most(5), "ms")
    add("new job: first tick", "≤ 1.01", of("new job: first tick s", best), _at_most(1.01), "s")
    idle = f"idle, {plan.many_jobs} jobs"
    add(f"{idle}: wake-ups a minute", "≤ 2", of(f"{idle}: wake-ups/min", best), _at_most(2))
    add(f"{idle}: CPU a minute", "not measurable", of(f"{idle}: launcher CPU ms/min", best), _at_most(10), "ms")
    for side in dict.fromkeys(("fresh", best)):
        add(
            f"burst of {most}, {side}: fdatasync a run",
            "≤ 0.15",
            of(f"burst {most}: fdatasync/run", side),
            _at_most(0.15),
        )
        add(f"lone run, {side}: fdatasync", "≤ 2", of("lone run: fdatasync/run", side), _at_most(2.05))
        add(f"burst of {most}, {side}: WAL a run", "≤ 450", of(f"burst {most}: WAL B/run", side), _at_most(450), "B")
    jobs = plan.many_jobs
    add(
        f"burst of 200 among {jobs}: of that among 10",
        "≥ 0.9",
        between(f"burst 200 among {jobs}: runs/s", "burst 200 among 10: runs/s", best),
        _at_least(0.9),
    )
    add(
        f"{jobs} jobs: one change, launcher",
        "< 0.1",
        of(f"{jobs} jobs: one change, launcher ms", best),
        _at_most(0.1),
        "ms",
    )
    add(
        f"{jobs} jobs: cron.schedule() against 10 jobs",
        "≤ 1.1",
        between(f"{jobs} jobs: cron.schedule() ms", "10 jobs: cron.schedule() ms", best),
        _at_most(1.1),
    )
    add(f"{jobs} jobs: start-up", "< 1", of(f"{jobs} jobs: start-up s", best), _at_most(1), "s")
    add(f"{jobs} jobs: launcher RSS", "< 60", of(f"{jobs} jobs: launcher RSS MB", best), _at_most(60), "MB")
    add(
        f"{jobs} jobs: launcher without shared memory",
        "< 60",
        of(f"{jobs} jobs: launcher without shared memory MB", best),
        _at_most(60),
        "MB",
    )
    add(
        f"{jobs} jobs: one change of many in a row, launcher",
        "< 0.1",
        of(f"{jobs} jobs: one change of many in a row, launcher ms", best),
        _at_most(0.1),
        "ms",
    )
    add(
        "long history: CPU a run against empty",
        "≤ 1.1",
        between("burst 500, long history: CPU ms/run", "burst 500, empty history: CPU ms/run", best),
        _at_most(1.1),
    )
    add(
        "long history: start-up against empty",
        "≤ 1.1",
        between("long history: start-up s", "empty history: start-up s", best),
        _at_most(1.1),
    )
    add("day: launcher grows", "flat", of("day: launcher grows kB/1000 runs", best), _at_most(50), "kB/1000 runs")
    add("day: dead tuples a run", "bounded", of("day: dead tuples/run", best), _at_most(0.5))
    add("day: autovacuum sees the table", "≥ 1", of("day: autovacuum and autoanalyze runs", best), _at_least(1))
    return found


def _least(name: str, side: str) -> Callable[[Results], float | None]:
    return lambda results: min(results.values(name, side), default=None)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _about(about: Mapping[str, Any]) -> list[str]:
    machine = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
    versions = about["versions"]
    settings = ", ".join(f"{name} = {value}" for name, value in about["settings"].items())
    return [
        f"Measured {about['when']} with PostgreSQL {versions['PostgreSQL']}; "
        + "; ".join(f"{side}: {version}" for side, version in versions["sides"].items())
        + ".",
        "",
        f"Machine: {machine}, load at the end {about.get('load at the end', '?')}.",
        "",
        f"Settings: {settings}.",
        "",
    ]


PLOTS = {
    "speed": ("Bursts", "runs/s", ": runs/s"),
    "cpu": ("Processor time of a run", "ms", ": CPU ms/run"),
    "late": ("Lateness, p99", "ms", ": p99 late ms"),
    "memory": ("Launcher, resident", "MB", ": launcher RSS MB"),
    "start": ("Start-up to the first run", "s", ": start-up s"),
    "change": ("One changed job, launcher", "ms", ": one change, launcher ms"),
}


def write_table(folder: Path, about: Mapping[str, Any], results: Results, plan: Plan) -> None:
    """Write pg_cron.md and its plots."""
    titles: dict[str, str] = {"floor": "floor", **about["titles"]}
    text = ["# Against pg_cron", "", *_about(about), "## Targets", ""]
    text += ["| what | wanted | found | |", "| --- | --- | --- | --- |"]
    for target in targets(plan, titles):
        value = target.figure(results)
        if value is None:
            continue
        word = "reached" if target.reached(value) else "**missed**"
        text.append(f"| {target.what} | {target.wanted} {target.unit} | {_number(value)} {target.unit} | {word} |")
    text += ["", "## Figures", "", "Medians, with the least and the greatest of the repetitions.", ""]
    for name, (title, unit, ending) in PLOTS.items():
        groups = {
            figure.removesuffix(ending): {
                side: (min(values), statistics.median(values), max(values)) for side, values in sides.items()
            }
            for figure, sides in results.figures.items()
            if figure.endswith(ending)
        }
        if groups:
            (folder / f"{name}.svg").write_text(plot.bars(title, unit, groups))
            text += [f"![{title}]({name}.svg)", ""]
    text.append("| figure | " + " | ".join(titles.values()) + " |")
    text.append("| --- |" + " --- |" * len(titles))
    for figure, sides in results.figures.items():
        cells = []
        for side in titles:
            values = sides.get(side)
            if not values:
                cells.append("")
            elif len(values) == 1:
                cells.append(_number(values[0]))
            else:
                cells.append(f"{_number(statistics.median(values))} ({_number(min(values))} … {_number(max(values))})")
        text.append(f"| {figure} | " + " | ".join(cells) + " |")
    (folder / "pg_cron.md").write_text("\n".join(text) + "\n")


def write_growth(folder: Path, found: Mapping[str, Any]) -> None:
    """Write growth.md and its plots: what → side → [[x, y], ...]."""
    text = ["# How cost grows", ""]
    for what, (x_name, y_name, series) in found.items():
        name = "growth-" + "".join(c if c.isalnum() else "-" for c in what.lower()) + ".svg"
        points = {side: [(x, y) for x, y in line] for side, line in series.items()}
        (folder / name).write_text(plot.lines(what, x_name, y_name, points))
        text += [
            f"![{what}]({name})",
            "",
            f"| {x_name} | " + " | ".join(points) + " |",
            "| --- |" + " --- |" * len(points),
        ]
        for x in sorted({x for line in points.values() for x, _ in line}):
            cells = [next((_number(y) for at, y in line if at == x), "") for line in points.values()]
            text.append(f"| {x:,g} | " + " | ".join(cells) + " |")
        text.append("")
    (folder / "growth.md").write_text("\n".join(text))
