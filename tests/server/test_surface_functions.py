"""pg_cron's functions: every check in its order, every error byte for byte, and how jobs are numbered.

What is refused comes first. The parser's own refusals are in tests/vectors; here they only
have to arrive.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.server.surface import (
    ANN,
    BEN,
    CRON_HINT,
    NO_UPDATES_HINT,
    Connection,
    Notice,
    Refusal,
    job,
    make_role,
    notices,
    refusal,
    rows,
    session_of,
    value,
)
from tests.support.plugin import ServerMaker
from tests.support.servers import Server

VECTORS = Path(__file__).resolve().parents[1] / "vectors"

NULL = "22004"
INVALID = "22023"
FORBIDDEN = "42501"

LOGIN_DETAIL = "Jobs may only be run by roles that have the LOGIN attribute."
SUPERUSER_DETAIL = "Scheduling jobs as superuser is disallowed when cron.enable_superuser_jobs is set to off."


@pytest.fixture
def ann(conn: Connection, server: Server) -> Iterator[Connection]:
    """A session of an ordinary user."""
    make_role(conn, ANN)
    with session_of(server, ANN) as session:
        yield session


@pytest.fixture
def ben(conn: Connection, server: Server) -> Iterator[Connection]:
    """A session of another ordinary user, who may also use what is kept from the public."""
    make_role(conn, BEN)
    conn.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cron TO {BEN}".encode())
    with session_of(server, BEN) as session:
        yield session


def schedule(connection: Connection, *arguments: Any) -> int:
    """cron.schedule with two or three arguments."""
    places = ", ".join(["%s"] * len(arguments))
    return int(value(connection, f"SELECT cron.schedule({places})", *arguments))


def last_number(connection: Connection) -> int:
    return int(value(connection, "SELECT last_value FROM cron.jobid_seq"))


# --- scheduling: what is refused ---------------------------------------------------------------

NULLS = [
    ("cron.schedule(NULL, '* * * * *', 'x')", "job_name"),
    ("cron.schedule('n', NULL, 'x')", "schedule"),
    ("cron.schedule('n', '* * * * *', NULL)", "command"),
    ("cron.schedule(NULL, NULL, NULL)", "job_name"),
    ("cron.schedule('n', NULL, NULL)", "schedule"),
    ("cron.schedule(NULL, '* * * * *', 'x', '{}')", "job_name"),
    ("cron.schedule('n', NULL, 'x', '{}')", "schedule"),
    ("cron.schedule('n', '* * * * *', NULL, '{}')", "command"),
    ("cron.schedule_in_database(NULL, '* * * * *', 'x', 'postgres')", "job_name"),
    ("cron.schedule_in_database('n', NULL, 'x', 'postgres')", "schedule"),
    ("cron.schedule_in_database('n', '* * * * *', NULL, 'postgres')", "command"),
    ("cron.alter_job(NULL, 'x')", "job_id"),
    ("cron.alter_job(NULL)", "job_id"),
    ("cron.alter_job(NULL, options => '{}')", "job_id"),
]


@pytest.mark.parametrize(("call", "argument"), NULLS)
def test_a_null_that_means_nothing_is_refused_by_the_name_of_its_argument(
    conn: Connection, call: str, argument: str
) -> None:
    assert refusal(conn, f"SELECT {call}") == Refusal(NULL, f"{argument} can not be NULL")


@pytest.mark.parametrize(
    "call",
    [
        "cron.schedule(NULL, 'x')",
        "cron.schedule('* * * * *', NULL)",
        "cron.unschedule(NULL)",
        "cron.unschedule(NULL::bigint)",
        "cron.unschedule(NULL::text)",
    ],
)
def test_a_strict_function_answers_null_with_null_and_does_nothing(conn: Connection, call: str) -> None:
    before = last_number(conn)
    assert value(conn, f"SELECT {call}") is None
    assert last_number(conn) == before
    assert rows(conn, "SELECT * FROM cron.job") == []


def refusals_of_schedules() -> list[Any]:
    """The shared table of refused schedules, a few of every topic."""
    seen: dict[str, int] = {}
    chosen = []
    with open(VECTORS / "refusals.tsv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            seen[row["topic"]] = seen.get(row["topic"], 0) + 1
            if seen[row["topic"]] <= 3:
                # Escapes as COPY reads them.
                text, detail, hint = (
                    row[key].encode().decode("unicode_escape").encode("latin-1").decode()
                    for key in ("text", "detail", "hint")
                )
                chosen.append(pytest.param(text, detail, hint, id=f"{row['topic']}-{row['text'][:20]}"))
    return chosen


@pytest.mark.parametrize(("text", "detail", "hint"), refusals_of_schedules())
def test_a_text_that_is_no_schedule_is_refused_with_what_the_parser_says(
    conn: Connection, text: str, detail: str, hint: str
) -> None:
    expected = Refusal(INVALID, f"invalid schedule: {text}", detail, hint or CRON_HINT)
    before = last_number(conn)
    assert refusal(conn, "SELECT cron.schedule(%s, 'x')", text) == expected
    assert refusal(conn, "SELECT cron.schedule('n', %s, 'x')", text) == expected
    assert last_number(conn) == before


NO_JOB_WORDS = "SELECT cron.schedule_in_database('n', '* * * * *', 'x', %s, %s)"


def test_a_database_that_does_not_exist_is_refused(conn: Connection) -> None:
    assert refusal(conn, NO_JOB_WORDS, "nowhere", None) == Refusal("3D000", 'database "nowhere" does not exist')


def test_a_role_that_does_not_exist_is_refused(conn: Connection) -> None:
    assert refusal(conn, NO_JOB_WORDS, "postgres", "nobody") == Refusal("42704", 'role "nobody" does not exist')


def test_a_role_that_cannot_log_in_is_refused(conn: Connection) -> None:
    expected = Refusal(INVALID, 'role "pg_monitor" can not log in', LOGIN_DETAIL)
    assert refusal(conn, NO_JOB_WORDS, "postgres", "pg_monitor") == expected


def test_a_database_to_which_the_role_may_not_connect_is_refused(conn: Connection) -> None:
    make_role(conn, ANN)
    conn.execute("DROP DATABASE IF EXISTS walled")
    conn.execute("CREATE DATABASE walled")
    conn.execute("REVOKE CONNECT ON DATABASE walled FROM public")
    refused = refusal(conn, NO_JOB_WORDS, "walled", ANN)
    assert refused == Refusal(FORBIDDEN, f"User {ANN} does not have CONNECT privilege on walled")
    jobid = schedule(conn, "n", "* * * * *", "x")
    conn.execute("UPDATE cron.job SET username = %s WHERE jobid = %s", [ANN, jobid])
    # Whom the job runs as is what counts, not who asks.
    assert refusal(conn, "SELECT cron.alter_job(%s, database => 'walled')", jobid).message == refused.message
    assert (
        refusal(conn, 'SELECT cron.alter_job(%s, \'{"database": "walled"}\'::jsonb)', jobid).message == refused.message
    )


@pytest.mark.parametrize("username", [BEN, ANN, "postgres", "nobody"])
def test_only_a_superuser_may_name_a_user_even_himself(ben: Connection, ann: Connection, username: str) -> None:
    expected = Refusal(FORBIDDEN, "must be superuser to create a job for another role")
    assert refusal(ben, NO_JOB_WORDS, "postgres", username) == expected


@pytest.mark.parametrize(
    "call",
    [
        "cron.schedule_in_database('n', '* * * * *', 'x', 'postgres')",
        "cron.schedule_in_database('n', '* * * * *', 'x', 'postgres', NULL, false)",
    ],
)
def test_scheduling_in_a_database_needs_a_grant(ann: Connection, call: str) -> None:
    assert refusal(ann, f"SELECT {call}") == Refusal(FORBIDDEN, "permission denied for function schedule_in_database")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # The schedule is looked at first, then the right to name a user, then the role, its login, the database.
        ("cron.schedule_in_database('n', 'junk', 'x', 'nowhere', 'nobody')", "invalid schedule: junk"),
        ("cron.schedule_in_database('n', '* * * * *', 'x', 'nowhere', 'nobody')", 'role "nobody" does not exist'),
        (
            "cron.schedule_in_database('n', '* * * * *', 'x', 'nowhere', 'pg_monitor')",
            'role "pg_monitor" can not log in',
        ),
        (
            "cron.schedule_in_database('n', '* * * * *', 'x', 'nowhere', 'postgres')",
            'database "nowhere" does not exist',
        ),
        ("cron.schedule_in_database(NULL, 'junk', 'x', 'nowhere', 'nobody')", "job_name can not be NULL"),
    ],
)
def test_the_checks_are_made_in_the_order_of_pg_cron(conn: Connection, call: str, message: str) -> None:
    assert refusal(conn, f"SELECT {call}").message == message


def test_the_right_to_name_a_user_is_checked_before_the_user_is_looked_up(ben: Connection) -> None:
    call = "SELECT cron.schedule_in_database('n', %s, 'x', 'nowhere', 'nobody')"
    assert refusal(ben, call, "junk").message == "invalid schedule: junk"
    assert refusal(ben, call, "* * * * *").message == "must be superuser to create a job for another role"


def test_a_caller_who_cannot_log_in_is_warned_and_keeps_the_job(conn: Connection, server: Server) -> None:
    make_role(conn, ANN, "NOLOGIN")
    with session_of(server, ANN) as nologin:
        assert notices(nologin, "SELECT cron.schedule('n', '@reboot', '')") == [
            Notice(
                "WARNING",
                f'role "{ANN}" can not log in',
                LOGIN_DETAIL,
                "The job is kept; its runs will fail until the role can log in.",
            )
        ]
    assert rows(conn, "SELECT username FROM cron.job") == [(ANN,)]


def test_nothing_can_be_changed_in_a_read_only_transaction(conn: Connection) -> None:
    jobid = schedule(conn, "n", "@reboot", "x")
    for call, statement in (
        ("cron.schedule('@reboot', 'x')", "INSERT"),
        ("cron.schedule('n', '@reboot', 'x')", "INSERT"),
        ("cron.schedule('n', '@reboot', 'x', '{}')", "INSERT"),
        ("cron.schedule_in_database('n', '@reboot', 'x', 'postgres')", "INSERT"),
        (f"cron.unschedule({jobid})", "DELETE"),
        ("cron.unschedule('n')", "DELETE"),
        (f"cron.alter_job({jobid}, active => false)", "UPDATE"),
        (f"cron.alter_job({jobid}, options => '{{\"active\": false}}')", "UPDATE"),
    ):
        with conn.transaction(force_rollback=True):
            conn.execute("SET TRANSACTION READ ONLY")
            expected = Refusal("25006", f"cannot execute {statement} in a read-only transaction")
            with conn.transaction(force_rollback=True):
                assert (call, refusal(conn, f"SELECT {call}")) == (call, expected)


# --- scheduling: what is remarked and kept -----------------------------------------------------


def test_more_than_five_fields_are_remarked(conn: Connection) -> None:
    assert notices(conn, "SELECT cron.schedule('0 * * * * *', 'x')") == [
        Notice(
            "NOTICE",
            "schedule has 6 fields: the first one is seconds",
            None,
            "A cron expression without seconds has 5 fields.",
        )
    ]


def test_a_schedule_that_never_runs_is_kept_with_a_warning(conn: Connection) -> None:
    assert notices(conn, "SELECT cron.schedule('0 0 30 2 *', 'x')") == [
        Notice("WARNING", 'schedule "0 0 30 2 *" never runs', "No date from now to 2199 has day 30 in February.")
    ]


def test_a_time_that_is_over_is_refused(conn: Connection) -> None:
    text = "@at 2001-01-01 00:00+00"
    assert refusal(conn, "SELECT cron.schedule(%s, 'x')", text) == Refusal(
        INVALID, f"invalid schedule: {text}", "The time is in the past."
    )


@pytest.mark.parametrize(
    "text", ["@restart", " 30 sEcOnDs ", "17  seconds ", "0 11 $ * *", "\n* * * * *\t", "00 007 * JaN-DEC sun"]
)
def test_a_schedule_is_stored_as_it_was_written(conn: Connection, text: str) -> None:
    assert notices(conn, "SELECT cron.schedule(%s, 'x')", text) == []
    assert rows(conn, "SELECT schedule FROM cron.job") == [(text,)]


def test_a_long_schedule_is_no_error(conn: Connection) -> None:
    text = ",".join(str(minute) for minute in range(60)) * 1 + "," + "59," * 400 + "0 * * * *"
    assert len(text) > 1000
    jobid = schedule(conn, text, "x")
    assert job(conn, jobid, "schedule") == (text,)


def test_an_empty_name_and_an_empty_command_are_kept(conn: Connection) -> None:
    jobid = schedule(conn, "", "@reboot", "")
    assert job(conn, jobid, "command, jobname") == ("", "")
    assert schedule(conn, "", "@reboot", "x") == jobid


def test_a_job_is_written_with_the_values_of_pg_cron(conn: Connection) -> None:
    jobid = schedule(conn, "5 4 * * *", "SELECT 1")
    port = int(value(conn, "SHOW port"))
    columns = "schedule, command, nodename, nodeport, database, username, active, jobname"
    assert job(conn, jobid, columns) == ("5 4 * * *", "SELECT 1", "localhost", port, "postgres", "postgres", True, None)


def test_a_job_scheduled_in_a_database_is_written_with_what_was_said(conn: Connection) -> None:
    make_role(conn, ANN)
    call = "SELECT cron.schedule_in_database('n', '@reboot', 'x', 'template1', %s, false)"
    assert job(conn, value(conn, call, ANN)) == ("@reboot", "x", "template1", ANN, False, "n")
    nulls = value(conn, "SELECT cron.schedule_in_database('m', '@reboot', 'x', NULL, NULL, NULL)")
    assert job(conn, nulls) == ("@reboot", "x", "postgres", "postgres", True, "m")


def test_a_job_is_undone_by_a_rollback(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        schedule(conn, "n", "@reboot", "x")
    assert rows(conn, "SELECT * FROM cron.job") == []


# --- numbering and names -----------------------------------------------------------------------


def test_refused_calls_consume_no_number_and_repeated_names_consume_one(conn: Connection) -> None:
    first = schedule(conn, "@reboot", "x")
    for call in (
        "cron.schedule('junk', 'x')",
        "cron.schedule('n', 'junk', 'x')",
        "cron.schedule('n', '@reboot', NULL)",
        "cron.schedule('n', '@reboot', 'x', '{\"junk\": 1}')",
        "cron.schedule('n', '@reboot', 'x', '{\"timezone\": \"junk\"}')",
        "cron.schedule('n', '@reboot', 'x', '{\"timeout\": \"0\"}')",
        "cron.schedule('n', '@reboot', 'x', '{\"database\": \"junk\"}')",
        "cron.schedule('n', '@reboot', 'x', '{\"username\": \"junk\"}')",
        "cron.schedule_in_database('n', '@reboot', 'x', 'nowhere')",
        "cron.schedule_in_database('n', '@reboot', 'x', 'postgres', 'nobody')",
    ):
        refusal(conn, f"SELECT {call}")
    assert schedule(conn, "n", "@reboot", "x") == first + 1
    assert schedule(conn, "n", "@daily", "y") == first + 1
    assert schedule(conn, "n", "@daily", "z") == first + 1
    assert schedule(conn, "@reboot", "x") == first + 4


def test_a_name_scheduled_again_keeps_its_number_activity_and_node(conn: Connection) -> None:
    jobid = value(conn, "SELECT cron.schedule_in_database('n', '@reboot', 'x', 'template1', 'postgres', false)")
    conn.execute(
        "UPDATE cron.job SET nodename = 'far', nodeport = 1, timezone = 'UTC', priority = 7, managed_by = 'me'"
    )
    again = value(conn, "SELECT cron.schedule_in_database('n', '@daily', 'y', 'template1', NULL, true)")
    assert again == jobid
    columns = "schedule, command, database, active, nodename, nodeport, timezone, priority, managed_by"
    assert job(conn, jobid, columns) == ("@daily", "y", "template1", False, "far", 1, "UTC", 7, "me")
    # Without a database it comes home.
    assert schedule(conn, "n", "@daily", "y") == jobid
    assert job(conn, jobid, "database, active") == ("postgres", False)


def test_two_roles_may_use_one_name(conn: Connection, ann: Connection) -> None:
    mine = schedule(conn, "n", "@reboot", "mine")
    hers = schedule(ann, "n", "@reboot", "hers")
    assert mine != hers
    assert rows(conn, "SELECT jobid, username, command FROM cron.job ORDER BY 1") == [
        (mine, "postgres", "mine"),
        (hers, ANN, "hers"),
    ]


def test_jobs_without_a_name_are_never_one(conn: Connection) -> None:
    assert schedule(conn, "@reboot", "x") != schedule(conn, "@reboot", "x")


# --- which function a call means ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("cron.schedule('@reboot', 'x')", "bigint"),
        ("cron.schedule('n', '@reboot', 'x')", "bigint"),
        ("cron.schedule('n', '@reboot', 'x', '{}')", "bigint"),
        ("cron.schedule('n', '@reboot', 'x', NULL)", "bigint"),
        ("cron.schedule(NULL, NULL)", "bigint"),
        ("cron.schedule(schedule => '@reboot', command => 'x')", "bigint"),
        ("cron.schedule(job_name => 'n', schedule => '@reboot', command => 'x')", "bigint"),
        ("cron.schedule(job_name := 'n', schedule := '@reboot', command := 'x', options := '{}')", "bigint"),
        ("cron.schedule('n'::name, '@reboot', 'x')", "bigint"),
        ("cron.schedule('n'::varchar, '@reboot'::text, 'x'::text)", "bigint"),
        ("cron.schedule('n', '@reboot', $$x$$, options => '{\"active\": false}')", "bigint"),
        ("cron.schedule_in_database('n', '@reboot', 'x', 'postgres')", "bigint"),
        ("cron.schedule_in_database('n', '@reboot', 'x', 'postgres', 'postgres')", "bigint"),
        ("cron.schedule_in_database('n', '@reboot', 'x', 'postgres', NULL, 'true')", "bigint"),
        ("cron.schedule_in_database('n', '@reboot', 'x', 'postgres', active := false)", "bigint"),
        ("cron.unschedule((SELECT max(jobid) FROM cron.job))", "boolean"),
        ("cron.unschedule('kept')", "boolean"),
        ("cron.unschedule('kept'::name)", "boolean"),
        ("cron.unschedule(job_name => 'kept')", "boolean"),
        ("cron.unschedule(job_id => (SELECT max(jobid) FROM cron.job))", "boolean"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), '@daily')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), '@daily', 'y')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), NULL, 'y')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), NULL, NULL, 'template1')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), NULL, NULL, NULL, 'postgres')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), NULL, NULL, NULL, NULL, false)", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job)::int, active := false)", "void"),
        ("cron.alter_job(job_id := (SELECT max(jobid) FROM cron.job), active := 'off')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), options => '{\"active\": false}')", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), '{\"active\": false}'::jsonb)", "void"),
        ("cron.alter_job((SELECT max(jobid) FROM cron.job), jsonb_build_object('active', false))", "void"),
    ],
)
def test_a_call_is_never_ambiguous(conn: Connection, call: str, result: str) -> None:
    schedule(conn, "kept", "@reboot", "x")
    assert value(conn, f"SELECT pg_typeof({call})::text") == result


def test_a_number_given_as_text_is_a_name(conn: Connection) -> None:
    jobid = schedule(conn, "@reboot", "x")
    assert (
        refusal(conn, f"SELECT cron.unschedule('{jobid}')").message == f"could not find valid entry for job '{jobid}'"
    )


def test_options_without_a_cast_are_told_how_to_be_options(conn: Connection) -> None:
    jobid = schedule(conn, "@reboot", "x")
    assert refusal(conn, f"SELECT cron.alter_job({jobid}, '{{\"active\": false}}')") == Refusal(
        INVALID,
        'invalid schedule: {"active": false}',
        None,
        "To alter options, write options => '...' or '...'::jsonb.",
    )
    assert job(conn, jobid, "active") == (True,)


def test_functions_may_be_called_for_many_rows_at_once(conn: Connection) -> None:
    conn.execute("SELECT cron.schedule('job ' || i, '@reboot', 'x') FROM generate_series(1, 50) i")
    conn.execute("SELECT cron.alter_job(jobid, active => false) FROM cron.job")
    assert rows(conn, "SELECT active, count(*) FROM cron.job GROUP BY 1") == [(False, 50)]
    conn.execute("SELECT cron.unschedule(jobid) FROM cron.job")
    assert rows(conn, "SELECT * FROM cron.job") == []


# --- removing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("jobid", [0, -1, 2**63 - 1, -(2**63)])
def test_a_number_without_a_job_is_refused(conn: Connection, jobid: int) -> None:
    expected = Refusal(INVALID, f"could not find valid entry for job {jobid}")
    assert refusal(conn, "SELECT cron.unschedule(%s::bigint)", jobid) == expected


@pytest.mark.parametrize("name", ["absent", "", "it's", "Absent\nüñ"])
def test_a_name_without_a_job_is_refused(conn: Connection, name: str) -> None:
    assert refusal(conn, "SELECT cron.unschedule(%s)", name) == Refusal(
        INVALID, f"could not find valid entry for job '{name}'"
    )


def test_a_foreign_job_cannot_be_removed_by_number_or_by_name(conn: Connection, ann: Connection) -> None:
    jobid = schedule(conn, "n", "@reboot", "x")
    assert refusal(ann, f"SELECT cron.unschedule({jobid})") == Refusal(FORBIDDEN, "permission denied for table job")
    assert refusal(ann, "SELECT cron.unschedule('n')") == Refusal(INVALID, "could not find valid entry for job 'n'")
    assert job(conn, jobid, "jobname") == ("n",)


def test_an_own_job_is_removed_by_number_and_by_name_without_any_table_privilege(
    conn: Connection, ann: Connection
) -> None:
    jobid = schedule(ann, "n", "@reboot", "x")
    assert value(ann, f"SELECT cron.unschedule({jobid})") is True
    schedule(ann, "n", "@reboot", "x")
    assert value(ann, "SELECT cron.unschedule('n')") is True
    assert rows(conn, "SELECT * FROM cron.job") == []


def test_a_superuser_removes_a_foreign_job_by_number_only(conn: Connection, ann: Connection) -> None:
    jobid = schedule(ann, "n", "@reboot", "x")
    assert refusal(conn, "SELECT cron.unschedule('n')") == Refusal(INVALID, "could not find valid entry for job 'n'")
    assert value(conn, f"SELECT cron.unschedule({jobid})") is True


def test_the_right_to_delete_rows_does_not_reach_beyond_row_security(conn: Connection, ann: Connection) -> None:
    """In pg_cron that right covers everybody's jobs; here only with BYPASSRLS, as for a plain DELETE."""
    jobid = schedule(conn, "n", "@reboot", "x")
    conn.execute(f"GRANT DELETE ON cron.job TO {ANN}".encode())
    assert refusal(ann, f"SELECT cron.unschedule({jobid})") == Refusal(FORBIDDEN, "permission denied for table job")
    conn.execute(f"ALTER ROLE {ANN} BYPASSRLS".encode())
    assert value(ann, f"SELECT cron.unschedule({jobid})") is True


