"""Which files are ours: everything in the checkout that people write, and nothing that tools leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

LEFT_BY_TOOLS = {
    ".git",
    ".venv",
    ".venv.lock",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "_ext",
    "build",
    "dist",
    "node_modules",
    "output_iso",
    "results",
    "tmp_check",
    "tmp_check_iso",
}


def walk(top: Path = ROOT) -> Iterator[Path]:
    """Every file below a folder, in a steady order."""
    for folder, names, files in os.walk(top):
        names[:] = sorted(name for name in names if name not in LEFT_BY_TOOLS and not name.endswith(".egg-info"))
        yield from (Path(folder, file) for file in sorted(files) if file not in LEFT_BY_TOOLS)
