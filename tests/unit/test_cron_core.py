"""The C tests of the schedule core, compiled as strictly as the server and under the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from scheduler.cron import _build as build
from tests.unit.cron_reference import changes_around, offset_at
from tests.unit.cron_tables import ROOT, VECTORS, read_table

CORE = ROOT / "native" / "src" / "core"
SOURCES = [CORE / f"schedule_{name}.c" for name in build.SOURCES]
STRICT = ["-Wall", "-Wextra", "-Werror", "-Wdeclaration-after-statement", "-Wmissing-prototypes", "-Wshadow"]
DAY = 86_400

compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or "cc"

pytestmark = pytest.mark.skipif(shutil.which(compiler) is None, reason="no C compiler here")


def compile_tests(target: Path, *options: str) -> Path:
    program = ROOT / "tests" / "unit" / "core" / "test_schedule.c"
    subprocess.run([compiler, *STRICT, *options, f"-I{CORE}", program, *SOURCES, "-o", target], check=True)
    return target


@pytest.fixture(scope="module")
def zones_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offset changes of every zone the vectors name, from 1969 to 2200."""
    lines = []
    for name in sorted({row["zone"] for row in read_table("next_runs.tsv")}):
        zone = ZoneInfo(name)
        start = -400 * DAY
        lines.append(f"{name}\t{-(2**62)}\t{offset_at(zone, start)}\n")
        for second, _, offset in changes_around(zone, start, 84_100 * DAY, pace=3 * DAY):
            lines.append(f"{name}\t{second}\t{offset}\n")
    path = tmp_path_factory.mktemp("zones") / "zones.tsv"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-std=c99", "-pedantic", "-O2"], id="c99"),
        pytest.param(["-std=gnu99", "-O2", "-fwrapv", "-fno-strict-aliasing"], id="as-the-server"),
        pytest.param(
            ["-std=gnu99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], id="sanitized"
        ),
    ],
)
def test_the_core_keeps_its_promises(options: list[str], zones_file: Path, tmp_path: Path) -> None:
    program = compile_tests(tmp_path / "test_schedule", *options)
    run = subprocess.run([program, VECTORS, zones_file], capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert " 0 failures" in run.stdout


@pytest.mark.parametrize("source", sorted(CORE.glob("schedule_*.c")), ids=lambda path: path.name)
def test_the_core_keeps_no_state_and_asks_nothing_of_the_system(source: Path, tmp_path: Path) -> None:
    """No writable data, and no function from outside but those that look at or copy memory."""
    target = tmp_path / "core.o"
    # Without -fno-pic, constant tables of pointers would count as data.
    options = ["-std=c99", "-O1", "-fno-pic", "-fno-stack-protector"]
    subprocess.run([compiler, *STRICT, *options, "-c", source, "-o", target], check=True)
    symbols = subprocess.run(["nm", target], check=True, capture_output=True, text=True).stdout.splitlines()
    kinds = [line.split()[-2:] for line in symbols]
    assert [name for kind, name in kinds if kind in "bBdDC"] == []
    outside = {name for kind, name in kinds if kind == "U" and not name.startswith("clockwork_schedule_")}
    assert outside <= {"memcpy", "memset", "memcmp", "memchr", "strlen", "strcmp", "strncmp", "strchr"}
