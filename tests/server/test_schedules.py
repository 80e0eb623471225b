"""The schedule language through SQL: the same table of cases that the C and the Python tests read.

The core is tested where it stands. Here it is the way in and out that counts: texts, notices, zones from the
server's own tz code, errors as an SQL client sees them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from scheduler.cron import Schedule
from tests.support.servers import Server
from tests.unit.cron_tables import read_table

Connection = psycopg.Connection[tuple[Any, ...]]

# What pg_cron advises; given where nothing better can be said.
COMMON_HINT = "Use cron format (e.g. 5 4 * * *), or interval format '[1-59] seconds'"

REFUSALS = read_table("refusals.tsv")
ACCEPTANCES = read_table("acceptances.tsv")
NEXT_RUNS = read_table("next_runs.tsv")


def topics(rows: list[dict[str, str]]) -> list[str]:
    return sorted({row["topic"] for row in rows})


def of_topic(rows: list[dict[str, str]], topic: str) -> list[dict[str, str]]:
    return [row for row in rows if row["topic"] == topic]


def refusal(conn: Connection, query: str, arguments: tuple[Any, ...]) -> tuple[str | None, ...]:
    """SQLSTATE, message, detail and hint of the error that a query must raise."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query, arguments)
    diag = caught.value.diag
    return diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", topics(REFUSALS))
def test_schedule_refuses_with_the_words_of_the_table(conn: Connection, topic: str) -> None:
    for row in of_topic(REFUSALS, topic):
        expected = ("22023", f"invalid schedule: {row['text']}", row["detail"], row["hint"] or COMMON_HINT)
        assert refusal(conn, "SELECT cron.schedule(%s, 'SELECT 1')", (row["text"],)) == expected
    assert conn.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)


@pytest.mark.parametrize("function", ["next_runs", "explain"])
def test_the_functions_about_schedules_refuse_with_the_same_words(conn: Connection, function: str) -> None:
    for row in REFUSALS:
        expected = ("22023", f"invalid schedule: {row['text']}", row["detail"], row["hint"] or None)
        assert refusal(conn, f"SELECT cron.{function}(%s)", (row["text"],)) == expected


