"""One story from an empty database to a dropped extension, told the way pg_cron's own suite tells its.

pg_cron ships a regression suite that other software leans on: it lives in the database
`contrib_regression` while the jobs' database is another, walks through every function as a
superuser and as two users, and counts job numbers throughout. This is the same walk in our own words,
in one session and one order, because the numbers are part of what is promised.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.surface import CRON_HINT, NO_UPDATES_HINT, Connection, Refusal, refusal, rows, value
from tests.support.servers import Server

OWNER, SAME_IN_LOWER_CASE, PLAIN = "Story_Owner", "story_owner", "story_plain"

REFUSED = [
    "1" * 1000,
    "* * * *",
    "5 secondc",
    "50 seconds c",
    "*/0 * * * *",
    "-1 * * * *",
    "*/-1 * * * *",
    "0 0 1 13 *",
    "0 0 1 0 *",
    "*/5000000000 * * * *",
    "-1 seconds",
    "0 seconds",
    "60 seconds",
    "10000000000 seconds",
    "@restar",
    "0 11 $foo * *",
]

# pg_cron refuses a step wider than its field. Here it is accepted, with a notice: see docs/schedules.md.
ACCEPTED = ["@restart", " 30 sEcOnDs ", "17  seconds ", "0 11 $ * *", "*/60 * * * *"]


@pytest.fixture
def story(fresh_server: Server) -> Iterator[Connection]:
    """A superuser in contrib_regression of a server whose jobs belong to postgres."""
    with fresh_server.connect() as home:
        home.execute("CREATE DATABASE contrib_regression")
        home.execute("CREATE DATABASE closed_to_all")
        home.execute("REVOKE CONNECT ON DATABASE closed_to_all FROM public")
    with fresh_server.connect("contrib_regression") as connection:
        for role in (OWNER, SAME_IN_LOWER_CASE, PLAIN):
            connection.execute(f'CREATE ROLE "{role}" LOGIN'.encode())
        yield connection


def test_the_walk_of_pg_crons_suite(story: Connection) -> None:
    create_where_no_job_runs(story)
    first_jobs(story)
    schedules_refused_and_accepted(story)
    jobs_of_other_databases_and_users(story)
    altering(story)
    owners_of_nearly_one_name(story)
    drop_and_begin_again(story)


def create_where_no_job_runs(story: Connection) -> None:
    """A type with a treacherous cast awaits whoever calls current_setting by its bare name."""
    story.execute(
        "CREATE TYPE public.treacherous AS (said text);"
        " CREATE FUNCTION public.treacherous(text) RETURNS public.treacherous LANGUAGE plpgsql"
        "  AS $$ BEGIN RAISE EXCEPTION 'caught'; END $$;"
        " CREATE CAST (text AS public.treacherous) WITH FUNCTION public.treacherous(text) AS IMPLICIT;"
        " CREATE FUNCTION public.current_setting(public.treacherous) RETURNS text LANGUAGE plpgsql"
        "  AS $$ BEGIN RAISE EXCEPTION 'caught'; END $$"
    )
    story.execute("SET search_path = public, pg_catalog")
    story.execute("CREATE EXTENSION pg_clockwork")
    story.execute("RESET search_path")
    for role in (OWNER, SAME_IN_LOWER_CASE, PLAIN):
        story.execute(f'GRANT USAGE ON SCHEMA cron TO "{role}"'.encode())


def first_jobs(story: Connection) -> None:
    assert value(story, "SELECT cron.schedule('0 3 * * *', 'VACUUM')") == 1
    assert value(story, "SELECT cron.schedule('nightly', '0 1 * * *', 'VACUUM')") == 2
    assert refusal(story, "SELECT cron.schedule('nightly', '0 1 * *', 'VACUUM')").hint == CRON_HINT
    assert refusal(story, "SELECT cron.schedule(NULL, '0 1 * * *', 'VACUUM')") == Refusal(
        "22004", "job_name can not be NULL"
    )
    assert refusal(story, "SELECT cron.schedule('nightly', NULL, 'VACUUM')") == Refusal(
        "22004", "schedule can not be NULL"
    )
    assert refusal(story, "SELECT cron.schedule('nightly', '0 1 * * *', NULL)") == Refusal(
        "22004", "command can not be NULL"
    )
    assert value(story, "SELECT cron.schedule('weekly', '0 2 * * 0', 'ANALYZE')") == 3
    # Twice the same name: the same job, and two numbers gone.
    assert value(story, "SELECT cron.schedule('nightly', '5 1 * * *', 'ANALYZE')") == 2
    assert value(story, "SELECT cron.schedule('weekly', '5 2 * * 0', 'VACUUM')") == 3
    assert value(story, "SELECT cron.schedule('6 * * * *', 'SELECT 6')") == 6
    assert rows(story, "SELECT jobid, schedule, command, database, active, jobname FROM cron.job ORDER BY jobid") == [
        (1, "0 3 * * *", "VACUUM", "postgres", True, None),
        (2, "5 1 * * *", "ANALYZE", "postgres", True, "nightly"),
        (3, "5 2 * * 0", "VACUUM", "postgres", True, "weekly"),
        (6, "6 * * * *", "SELECT 6", "postgres", True, None),
    ]
    assert value(story, "SELECT cron.unschedule(1)") is True
    assert value(story, "SELECT cron.unschedule('weekly')") is True
    assert refusal(story, "SELECT cron.unschedule(1)") == Refusal("22023", "could not find valid entry for job 1")
    assert refusal(story, "SELECT cron.unschedule('weekly')") == Refusal(
        "22023", "could not find valid entry for job 'weekly'"
    )


def schedules_refused_and_accepted(story: Connection) -> None:
    for text in REFUSED:
        refused = refusal(story, "SELECT cron.schedule('tried', %s, 'x')", text)
        assert (refused.sqlstate, refused.message) == ("22023", f"invalid schedule: {text}")
        assert refused.hint
    for number, text in enumerate(ACCEPTED):
        assert value(story, "SELECT cron.schedule(%s, 'accepted')", text) == 7 + number
    found = rows(story, "SELECT schedule FROM cron.job WHERE command = 'accepted' ORDER BY jobid")
    assert [text for (text,) in found] == ACCEPTED
    story.execute("SELECT cron.unschedule(jobid) FROM cron.job WHERE command = 'accepted'")


def jobs_of_other_databases_and_users(story: Connection) -> None:
    by_plain = "cron.schedule_in_database('far', '0 1 * * *', 'x', 'contrib_regression')"
    story.execute(f"SET SESSION AUTHORIZATION {PLAIN}".encode())
    assert refusal(story, f"SELECT {by_plain}") == Refusal(
        "42501", "permission denied for function schedule_in_database"
    )
    assert refusal(story, "SELECT cron.unschedule(2)") == Refusal("42501", "permission denied for table job")
    assert refusal(story, "SELECT cron.unschedule('nightly')").message == "could not find valid entry for job 'nightly'"
    assert rows(story, "SELECT * FROM cron.job") == []
    story.execute("RESET SESSION AUTHORIZATION")

    story.execute(
        f"GRANT EXECUTE ON FUNCTION cron.schedule_in_database(text,text,text,text,text,boolean) TO {PLAIN}".encode()
    )
    story.execute(f"SET SESSION AUTHORIZATION {PLAIN}".encode())
    assert value(story, f"SELECT {by_plain}") == 12
    for user in ("postgres", PLAIN):
        refused = refusal(story, f"SELECT cron.schedule_in_database('far', '0 1 * * *', 'x', 'postgres', '{user}')")
        assert refused == Refusal("42501", "must be superuser to create a job for another role")
    closed = refusal(story, "SELECT cron.schedule_in_database('far', '0 1 * * *', 'x', 'closed_to_all')")
    assert closed == Refusal("42501", f"User {PLAIN} does not have CONNECT privilege on closed_to_all")
    story.execute("RESET SESSION AUTHORIZATION")

    call = "SELECT cron.schedule_in_database('hers', '0 2 * * *', 'y', 'contrib_regression', %s, false)"
    assert value(story, call, PLAIN) == 13
    assert rows(story, "SELECT username, database, active FROM cron.job WHERE jobid IN (12, 13) ORDER BY 1, 2, 3") == [
        (PLAIN, "contrib_regression", False),
        (PLAIN, "contrib_regression", True),
    ]


def altering(story: Connection) -> None:
    story.execute(f"SET SESSION AUTHORIZATION {PLAIN}".encode())
    assert refusal(story, "SELECT cron.alter_job(12, '0 4 * * *')") == Refusal(
        "42501", "permission denied for function alter_job"
    )
    story.execute("RESET SESSION AUTHORIZATION")
    story.execute(f"GRANT EXECUTE ON FUNCTION cron.alter_job(bigint,text,text,text,text,boolean) TO {PLAIN}".encode())
    story.execute(f"SET SESSION AUTHORIZATION {PLAIN}".encode())
    story.execute("SELECT cron.alter_job(12, '0 4 * * *', 'z', 'contrib_regression', NULL, false)")
    assert refusal(story, "SELECT cron.alter_job(12)") == Refusal(
        "22023", "no updates specified", None, NO_UPDATES_HINT
    )
    assert (
        refusal(story, "SELECT cron.alter_job(12, username := 'postgres')").message
        == "must be superuser to alter username"
    )
    assert refusal(story, "SELECT cron.alter_job(12, schedule := 'never')").message == "invalid schedule: never"
    assert (
        refusal(story, "SELECT cron.alter_job(2, active := false)").message
        == "Job 2 does not exist or you don't own it"
    )
    story.execute("RESET SESSION AUTHORIZATION")
    story.execute("SELECT cron.alter_job(job_id := 12, username := 'postgres', active := true)")
    found = rows(story, "SELECT schedule, command, database, username, active, jobname FROM cron.job WHERE jobid = 12")
    assert found == [("0 4 * * *", "z", "contrib_regression", "postgres", True, "far")]


def owners_of_nearly_one_name(story: Connection) -> None:
    story.execute(f'SET SESSION AUTHORIZATION "{OWNER}"'.encode())
    assert value(story, "SELECT cron.schedule('cased', '0 5 * * *', 'x')") == 14
    story.execute(f"SET SESSION AUTHORIZATION {SAME_IN_LOWER_CASE}".encode())
    assert refusal(story, "SELECT cron.unschedule(14)").message == "permission denied for table job"
    assert refusal(story, "SELECT cron.unschedule('cased')").message == "could not find valid entry for job 'cased'"
    assert value(story, "SELECT cron.schedule('cased', '0 5 * * *', 'x')") == 15
    story.execute(f'SET SESSION AUTHORIZATION "{OWNER}"'.encode())
    assert value(story, "SELECT cron.unschedule('cased')") is True
    story.execute("RESET SESSION AUTHORIZATION")
    assert rows(story, "SELECT username FROM cron.job WHERE jobname = 'cased'") == [(SAME_IN_LOWER_CASE,)]


def drop_and_begin_again(story: Connection) -> None:
    assert rows(story, "SELECT * FROM cron.job_run_details") == []
    story.execute("DROP EXTENSION pg_clockwork")
    story.execute("CREATE EXTENSION pg_clockwork")
    assert value(story, "SELECT cron.schedule('0 3 * * *', 'VACUUM')") == 1
    story.execute("DROP EXTENSION pg_clockwork")