def test_bypassing_row_security_without_the_right_to_delete_removes_nothing(conn: Connection, ann: Connection) -> None:
    jobid = schedule(conn, "n", "@reboot", "x")
    conn.execute(f"ALTER ROLE {ANN} BYPASSRLS".encode())
    assert refusal(ann, f"SELECT cron.unschedule({jobid})") == Refusal(FORBIDDEN, "permission denied for table job")


def test_a_removal_is_undone_by_a_rollback(conn: Connection) -> None:
    jobid = schedule(conn, "n", "@reboot", "x")
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT cron.unschedule('n')")
        assert job(conn, jobid) is None
    assert job(conn, jobid) is not None


# --- altering ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", ["cron.alter_job(%s)", "cron.alter_job(%s, NULL)", "cron.alter_job(%s, NULL, NULL, NULL, NULL, NULL)"]
)
@pytest.mark.parametrize("jobid", [1, -1])
def test_altering_nothing_is_refused_whatever_the_job(conn: Connection, call: str, jobid: int) -> None:
    assert refusal(conn, f"SELECT {call % jobid}") == Refusal(INVALID, "no updates specified", None, NO_UPDATES_HINT)


def test_altering_a_job_that_is_not_there_is_refused(conn: Connection) -> None:
    assert refusal(conn, "SELECT cron.alter_job(-5, active => true)") == Refusal(
        FORBIDDEN, "Job -5 does not exist or you don't own it"
    )


