"""The image as its users get it: preloaded, created, healthy, and scheduling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.servers import DockerServer, Server
from tests.support.targets import Target

pytestmark = pytest.mark.container


@pytest.fixture(autouse=True)
def _needs_an_image(target: Target) -> None:
    if not target.image:
        pytest.skip("about the image: tests/docker/lane runs it")


def test_the_extension_is_preloaded_and_created(server: Server) -> None:
    with server.connect() as connection:
        assert connection.execute("SHOW shared_preload_libraries").fetchone() == ("pg_clockwork",)
        created = connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'pg_clockwork'").fetchone()
        assert created == (1,)


def test_the_health_check_asks_for_the_extension(fresh_server: Server) -> None:
    assert isinstance(fresh_server, DockerServer)
    assert fresh_server.check_health() == (0, "")
    with fresh_server.connect() as connection:
        connection.execute("DROP EXTENSION pg_clockwork")
    code, said = fresh_server.check_health()
    assert code == 1
    assert 'relation "cron.job" does not exist' in said


def test_a_job_runs(conn: psycopg.Connection[tuple[Any, ...]], wait_until: Callable[..., Any]) -> None:
    jobid = conn.execute("SELECT cron.schedule('in a container', '1 second', 'SELECT 1')").fetchone()
    succeeded = "SELECT count(*) FROM cron.job_run_details WHERE jobid = %s AND status = 'succeeded'"
    wait_until(lambda: conn.execute(succeeded, jobid).fetchone() != (0,), message="the first run to succeed")


def test_jobs_and_history_survive_a_killed_container(fresh_server: Server, wait_until: Callable[..., Any]) -> None:
    with fresh_server.connect() as connection:
        connection.execute("SELECT cron.schedule('survivor', '1 second', 'SELECT 1')")
        wait_until(
            lambda: connection.execute("SELECT count(*) FROM cron.job_run_details").fetchone() != (0,),
            message="the first run",
        )
    fresh_server.crash()
    fresh_server.start()
    with fresh_server.connect() as connection:
        assert connection.execute("SELECT jobname FROM cron.job").fetchall() == [("survivor",)]
        (before,) = connection.execute("SELECT max(runid) FROM cron.job_run_details").fetchone() or (0,)
        wait_until(
            lambda: (connection.execute("SELECT max(runid) FROM cron.job_run_details").fetchone() or (0,))[0] > before,
            message="a run after the restart",
        )
