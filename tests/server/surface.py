"""Small help for the tests of the SQL surface: roles, refusals, and a catalog of what is expected of both.

Refusals are compared whole, with SQLSTATE, DETAIL and HINT, because clients match on
the texts. Roles are made once per server, stay for all tests, and are become by SET SESSION
AUTHORIZATION, which asks for no password and so works on every carrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.support.servers import Server

Connection = psycopg.Connection[tuple[Any, ...]]

CRON_HINT = "Use cron format (e.g. 5 4 * * *), or interval format '[1-59] seconds'"
NO_UPDATES_HINT = "You must specify at least one job attribute to change when calling alter_job"
PRELOAD_ERROR = "pg_clockwork can only be loaded via shared_preload_libraries"
PRELOAD_HINT = "Add pg_clockwork to the shared_preload_libraries configuration variable in postgresql.conf."

# Roles with USAGE on schema cron and nothing else, as an administrator would let people in.
ANN, BEN = "surface_ann", "surface_ben"


@dataclass(frozen=True)
class Refusal:
    """What a statement was refused with."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Notice:
    """What a statement that worked remarked."""

    severity: str
    message: str
    detail: str | None = None
    hint: str | None = None


def refusal(connection: Connection, statement: str, *parameters: Any) -> Refusal:
    """The error of a statement that must fail."""
    try:
        connection.execute(statement.encode(), parameters or None)
    except psycopg.Error as exc:
        diag = exc.diag
        return Refusal(diag.sqlstate or "", diag.message_primary or "", diag.message_detail, diag.message_hint)
    raise AssertionError(f"not refused: {statement}")


def notices(connection: Connection, statement: str, *parameters: Any) -> list[Notice]:
    """The remarks made on a statement that must work."""
    heard: list[Notice] = []

    def hear(diag: psycopg.errors.Diagnostic) -> None:
        text = diag.message_primary or ""
        heard.append(Notice(diag.severity_nonlocalized or "", text, diag.message_detail, diag.message_hint))

    connection.add_notice_handler(hear)
    try:
        connection.execute(statement.encode(), parameters or None)
    finally:
        connection.remove_notice_handler(hear)
    return heard


def rows(connection: Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode(), parameters or None).fetchall()


def value(connection: Connection, statement: str, *parameters: Any) -> Any:
    """The one value of the one row."""
    ((found,),) = rows(connection, statement, *parameters)
    return found


def make_role(connection: Connection, name: str, attributes: str = "LOGIN") -> str:
    """A role that may use the schema; made anew, so that no test inherits another's grants."""
    role = sql.Identifier(name)
    if value(connection, "SELECT count(*) FROM pg_roles WHERE rolname = %s", name):
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    connection.execute(sql.SQL("CREATE ROLE {} {}").format(role, sql.SQL(attributes)))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA cron TO {}").format(role))
    return name


@contextmanager
def session_of(server: Server, role: str, database: str = "postgres") -> Iterator[Connection]:
    """A session in which everything is done by the role."""
    with server.connect(database) as connection:
        connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
        yield connection


def job(
    connection: Connection, jobid: int, columns: str = "schedule, command, database, username, active, jobname"
) -> Any:
    """One row of cron.job, as the connection sees it; None if it sees none."""
    found = rows(connection, f"SELECT {columns} FROM cron.job WHERE jobid = %s", jobid)
    return found[0] if found else None
