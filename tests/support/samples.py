"""A tiny extension that stands in for ours where a test is about building and carrying, not about scheduling."""

from __future__ import annotations

from pathlib import Path

MAKEFILE = """\
MODULES = pg_clockwork
EXTENSION = pg_clockwork
DATA = pg_clockwork--0.1.0.sql
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
override with_llvm = no
include $(PGXS)
override CFLAGS := $(filter-out -Wmissing-variable-declarations,$(CFLAGS))
"""

SOURCE = """\
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(sample_two);

Datum
sample_two(PG_FUNCTION_ARGS)
{
\tPG_RETURN_INT32(2);
}
"""

CONTROL = """\
comment = 'stands in for the real one'
default_version = '0.1.0'
module_pathname = '$libdir/pg_clockwork'
"""

SCRIPT = "CREATE FUNCTION sample_two() RETURNS int LANGUAGE c AS 'MODULE_PATHNAME', 'sample_two';\n"


def write_sample(root: Path) -> Path:
    """The sources of the tiny extension, laid out as ours are."""
    for folder in ("native", "sql", "migrations"):
        (root / folder).mkdir(parents=True)
    (root / "Makefile").write_text("all install:\n\t$(MAKE) -C native $@\n")
    (root / "native" / "Makefile").write_text(MAKEFILE)
    (root / "native" / "pg_clockwork.c").write_text(SOURCE)
    (root / "native" / "pg_clockwork.control").write_text(CONTROL)
    (root / "native" / "pg_clockwork--0.1.0.sql").write_text(SCRIPT)
    return root