def test_altering_needs_a_grant(ann: Connection) -> None:
    jobid = schedule(ann, "@reboot", "x")
    refused = refusal(ann, f"SELECT cron.alter_job({jobid}, active => false)")
    assert refused == Refusal(FORBIDDEN, "permission denied for function alter_job")


def test_altering_a_foreign_job_is_refused_like_one_that_is_not_there(conn: Connection, ben: Connection) -> None:
    jobid = schedule(conn, "@reboot", "x")
    expected = Refusal(FORBIDDEN, f"Job {jobid} does not exist or you don't own it")
    assert refusal(ben, f"SELECT cron.alter_job({jobid}, active => false)") == expected
    assert refusal(ben, f"SELECT cron.alter_job({jobid}, schedule => 'junk', username => 'nobody')") == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("schedule => 'junk'", "invalid schedule: junk"),
        ("schedule => ''", "invalid schedule: "),
        ("database => 'nowhere'", 'database "nowhere" does not exist'),
        ("username => 'nobody'", 'role "nobody" does not exist'),
        ("username => 'pg_monitor'", 'role "pg_monitor" can not log in'),
        ("schedule => 'junk', database => 'nowhere', username => 'nobody'", "invalid schedule: junk"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(conn: Connection, argument: str, expected: str) -> None:
    jobid = schedule(conn, "n", "@reboot", "x")
    before = job(conn, jobid, "*")
    assert refusal(conn, f"SELECT cron.alter_job({jobid}, {argument}, active => false)").message == expected
    assert job(conn, jobid, "*") == before


@pytest.mark.parametrize("username", [BEN, "postgres", "nobody"])
def test_only_a_superuser_alters_the_username(ben: Connection, username: str) -> None:
    jobid = schedule(ben, "@reboot", "x")
    expected = Refusal(FORBIDDEN, "must be superuser to alter username")
    assert refusal(ben, f"SELECT cron.alter_job({jobid}, username => '{username}')") == expected
    assert refusal(ben, f'SELECT cron.alter_job({jobid}, \'{{"username": "{username}"}}\'::jsonb)') == expected


@pytest.mark.parametrize(
    ("argument", "column", "expected"),
    [
        ("schedule => ' @DAILY '", "schedule", None),
        ("schedule => ' @daily '", "schedule", " @daily "),
        ("command => ''", "command", ""),
        ("database => 'template1'", "database", "template1"),
        ("active => false", "active", False),
        ("username => 'surface_ann'", "username", "surface_ann"),
    ],
)
def test_an_argument_alters_its_column_alone(conn: Connection, argument: str, column: str, expected: object) -> None:
    make_role(conn, ANN)
    jobid = schedule(conn, "n", "@reboot", "x")
    others = ", ".join(
        sorted({"schedule", "command", "database", "username", "active", "jobname", "nodename", "priority"} - {column})
    )
    before = job(conn, jobid, others)
    call = f"SELECT cron.alter_job({jobid}, {argument})"
    if expected is None:
        assert refusal(conn, call).sqlstate == INVALID
        return
    assert value(conn, f"SELECT ({call})::text") == ""
    assert job(conn, jobid, column) == (expected,)
    assert job(conn, jobid, others) == before


def test_all_arguments_are_altered_at_once(conn: Connection) -> None:
    make_role(conn, ANN)
    jobid = schedule(conn, "n", "@reboot", "x")
    conn.execute("SELECT cron.alter_job(%s, '@daily', 'y', 'template1', %s, false)", [jobid, ANN])
    assert job(conn, jobid) == ("@daily", "y", "template1", ANN, False, "n")


def test_an_owner_with_the_grant_alters_his_own_job(conn: Connection, ben: Connection) -> None:
    jobid = schedule(ben, "n", "@reboot", "x")
    ben.execute("SELECT cron.alter_job(%s, schedule => '@daily', command => 'y', active => false)", [jobid])
    assert job(conn, jobid) == ("@daily", "y", "postgres", BEN, False, "n")


def test_giving_a_job_to_a_role_that_has_one_of_that_name_is_refused(conn: Connection, ann: Connection) -> None:
    schedule(ann, "n", "@reboot", "hers")
    jobid = schedule(conn, "n", "@reboot", "mine")
    refused = refusal(conn, "SELECT cron.alter_job(%s, username => %s)", jobid, ANN)
    assert (refused.sqlstate, "jobname_username_uniq" in refused.message) == ("23505", True)


# --- who the caller is -------------------------------------------------------------------------


def test_names_of_owners_are_compared_exactly(conn: Connection, server: Server) -> None:
    make_role(conn, "Surface_Case")
    make_role(conn, "surface_case")
    with session_of(server, "Surface_Case") as upper, session_of(server, "surface_case") as lower:
        jobid = schedule(upper, "n", "@reboot", "x")
        assert job(conn, jobid, "username") == ("Surface_Case",)
        assert refusal(lower, f"SELECT cron.unschedule({jobid})").message == "permission denied for table job"
        assert refusal(lower, "SELECT cron.unschedule('n')").message == "could not find valid entry for job 'n'"
        assert refusal(lower, "SELECT cron.unschedule('N')").message == "could not find valid entry for job 'N'"
        assert rows(lower, "SELECT * FROM cron.job") == []
        assert value(upper, f"SELECT cron.unschedule({jobid})") is True


def test_the_role_that_is_set_is_the_caller(conn: Connection) -> None:
    make_role(conn, ANN)
    conn.execute(f"SET ROLE {ANN}".encode())
    try:
        mine = schedule(conn, "n", "@reboot", "x")
        assert refusal(conn, NO_JOB_WORDS, "postgres", ANN).sqlstate == FORBIDDEN
    finally:
        conn.execute("RESET ROLE")
    assert job(conn, mine, "username") == (ANN,)


def test_the_owner_of_a_security_definer_function_is_the_caller(conn: Connection, ann: Connection) -> None:
    make_role(conn, BEN)
    conn.execute("DROP FUNCTION IF EXISTS public.schedule_as_ben()")
    conn.execute(
        "CREATE FUNCTION public.schedule_as_ben() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS $$ SELECT cron.schedule('definer', '@reboot', 'x') $$"
    )
    conn.execute(f"ALTER FUNCTION public.schedule_as_ben() OWNER TO {BEN}".encode())
    jobid = value(ann, "SELECT public.schedule_as_ben()")
    assert job(conn, jobid, "username") == (BEN,)
    assert job(ann, jobid, "username") is None
    conn.execute("DROP FUNCTION public.schedule_as_ben()")


# --- without superusers' jobs ------------------------------------------------------------------


@pytest.mark.settings({"cron.enable_superuser_jobs": "off"})
def test_superusers_jobs_can_be_forbidden(fresh_server: Server) -> None:
    expected = Refusal(FORBIDDEN, "cannot schedule jobs as superuser", SUPERUSER_DETAIL)
    with fresh_server.connect() as conn:
        make_role(conn, ANN)
        for call in (
            "cron.schedule('@reboot', 'x')",
            "cron.schedule('n', '@reboot', 'x')",
            "cron.schedule('n', '@reboot', 'x', '{}')",
            "cron.schedule_in_database('n', '@reboot', 'x', 'nowhere')",
            "cron.schedule_in_database('n', '@reboot', 'x', 'postgres', 'postgres')",
        ):
            assert (call, refusal(conn, f"SELECT {call}")) == (call, expected)
        jobid = value(conn, "SELECT cron.schedule_in_database('n', '@reboot', 'x', 'postgres', %s)", ANN)
        # The job's user counts: a superuser may alter somebody's job, but not take it.
        conn.execute("SELECT cron.alter_job(%s, active => false)", [jobid])
        assert job(conn, jobid, "active") == (False,)
        assert refusal(conn, "SELECT cron.alter_job(%s, username => 'postgres')", jobid) == expected
        assert refusal(conn, 'SELECT cron.alter_job(%s, \'{"username": "postgres"}\'::jsonb)', jobid) == expected
        with session_of(fresh_server, ANN) as ann:
            schedule(ann, "own", "@reboot", "x")


# --- a standby ---------------------------------------------------------------------------------


@pytest.mark.local_only
def test_on_a_standby_every_change_is_refused(make_server: ServerMaker) -> None:
    primary: Any = make_server()
    with primary.connect() as connection:
        jobid = schedule(connection, "n", "@reboot", "x")
    standby = primary.standby()
    try:
        standby.start()
        with standby.connect() as connection:
            for call, statement in (
                ("cron.schedule('@reboot', 'x')", "INSERT"),
                (f"cron.unschedule({jobid})", "DELETE"),
                ("cron.unschedule('n')", "DELETE"),
                (f"cron.alter_job({jobid}, active => false)", "UPDATE"),
                (f"cron.alter_job({jobid}, '{{\"active\": false}}'::jsonb)", "UPDATE"),
            ):
                refused = refusal(connection, f"SELECT {call}")
                assert (call, refused) == (
                    call,
                    Refusal("25006", f"cannot execute {statement} in a read-only transaction"),
                )
            assert rows(connection, "SELECT jobname, active FROM cron.job") == [("n", True)]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("DELETE FROM cron.job_run_details")
    finally:
        standby.close()