@pytest.mark.parametrize(
    ("call", "sqlstate", "message"),
    [
        ("cron.next_runs(NULL)", "22004", "schedule can not be NULL"),
        ("cron.next_runs('* * * * *', from_time => NULL)", "22004", "from_time can not be NULL"),
        ("cron.next_runs('* * * * *', n => NULL)", "22004", "n can not be NULL"),
        ("cron.next_runs('* * * * *', n => -1)", "22023", "n must not be negative"),
        ("cron.next_runs('* * * * *', from_time => 'infinity')", "22023", "from_time must be finite"),
        ("cron.next_runs('* * * * *', 'Europe/Nowhere')", "22023", 'time zone "Europe/Nowhere" not recognized'),
        ("cron.next_runs('* * * * *', '')", "22023", 'time zone "" not recognized'),
        ("cron.explain(NULL)", "22004", "schedule can not be NULL"),
        ("cron.explain('* * * * *', n => 101)", "22023", "n is out of range"),
        ("cron.explain('* * * * *', n => -1)", "22023", "n is out of range"),
        ("cron.explain('* * * * *', 'Mars/Olympus')", "22023", 'time zone "Mars/Olympus" not recognized'),
        ("cron.upcoming('-infinity')", "22023", "from_time must be finite"),
        ("cron.upcoming(now(), 'infinity')", "22023", "to_time must be finite"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(conn: Connection, call: str, sqlstate: str, message: str) -> None:
    conn.execute("SELECT cron.schedule('* * * * *', 'SELECT 1')")
    assert refusal(conn, f"SELECT * FROM {call}", ())[:2] == (sqlstate, message)


# --- acceptances -------------------------------------------------------------------------------


def is_over(text: str) -> bool:
    return text.strip().startswith("@at") and "20" in text and text.strip()[4:8] < "2026"


@pytest.mark.parametrize("topic", topics(ACCEPTANCES))
def test_schedule_accepts_and_remarks_with_the_words_of_the_table(conn: Connection, topic: str) -> None:
    said: list[tuple[str, str | None, str | None]] = []
    conn.add_notice_handler(lambda diag: said.append((diag.severity or "", diag.message_primary, diag.message_detail)))
    for row in of_topic(ACCEPTANCES, topic):
        if is_over(row["text"]) or row["topic"] == "G30 events":
            continue  # the latter need their parents: test_after_refusals.py
        said.clear()
        name = row["hash_key"] or "some job"
        conn.execute("SELECT cron.schedule(%s, %s, 'SELECT 1', '{\"active\": false}')", (name, row["text"]))
        stored = conn.execute("SELECT schedule FROM cron.job WHERE jobname = %s", (name,)).fetchone()
        assert stored == (row["text"],), "a schedule is stored as it was written"
        if row["notice"]:
            assert ("NOTICE", row["notice"], row["notice_detail"] or None) in said
        warnings = [(message, detail) for severity, message, detail in said if severity == "WARNING"]
        never = [(f'schedule "{row["text"]}" never runs', row["never_runs"])] if row["never_runs"] else []
        assert warnings == never


@pytest.mark.parametrize("topic", topics(ACCEPTANCES))
def test_explain_gives_the_normalised_form_and_the_words_of_the_table(conn: Connection, topic: str) -> None:
    for row in of_topic(ACCEPTANCES, topic):
        rows = conn.execute("SELECT cron.explain(%s, job_name => %s)", (row["text"], row["hash_key"])).fetchall()
        lines = [line for (line,) in rows]
        assert lines[:2] == [f"Schedule: {row['normalised']}", f"Meaning: {row['words']}."]
        if row["never_runs"]:
            assert lines[2:] == [f"Never runs: {row['never_runs']}"]


def test_six_fields_are_remarked_on(conn: Connection) -> None:
    said: list[str | None] = []
    conn.add_notice_handler(lambda diag: said.append(diag.message_primary))
    conn.execute("SELECT cron.schedule('0 10 * * * *', 'SELECT 1')")
    assert said == ["schedule has 6 fields: the first one is seconds"]


def test_a_time_that_is_over_is_refused(conn: Connection) -> None:
    error = refusal(conn, "SELECT cron.schedule('@at 2020-01-01 00:00+00', 'SELECT 1')", ())
    assert error[:3] == ("22023", "invalid schedule: @at 2020-01-01 00:00+00", "The time is in the past.")


# --- due times ---------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", topics(NEXT_RUNS))
def test_due_times_are_those_of_the_table(conn: Connection, topic: str) -> None:
    """Through a job's row, which has an anchor; the setting for the day fields is the session's to read only."""
    for row in of_topic(NEXT_RUNS, topic):
        if row["match_dom_and_dow"] == "t":
            continue
        expected = [text for text in row["due"].split() if text != "never"]
        after = datetime.fromisoformat(row["after"])
        last = datetime.fromisoformat(expected[-1]) if expected else datetime(2199, 1, 1, tzinfo=UTC)
        job = {
            "schedule": row["text"],
            "timezone": row["zone"],
            "schedule_anchor": row["anchor"] or row["after"],
        }
        rows = conn.execute(
            "SELECT cron.due_times(jsonb_populate_record(NULL::cron.job, %s), %s, %s)", (Jsonb(job), after, last)
        ).fetchall()
        assert [due for (due,) in rows] == [datetime.fromisoformat(text) for text in expected], row["text"]


@pytest.mark.parametrize("topic", topics(NEXT_RUNS))
def test_next_runs_are_those_of_the_table(conn: Connection, topic: str) -> None:
    for row in of_topic(NEXT_RUNS, topic):
        if row["match_dom_and_dow"] == "t" or row["anchor"]:
            continue
        expected = row["due"].split()
        rows = conn.execute(
            "SELECT cron.next_runs(%s, %s, %s, %s)",
            (row["text"], row["zone"], datetime.fromisoformat(row["after"]), len(expected)),
        ).fetchall()
        found = [due for (due,) in rows]
        assert found == [datetime.fromisoformat(text) for text in expected if text != "never"], row["text"]


def test_next_runs_of_a_schedule_that_never_matches_are_no_rows(conn: Connection) -> None:
    assert conn.execute("SELECT cron.next_runs('0 0 30 2 *')").fetchall() == []
    assert conn.execute("SELECT cron.next_runs('@reboot')").fetchall() == []
    assert conn.execute("SELECT cron.next_runs('* * * * *', n => 0)").fetchall() == []


def test_an_interval_is_counted_from_from_time(conn: Connection) -> None:
    rows = conn.execute("SELECT cron.next_runs('@every 90 minutes', NULL, '2030-01-01 00:00+00', 3)").fetchall()
    start = datetime(2030, 1, 1, tzinfo=UTC)
    assert [due for (due,) in rows] == [start + k * timedelta(minutes=90) for k in (1, 2, 3)]


def test_cron_timezone_is_the_default_zone(make_server: Any) -> None:
    server: Server = make_server({"cron.timezone": "Asia/Kathmandu"})
    with server.connect() as conn:
        row = conn.execute("SELECT cron.next_runs('0 12 * * *', from_time => '2030-01-01 00:00+00', n => 1)").fetchone()
        assert row == (datetime(2030, 1, 1, 6, 15, tzinfo=UTC),)


def test_match_dom_and_dow_holds_for_questions_too(make_server: Any) -> None:
    server: Server = make_server({"cron.match_dom_and_dow": "on"})
    with server.connect() as conn:
        for row in NEXT_RUNS:
            if row["match_dom_and_dow"] != "t":
                continue
            expected = row["due"].split()
            found = conn.execute(
                "SELECT cron.next_runs(%s, %s, %s, %s)",
                (row["text"], row["zone"], datetime.fromisoformat(row["after"]), len(expected)),
            ).fetchall()
            assert [due for (due,) in found] == [datetime.fromisoformat(text) for text in expected if text != "never"]


# --- explain -----------------------------------------------------------------------------------

TELLING = {
    ("30 2 * * *", "Europe/Berlin", 1): """\
Schedule: 30 2 * * *
Meaning: At 02:30 every day.
Next due times in Europe/Berlin:
  2030-01-01 02:30:00 +01:00 = 2030-01-01 01:30:00 UTC
On 2030-03-31 clocks go forward from 02:00 to 03:00: the run at 02:30 happens at 03:00.
On 2030-10-27 clocks go back from 03:00 to 02:00: the run at 02:30 happens once, the first time.""",
    ("*/20 * * * *", "Europe/Berlin", 1): """\
Schedule: */20 * * * *
Meaning: Every 20 minutes.
Next due times in Europe/Berlin:
  2030-01-01 01:20:00 +01:00 = 2030-01-01 00:20:00 UTC
On 2030-03-31 clocks go forward from 02:00 to 03:00: the 3 runs from 02:00 to 02:40 do not happen.
On 2030-10-27 clocks go back from 03:00 to 02:00: the 3 runs from 02:00 to 02:40 happen twice each.""",
    ("0,30 2 * * *", "Europe/Berlin", 1): """\
Schedule: 0,30 2 * * *
Meaning: At 02:00 and 02:30 every day.
Next due times in Europe/Berlin:
  2030-01-01 02:00:00 +01:00 = 2030-01-01 01:00:00 UTC
On 2030-03-31 clocks go forward from 02:00 to 03:00: the 2 runs from 02:00 to 02:30 become one, at 03:00.
On 2030-10-27 clocks go back from 03:00 to 02:00: the 2 runs from 02:00 to 02:30 happen once each, the first time.""",
    ("0 12 * * *", "America/New_York", 1): """\
Schedule: 0 12 * * *
Meaning: At 12:00 every day.
Next due times in America/New_York:
  2030-01-01 12:00:00 -05:00 = 2030-01-01 17:00:00 UTC
The clock changes of the coming year make no difference.""",
    ("0 0 29 2 *", "UTC", 2): """\
Schedule: 0 0 29 2 *
Meaning: At 00:00 on day 29 of February.
Next due times in UTC:
  2032-02-29 00:00:00 +00:00 = 2032-02-29 00:00:00 UTC
  2036-02-29 00:00:00 +00:00 = 2036-02-29 00:00:00 UTC""",
    ("0 0 31W * *", "UTC", 2): """\
Schedule: 0 0 31W * *
Meaning: At 00:00 on the weekday (Monday to Friday) nearest to day 31 of the month.
Next due times in UTC:
  2030-01-31 00:00:00 +00:00 = 2030-01-31 00:00:00 UTC
  2030-03-29 00:00:00 +00:00 = 2030-03-29 00:00:00 UTC""",
    ("H H * * 1-5", "UTC", 2): """\
Schedule: 25 0 * * 1-5
Meaning: At 00:25 on Monday through Friday.
What stands for H depends on the job's name.
Next due times in UTC:
  2030-01-01 00:25:00 +00:00 = 2030-01-01 00:25:00 UTC
  2030-01-02 00:25:00 +00:00 = 2030-01-02 00:25:00 UTC""",
    ("0 0 30 2 *", "UTC", 5): """\
Schedule: 0 0 30 2 *
Meaning: At 00:00 on day 30 of February.
Never runs: No date from now to 2199 has day 30 in February.""",
    ("@reboot", "UTC", 5): """\
Schedule: @reboot
Meaning: When the server starts.
Due when the server starts, never by the clock.""",
}


@pytest.mark.parametrize(("schedule", "zone", "count"), TELLING)
def test_explain_tells_what_there_is_to_know(conn: Connection, schedule: str, zone: str, count: int) -> None:
    rows = conn.execute("SELECT cron.explain(%s, %s, '2030-01-01 00:00+00', %s)", (schedule, zone, count)).fetchall()
    assert "\n".join(line for (line,) in rows) == TELLING[schedule, zone, count]


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu"]


@pytest.mark.parametrize("zone", ZONES)
def test_the_command_line_says_the_same_offline(conn: Connection, zone: str) -> None:
    """Where server and Python have the same rules for the zone, which is so for these years."""
    start = datetime(2025, 12, 31, 23, 30, tzinfo=UTC)
    for row in ACCEPTANCES:
        rows = conn.execute("SELECT cron.explain(%s, %s, %s, 4)", (row["text"], zone, start)).fetchall()
        assert [line for (line,) in rows] == Schedule(row["text"]).explain(start, zone, count=4)
        rows = conn.execute("SELECT cron.next_runs(%s, %s, %s, 4)", (row["text"], zone, start)).fetchall()
        due = Schedule(row["text"]).upcoming(start, zone, anchor=start)
        assert [moment for (moment,) in rows] == [moment.astimezone(UTC) for moment in islice(due, 4)]


def test_a_day_that_a_zone_leaves_out_is_named(conn: Connection) -> None:
    rows = conn.execute("SELECT cron.explain('0 1 * * *', 'Pacific/Apia', '2011-12-25 00:00+00', 1)").fetchall()
    assert (
        "On 2011-12-30 clocks go forward from 00:00 to 2011-12-31 00:00: the run at 01:00 does not happen.",
    ) in rows


# --- upcoming ----------------------------------------------------------------------------------


def test_upcoming_lists_the_due_times_of_the_callers_active_jobs(conn: Connection, server: Server) -> None:
    conn.execute("DROP ROLE IF EXISTS upcoming_user")
    conn.execute("CREATE ROLE upcoming_user LOGIN")
    conn.execute("GRANT USAGE ON SCHEMA cron TO upcoming_user")
    conn.execute("SELECT cron.schedule('others', '0 6 * * *', 'SELECT 1')")
    conn.execute("INSERT INTO cron.job (schedule, command) VALUES ('garbage', 'SELECT 1')")
    with server.connect(user="upcoming_user") as theirs:
        theirs.execute("SELECT cron.schedule('noon', '0 12 * * *', 'SELECT 1', '{\"timezone\": \"Asia/Tokyo\"}')")
        theirs.execute("SELECT cron.schedule('off', '0 13 * * *', 'SELECT 1', '{\"active\": false}')")
        theirs.execute("SELECT cron.schedule('midnight', '0 0 * * *', 'SELECT 1')")
        rows = theirs.execute(
            "SELECT due_time, jobname FROM cron.upcoming('2030-01-01 00:00+00', '2030-01-02 03:00+00')"
        ).fetchall()
        theirs.execute("SELECT cron.unschedule(jobid) FROM cron.job")
    conn.execute("REVOKE USAGE ON SCHEMA cron FROM upcoming_user")
    conn.execute("DROP ROLE upcoming_user")
    assert rows == [
        (datetime(2030, 1, 1, 3, tzinfo=UTC), "noon"),
        (datetime(2030, 1, 2, 0, tzinfo=UTC), "midnight"),
        (datetime(2030, 1, 2, 3, tzinfo=UTC), "noon"),
    ]
