"""The catalog of the extension: what pg_cron's users find in theirs, byte for byte, and ours after it.

The expected values are pg_cron 1.6's. Where a column or a function is ours, the test says so.
"""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.server.surface import ANN, Connection, make_role, rows, session_of, value
from tests.support.servers import Server

PG_CRON_JOB = [
    ("jobid", "bigint", True, "nextval('cron.jobid_seq'::regclass)"),
    ("schedule", "text", True, None),
    ("command", "text", True, None),
    ("nodename", "text", True, "'localhost'::text"),
    # pg_cron's default is inet_server_port(), which is NULL over a unix socket.
    ("nodeport", "integer", True, "COALESCE(inet_server_port(), (current_setting('port'::text))::integer)"),
    ("database", "text", True, "current_database()"),
    ("username", "text", True, "CURRENT_USER"),
    ("active", "boolean", True, "true"),
    ("jobname", "text", False, None),
]

OUR_JOB = [
    ("timezone", "text", False, None),
    ("on_overlap", "text", True, "'queue'::text"),
    ("max_parallel", "integer", False, None),
    ("on_missed", "text", True, "'skip'::text"),
    ("start_deadline", "interval", False, None),
    ("timeout", "interval", False, None),
    ("max_attempts", "integer", True, "1"),
    ("retry_delay", "interval", True, "'00:01:00'::interval"),
    ("retry_on", "text[]", False, None),
    ("jitter", "interval", True, "'00:00:00'::interval"),
    ("priority", "integer", True, "0"),
    ("starts_at", "timestamp with time zone", False, None),
    ("ends_at", "timestamp with time zone", False, None),
    ("pause_after", "integer", False, None),
    ("paused_reason", "text", False, None),
    ("settings", "jsonb", False, None),
    ("fresh_session", "boolean", True, "false"),
    ("history", "text", True, "'all'::text"),
    ("notify", "text", False, None),
    ("managed_by", "text", False, None),
]

PG_CRON_RUNS = [
    ("jobid", "bigint", False, None),
    ("runid", "bigint", True, "nextval('cron.runid_seq'::regclass)"),
    ("job_pid", "integer", False, None),
    ("database", "text", False, None),
    ("username", "text", False, None),
    ("command", "text", False, None),
    ("status", "text", False, None),
    ("return_message", "text", False, None),
    ("start_time", "timestamp with time zone", False, None),
    ("end_time", "timestamp with time zone", False, None),
]

OUR_RUNS = [
    ("reason", "text", False, None),
    ("sqlstate", "text", False, None),
    ("detail", "text", False, None),
    ("hint", "text", False, None),
    ("context", "text", False, None),
    ("command_tag", "text", False, None),
    ("row_count", "bigint", False, None),
    ("effects", "text", False, None),
    ("due_time", "timestamp with time zone", False, None),
    ("attempt", "integer", False, None),
    ("timeline", "integer", False, None),
    ("owner", "oid", False, "cron.role_oid(username)"),
    ("trigger", "text", False, None),
    ("label", "text", False, None),
    ("requested_by", "text", False, None),
]

COLUMNS = """
    SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_catalog.pg_get_expr(d.adbin, d.adrelid)
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""

# Everything that makes up the extension: its members, and what hangs on them.
MEMBERS = """
    SELECT classid, objid FROM pg_catalog.pg_depend
    WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
      AND refobjid = (SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'pg_clockwork')
