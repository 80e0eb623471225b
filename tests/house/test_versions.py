"""One version everywhere: whoever changes it in one place is told of the others."""

from __future__ import annotations

import json
import re

import scheduler
from tests.house.sources import ROOT


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def find(pattern: str, path: str) -> str:
    found = re.search(pattern, read(path), re.MULTILINE)
    assert found is not None, f"{path} names no version"
    return found[1]


VERSION = find(r"^default_version = '([^']+)'", "sql/pg_clockwork.control")


def test_the_library_is_of_the_version_of_the_sql() -> None:
    assert find(r'^#define CLOCKWORK_VERSION "([^"]+)"', "native/src/extension.h") == VERSION


def test_the_python_package_has_the_same_version() -> None:
    assert scheduler.__version__ == VERSION


def test_the_pgxn_metadata_have_the_same_version() -> None:
    meta = json.loads(read("META.json"))
    assert meta["version"] == VERSION
    assert [provided["version"] for provided in meta["provides"].values()] == [VERSION] * len(meta["provides"])


def test_the_changelog_begins_with_the_version() -> None:
    assert VERSION in find(r"^## (.*)", "CHANGELOG.md")


def test_each_migration_ends_at_a_version_that_another_begins_with_or_at_today() -> None:
    steps = [re.fullmatch(r"pg_clockwork--(.+)--(.+)\.sql", path.name) for path in ROOT.glob("migrations/*.sql")]
    assert all(steps), "a migration is named pg_clockwork--OLD--NEW.sql"
    starts = {step[1] for step in steps if step}
    assert {step[2] for step in steps if step} <= starts | {VERSION}
