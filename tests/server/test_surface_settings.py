"""The settings cron.*: pg_cron's names, types, defaults, ranges, contexts and secrecy.

The expected values are pg_cron's. A configuration file that was written for pg_cron starts a
server with this extension, whatever it sets.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import pytest

from scheduler.cluster import Setting
from tests.server.surface import ANN, BEN, Connection, Refusal, make_role, refusal, rows, session_of, value
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

MESSAGE_LEVELS = [
    "debug5",
    "debug4",
    "debug3",
    "debug2",
    "debug1",
    "info",
    "notice",
    "warning",
    "error",
    "log",
    "fatal",
    "panic",
]

# name: type, default, context
SETTINGS = {
    "cron.database_name": ("string", "postgres", "postmaster"),
    "cron.enable_superuser_jobs": ("bool", "on", "postmaster"),
    "cron.host": ("string", "localhost", "postmaster"),
    "cron.launch_active_jobs": ("bool", "on", "sighup"),
    "cron.log_min_messages": ("enum", "warning", "sighup"),
    "cron.log_run": ("bool", "on", "postmaster"),
    "cron.log_statement": ("bool", "on", "postmaster"),
    "cron.match_dom_and_dow": ("bool", "off", "sighup"),
    "cron.max_retry_delay": ("integer", "3600", "sighup"),
    "cron.start_ahead": ("bool", "on", "sighup"),
    "cron.worker_idle_timeout": ("integer", "100", "sighup"),
    "cron.worker_max_runs": ("integer", "1000", "sighup"),
    "cron.max_running_jobs": ("integer", "32", "postmaster"),
    "cron.max_running_jobs_per_role": ("integer", "0", "sighup"),
    "cron.timeout_grace": ("integer", "10000", "sighup"),
    "cron.timezone": ("string", "GMT", "postmaster"),
    "cron.use_background_workers": ("bool", "off", "postmaster"),
}

# What a run can read of itself; anybody may.
RUN_SETTINGS = {
    "cron.attempt": "Which attempt at its due time this session executes.",
    "cron.due_time": "Due time of the run that this session executes.",
    "cron.job_id": "Job whose run this session executes.",
    "cron.run_id": "Run that this session executes.",
}

DESCRIPTIONS = {
    **RUN_SETTINGS,
    "cron.max_running_jobs_per_role": "Maximum number of jobs of one role that can run concurrently.",
    "cron.timeout_grace": "Time that a run has to end after it was canceled, before it is terminated.",
    "cron.max_retry_delay": "Longest pause between two attempts of a run, at which doubling ends.",
    "cron.start_ahead": "Have workers connected and records written a moment before runs are due.",
    "cron.worker_idle_timeout": "Time that a worker waits for another run of its role and database before it ends.",
    "cron.worker_max_runs": "Number of runs after which a worker ends.",
    "cron.log_statement": "Log all cron statements prior to execution.",
    "cron.log_run": "Log all jobs runs into the job_run_details table",
    "cron.enable_superuser_jobs": "Allow jobs to be scheduled as superuser",
    "cron.host": "Hostname to connect to postgres.",
    "cron.use_background_workers": "Use background workers instead of client sessions.",
    "cron.launch_active_jobs": "Launch jobs that are defined as active.",
    "cron.max_running_jobs": "Maximum number of jobs that can run concurrently.",
    "cron.log_min_messages": "log_min_messages for the launcher bgworker.",
    "cron.timezone": "Specify timezone used for cron schedule.",
    "cron.match_dom_and_dow": "Requires a day to match both the day-of-month and day-of-week fields.",
}


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["", "Nowhere/Atlantis", "right/UTC", "Europe/Berlin ", "+"])
def test_a_time_zone_that_is_none_is_refused(conn: Connection, zone: str) -> None:
    refused = refusal(conn, f"ALTER SYSTEM SET cron.timezone = '{zone}'")
    assert (refused.sqlstate, refused.message) == ("22023", f'invalid value for parameter "cron.timezone": "{zone}"')


def test_the_refusal_of_a_time_zone_says_why(conn: Connection) -> None:
    assert refusal(conn, "ALTER SYSTEM SET cron.timezone = 'Nowhere/Atlantis'") == Refusal(
        "22023",
        'invalid value for parameter "cron.timezone": "Nowhere/Atlantis"',
        'Time zone "Nowhere/Atlantis" is not recognized.',
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("cron.max_running_jobs", "-1"),
        ("cron.max_running_jobs", "101"),
        ("cron.max_running_jobs", "many"),
        ("cron.log_min_messages", "loud"),
        ("cron.launch_active_jobs", "maybe"),
        ("cron.match_dom_and_dow", "2"),
        ("cron.log_run", "''"),
    ],
)
def test_a_value_out_of_range_or_of_the_wrong_type_is_refused(conn: Connection, name: str, wrong: str) -> None:
    assert value(conn, "SHOW max_connections") == "100"
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute(f"ALTER SYSTEM SET {name} = {wrong}".encode())


def test_a_setting_that_does_not_exist_is_refused_instead_of_kept(conn: Connection) -> None:
    assert refusal(conn, "SET cron.timezon = 'UTC'") == Refusal(
        "42602", 'invalid configuration parameter name "cron.timezon"', '"cron" is a reserved prefix.'
    )


@pytest.mark.parametrize("name", [name for name, (_, _, context) in SETTINGS.items() if context == "postmaster"])
def test_what_counts_from_the_start_cannot_be_changed_in_a_session(conn: Connection, name: str) -> None:
    message = f'parameter "{name}" cannot be changed without restarting the server'
    assert refusal(conn, f"SET {name} = DEFAULT").message == message


@pytest.mark.parametrize("name", [name for name, (_, _, context) in SETTINGS.items() if context == "sighup"])
def test_what_counts_from_a_reload_cannot_be_changed_in_a_session(conn: Connection, name: str) -> None:
    assert refusal(conn, f"SET {name} = DEFAULT").message == f'parameter "{name}" cannot be changed now'


# --- what there is -----------------------------------------------------------------------------


def test_the_settings_have_the_types_defaults_and_contexts_of_pg_cron(conn: Connection) -> None:
    found = rows(conn, "SELECT name, vartype, boot_val, context FROM pg_settings WHERE name LIKE 'cron.%' ORDER BY 1")
    of_runs = dict.fromkeys(RUN_SETTINGS, ("string", "", "user"))
    assert {name: (kind, default, context) for name, kind, default, context in found} == SETTINGS | of_runs


def test_the_settings_are_described_in_the_words_of_pg_cron(conn: Connection) -> None:
    found = rows(conn, "SELECT name, short_desc FROM pg_settings WHERE name LIKE 'cron.%' ORDER BY 1")
    named = {"cron.database_name": "Database in which pg_clockwork metadata is kept."}
    assert dict(found) == DESCRIPTIONS | named


def test_the_settings_are_customized_options(conn: Connection) -> None:
    assert rows(conn, "SELECT DISTINCT category FROM pg_settings WHERE name LIKE 'cron.%'") == [("Customized Options",)]


def test_the_log_levels_are_those_of_log_min_messages(conn: Connection) -> None:
    assert value(conn, "SELECT enumvals FROM pg_settings WHERE name = 'cron.log_min_messages'") == MESSAGE_LEVELS


def test_a_setting_without_effect_says_so(conn: Connection) -> None:
    found = rows(
        conn, "SELECT name FROM pg_settings WHERE name LIKE 'cron.%' AND extra_desc ~ 'has no effect' ORDER BY 1"
    )
    assert found == [("cron.host",), ("cron.use_background_workers",)]


# --- who may look ------------------------------------------------------------------------------


def test_an_ordinary_user_sees_no_setting_but_those_of_runs(conn: Connection, server: Server) -> None:
    make_role(conn, ANN)
    with session_of(server, ANN) as ann:
        found = rows(ann, "SELECT name FROM pg_settings WHERE name LIKE 'cron.%' ORDER BY 1")
        assert [name for (name,) in found] == sorted(RUN_SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_ordinary_user_is_told_which_role_may_look(conn: Connection, server: Server, name: str) -> None:
    make_role(conn, ANN)
    if server.major >= 16:
        expected = Refusal(
            "42501",
            f'permission denied to examine "{name}"',
            'Only roles with privileges of the "pg_read_all_settings" role may examine this parameter.',
        )
    else:
        expected = Refusal("42501", f'must be superuser or have privileges of pg_read_all_settings to examine "{name}"')
    with session_of(server, ANN) as ann:
        assert refusal(ann, f"SHOW {name}") == expected
        assert refusal(ann, "SELECT current_setting(%s)", name) == expected


def test_a_member_of_pg_read_all_settings_sees_all_of_them(conn: Connection, server: Server) -> None:
    make_role(conn, BEN)
    conn.execute(f"GRANT pg_read_all_settings TO {BEN}".encode())
    with session_of(server, BEN) as ben:
        assert [
            name for (name,) in rows(ben, "SELECT name FROM pg_settings WHERE name LIKE 'cron.%' ORDER BY 1")
        ] == sorted([*SETTINGS, *RUN_SETTINGS])


# --- a configuration that was written for pg_cron -----------------------------------------------

WRITTEN_FOR_PG_CRON: Mapping[str, Setting] = {
    "cron.database_name": "postgres",
    "cron.log_statement": "off",
    "cron.log_run": "off",
    "cron.enable_superuser_jobs": "off",
    "cron.host": "/tmp",
    "cron.use_background_workers": "on",
    "cron.launch_active_jobs": "off",
    "cron.max_running_jobs": 47,
    "cron.log_min_messages": "debug",
    "cron.timezone": "PST8PDT",
    "cron.match_dom_and_dow": "on",
}


@pytest.mark.settings(WRITTEN_FOR_PG_CRON)
def test_a_configuration_with_every_setting_of_pg_cron_starts(fresh_server: Server) -> None:
    with fresh_server.connect() as connection:
        found = dict(rows(connection, "SELECT name, setting FROM pg_settings WHERE name LIKE 'cron.%'"))
        found = {name: setting for name, setting in found.items() if name in WRITTEN_FOR_PG_CRON}
        # "debug" is another word for debug2, which is what the server shows.
        assert found == {name: str(setting) for name, setting in WRITTEN_FOR_PG_CRON.items()} | {
            "cron.log_min_messages": "debug2"
        }
        workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'pg_clockwork'"
        wait_until(lambda: value(connection, workers) > 0, message="the launcher")
        # What is stored as nodename has no effect; it is stored all the same.
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("SELECT cron.schedule_in_database('n', '@reboot', '', 'postgres', 'plain')")
        assert value(connection, "SELECT nodename FROM cron.job") == "/tmp"


def test_the_range_of_max_running_jobs_follows_the_mode_as_in_pg_cron(make_server: ServerMaker) -> None:
    limits = "SELECT setting, boot_val, min_val, max_val FROM pg_settings WHERE name = 'cron.max_running_jobs'"
    server = make_server({"max_connections": 20, "max_worker_processes": 12, "superuser_reserved_connections": 3})
    with server.connect() as connection:
        assert rows(connection, limits) == [("20", "20", "0", "20")]
    server.configure({"cron.use_background_workers": "on"})
    server.restart()
    with server.connect() as connection:
        assert rows(connection, limits) == [("5", "5", "0", "11")]
    server.configure({"cron.max_running_jobs": 0})
    server.restart()
    with server.connect() as connection:
        assert rows(connection, limits) == [("0", "5", "0", "11")]
        jobid = value(connection, "SELECT cron.schedule('1 second', 'SELECT 1')")
        done = "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND status = 'succeeded'"
        wait_until(lambda: value(connection, done, jobid) > 0, message="a run, since 0 means 1")


def test_a_wrong_value_in_the_configuration_is_reported_and_the_default_counts(make_server: ServerMaker) -> None:
    """So PostgreSQL treats the settings of any preloaded library; a server that starts is what matters."""
    wrong: dict[str, tuple[Setting, str, str]] = {
        "cron.max_running_jobs": (8, "5", "8 is outside the valid range for parameter"),
        "cron.timezone": ("Nowhere/Atlantis", "GMT", 'Time zone "Nowhere/Atlantis" is not recognized.'),
        "cron.log_run": ("perhaps", "on", 'parameter "cron.log_run" requires a Boolean value'),
        "cron.log_min_messages": ("loud", "warning", 'invalid value for parameter "cron.log_min_messages": "loud"'),
    }
    server = make_server()
    server.configure({"cron.use_background_workers": "on", "max_worker_processes": 8})
    server.configure({name: setting for name, (setting, _, _) in wrong.items()} | {"cron.timezon": "UTC"})
    server.restart()
    with server.connect() as connection:
        found = dict(rows(connection, "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", list(wrong)))
    assert found == {name: default for name, (_, default, _) in wrong.items()}
    log = server.log()
    assert [why for _, _, why in wrong.values() if why not in log] == []
    assert 'invalid configuration parameter name "cron.timezon", removing it' in log


def test_reloading_changes_what_may_be_changed_and_keeps_the_rest(make_server: ServerMaker) -> None:
    server = make_server()
    server.configure(
        {
            "cron.match_dom_and_dow": "on",
            "cron.launch_active_jobs": "off",
            "cron.log_min_messages": "error",
            "cron.host": "h",
        }
    )
    server.reload()
    with server.connect() as connection:
        wait_until(lambda: value(connection, "SHOW cron.match_dom_and_dow") == "on", message="the reload")
        assert value(connection, "SHOW cron.launch_active_jobs") == "off"
        assert value(connection, "SHOW cron.log_min_messages") == "error"
        assert value(connection, "SHOW cron.host") == "localhost"
        assert rows(connection, "SELECT name FROM pg_settings WHERE name LIKE 'cron.%' AND pending_restart") == [
            ("cron.host",)
        ]
