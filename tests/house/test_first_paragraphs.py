"""Every file begins by saying what it is for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.house.sources import ROOT, walk

LEAST_WORDS = 4

COMMENT_OPENINGS = {
    ".c": ("/*",),
    ".h": ("/*",),
    ".sql": ("--", "/*"),
    ".sh": ("#",),
    ".mk": ("#",),
    ".yaml": ("#",),
    ".yml": ("#",),
    ".lock": ("#",),
    ".spec": ("#",),
    ".control": ("#",),
    ".md": ("#",),
}
NAMED = ("Makefile", "Dockerfile", ".gitignore", ".dockerignore")

# What the server or a tool wrote, and what tables of examples hold.
DATA = {"expected", "vectors", "corpus", "results"}


def is_written_by_people(path: Path) -> bool:
    if DATA & set(path.relative_to(ROOT).parts):
        return False
    return path.suffix in {".py", *COMMENT_OPENINGS} or path.name.startswith(NAMED) or is_script(path)


def is_script(path: Path) -> bool:
    return path.suffix == "" and path.open("rb").read(2) == b"#!"


def first_paragraph(path: Path) -> str:
    """The opening docstring or comment; empty when there is none."""
    text = path.read_text()
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    body = re.sub(r"\A#!.*\n", "", text).lstrip()
    openings = COMMENT_OPENINGS.get(path.suffix, ("#",))
    if not body.startswith(openings):
        return ""
    return re.split(r"\n\s*\n|\*/", body)[0]


FILES = [path for path in walk() if is_written_by_people(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for(path: Path) -> None:
    words = re.findall(r"[^\W\d_]{2,}", first_paragraph(path))
    least = 1 if path.suffix == ".md" else LEAST_WORDS
    assert len(words) >= least, "begin with a docstring or a comment that says what this file is for"


def test_a_silent_file_is_noticed(tmp_path: Path) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("import os\n")
    spoken = tmp_path / "spoken.sh"
    spoken.write_text("#!/bin/sh\n# Says what it is for.\n\nexit 0\n")
    assert first_paragraph(silent) == ""
    assert "what it is for" in first_paragraph(spoken)
