"""How cost grows with the number of jobs, and speed with the number of slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import rows
from bench.sides import open_sides

BURST = 200
SLOTS_BURST = 500

# What is shown against the number of jobs: the figure's name without the number, and its unit.
BY_JOBS = {
    "Start-up": ("{} jobs: start-up s", "s"),
    "Launcher, resident": ("{} jobs: launcher RSS MB", "MB"),
    "Launcher, private memory": ("{} jobs: launcher private MB", "MB"),
    "One changed job, launcher": ("{} jobs: one change, launcher ms", "ms"),
    "cron.schedule()": ("{} jobs: cron.schedule() ms", "ms"),
    f"Burst of {BURST}": (f"burst {BURST} among {{}}: runs/s", "runs/s"),
    "Processor time of a run": (f"burst {BURST} among {{}}: CPU ms/run", "ms"),
}


def measure(
    pg_config: Path,
    cache: Path,
    jobs: Sequence[int],
    slots: Sequence[int],
    say: Callable[[str], None],
    wanted: Sequence[str] = (),
) -> dict[str, Any]:
    """What → (name of x, name of y, side → [[x, y], ...])."""
    results = rows.Results()
    with open_sides(pg_config, cache, wanted) as sides:
        for count in jobs:
            for side in sides:
                with rows.many(side, count):
                    rows.idle(side, 5.0)
                    for one in (rows.schedule_cost, rows.change_cost):
                        rows.repeat([side], 1, results, lambda side, m=one, n=count: m(side, n), say)
                    rows.repeat([side], 2, results, lambda side, n=count: rows.burst(side, BURST, f" among {n}"), say)
                    rows.repeat([side], 1, results, lambda side, n=count: rows.start_up(side, f"{n} jobs"), say)
        found: dict[str, Any] = {}
        for what, (name, unit) in BY_JOBS.items():
            found[what] = (
                "jobs",
                unit,
                {side.key: [[n, results.median(name.format(n), side.key)] for n in jobs] for side in sides},
            )
        speed: dict[str, list[list[float]]] = {"floor": []}
        for count in slots:
            for side in sides:
                side.restart({"cron.max_running_jobs": count})
                _ = side.launcher
                if side is sides[0]:
                    speed["floor"].append([count, rows.floor(side, SLOTS_BURST, count)[f"burst {SLOTS_BURST}: runs/s"]])
                figures = rows.burst(side, SLOTS_BURST)
                speed.setdefault(side.key, []).append([count, figures[f"burst {SLOTS_BURST}: runs/s"]])
                say(f"{count} slots: {side.key} {speed[side.key][-1][1]:.0f} runs/s")
        found[f"Burst of {SLOTS_BURST} by slots"] = ("slots", "runs/s", speed)
    return found
