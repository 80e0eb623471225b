"""The options of a job, as jsonb: every key, every wrong type, every limit, and what null means.

The keys are the columns of cron.job. What this version does not do yet is refused unless it
is the default, so that no job runs as if an option had never been given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

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
from tests.support.servers import Server

INVALID, NULL, FORBIDDEN = "22023", "22004", "42501"

ARGUMENTS = ["name", "schedule", "command"]
KEYS = [
    "database",
    "username",
    "active",
    "timezone",
    "on_overlap",
    "max_parallel",
    "on_missed",
    "start_deadline",
    "timeout",
    "max_attempts",
    "retry_delay",
    "retry_on",
    "jitter",
    "priority",
    "starts_at",
    "ends_at",
    "pause_after",
    "settings",
    "fresh_session",
    "history",
    "notify",
    "managed_by",
]

KEYS_OF_SCHEDULE = f"Options are: {', '.join(KEYS)}."
KEYS_OF_ALTER = f"Options are: {', '.join(ARGUMENTS + KEYS)}."

SCHEDULE = "SELECT cron.schedule('n', '@reboot', 'x', %s::jsonb)"
ALTER = "SELECT cron.alter_job(%s, %s::jsonb)"


@pytest.fixture
def jobid(conn: Connection) -> int:
    return int(value(conn, "SELECT cron.schedule('altered', '@reboot', 'x')"))


@pytest.fixture
def ann(conn: Connection, server: Server) -> Iterator[Connection]:
    make_role(conn, ANN)
    with session_of(server, ANN) as session:
        yield session


def both_refuse(conn: Connection, jobid: int, options: Any, expected: Refusal) -> None:
    """The same options are refused alike where a job is scheduled and where it is altered, and nothing changes."""
    text = options if isinstance(options, str) else json.dumps(options)
    before = rows(conn, "SELECT * FROM cron.job")
    assert refusal(conn, SCHEDULE, text) == expected
    assert refusal(conn, ALTER, jobid, text) == expected
    assert rows(conn, "SELECT * FROM cron.job") == before


# --- what is no set of options -----------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", "1", '"active"', "null", "true", '["active"]', '[{"active": true}]'])
def test_what_is_no_object_is_refused_with_the_list_of_keys(conn: Connection, jobid: int, text: str) -> None:
    assert refusal(conn, SCHEDULE, text) == Refusal(INVALID, "options must be a JSON object", None, KEYS_OF_SCHEDULE)
    assert refusal(conn, ALTER, jobid, text) == Refusal(INVALID, "options must be a JSON object", None, KEYS_OF_ALTER)


@pytest.mark.parametrize(
    "key",
    [
        "bogus",
        "",
        "Active",
        "active ",
        "jobid",
        "jobname",
        "nodename",
        "nodeport",
        "paused_reason",
        "schedule_anchor",
        "ключ",
        'quo"te',
        "a" * 5000,
    ],
)
def test_an_unrecognized_key_is_refused_with_the_list_of_keys(conn: Connection, jobid: int, key: str) -> None:
    options = json.dumps({"active": False, key: 1})
    assert refusal(conn, SCHEDULE, options) == Refusal(INVALID, f'unrecognized option "{key}"', None, KEYS_OF_SCHEDULE)
    assert refusal(conn, ALTER, jobid, options) == Refusal(INVALID, f'unrecognized option "{key}"', None, KEYS_OF_ALTER)


@pytest.mark.parametrize("key", ARGUMENTS)
def test_what_is_an_argument_of_schedule_is_no_option_there(conn: Connection, key: str) -> None:
    assert refusal(conn, SCHEDULE, json.dumps({key: "@daily"})) == Refusal(
        INVALID,
        f'option "{key}" cannot be given here',
        "cron.schedule takes it as an argument of its own.",
        "Use cron.alter_job to change it.",
    )


STRING, WHOLE = "a string", "a whole number"
INTERVAL = 'a string with an interval, such as "30 seconds"'
TIME = 'a string with a time stamp, such as "2030-01-31 12:00+00"'

# keys, what they take, and what they do not
TYPES: list[tuple[list[str], str, list[Any]]] = [
    (["timezone", "managed_by", "database", "username"], STRING, [1, True, [], {}]),
    (["on_overlap", "on_missed", "history"], STRING, [0, False, ["queue"], {"a": 1}]),
    (["active", "fresh_session"], "true or false", ["true", 1, [], {}, "off"]),
    (["priority", "max_parallel", "max_attempts", "pause_after"], WHOLE, ["1", 1.5, True, [], {}, 1e-3]),
    (["start_deadline", "timeout", "retry_delay", "jitter"], INTERVAL, [30, True, [], {}]),
    (["starts_at", "ends_at"], TIME, [1900000000, False, [], {}]),
    (["retry_on"], "an array of strings", ["40001", 40001, {}, {"a": "b"}, [40001], [["40001"]], [None], [{}]]),
    (["settings"], "an object", ["work_mem=1", 1, [], ["a"]]),
]
WRONG_TYPES = [(key, wrong, right) for keys, right, values in TYPES for key in keys for wrong in values]


@pytest.mark.parametrize(("key", "wrong", "right"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_refused_with_the_right_one(
    conn: Connection, jobid: int, key: str, wrong: Any, right: str
) -> None:
    both_refuse(conn, jobid, {key: wrong}, Refusal(INVALID, f'option "{key}" must be {right}'))


@pytest.mark.parametrize(("key", "wrong"), [("name", 1), ("schedule", True), ("command", ["x"]), ("command", {})])
def test_a_column_of_pg_cron_of_the_wrong_type_is_refused(conn: Connection, jobid: int, key: str, wrong: Any) -> None:
    assert refusal(conn, ALTER, jobid, json.dumps({key: wrong})) == Refusal(INVALID, f'option "{key}" must be {STRING}')


INT_MAX = 2**31 - 1

OUT_OF_RANGE = [
    ("priority", "-1001", -1000, 1000),
    ("priority", "1001", -1000, 1000),
    ("priority", "99999999999999999999999999", -1000, 1000),
    ("priority", "-99999999999999999999999999", -1000, 1000),
    ("max_parallel", "0", 1, INT_MAX),
    ("max_parallel", "2147483648", 1, INT_MAX),
    ("max_attempts", "0", 1, 1000),
    ("max_attempts", "-1", 1, 1000),
    ("max_attempts", "4294967297", 1, 1000),
    ("max_attempts", "1001", 1, 1000),
    ("pause_after", "0", 1, 1000),
    ("pause_after", "1001", 1, 1000),
]


@pytest.mark.parametrize(("key", "number", "least", "most"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_with_the_range(
    conn: Connection, jobid: int, key: str, number: str, least: int, most: int
) -> None:
    detail = f"{number} is outside the range {least} to {most}."
    both_refuse(conn, jobid, f'{{"{key}": {number}}}', Refusal(INVALID, f'option "{key}" is out of range', detail))


@pytest.mark.parametrize(
    ("key", "text", "least"),
    [
        ("timeout", "0", "more than zero"),
        ("timeout", "-1 second", "more than zero"),
        ("start_deadline", "0 hours", "more than zero"),
        ("start_deadline", "1 day -25 hours", "more than zero"),
        ("jitter", "-1 microsecond", "zero or more"),
        ("retry_delay", "-1 month", "zero or more"),
    ],
)
def test_an_interval_out_of_range_is_refused(conn: Connection, jobid: int, key: str, text: str, least: str) -> None:
    both_refuse(
        conn, jobid, {key: text}, Refusal(INVALID, f'option "{key}" is out of range', f'"{text}" is not {least}.')
    )


@pytest.mark.parametrize("key", ["start_deadline", "timeout", "retry_delay", "jitter"])
@pytest.mark.parametrize("text", ["soon", "", "1 fortnight ago or so"])
def test_a_text_that_is_no_interval_is_refused(conn: Connection, jobid: int, key: str, text: str) -> None:
    both_refuse(conn, jobid, {key: text}, Refusal("22007", f'invalid input syntax for type interval: "{text}"'))


@pytest.mark.parametrize("key", ["starts_at", "ends_at"])
@pytest.mark.parametrize("text", ["soon", ""])
def test_a_text_that_is_no_time_is_refused(conn: Connection, jobid: int, key: str, text: str) -> None:
    expected = Refusal("22007", f'invalid input syntax for type timestamp with time zone: "{text}"')
    both_refuse(conn, jobid, {key: text}, expected)


WORDS = {
    "on_overlap": '"queue", "skip", "replace", "parallel"',
    "on_missed": '"skip", "run_once", "run_all"',
    "history": '"all", "failures", "none"',
}


@pytest.mark.parametrize("key", WORDS)
@pytest.mark.parametrize("word", ["sometimes", "", "Queue", "skip|replace", "|", "al", "all "])
def test_an_unrecognized_word_is_refused_with_the_words(conn: Connection, jobid: int, key: str, word: str) -> None:
    expected = Refusal(INVALID, f'unrecognized value "{word}" for option "{key}"', None, f"Use one of {WORDS[key]}.")
    both_refuse(conn, jobid, {key: word}, expected)


@pytest.mark.parametrize("zone", ["Nowhere/Atlantis", "", " ", "Europe/Berlin ", "../../etc/passwd", "a" * 2000])
def test_a_time_zone_that_is_none_is_refused(conn: Connection, jobid: int, zone: str) -> None:
    both_refuse(
        conn,
        jobid,
        {"timezone": zone},
        Refusal(INVALID, f'time zone "{zone}" not recognized', None, "See the view pg_timezone_names."),
    )


@pytest.mark.parametrize("key", ["database", "username"])
def test_what_a_job_must_have_cannot_be_null(conn: Connection, jobid: int, key: str) -> None:
    both_refuse(conn, jobid, {key: None}, Refusal(NULL, f'option "{key}" can not be null'))


@pytest.mark.parametrize("key", ["schedule", "command"])
def test_what_a_job_must_have_cannot_be_made_null(conn: Connection, jobid: int, key: str) -> None:
    assert refusal(conn, ALTER, jobid, json.dumps({key: None})) == Refusal(NULL, f'option "{key}" can not be null')


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("on_overlap", "queue"),
        ("on_missed", "skip"),
        ("max_attempts", 1),
        ("retry_delay", "1 minute"),
        ("retry_delay", "60 seconds"),
        ("retry_delay", "PT1M"),
        ("jitter", "0"),
        ("jitter", "0 hours"),
        ("fresh_session", False),
        ("history", "all"),
        *[(key, None) for key in KEYS if key not in ("database", "username")],
    ],
)
def test_the_default_is_accepted_and_null_means_it(conn: Connection, jobid: int, key: str, default: Any) -> None:
    columns = f'"{key}"'
    before = job(conn, jobid, columns)
    conn.execute(ALTER, [jobid, json.dumps({key: default})])
    assert job(conn, jobid, columns) == before
    scheduled = value(conn, SCHEDULE, json.dumps({key: default}))
    assert job(conn, scheduled, columns) == before


# --- what it does ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "given", "column", "default"),
    [
        ("name", "other", "jobname", None),
        ("name", "", "jobname", None),
        ("active", False, "active", True),
        ("timezone", "Europe/Berlin", "timezone", None),
        ("priority", 1000, "priority", 0),
        ("priority", -1000, "priority", 0),
        ("on_overlap", "skip", "on_overlap", "queue"),
        ("on_overlap", "replace", "on_overlap", "queue"),
        ("on_overlap", "parallel", "on_overlap", "queue"),
        ("on_missed", "run_once", "on_missed", "skip"),
        ("on_missed", "run_all", "on_missed", "skip"),
        ("start_deadline", "01:00:00", "start_deadline::text", None),
        ("timeout", "01:00:00", "timeout::text", None),
        ("retry_on", ["40001", "57"], "retry_on", None),
        ("ends_at", "infinity", "ends_at::text", None),
        ("pause_after", 3, "pause_after", None),
        ("fresh_session", True, "fresh_session", False),
        ("history", "failures", "history", "all"),
        ("history", "none", "history", "all"),
        ("managed_by", 'deploy; "it\'s"\n', "managed_by", None),
    ],
)
def test_an_option_is_set_by_its_key_and_reset_by_null(
    conn: Connection, jobid: int, key: str, given: Any, column: str, default: Any
) -> None:
    conn.execute(ALTER, [jobid, json.dumps({key: given})])
    assert job(conn, jobid, column) == (given,)
    conn.execute(ALTER, [jobid, json.dumps({key: None})])
    assert job(conn, jobid, column) == (default,)


@pytest.mark.parametrize("number", ["7", "7.0", "0.7e1", "70e-1"])
def test_a_whole_number_may_be_written_in_any_way(conn: Connection, jobid: int, number: str) -> None:
    conn.execute(ALTER, [jobid, f'{{"priority": {number}}}'])
    assert job(conn, jobid, "priority") == (7,)


def test_all_options_may_be_given_at_once(conn: Connection) -> None:
    given = {"active": False, "timezone": "Asia/Tokyo", "priority": 5, "managed_by": "me", "database": "template1"}
    defaults = {
        "on_overlap": "queue",
        "on_missed": "skip",
        "max_attempts": 1,
        "history": "all",
        "timeout": None,
        "settings": None,
    }
    made = value(conn, SCHEDULE, json.dumps({**given, **defaults, "username": "postgres"}))
    assert job(conn, made, ", ".join(given)) == tuple(given.values())


def test_all_of_a_job_may_be_altered_at_once(conn: Connection, jobid: int) -> None:
    make_role(conn, ANN)
    given = {
        "name": "new",
        "schedule": "@daily",
        "command": "y",
        "database": "template1",
        "username": ANN,
        "active": False,
    }
    conn.execute(ALTER, [jobid, json.dumps(given)])
    assert job(conn, jobid, "jobname, schedule, command, database, username, active") == tuple(given.values())


def test_scheduling_again_with_options_keeps_those_that_are_not_given(conn: Connection) -> None:
    first = value(conn, SCHEDULE, '{"active": false, "priority": 5, "timezone": "UTC"}')
    assert value(conn, SCHEDULE, '{"priority": 6}') == first
    assert job(conn, first, "active, priority, timezone") == (False, 6, "UTC")
    # An option says what it says, on an existing job too, unlike the argument of schedule_in_database.
    assert value(conn, SCHEDULE, '{"active": true, "timezone": null}') == first
    assert job(conn, first, "active, priority, timezone") == (True, 6, None)


def test_no_options_are_no_options(conn: Connection) -> None:
    first = value(conn, SCHEDULE, "{}")
    assert value(conn, "SELECT cron.schedule('n', '@reboot', 'x', NULL)") == first
    assert job(conn, first) == ("@reboot", "x", "postgres", "postgres", True, "n")


@pytest.mark.parametrize("options", ["'{}'::jsonb", "NULL::jsonb"])
def test_altering_with_no_options_is_refused(conn: Connection, jobid: int, options: str) -> None:
    assert refusal(conn, f"SELECT cron.alter_job({jobid}, {options})") == Refusal(
        INVALID, "no updates specified", None, NO_UPDATES_HINT
    )


def test_a_key_given_twice_counts_once_as_jsonb_has_it(conn: Connection, jobid: int) -> None:
    conn.execute(ALTER, [jobid, '{"priority": 1, "priority": 2}'])
    assert job(conn, jobid, "priority") == (2,)


def test_a_schedule_given_as_an_option_is_checked_like_any(conn: Connection, jobid: int) -> None:
    refused = refusal(conn, ALTER, jobid, '{"schedule": "junk"}')
    assert (refused.message, refused.hint) == ("invalid schedule: junk", CRON_HINT)
    assert notices(conn, ALTER, jobid, '{"schedule": "0 0 30 2 *"}') == [
        Notice("WARNING", 'schedule "0 0 30 2 *" never runs', "No date from now to 2199 has day 30 in February.")
    ]


def test_a_name_that_another_job_of_the_role_has_is_refused(conn: Connection, jobid: int) -> None:
    conn.execute("SELECT cron.schedule('taken', '@reboot', 'x')")
    refused = refusal(conn, ALTER, jobid, '{"name": "taken"}')
    assert (refused.sqlstate, "jobname_username_uniq" in refused.message) == ("23505", True)


@pytest.mark.parametrize(
    "given", [{"schedule": "@daily"}, {"schedule": "@reboot"}, {"command": "y"}, {"timezone": "UTC"}]
)
def test_the_series_of_a_job_begins_anew_only_with_another_schedule(
    conn: Connection, jobid: int, given: dict[str, str]
) -> None:
    before = job(conn, jobid, "schedule_anchor")
    conn.execute(ALTER, [jobid, json.dumps(given)])
    assert (job(conn, jobid, "schedule_anchor") != before) == (given == {"schedule": "@daily"})


# --- rights ------------------------------------------------------------------------------------


def test_a_user_alters_his_own_job_with_options_without_any_grant(conn: Connection, ann: Connection) -> None:
    own = value(ann, SCHEDULE, '{"active": false, "timezone": "UTC", "priority": 3}')
    ann.execute(ALTER, [own, '{"active": true, "name": "m", "command": "y"}'])
    assert job(conn, own, "username, active, timezone, priority, jobname, command") == (ANN, True, "UTC", 3, "m", "y")


def test_a_foreign_job_is_refused_like_one_that_is_not_there(jobid: int, ann: Connection) -> None:
    for number in (jobid, -5):
        assert refusal(ann, ALTER, number, '{"active": false}') == Refusal(
            FORBIDDEN, f"Job {number} does not exist or you don't own it"
        )


def test_another_database_needs_what_schedule_in_database_needs(conn: Connection, ann: Connection) -> None:
    expected = Refusal(FORBIDDEN, "permission denied for function schedule_in_database")
    own = value(ann, SCHEDULE, '{"database": "postgres"}')
    for options in ('{"database": "template1"}', '{"database": "nowhere"}'):
        assert refusal(ann, SCHEDULE, options) == expected
        assert refusal(ann, ALTER, own, options) == expected
    assert job(conn, own, "database") == ("postgres",)
    conn.execute(
        f"GRANT EXECUTE ON FUNCTION cron.schedule_in_database(text,text,text,text,text,boolean) TO {ANN}".encode()
    )
    ann.execute(ALTER, [own, '{"database": "template1"}'])
    assert job(conn, own, "database") == ("template1",)
    conn.execute(
        f"REVOKE EXECUTE ON FUNCTION cron.schedule_in_database(text,text,text,text,text,boolean) FROM {ANN}".encode()
    )
    # To name the database that it has, or to come home, changes nothing that needed the right.
    ann.execute(ALTER, [own, '{"database": "template1", "priority": 1}'])
    ann.execute(ALTER, [own, '{"database": "postgres"}'])
    assert job(conn, own, "database, priority") == ("postgres", 1)


@pytest.mark.parametrize("username", [ANN, BEN, "postgres", "nobody"])
def test_only_a_superuser_names_a_user(ann: Connection, username: str) -> None:
    options = json.dumps({"username": username})
    own = value(ann, SCHEDULE, "{}")
    assert refusal(ann, SCHEDULE, options) == Refusal(FORBIDDEN, "must be superuser to create a job for another role")
    assert refusal(ann, ALTER, own, options) == Refusal(FORBIDDEN, "must be superuser to alter username")


def test_a_superuser_schedules_for_another_role_with_its_limits(conn: Connection) -> None:
    make_role(conn, ANN)
    assert job(conn, value(conn, SCHEDULE, json.dumps({"username": ANN})), "username") == (ANN,)
    both_or_none = [
        ('{"username": "nobody"}', Refusal("42704", 'role "nobody" does not exist')),
        (
            '{"username": "pg_monitor"}',
            Refusal(
                INVALID,
                'role "pg_monitor" can not log in',
                "Jobs may only be run by roles that have the LOGIN attribute.",
            ),
        ),
        ('{"database": "nowhere"}', Refusal("3D000", 'database "nowhere" does not exist')),
    ]
    own = value(conn, "SELECT cron.schedule('mine', '@reboot', 'x')")
    for options, expected in both_or_none:
        both_refuse(conn, own, options, expected)
