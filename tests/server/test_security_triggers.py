"""Code that others attach to our tables: it runs as the tables' owner in a restricted operation, or not at all.

The launcher and the functions write as the owner of the tables, who may be a superuser. What a trigger does then
must be what the owner wants: a function of somebody else, whom TRIGGER was granted to, does not run for us.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.server.support.jobs import one, rows, runs_of, wait_for_runs
from tests.server.surface import Connection, make_role, session_of
from tests.support.plugin import ServerMaker
from tests.support.servers import Server
from tests.support.waiting import wait_until

MAKER, KEEPER = "trigger_maker", "trigger_keeper"

# Notes as whom it runs, and tries to become more.
NOSY = """
    CREATE FUNCTION tools.nosy() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO tools.seen VALUES (current_user, TG_TABLE_NAME, TG_OP);
      BEGIN
        EXECUTE 'ALTER ROLE trigger_maker SUPERUSER';
      EXCEPTION WHEN OTHERS THEN NULL;
      END;
      RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$
"""


@pytest.fixture
def home(make_server: ServerMaker) -> Server:
    server = make_server()
    with server.connect() as connection:
        make_role(connection, MAKER)
        make_role(connection, KEEPER)
        connection.execute(
            f"CREATE SCHEMA tools; GRANT USAGE, CREATE ON SCHEMA tools TO {MAKER}, {KEEPER};"
            " CREATE TABLE tools.seen (who text, what text, op text); GRANT ALL ON tools.seen TO PUBLIC;"
            f" GRANT TRIGGER ON cron.job, cron.job_run_details TO {MAKER}".encode()
        )
    return server


def is_super(connection: Connection, name: str) -> Any:
    return one(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = %s", name)


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER", "CONSTRAINT"])
def test_a_trigger_of_a_user_who_was_granted_that_does_not_run_as_the_owner(home: Server, timing: str) -> None:
    kind = (
        "CONSTRAINT TRIGGER {0} AFTER INSERT OR UPDATE ON cron.{1} DEFERRABLE INITIALLY DEFERRED"
        if timing == "CONSTRAINT"
        else f"TRIGGER {{0}} {timing} INSERT OR UPDATE ON cron.{{1}}"
    )
    with session_of(home, MAKER) as maker:
        maker.execute(NOSY.encode())
        for table in ("job", "job_run_details"):
            statement = f"CREATE {kind.format('nosy_' + table, table)} FOR EACH ROW EXECUTE FUNCTION tools.nosy()"
            maker.execute(statement.encode())
    with home.connect() as connection:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        connection.execute("SELECT cron.alter_job(%s, command => 'SELECT 2')", [jobid])
        wait_for_runs(connection, jobid, 2)
        assert rows(connection, "SELECT DISTINCT who, what FROM tools.seen") == []
        assert is_super(connection, MAKER) is False
        assert "do not fire for its own changes" in home.log()
        # The owner may want it: then he says so.
        connection.execute("ALTER FUNCTION tools.nosy() OWNER TO postgres")
        wait_until(lambda: rows(connection, "SELECT 1 FROM tools.seen LIMIT 1"), message="the trigger to fire")


def test_a_trigger_of_the_tables_owner_fires_as_the_owner_who_is_no_superuser(home: Server) -> None:
    """The extension's tables may belong to an ordinary role: nothing of its own then runs as more than that."""
    with home.connect() as connection:
        connection.execute(f"GRANT CREATE ON SCHEMA cron TO {KEEPER}".encode())
        for table in ("job", "job_run_details", "installation_identity"):
            connection.execute(f"ALTER TABLE cron.{table} OWNER TO {KEEPER}".encode())
        connection.execute(f"GRANT USAGE ON SEQUENCE cron.jobid_seq, cron.runid_seq TO {KEEPER}".encode())
    with session_of(home, KEEPER) as keeper:
        keeper.execute(NOSY.encode())
        keeper.execute(
            "CREATE TRIGGER nosy AFTER INSERT OR UPDATE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION tools.nosy()"
        )
        keeper.execute(
            "CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON cron.job_run_details DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION tools.nosy()"
        )
    with home.connect() as connection:
        jobid = int(one(connection, "SELECT cron.schedule('j', '1 second', 'SELECT 1')"))
        wait_for_runs(connection, jobid, 2)
        assert rows(connection, "SELECT who, count(*) >= 2 FROM tools.seen GROUP BY 1") == [(KEEPER, True)]
        assert is_super(connection, MAKER) is False
        assert {run.status for run in runs_of(connection, jobid)} <= {"succeeded", "starting", "running"}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE RULE r AS ON INSERT TO cron.job_run_details DO ALSO SELECT tools.own()",
        "ALTER TABLE cron.job_run_details ALTER status SET DEFAULT tools.own()",
        "ALTER TABLE cron.job_run_details ADD CONSTRAINT c CHECK (tools.own() IS NOT NULL)",
        "CREATE INDEX i ON cron.job_run_details (tools.own())",
        "CREATE POLICY p ON cron.job_run_details USING (tools.own() IS NOT NULL)",
        "CREATE STATISTICS cron.s ON (tools.own()), status FROM cron.job_run_details",
    ],
)
def test_nothing_else_can_be_attached_by_others(home: Server, statement: str) -> None:
    with home.connect() as connection:
        connection.execute(f"GRANT ALL ON cron.job, cron.job_run_details TO {MAKER}".encode())
    with session_of(home, MAKER) as maker:
        maker.execute("CREATE FUNCTION tools.own() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x'::text $$")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            maker.execute(statement.encode())


def test_a_foreign_key_to_our_table_runs_as_its_own_owner(home: Server) -> None:
    with home.connect() as connection:
        connection.execute(f"GRANT REFERENCES ON cron.job TO {MAKER}".encode())
    with session_of(home, MAKER) as maker:
        maker.execute(NOSY.encode())
        maker.execute("CREATE TABLE tools.notes (jobid bigint REFERENCES cron.job ON DELETE CASCADE)")
        maker.execute("CREATE TRIGGER nosy BEFORE DELETE ON tools.notes FOR EACH ROW EXECUTE FUNCTION tools.nosy()")
        jobid = int(one(maker, "SELECT cron.schedule('j', '@reboot', 'x')"))
    with home.connect() as connection:
        connection.execute("INSERT INTO tools.notes VALUES (%s)", [jobid])
        connection.execute("SELECT cron.unschedule(%s::bigint)", [jobid])
        assert rows(connection, "SELECT who, what, op FROM tools.seen") == [(MAKER, "notes", "DELETE")]
        assert is_super(connection, MAKER) is False
