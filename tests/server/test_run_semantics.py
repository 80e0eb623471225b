"""A job's command does what the same string does through `psql -c`.

Every case runs twice, in two databases that look alike: as a job, and as one simple-Query message of an
ordinary client. Outcome, command tag, the error's fields and the table that the case leaves behind must
agree, and be what the case says. All jobs of a server run in one batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from tests.server.support.jobs import Run, Task, rows, run_each
from tests.support.servers import Server


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and what becomes of the table `t` of its schema. `~` stands for the schema."""

    name: str
    command: str
    leaves: tuple[int, ...] = ()
    sqlstate: str | None = None
    setup: str = ""

    @property
    def schema(self) -> str:
        return f"case_{self.name}"

    def fill(self, text: str) -> str:
        return text.replace("~", self.schema)


COMMIT_INSIDE = """
CREATE PROCEDURE ~.p() LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ~.t VALUES (1); COMMIT;
  INSERT INTO ~.t VALUES (2); ROLLBACK;
  INSERT INTO ~.t VALUES (3);
END $$
"""
COMMIT_THEN_ERROR = """
CREATE PROCEDURE ~.p() LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ~.t VALUES (1); COMMIT;
  INSERT INTO ~.t VALUES (2); PERFORM 1 / 0;
END $$
"""
ONE = "INSERT INTO ~.t VALUES (1)"
TWO = "INSERT INTO ~.t VALUES (2)"
THREE = "INSERT INTO ~.t VALUES (3)"
ERROR = "SELECT 1 / 0"
DEFERRED = "CREATE TABLE ~.d (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
RAISE = """
DO $$ BEGIN
  RAISE EXCEPTION 'no %, only %', 'bread', 'cake'
    USING ERRCODE = 'CW042', DETAIL = 'The oven is cold.', HINT = 'Light it.';
END $$
"""

