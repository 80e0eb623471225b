"""The table of guarantees names tests that exist, and a column for every supported PostgreSQL."""

from __future__ import annotations

import re

import pytest

from tests.house.sources import ROOT, walk
from tests.support.targets import MAJORS

TABLE = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs/guarantees.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and "---" not in line
]
HEADER, LINES = TABLE[0], [line for line in TABLE[1:] if line[1]]


def find_proof(proof: str) -> str:
    """What is wrong with a proof that the table names; empty if nothing is."""
    name, _, test = proof.partition("::")
    if not test:
        return "" if (ROOT / name).exists() else f"there is no {name}"
    files = [path for path in walk(ROOT / "tests") if path.name == name]
    if len(files) != 1:
        return f"there are {len(files)} files named {name}"
    if not re.search(rf"^def {re.escape(test)}\(", files[0].read_text(encoding="utf-8"), re.MULTILINE):
        return f"{name} has no {test}"
    return ""


def test_the_columns_are_the_supported_majors() -> None:
    assert HEADER[2:] == [str(major) for major in MAJORS]
    assert {len(line) for line in LINES} == {len(HEADER)}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_what_a_guarantee_names_exists(line: list[str]) -> None:
    assert find_proof(line[1].strip("`")) == ""


def test_a_test_that_is_gone_is_noticed() -> None:
    assert find_proof("test_storm.py::test_nothing") == "test_storm.py has no test_nothing"
    assert find_proof("test_nowhere.py::test_nothing") == "there are 0 files named test_nowhere.py"
    assert find_proof("bench/nowhere.py") == "there is no bench/nowhere.py"
