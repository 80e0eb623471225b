"""Reading the tables of tests/vectors, which are in the text format of PostgreSQL's COPY."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"

ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


def unescape(field: str) -> str:
    """A column as text; bytes that are not UTF-8 become surrogates."""

    def plain(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if code.startswith("x") else ESCAPES[code]

    if not re.search(r"\\x", field):
        return re.sub(r"\\(.)", plain, field)
    raw = re.sub(r"\\(x[0-9a-fA-F]{2}|.)", plain, field)
    return raw.encode("latin-1").decode("utf-8", "surrogateescape")


def read_table(name: str) -> list[dict[str, str]]:
    lines = (VECTORS / name).read_text(encoding="utf-8").split("\n")
    columns = lines[0].split("\t")
    return [dict(zip(columns, map(unescape, line.split("\t")), strict=True)) for line in lines[1:] if line]
