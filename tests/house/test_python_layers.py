"""The imports of scheduler/ follow the drawing in its docstring: each module imports only what is below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import scheduler
from tests.house.sources import ROOT, walk

PACKAGE = ROOT / "scheduler"
ARROW = "→"

# They belong to the package itself: its version, its way in.
DOORS = {"__init__", "__main__"}


def read_drawing(text: str) -> dict[str, set[str]]:
    """What each module may import: everything that an arrow leads to, however many steps away."""
    below: dict[str, set[str]] = {}
    for line in text.splitlines():
        if ARROW not in line:
            continue
        # Words after two blanks explain the line.
        names = [re.split(r"\s{2,}", step.strip())[0] for step in line.split(ARROW)]
        for upper, lower in pairwise(names):
            below.setdefault(upper, set()).add(lower)
            below.setdefault(lower, set())

    def reach(name: str) -> set[str]:
        return below[name] | {further for lower in below[name] for further in reach(lower)}

    return {name: reach(name) for name in below}


def find_imports(source: str) -> Iterator[str]:
    """The modules of scheduler that a source imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"line {node.lineno}: relative imports hide what is imported")
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("scheduler."))


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


ALLOWED = read_drawing(scheduler.__doc__ or "")
FILES = [path for path in walk(PACKAGE) if path.suffix == ".py" and module_of(path) not in DOORS]


def test_the_drawing_is_found() -> None:
    assert ALLOWED["cli"] >= {"demo", "cluster", "packaging", "cron", "errors"}
    assert ALLOWED["errors"] == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    module = module_of(path)
    assert module in ALLOWED, f"{module} has no place in the drawing of scheduler/__init__.py"
    public = {name for name in find_imports(path.read_text()) if not name.startswith("__")}
    assert public <= ALLOWED[module] | {module}


def test_an_import_upwards_is_noticed() -> None:
    assert set(find_imports("from scheduler import cli\nimport scheduler.cron.text")) == {"cli", "cron"}
    assert "cli" not in ALLOWED["cluster"]
    assert "packaging" not in ALLOWED["cluster"]
