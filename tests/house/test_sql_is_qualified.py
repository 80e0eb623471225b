"""The extension's SQL names everything in full: operators, functions, types in casts; it replaces and assumes nothing.

Read from the script itself, with comments and literals taken out, so that a name that could be looked up in
somebody's schema is noticed before it is installed anywhere. pgspot looks too; it cannot read functions whose
body is SQL by itself (RETURN ...), which are bound when they are created.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import ROOT

SCRIPTS = [ROOT / "sql" / "pg_clockwork.sql", *sorted((ROOT / "migrations").glob("*.sql"))]

# Syntax that looks like a call, and words of the grammar that take parentheses.
GRAMMAR = {
    *(
        [
            "values",
            "in",
            "exists",
            "any",
            "all",
            "and",
            "or",
            "not",
            "as",
            "on",
            "check",
            "key",
            "unique",
            "using",
            "with",
            "over",
            "filter",
            "when",
            "then",
            "else",
            "case",
        ]
    ),
    *(
        [
            "returns",
            "table",
            "coalesce",
            "greatest",
            "least",
            "nullif",
            "index",
            "add",
            "select",
            "where",
            "from",
            "interval",
            "if",
            "return",
        ]
    ),
    *(["job_run_details", "job", "jobs", "held_jobs", "installation_identity"]),
}


def strip(text: str) -> str:
    """The code alone: comments gone, literals empty. Bodies in dollar quotes are code."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"--[^\n]*", " ", text)
    return re.sub(r"'(?:[^']|'')*'", "''", text)


def find_bare_operators(code: str) -> list[str]:
    """Operators that are not written OPERATOR(pg_catalog.x)."""
    code = re.sub(r"OPERATOR\s*\(\s*pg_catalog\.[^\s)]+\s*\)", " ", code)
    # Not operators: named arguments, assignments, casts, and the options of RAISE and WITH.
    code = re.sub(r":=|=>|::|\b(?:ERRCODE|DETAIL|HINT) =", " ", code)
    code = re.sub(r"WITH \([^)]*\)", " ", code)
    code = re.sub(r"SET search_path = \S+, \S+", " ", code)
    return re.findall(
        r"\S*\s*(?:<>|<=|>=|!=|\|\||->>?|[<>=~+/%^&|])\s*\S*|(?<!\(\n  )\bLIKE\b|\bILIKE\b|\bSIMILAR\b|\bBETWEEN\b",
        code,
    )


def find_bare_calls(code: str) -> list[str]:
    code = re.sub(r"OPERATOR\s*\([^)]*\)", " ", code)
    # What is named in full stands after these words; after AS stands an alias with its columns.
    code = re.sub(r"\b(?:FUNCTION|TABLE|INTO|ON|VIEW|REFERENCES|CONSTRAINT|AS)\s+[\w.]+\s*\(", "; (", code)
    names = re.findall(r"(?<![\w.])([a-z_]\w*)\s*\(", code, flags=re.IGNORECASE)
    return [name for name in names if name.lower() not in GRAMMAR]


def find_bare_casts(code: str) -> list[str]:
    return [found for found in re.findall(r"::\s*([\w.]+)", code) if not found.startswith("pg_catalog.")]


def find_carelessness(code: str) -> list[str]:
    """What would take over an object that somebody made before (or lend him our rights)."""
    pattern = r"CREATE\s+OR\s+REPLACE|IF\s+NOT\s+EXISTS|SECURITY\s+DEFINER|@ext\w+@|\bEXECUTE\s+''|LEAKPROOF"
    return re.findall(pattern, code, flags=re.IGNORECASE)


CHECKS = [find_bare_operators, find_bare_calls, find_bare_casts, find_carelessness]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_nothing_is_left_to_a_search_path(path, check) -> None:  # type: ignore[no-untyped-def]
    assert check(strip(path.read_text(encoding="utf-8"))) == []


def ask_pgspot(code: str, place: Path) -> str:
    """Its last line, with the counts of what it found."""
    script = place / "script.sql"
    script.write_text(code, encoding="utf-8")
    program = Path(sys.executable).with_name("pgspot")
    done = subprocess.run([program, script], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_pgspot_finds_nothing(path: Path, tmp_path: Path) -> None:
    text = re.sub(r"^\\echo.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"CREATE FUNCTION [^;]*?\n  RETURN \([^;]*;", "", text)
    assert ask_pgspot(text, tmp_path) == "Errors: 0 Warnings: 0 Unknown: 0"
    careless = "CREATE FUNCTION cron.f() RETURNS int LANGUAGE sql AS $$ SELECT now() $$;"
    assert ask_pgspot(careless, tmp_path) != "Errors: 0 Warnings: 0 Unknown: 0"


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (find_bare_operators, "SELECT a = b"),
        (find_bare_operators, "SELECT a || b"),
        (find_bare_operators, "SELECT a LIKE b"),
        (find_bare_calls, "SELECT now()"),
        (find_bare_calls, "DEFAULT nextval('cron.x')"),
        (find_bare_casts, "SELECT a::text"),
        (find_carelessness, "CREATE OR REPLACE FUNCTION cron.f() RETURNS int"),
        (find_carelessness, "CREATE TABLE IF NOT EXISTS cron.t ()"),
        (find_carelessness, "CREATE FUNCTION cron.f() RETURNS int SECURITY DEFINER"),
    ],
)
def test_a_name_that_is_not_qualified_is_noticed(check, code: str) -> None:  # type: ignore[no-untyped-def]
    assert check(strip(code)) != []
