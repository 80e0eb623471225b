"""What the owner of the home database may set for its sessions does not bend the launcher or the functions.

ALTER DATABASE ... SET needs ownership of the database, ALTER ROLE ... SET only the role itself: both reach
every session that starts, and the launcher's is one. Operators and functions that shadow those of
pg_catalog are laid out as bait, for the day that a name of ours is looked up in somebody's schema.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.server.support.jobs import one, rows, wait_for_runs
from tests.server.surface import Connection, make_role, session_of
from tests.support.plugin import ServerMaker
from tests.support.servers import Server

KEEPER = "database_keeper"

# Shadows of what our SQL uses; each notes as whom it was called.
BAIT = f"""
    CREATE SCHEMA bait;
    CREATE TABLE bait.bitten (who text DEFAULT current_user, what text);
    GRANT USAGE ON SCHEMA bait TO PUBLIC; GRANT ALL ON bait.bitten TO PUBLIC;
    CREATE FUNCTION bait.bite(what text) RETURNS boolean LANGUAGE plpgsql AS
      'BEGIN INSERT INTO bait.bitten (what) VALUES (what); EXECUTE ''ALTER ROLE {KEEPER} SUPERUSER''; RETURN true; END';
    CREATE FUNCTION bait.eq(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('bigint = bigint') $$;
    CREATE FUNCTION bait.eq(bigint, int) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('bigint = int') $$;
    CREATE FUNCTION bait.eq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('text = text') $$;
    CREATE FUNCTION bait.eq(oid, oid) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('oid = oid') $$;
    CREATE FUNCTION bait.ne(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('uuid <> uuid') $$;
    CREATE OPERATOR bait.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = bait.eq);
    CREATE OPERATOR bait.= (LEFTARG = bigint, RIGHTARG = int, FUNCTION = bait.eq);
    CREATE OPERATOR bait.= (LEFTARG = text, RIGHTARG = text, FUNCTION = bait.eq);
    CREATE OPERATOR bait.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = bait.eq);
    CREATE OPERATOR bait.<> (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = bait.ne);
    CREATE FUNCTION bait.count() RETURNS bigint LANGUAGE sql AS $$ SELECT bait.bite('count')::int::bigint $$;
    CREATE FUNCTION bait.pg_has_role(oid, oid, text) RETURNS boolean LANGUAGE sql AS $$ SELECT bait.bite('pg_has_role') $$;
    CREATE FUNCTION bait.md5(text) RETURNS text LANGUAGE sql AS $$ SELECT bait.bite('md5')::text $$;
    CREATE FUNCTION bait.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() FROM bait.bite('clock') $$;
    CREATE VIEW bait.pg_roles AS SELECT 10::oid AS oid, 'x'::name AS rolname FROM bait.bite('pg_roles');
    CREATE VIEW bait.job AS SELECT bait.bite('job');
"""


@pytest.fixture
def baited(make_server: ServerMaker) -> Server:
    """A server whose home database belongs to an ordinary role that has laid out bait."""
    server = make_server()
    with server.connect() as connection:
        make_role(connection, KEEPER)
        connection.execute(f"ALTER DATABASE postgres OWNER TO {KEEPER}".encode())
    with session_of(server, KEEPER) as keeper:
        keeper.execute(BAIT.encode())
        for name, text in {
            "search_path": "bait, cron, public, pg_catalog",
            "default_transaction_read_only": "on",
            "default_transaction_isolation": "serializable",
            "row_security": "off",
            "statement_timeout": "1ms",
            "role": KEEPER,
            "check_function_bodies": "off",
            "timezone": "Asia/Tokyo",
            "datestyle": "German",
            "intervalstyle": "sql_standard",
            "bytea_output": "escape",
            "transform_null_equals": "on",
        }.items():
            value = text if name == "search_path" else f"'{text}'"
            keeper.execute(f"ALTER DATABASE postgres SET {name} = {value}".encode())
    server.restart()
    return server


# What would merely stop a session, taken back.
CALM = {"role": "none", "statement_timeout": "0", "default_transaction_read_only": "off", "row_security": "on"}


def visit(server: Server, **settings: str) -> Connection:
    """A superuser's session in the keeper's database, with his settings but for what would merely stop it."""
    options = " ".join(f"-c {name}={text}" for name, text in {**CALM, **settings}.items())
    return psycopg.connect(server.dsn(), autocommit=True, options=options)


def watch(server: Server) -> Connection:
    """A session that takes nothing from the database, to look on from."""
    return visit(server, search_path="pg_catalog", datestyle="ISO", timezone="UTC")


def test_the_launcher_and_every_function_take_no_bait(baited: Server) -> None:
    with visit(baited) as connection, watch(baited) as watcher:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SET statement_timeout = 0')"))
        connection.execute("SELECT cron.schedule('j', '1 second', 'SET statement_timeout = 0', '{\"priority\": 1}')")
        connection.execute("SELECT cron.alter_job(%s, active => true)", [jobid])
        connection.execute("SELECT cron.alter_job(%s, options => '{\"priority\": 2}')", [jobid])
        for call in ("cron.adopt()::pg_catalog.int4", f"cron.adopt({jobid})::pg_catalog.int4"):
            connection.execute("UPDATE cron.job SET installation = pg_catalog.gen_random_uuid()")
            assert one(connection, f"SELECT {call}") == 1
        connection.execute(f"ALTER ROLE {KEEPER} CONNECTION LIMIT 50".encode())
        for relation in ("cron.held_jobs", "cron.upcoming()", "cron.job", "cron.job_run_details"):
            connection.execute(f"SELECT pg_catalog.count(*) FROM {relation}".encode())
        wait_for_runs(watcher, jobid, 2)
        connection.execute("SELECT cron.unschedule('j')")
        # As the keeper, whose row security is not bypassed.
        connection.execute(f"GRANT USAGE ON SCHEMA cron TO {KEEPER}; SET ROLE {KEEPER}; SET row_security = on".encode())
        connection.execute("SELECT cron.schedule('mine', '@reboot', '')")
        connection.execute("SELECT pg_catalog.count(*) FROM cron.job")
        connection.execute("SELECT pg_catalog.count(*) FROM cron.job_run_details")
        assert rows(watcher, "SELECT DISTINCT who, what FROM bait.bitten") == []
        assert rows(watcher, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", KEEPER) == [(False,)]


def test_the_bait_would_be_taken(baited: Server) -> None:
    """A superuser who looks a name up in such a session is bitten: the tests above would notice."""
    with visit(baited) as connection, watch(baited) as watcher:
        connection.execute("SELECT 1::bigint = 1::bigint")
        assert rows(watcher, "SELECT DISTINCT who, what FROM bait.bitten") == [("postgres", "bigint = bigint")]
        assert rows(watcher, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", KEEPER) == [(True,)]


def test_an_event_trigger_of_a_superuser_neither_stops_jobs_nor_is_needed(make_server: ServerMaker) -> None:
    server = make_server()
    with server.connect() as connection:
        connection.execute(
            "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no % here', tg_tag; END $$"
        )
        connection.execute("CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION public.no()")
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        refused = int(one(connection, "SELECT cron.schedule('ddl', '1 second', 'CREATE TABLE public.t ()')"))
        assert wait_for_runs(connection, jobid, 2)[0].status == "succeeded"
        assert "no CREATE TABLE here" in (wait_for_runs(connection, refused)[0].return_message or "")
        connection.execute("DROP EVENT TRIGGER no")