"""


def as_written(columns: list[tuple[str, str, bool, str | None]]) -> list[tuple[str, str, bool, str | None]]:
    """The columns without the parentheses that releases of the server set differently."""
    return [(name, kind, needed, default and re.sub(r"[()]", "", default)) for name, kind, needed, default in columns]


# --- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "theirs", "ours"),
    [("cron.job", PG_CRON_JOB, OUR_JOB), ("cron.job_run_details", PG_CRON_RUNS, OUR_RUNS)],
)
def test_a_table_begins_with_the_columns_of_pg_cron_and_goes_on_with_ours(
    conn: Connection,
    table: str,
    theirs: list[tuple[str, str, bool, str | None]],
    ours: list[tuple[str, str, bool, str | None]],
) -> None:
    found = [
        (str(name), str(kind), bool(needed), default) for name, kind, needed, default in rows(conn, COLUMNS, table)
    ]
    assert as_written(found[: len(theirs)]) == as_written(theirs)
    assert as_written(found[len(theirs) :][: len(ours)]) == as_written(ours)


def test_what_the_engine_keeps_of_a_job_stands_last_and_needs_nobody_to_fill_it(conn: Connection) -> None:
    later = rows(conn, COLUMNS, "cron.job")[len(PG_CRON_JOB) + len(OUR_JOB) :]
    assert {name for name, *_ in later} == {"schedule_anchor", "active_since", "owner", "installation"}
    assert all(default is not None or not needed for _, _, needed, default in later)


def test_keys_and_constraints_bear_the_names_of_pg_cron(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid IN ('cron.job'::regclass, 'cron.job_run_details'::regclass) AND contype IN ('p', 'u', 'f')"
        " ORDER BY 1, 2",
    )
    assert found == [
        ("cron.job", "job_pkey", "PRIMARY KEY (jobid)"),
        ("cron.job", "jobname_username_uniq", "UNIQUE (jobname, username)"),
        ("cron.job_run_details", "job_run_details_pkey", "PRIMARY KEY (runid)"),
    ]


def test_no_check_constraint_looks_at_a_column_of_pg_cron(conn: Connection) -> None:
    theirs = [name for name, *_ in PG_CRON_JOB + PG_CRON_RUNS]
    found = rows(
        conn,
        "SELECT c.conname FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)"
        " WHERE connamespace = 'cron'::regnamespace AND contype = 'c' AND a.attname = ANY (%s)",
        theirs,
    )
    assert found == []


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("on_overlap", "'never'"),
        ("on_missed", "'never'"),
        ("history", "'some'"),
        ("max_parallel", "0"),
        ("max_attempts", "0"),
        ("pause_after", "0"),
        ("priority", "1001"),
        ("priority", "-1001"),
        ("start_deadline", "'0 s'"),
        ("timeout", "'-1 s'"),
        ("retry_delay", "'-1 s'"),
        ("jitter", "'-1 s'"),
        ("settings", "'[]'"),
        ("settings", "'1'"),
    ],
)
def test_a_row_written_by_hand_cannot_hold_a_wrong_option(conn: Connection, column: str, wrong: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=f"job_{column}_check"):
        conn.execute(f"INSERT INTO cron.job (schedule, command, {column}) VALUES ('@reboot', '', {wrong})".encode())


def test_a_due_time_cannot_have_two_records_of_one_attempt(conn: Connection) -> None:
    insert = b"INSERT INTO cron.job_run_details (jobid, due_time, attempt) VALUES (0, 'epoch', 1)"
    with conn.transaction(force_rollback=True):
        conn.execute(insert)
        with pytest.raises(psycopg.errors.UniqueViolation, match="job_run_details_due_time_key"), conn.transaction():
            conn.execute(insert)


def test_one_role_cannot_have_two_jobs_of_one_name_but_any_number_without(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("INSERT INTO cron.job (schedule, command) VALUES ('@reboot', ''), ('@reboot', '')")
        conn.execute("INSERT INTO cron.job (schedule, command, jobname) VALUES ('@reboot', '', 'twin')")
        with pytest.raises(psycopg.errors.UniqueViolation, match="jobname_username_uniq"), conn.transaction():
            conn.execute("INSERT INTO cron.job (schedule, command, jobname) VALUES ('@reboot', '', 'twin')")


def test_a_row_written_by_hand_over_a_unix_socket_has_a_port(conn: Connection) -> None:
    inserted = value(conn, "INSERT INTO cron.job (schedule, command) VALUES ('@reboot', '') RETURNING nodeport")
    assert inserted == int(value(conn, "SHOW port"))


# --- sequences, triggers, policies, grants -----------------------------------------------------


@pytest.mark.parametrize("sequence", ["cron.jobid_seq", "cron.runid_seq"])
def test_a_sequence_is_nobodys_own_and_starts_at_one(conn: Connection, sequence: str) -> None:
    owned = "SELECT count(*) FROM pg_depend WHERE objid = %s::regclass AND deptype IN ('a', 'i')"
    assert value(conn, owned, sequence) == 0
    shape = "SELECT seqtypid::regtype::text, seqstart, seqincrement, seqcycle FROM pg_sequence WHERE seqrelid = %s::regclass"
    assert rows(conn, shape, sequence) == [("bigint", 1, 1, False)]


def test_the_triggers_fire_for_every_change_and_also_on_replicas(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT tgname::text, tgenabled::text, pg_get_triggerdef(oid) FROM pg_trigger"
        " WHERE tgrelid = 'cron.job'::regclass AND NOT tgisinternal ORDER BY 1",
    )
    truncate = "AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON cron.job FOR EACH STATEMENT"
    assert {name: (mode, definition.split(" ", 3)[3]) for name, mode, definition in found} == {
        "cron_job_before_update": (
            "A",
            "BEFORE UPDATE ON cron.job FOR EACH ROW EXECUTE FUNCTION cron.job_before_update()",
        ),
        "cron_job_owner": (
            "A",
            "BEFORE INSERT OR UPDATE ON cron.job FOR EACH ROW EXECUTE FUNCTION cron.job_owner()",
        ),
        # pg_cron's, by name and form
        "cron_job_cache_invalidate": ("A", f"{truncate} EXECUTE FUNCTION cron.job_cache_invalidate()"),
        "cron_job_changed": (
            "A",
            "AFTER INSERT OR DELETE OR UPDATE ON cron.job FOR EACH ROW EXECUTE FUNCTION cron.job_changed()",
        ),
        "cron_job_check": (
            "A",
            "BEFORE INSERT OR UPDATE ON cron.job FOR EACH ROW EXECUTE FUNCTION cron.job_check()",
        ),
    }


@pytest.mark.parametrize(
    ("table", "policy"),
    [("cron.job", "cron_job_policy"), ("cron.job_run_details", "cron_job_run_details_policy")],
)
def test_row_security_is_by_the_pinned_role_under_pg_crons_name_enabled_and_not_forced(
    conn: Connection, table: str, policy: str
) -> None:
    flags = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass"
    assert rows(conn, flags, table) == [(True, False)]
    found = rows(
        conn,
        "SELECT polname::text, polpermissive, polcmd::text, polroles, pg_get_expr(polqual, polrelid),"
        " pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = %s::regclass ORDER BY polcmd",
        table,
    )
    monitors = "( SELECT pg_has_role('pg_read_all_stats'::name, 'USAGE'::text) AS pg_has_role)"
    assert found == [
        (policy, True, "*", [0], "cron.is_owner(owner)", None),
        (policy.replace("_policy", "_monitor_policy"), True, "r", [0], monitors, None),
    ]


@pytest.mark.parametrize(
    ("relation", "granted"),
    [
        ("cron.job", ["SELECT"]),
        ("cron.job_run_details", ["DELETE", "SELECT"]),
        ("cron.jobid_seq", ["SELECT"]),
        ("cron.runid_seq", ["SELECT"]),
    ],
)
def test_the_public_is_granted_what_pg_cron_grants_and_no_more(
    conn: Connection, relation: str, granted: list[str]
) -> None:
    found = rows(
        conn,
        "SELECT a.privilege_type FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.oid = %s::regclass AND a.grantee = 0 ORDER BY 1",
        relation,
    )
    assert [privilege for (privilege,) in found] == granted


def test_nobody_but_the_owner_holds_a_privilege_on_the_tables_by_name(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.relnamespace = 'cron'::regnamespace AND a.grantee NOT IN (0, c.relowner)",
    )
    assert found == []


def test_the_schema_is_closed_until_usage_is_granted(conn: Connection, server: Server) -> None:
    anybody = "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'cron' AND grantee = 0"
    assert value(conn, anybody) == 0
    make_role(conn, ANN)
    conn.execute(f"REVOKE USAGE ON SCHEMA cron FROM {ANN}".encode())
    with session_of(server, ANN) as ann:
        for statement in (b"SELECT 1 FROM cron.job", b"SELECT cron.schedule('@reboot', '')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for schema cron"):
                ann.execute(statement)


# --- functions ---------------------------------------------------------------------------------

SIX = "text, command text, database text, username text DEFAULT NULL::text, active boolean DEFAULT true"
ALTER = (
    "job_id bigint, schedule text DEFAULT NULL::text, command text DEFAULT NULL::text,"
    " database text DEFAULT NULL::text, username text DEFAULT NULL::text, active boolean DEFAULT NULL::boolean"
)

# name, arguments, result, strict, executable by the public
PG_CRON_FUNCTIONS = [
    ("alter_job", ALTER, "void", False, False),
    ("job_cache_invalidate", "", "trigger", False, True),
    ("schedule", "job_name text, schedule text, command text", "bigint", False, True),
    ("schedule", "schedule text, command text", "bigint", True, True),
    ("schedule_in_database", f"job_name text, schedule {SIX}", "bigint", False, False),
    ("unschedule", "job_id bigint", "boolean", True, True),
    ("unschedule", "job_name text", "boolean", True, True),
]

# Ours under the same names: none may be reachable by a call that was written for pg_cron.
OUR_OVERLOADS = [
    ("alter_job", "job_id bigint, options jsonb", "void", False, True),
    ("schedule", "job_name text, schedule text, command text, options jsonb", "bigint", False, True),
]

FUNCTIONS = """
    SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid), proisstrict,
           coalesce((SELECT bool_or(a.grantee = 0) FROM aclexplode(proacl) a), true)
    FROM pg_proc WHERE pronamespace = 'cron'::regnamespace AND proname = ANY (%s) ORDER BY 1, 2