CASES = [
    # Malformed first.
    Case("syntax_error", "SELEKT 1", sqlstate="42601"),
    Case("syntax_error_at_the_end_undoes_what_came_before", f"{ONE}; SELEKT", sqlstate="42601"),
    Case("unterminated_quote", "SELECT 'abc", sqlstate="42601"),
    Case("unterminated_comment", f"{ONE}; /* abc", sqlstate="42601"),
    Case("missing_table", f"{ONE}; SELECT * FROM ~.nope", sqlstate="42P01"),
    Case("parameter_without_value", "INSERT INTO ~.t VALUES ($1)", sqlstate="42P02"),
    Case("empty", ""),
    Case("blank", " \n\t "),
    Case("semicolon", ";"),
    Case("semicolons", ";;  ;"),
    Case("comment", "-- nothing to do"),
    Case("block_comment", "/* nothing /* at all */ */ ;"),
    Case("comment_around_a_statement", f"/* a */ {ONE} -- b", (1,)),
    # Transactions.
    Case("all_in_one_transaction", f"{ONE}; {TWO}", (1, 2)),
    Case("trailing_semicolon", f"{ONE};", (1,)),
    Case("error_in_the_third_undoes_the_first_two", f"{ONE}; {TWO}; {ERROR}", (), "22012"),
    Case("error_in_the_first_stops_the_rest", f"{ERROR}; {ONE}", (), "22012"),
    Case("commit_in_the_middle", f"{ONE}; COMMIT; {TWO}; {ERROR}", (1,), "22012"),
    Case("rollback_in_the_middle", f"{ONE}; ROLLBACK; {TWO}", (2,)),
    Case("block_then_error", f"BEGIN; {ONE}; COMMIT; {TWO}; {ERROR}", (1,), "22012"),
    Case("block_rolled_back", f"BEGIN; {ONE}; ROLLBACK; {TWO}", (2,)),
    Case("error_inside_a_block", f"BEGIN; {ONE}; {ERROR}; COMMIT", (), "22012"),
    Case("begin_takes_in_what_came_before", f"{ONE}; BEGIN; {TWO}; COMMIT; {ERROR}", (1, 2), "22012"),
    Case("begin_twice", f"BEGIN; BEGIN; {ONE}; COMMIT", (1,)),
    Case("commit_alone", "COMMIT"),
    Case("rollback_alone", "ROLLBACK"),
    Case("same_transaction_id", f"{ONE}; INSERT INTO ~.t SELECT count(DISTINCT xmin::text) FROM ~.t", (1, 1)),
    Case(
        "savepoint",
        f"BEGIN; {ONE}; SAVEPOINT a; {TWO}; ROLLBACK TO a; {THREE}; RELEASE a; COMMIT",
        (1, 3),
    ),
    Case("savepoint_outside_a_block", f"{ONE}; SAVEPOINT a", (), "25P01"),
    Case("savepoint_alone", "SAVEPOINT a", (), "25P01"),
    Case("commit_and_chain", f"BEGIN; {ONE}; COMMIT AND CHAIN; {TWO}; ROLLBACK", (1,)),
    Case("rollback_and_chain", f"BEGIN; {ONE}; ROLLBACK AND CHAIN; {TWO}; COMMIT", (2,)),
    Case("chain_outside_a_block", f"{ONE}; COMMIT AND CHAIN", (), "25P01"),
    Case("prepare_transaction_where_disabled", f"BEGIN; {ONE}; PREPARE TRANSACTION '~'", (), "55000"),
    Case("read_only_block", f"BEGIN READ ONLY; {ONE}; COMMIT", (), "25006"),
    Case("set_transaction", f"SET TRANSACTION READ ONLY; {ONE}", (), "25006"),
    Case(
        "isolation_level",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO ~.t SELECT 1"
        " WHERE current_setting('transaction_isolation') = 'serializable'; COMMIT",
        (1,),
    ),
    Case("deferred_constraint", "INSERT INTO ~.d SELECT 1 FROM generate_series(1, 2)", (), "23505", DEFERRED),
    Case(
        "deferred_constraint_at_the_commit_of_all",
        f"INSERT INTO ~.d VALUES (1); INSERT INTO ~.d VALUES (1); {ONE}",
        (),
        "23505",
        DEFERRED,
    ),
    Case(
        "deferred_constraint_at_an_explicit_commit",
        f"BEGIN; INSERT INTO ~.d VALUES (1), (1); {ONE}; COMMIT; {TWO}",
        (),
        "23505",
        DEFERRED,
    ),
    # What may not be in a transaction block.
    Case("vacuum", "VACUUM ~.t"),
    Case("vacuum_verbose_analyze", "VACUUM (VERBOSE, ANALYZE) ~.t"),
    Case("vacuum_after_a_statement", f"{ONE}; VACUUM ~.t", (), "25001"),
    Case("vacuum_after_a_block", f"BEGIN; {ONE}; COMMIT; VACUUM ~.t", (1,), "25001"),
    Case("create_index_concurrently", "CREATE INDEX CONCURRENTLY ON ~.t (i)"),
    Case("create_index_concurrently_after_a_statement", f"{ONE}; CREATE INDEX CONCURRENTLY ON ~.t (i)", (), "25001"),
    Case("reindex_concurrently", "REINDEX TABLE CONCURRENTLY ~.t", (), None, "CREATE INDEX ON ~.t (i)"),
    Case("call_with_commit", "CALL ~.p()", (1, 3), None, COMMIT_INSIDE),
    Case("call_with_commit_then_error", "CALL ~.p()", (1,), "22012", COMMIT_THEN_ERROR),
    Case("call_with_commit_after_a_statement", "SELECT 1; CALL ~.p()", (), "2D000", COMMIT_INSIDE),
    Case("call_with_commit_in_a_block", "BEGIN; CALL ~.p(); COMMIT", (), "2D000", COMMIT_INSIDE),
    Case("do_with_commit", f"DO $$ BEGIN {ONE}; COMMIT; {TWO}; END $$", (1, 2)),
    Case("do_with_commit_then_error", f"DO $$ BEGIN {ONE}; COMMIT; {TWO}; PERFORM 1 / 0; END $$", (1,), "22012"),
    Case("discard_all", "DISCARD ALL"),
    Case("discard_all_after_a_statement", f"{ONE}; DISCARD ALL", (), "25001"),
    Case("lock_table_alone", "LOCK TABLE ~.t", (), "25P01"),
    Case("lock_table_with_others", f"LOCK TABLE ~.t; {ONE}", (1,)),
    # Settings and timeouts.
    Case("statement_timeout_set_before", "SET statement_timeout = '50ms'; SELECT pg_sleep(9)", (), "57014"),
    Case(
        "statement_timeout_counts_per_statement",
        f"SET statement_timeout = '900ms'; SELECT pg_sleep(0.6); SELECT pg_sleep(0.6); {ONE}",
        (1,),
    ),
    Case(
        "statement_timeout_reset_in_between",
        f"SET statement_timeout = '100ms'; SET statement_timeout = 0; SELECT pg_sleep(0.3); {ONE}",
        (1,),
    ),
    Case("lock_timeout", "SET lock_timeout = '50ms'; LOCK TABLE ~.held", (), "55P03", "CREATE TABLE ~.held ()"),
    Case(
        "set_local_ends_with_its_block",
        "BEGIN; SET LOCAL search_path = ~; INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2)",
        (1,),
        "42P01",
    ),
    Case("set_is_undone_with_its_transaction", "SET search_path = ~; ROLLBACK; INSERT INTO t VALUES (1)", (), "42P01"),
    Case("set_serves_what_follows", "SET search_path = ~; INSERT INTO t VALUES (1)", (1,)),
    Case("set_of_an_unknown_setting", "SET nope = 1", (), "42704"),
    # Objects of the session.
    Case("cursor_in_a_block", "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH ALL FROM c; CLOSE c; COMMIT"),
    Case("cursor_of_the_implicit_block", "DECLARE c CURSOR FOR SELECT generate_series(1, 3); FETCH ALL FROM c"),
    Case("cursor_alone", "DECLARE c CURSOR FOR SELECT 1", (), "25P01"),
    Case("cursor_with_hold", "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3); COMMIT; FETCH 2 FROM c"),
    Case("move", "DECLARE c CURSOR FOR SELECT generate_series(1, 3); MOVE 2 FROM c"),
    Case(
        "temporary_table",
        "CREATE TEMP TABLE x AS SELECT 5 AS i; INSERT INTO ~.t SELECT i FROM x; DROP TABLE x",
        (5,),
    ),
    Case(
        "temporary_table_dropped_at_commit",
        f"CREATE TEMP TABLE x (i int) ON COMMIT DROP; {ONE}; COMMIT; SELECT * FROM x",
        (1,),
        "42P01",
    ),
    Case("prepared_statement", "PREPARE p AS INSERT INTO ~.t VALUES ($1); EXECUTE p(4); DEALLOCATE p", (4,)),
    Case("execute_last", "PREPARE p AS SELECT generate_series(1, $1); EXECUTE p(4)"),
    Case("execute_of_nothing", "EXECUTE p(4)", (), "26000"),
    Case(
        "definitions_used_by_what_follows",
        "CREATE TABLE ~.u (j int); INSERT INTO ~.u VALUES (8); ALTER TABLE ~.u ADD k int DEFAULT 9;"
        " INSERT INTO ~.t SELECT k FROM ~.u; DROP TABLE ~.u",
        (9,),
    ),
    Case("definitions_undone", f"CREATE TABLE ~.u (j int); {ERROR}", (), "22012"),
    Case("notify", f"NOTIFY ~; {ONE}", (1,)),
    Case("advisory_lock", "SELECT pg_advisory_lock(4711)"),
    # Tags.
    Case("tag_select", "SELECT generate_series(1, 3)"),
    Case("tag_select_none", "SELECT 1 WHERE false"),
    Case("tag_values", "VALUES (1), (2)"),
    Case("tag_table", "TABLE ~.t"),
    Case("tag_insert", "INSERT INTO ~.t SELECT generate_series(1, 3)", (1, 2, 3)),
    Case("tag_insert_returning", "INSERT INTO ~.t VALUES (1), (2) RETURNING i", (1, 2)),
    Case("tag_update", "UPDATE ~.t SET i = i + 1", (2, 3), None, "INSERT INTO ~.t VALUES (1), (2)"),
    Case("tag_delete", "DELETE FROM ~.t WHERE i = 1", (2,), None, "INSERT INTO ~.t VALUES (1), (2)"),
    Case(
        "tag_merge",
        "MERGE INTO ~.t USING (VALUES (1), (9)) AS v (j) ON i = j"
        " WHEN MATCHED THEN UPDATE SET i = 5 WHEN NOT MATCHED THEN INSERT VALUES (j)",
        (2, 5, 9),
        None,
        "INSERT INTO ~.t VALUES (1), (2)",
    ),
    Case("tag_with", "WITH gone AS (DELETE FROM ~.t RETURNING i) SELECT * FROM gone", (), None, f"{ONE}; {TWO}"),
    Case("tag_create_table_as", "CREATE TABLE ~.u AS SELECT generate_series(1, 4)"),
    Case("tag_create_table_as_no_data", "CREATE TABLE ~.u AS SELECT 1 WITH NO DATA"),
    Case("tag_select_into", "SELECT generate_series(1, 4) AS i INTO ~.u"),
    Case("tag_refresh", "REFRESH MATERIALIZED VIEW ~.m", (), None, "CREATE MATERIALIZED VIEW ~.m AS SELECT 1"),
    Case("tag_create_table", "CREATE TABLE ~.u ()"),
    Case("tag_truncate", "TRUNCATE ~.t", (), None, ONE),
    Case("tag_analyze", "ANALYZE ~.t"),
    Case("tag_explain", "EXPLAIN (ANALYZE, COSTS OFF) INSERT INTO ~.t VALUES (1)", (1,)),
    Case("tag_show", "SHOW work_mem"),
    Case("tag_set", "SET work_mem = '8MB'"),
    Case("tag_copy_to_program", "COPY (SELECT generate_series(1, 3)) TO PROGRAM 'cat > /dev/null'"),
    Case("tag_copy_from_program", "COPY ~.t FROM PROGRAM 'echo 7'", (7,)),
    Case("tag_rule_instead_nothing", ONE, (), None, "CREATE RULE r AS ON INSERT TO ~.t DO INSTEAD NOTHING"),
    Case(
        "tag_rule_also",
        ONE,
        (1,),
        None,
        "CREATE TABLE ~.u (i int); CREATE RULE r AS ON INSERT TO ~.t DO ALSO INSERT INTO ~.u VALUES (7), (8)",
    ),
    # Errors with all their fields.
    Case("raise", RAISE, (), "CW042"),
    Case(
        "raise_in_a_function",
        "SELECT ~.f()",
        (),
        "P0001",
        "CREATE FUNCTION ~.f() RETURNS void LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE 'lost' USING DETAIL = 'žluť', HINT = '🐘'; END $$",
    ),
    Case("constraint", f"{ONE}; {ONE}", (), "23505", "CREATE UNIQUE INDEX ON ~.t (i)"),
    Case("several_lines", "DO $$ BEGIN RAISE E'one\\ntwo\\n' USING DETAIL = E'three\\n\\nfour'; END $$", (), "P0001"),
    Case("percent_signs", "DO $$ BEGIN RAISE '%', '%s %d %m %%'; END $$", (), "P0001"),
    Case("empty_message", "DO $$ BEGIN RAISE '%', ''; END $$", (), "P0001"),
    Case("message_only_from_a_caught_error", f"DO $$ BEGIN {ERROR}; EXCEPTION WHEN OTHERS THEN {ONE}; END $$", (1,)),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to, in words that both ways share."""

    succeeded: bool
    message: str
    sqlstate: str | None = None
    detail: str | None = None
    hint: str | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both answers, and the table that each left."""

    run: Run
    client: Answer
    job_left: tuple[int, ...]
    client_left: tuple[int, ...]


def ask_as_client(connection: psycopg.Connection[tuple[object, ...]], command: str) -> Answer:
    """Send the command as psql -c does."""
    result = connection.pgconn.exec_(command.encode())

    def field(which: DiagnosticField) -> str | None:
        value = result.error_field(which)
        return value.decode() if value is not None else None

    if result.status == ExecStatus.FATAL_ERROR:
        return Answer(
            False,
            field(DiagnosticField.MESSAGE_PRIMARY) or "",
            field(DiagnosticField.SQLSTATE),
            field(DiagnosticField.MESSAGE_DETAIL),
            field(DiagnosticField.MESSAGE_HINT),
            field(DiagnosticField.CONTEXT),
        )
    return Answer(True, (result.command_status or b"").decode() or "0 rows")


def recorded(answer: Answer) -> str:
    """How return_message puts an answer."""
    if answer.succeeded:
        return answer.message
    parts = [f"ERROR: {answer.message}"]
    parts += [f"DETAIL: {answer.detail}"] if answer.detail is not None else []
    parts += [f"HINT: {answer.hint}"] if answer.hint is not None else []
    parts += [f"CONTEXT: {answer.context}"] if answer.context is not None else []
    return "\n".join(parts)


def without_oids(text: str | None) -> str | None:
    """The two databases number their tables differently."""
    return text and re.sub(r"\b(relation|database) \d+", r"\1", text)


DATABASES = ("semantics_jobs", "semantics_client")


def set_up(server: Server, database: str) -> None:
    with server.connect() as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {database}".encode())
    with server.connect(database) as conn, conn.transaction():
        for case in CASES:
            conn.execute(f"CREATE SCHEMA {case.schema}; CREATE TABLE {case.schema}.t (i int)".encode())
            if case.setup:
                conn.execute(case.fill(case.setup).encode())


def left_in(server: Server, database: str) -> dict[str, tuple[int, ...]]:
    with server.connect(database) as conn:
        return {
            case.name: tuple(i for (i,) in rows(conn, f"SELECT i FROM {case.schema}.t ORDER BY i")) for case in CASES
        }


@pytest.fixture(scope="module")
def outcomes(server: Server) -> Iterator[dict[str, Outcome]]:
    """Every case, run both ways."""
    jobs, client = DATABASES
    for database in DATABASES:
        set_up(server, database)
    with ExitStack() as stack:
        for database in DATABASES:
            holder = stack.enter_context(server.connect(database))
            holder.execute("BEGIN; LOCK TABLE case_lock_timeout.held")
        answers = {}
        for case in CASES:
            with server.connect(client) as connection:
                answers[case.name] = ask_as_client(connection, case.fill(case.command))
        with server.connect() as conn:
            found = run_each(conn, {case.name: Task(case.fill(case.command), jobs) for case in CASES})
    job_left, client_left = left_in(server, jobs), left_in(server, client)
    yield {
        name: Outcome(found[name], answers[name], job_left[name], client_left[name]) for name in (c.name for c in CASES)
    }
    with server.connect() as conn:
        for database in DATABASES:
            conn.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_command_does_what_psql_would(outcomes: dict[str, Outcome], case: Case) -> None:
    outcome = outcomes[case.name]
    run, client = outcome.run, outcome.client
    assert (run.sqlstate, outcome.job_left) == (case.sqlstate, case.leaves), run.return_message
    assert (client.sqlstate, outcome.client_left) == (case.sqlstate, case.leaves), "the client disagrees with the test"
    assert run.status == ("succeeded" if client.succeeded else "failed")
    assert without_oids(run.return_message) == without_oids(recorded(client))
    assert (run.detail, run.hint, without_oids(run.context)) == (
        client.detail,
        client.hint,
        without_oids(client.context),
    )


@pytest.mark.parametrize("case", [c for c in CASES if c.sqlstate is None], ids=lambda case: case.name)
def test_tag_and_rows_of_a_command_that_succeeded_have_columns_of_their_own(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    outcome = outcomes[case.name]
    words = outcome.client.message.split()
    counted = words[-1].isdigit()
    tag = " ".join(word for word in words if not word.isdigit())
    if outcome.client.message == "0 rows":
        assert (outcome.run.command_tag, outcome.run.row_count) == (None, None)
    else:
        assert (outcome.run.command_tag, outcome.run.row_count) == (tag, int(words[-1]) if counted else None)
    assert outcome.run.reason is None


@pytest.mark.parametrize("case", [c for c in CASES if c.sqlstate is not None], ids=lambda case: case.name)
def test_a_command_that_failed_has_a_reason_and_no_tag(outcomes: dict[str, Outcome], case: Case) -> None:
    run = outcomes[case.name].run
    assert run.reason == "error"
    assert (run.command_tag, run.row_count) == (None, None)
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.due_time is not None
    assert run.due_time <= run.start_time <= run.end_time
