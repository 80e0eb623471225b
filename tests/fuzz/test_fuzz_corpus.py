"""Every input the fuzzer has kept, run once through the fuzz target by an ordinary compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scheduler.cron import _build as build

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CORE = ROOT / "native" / "src" / "core"

compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or "cc"


@pytest.mark.skipif(shutil.which(compiler) is None, reason="no C compiler here")
def test_the_corpus_breaks_no_promise(tmp_path: Path) -> None:
    inputs = sorted((HERE / "corpus").iterdir())
    assert len(inputs) > 100
    program = tmp_path / "fuzz_schedule"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [CORE / f"schedule_{name}.c" for name in build.SOURCES]
    flags = ["-std=gnu99", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-DREPLAY", *sanitizers, f"-I{CORE}"]
    subprocess.run([compiler, *flags, HERE / "fuzz_schedule.c", *sources, "-o", program], check=True)
    run = subprocess.run([program, *inputs], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == f"{len(inputs)} inputs\n"
