"""The source archive is whole: what a checkout has at its top is in MANIFEST.in, or put in by setuptools."""

from __future__ import annotations

from tests.house.sources import ROOT, walk

PUT_IN = {"pyproject.toml", "setup.py", "scheduler", "MANIFEST.in"}
LEFT_OUT = {".gitignore"}


def test_everything_at_the_top_is_in_the_archive() -> None:
    named = {
        word
        for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
        for command, *words in [line.split()]
        if command in ("include", "graft")
        for word in words
    }
    there = {path.relative_to(ROOT).parts[0] for path in walk()}
    assert there - LEFT_OUT - named - PUT_IN == set()