"""

NAMES = sorted({name for name, *_ in PG_CRON_FUNCTIONS})


def test_the_functions_are_pg_crons_with_exactly_its_signatures_and_two_overloads(conn: Connection) -> None:
    assert rows(conn, FUNCTIONS, NAMES) == sorted(PG_CRON_FUNCTIONS + OUR_OVERLOADS, key=lambda one: one[:2])


def test_the_functions_of_pg_cron_are_volatile_invokers_of_c_that_are_unsafe_in_parallel(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT DISTINCT l.lanname::text, provolatile::text, proparallel::text, prosecdef, proleakproof, prokind::text"
        " FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
        " WHERE pronamespace = 'cron'::regnamespace AND proname = ANY (%s)",
        NAMES,
    )
    assert found == [("c", "v", "u", False, False, "f")]


def test_no_function_of_ours_lends_rights_or_looks_names_up_in_the_callers_search_path(conn: Connection) -> None:
    """C functions see to it themselves; any other pins its search path, or has a body that was bound at creation."""
    found = rows(
        conn,
        "SELECT oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'cron'::regnamespace"
        " AND (proleakproof OR prosecdef OR (prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')"
        "      AND prosqlbody IS NULL AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']))",
    )
    assert found == []


def test_only_what_manages_for_others_is_kept_from_the_public(conn: Connection) -> None:
    closed = rows(
        conn,
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'cron'::regnamespace"
        " AND NOT coalesce((SELECT bool_or(a.grantee = 0) FROM aclexplode(proacl) a), true)"
        " AND (proname = ANY (%s) OR prorettype = 'trigger'::regtype) ORDER BY 1",
        NAMES,
    )
    assert closed == [
        ("alter_job",),
        ("job_before_update",),
        ("job_changed",),
        ("job_check",),
        ("job_owner",),
        ("pause_changed",),
        ("schedule_in_database",),
    ]


def test_a_grant_on_a_function_of_pg_cron_works_as_written_for_it(conn: Connection) -> None:
    make_role(conn, ANN)
    for function in (
        "cron.alter_job(bigint,text,text,text,text,boolean)",
        "cron.schedule_in_database(text,text,text,text,text,boolean)",
    ):
        assert value(conn, "SELECT has_function_privilege(%s, %s, 'EXECUTE')", ANN, function) is False
        conn.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {ANN}".encode())
        assert value(conn, "SELECT has_function_privilege(%s, %s, 'EXECUTE')", ANN, function) is True


@pytest.mark.parametrize(
    "function", ["job_before_update", "job_cache_invalidate", "job_changed", "job_check", "pause_changed"]
)
def test_a_trigger_function_refuses_to_be_called_as_anything_else(conn: Connection, function: str) -> None:
    with pytest.raises(psycopg.errors.TriggerProtocolViolated, match="must be called as trigger"):
        conn.execute(f"SELECT cron.{function}()".encode())


def test_the_row_trigger_function_refuses_to_be_fired_for_a_statement(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE TEMPORARY TABLE pets (jobid bigint) ON COMMIT DROP")
        conn.execute("CREATE TRIGGER t AFTER INSERT ON pets FOR EACH STATEMENT EXECUTE FUNCTION cron.job_changed()")
        with pytest.raises(psycopg.errors.TriggerProtocolViolated, match="must be fired for each row"):
            conn.execute("INSERT INTO pets VALUES (1)")


@pytest.mark.parametrize("column", ["other bigint", "jobid text", "jobid bigint"])
def test_the_trigger_functions_bear_a_strange_table(conn: Connection, column: str) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute(f"CREATE TEMPORARY TABLE pets ({column}) ON COMMIT DROP".encode())
        conn.execute("CREATE TRIGGER a AFTER INSERT OR TRUNCATE ON pets EXECUTE FUNCTION cron.job_cache_invalidate()")
        conn.execute("CREATE TRIGGER b AFTER INSERT ON pets FOR EACH ROW EXECUTE FUNCTION cron.job_changed()")
        conn.execute("INSERT INTO pets VALUES (NULL), (1)")
        conn.execute("TRUNCATE pets")


@pytest.mark.parametrize(
    "columns",
    ["other bigint, schedule bigint", "schedule text", "schedule text, schedule_anchor text, active_since text"],
)
def test_the_update_trigger_leaves_a_strange_table_alone(fresh_server: Server, columns: str) -> None:
    """On a server of its own: a timestamp written into a column of text would crash it."""
    with fresh_server.connect() as connection:
        connection.execute(f"CREATE TABLE public.pets ({columns})".encode())
        connection.execute(
            "CREATE TRIGGER t BEFORE UPDATE ON pets FOR EACH ROW EXECUTE FUNCTION cron.job_before_update()"
        )
        connection.execute("INSERT INTO pets (schedule) VALUES ('1')")
        connection.execute("UPDATE pets SET schedule = '2'")
        assert [str(row[-1] if len(row) == 2 else row[0]) for row in rows(connection, "SELECT * FROM pets")] == ["2"]


# --- the extension -----------------------------------------------------------------------------


def test_the_extension_is_fixed_to_its_schema_and_for_superusers_only(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT superuser, trusted, relocatable, schema::text, requires, comment FROM pg_available_extension_versions"
        " WHERE name = 'pg_clockwork'",
    )
    assert found == [(True, False, False, "pg_catalog", None, "Job scheduler for PostgreSQL")]
    place = "SELECT extnamespace::regnamespace::text, extrelocatable FROM pg_extension WHERE extname = 'pg_clockwork'"
    assert rows(conn, place) == [("pg_catalog", False)]


def test_the_extension_is_at_its_default_version(conn: Connection) -> None:
    found = rows(
        conn,
        "SELECT extversion = default_version FROM pg_extension JOIN pg_available_extensions ON name = extname"
        " WHERE extname = 'pg_clockwork'",
    )
    assert found == [(True,)]


def test_jobs_runs_both_numberings_and_the_pause_are_dumped_as_data(conn: Connection) -> None:
    found = value(conn, "SELECT extconfig::regclass[]::text[] FROM pg_extension WHERE extname = 'pg_clockwork'")
    assert found == [
        "cron.job",
        "cron.jobid_seq",
        "cron.job_run_details",
        "cron.record_backlog",
        "cron.runid_seq",
        "cron.pause_state",
    ]
    assert value(conn, "SELECT extcondition FROM pg_extension WHERE extname = 'pg_clockwork'") == [""] * 6


def test_everything_in_the_schema_belongs_to_the_extension_and_nothing_lies_elsewhere(conn: Connection) -> None:
    strays = f"""
        SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'cron'::regnamespace AND relkind NOT IN ('i', 't')
           AND ('pg_class'::regclass, oid) NOT IN ({MEMBERS})
        UNION ALL
        SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'cron'::regnamespace
           AND ('pg_proc'::regclass, oid) NOT IN ({MEMBERS})
    """
    assert rows(conn, strays) == []
    elsewhere = (
        f"SELECT (pg_identify_object(classid, objid, 0)).* FROM ({MEMBERS}) m"
        " WHERE coalesce((pg_identify_object(classid, objid, 0)).schema, 'cron') <> 'cron'"
    )
    assert rows(conn, elsewhere) == []


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param(
            f"SELECT classid, objid, 0 AS part FROM ({MEMBERS}) m WHERE classid <> 'pg_type'::regclass", id="members"
        ),
        pytest.param(
            f"SELECT m.classid, m.objid, a.attnum AS part FROM ({MEMBERS}) m JOIN pg_attribute a ON a.attrelid = m.objid"
            " JOIN pg_class c ON c.oid = m.objid AND c.relkind IN ('r', 'v')"
            " WHERE m.classid = 'pg_class'::regclass AND a.attnum > 0 AND NOT a.attisdropped",
            id="columns",
        ),
        pytest.param(
            f"SELECT 'pg_policy'::regclass AS classid, p.oid AS objid, 0 AS part FROM ({MEMBERS}) m"
            " JOIN pg_policy p ON p.polrelid = m.objid WHERE m.classid = 'pg_class'::regclass",
            id="policies",
        ),
        pytest.param(
            f"SELECT 'pg_trigger'::regclass AS classid, t.oid AS objid, 0 AS part FROM ({MEMBERS}) m"
            " JOIN pg_trigger t ON t.tgrelid = m.objid WHERE m.classid = 'pg_class'::regclass AND NOT tgisinternal",
            id="triggers",
        ),
        pytest.param(
            f"SELECT 'pg_class'::regclass AS classid, i.indexrelid AS objid, 0 AS part FROM ({MEMBERS}) m"
            " JOIN pg_index i ON i.indrelid = m.objid WHERE m.classid = 'pg_class'::regclass"
            " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)",
            id="indexes of their own",
        ),
    ],
)
def test_everything_of_ours_says_what_it_is(conn: Connection, objects: str) -> None:
    assert rows(conn, f"SELECT count(*) > 0 FROM ({objects}) o") == [(True,)]
    silent = f"""
        SELECT pg_describe_object(classid, objid, part::int) FROM ({objects}) o
        WHERE NOT EXISTS (SELECT FROM pg_description d
                          WHERE (d.classoid, d.objoid, d.objsubid) = (o.classid, o.objid, o.part)
                            AND length(d.description) > 3)
    """
    assert rows(conn, silent) == []
