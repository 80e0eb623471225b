"""One server interface, two carriers: a private cluster, or a container.

A test that takes a `Server` runs on both. What only a private cluster can do
(a standby, a signal to one backend) is asked of `scheduler.cluster.Cluster`
itself, which is one of the two carriers.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import psycopg
import pytest

from scheduler.cluster import Cluster, Setting, StopMode
from tests.support.complaints import find_complaints

CONTAINER_PASSWORD = "clockwork"
CONTAINER_START_TIMEOUT_S = 60.0


class Server(Protocol):
    """A PostgreSQL with the extension preloaded."""

    carrier: str

    @property
    def version(self) -> str: ...
    @property
    def major(self) -> int: ...
    def dsn(self, database: str = ..., user: str = ...) -> str: ...
    def connect(self, database: str = ..., user: str = ...) -> psycopg.Connection[tuple[Any, ...]]: ...
    def configure(self, settings: Mapping[str, Setting]) -> None: ...
    def reload(self) -> None: ...
    def start(self) -> None: ...
    def stop(self, mode: StopMode = ...) -> None: ...
    def restart(self, mode: StopMode = ...) -> None: ...
    def crash(self) -> None: ...
    def log(self) -> str: ...
    def close(self) -> None: ...


class LocalServer(Cluster):
    """A private cluster, as the demo uses it, tuned for tests.

    CLOCKWORK_SERVER_WRAPPER is a command that runs the server, such as valgrind with its options.
    """

    def _server_command(self) -> list[str | os.PathLike[str]]:
        return [*shlex.split(os.environ.get("CLOCKWORK_SERVER_WRAPPER", "")), *super()._server_command()]

    def close(self) -> None:
        """Also fail where the server has complained of what no test provokes."""
        log = self.log()
        super().close()
        complaints = find_complaints(log)
        if complaints:
            pytest.fail("\n".join(["the server complained:", *complaints[:20]]), pytrace=False)

    @classmethod
    def launch(cls, pg_config: Path, extension: Path, settings: Mapping[str, Setting] | None = None) -> Self:
        # One initdb for all servers of a target: the template lies beside the build.
        template = extension.with_name(f"{extension.name}.data")
        server = cls.create(pg_config, extension=extension, settings=settings, template=template)
        try:
            server.start()
        except BaseException:
            server.close()
            raise
        return server


class DockerServer:
    """A container of an image that has the extension and preloads it."""

    carrier = "docker"

    def __init__(self, image: str, settings: Mapping[str, Setting] | None = None) -> None:
        from docker.types import Ulimit

        try:
            from testcontainers.community.postgres import PostgresContainer
        except ImportError:  # before 4.15
            from testcontainers.postgres import PostgresContainer

        limits = [Ulimit(name="nofile", soft=1024, hard=4096), Ulimit(name="nproc", soft=4096, hard=8192)]
        self._container = PostgresContainer(
            image, username="postgres", password=CONTAINER_PASSWORD, dbname="postgres", driver=None
        ).with_kwargs(ulimits=limits)
        self._container.start()
        self._wait_until_ready()
        if settings:
            self.configure(settings)
            self.restart()

    @property
    def version(self) -> str:
        with self.connect() as connection:
            return str(connection.info.parameter_status("server_version")).split()[0]

    @property
    def major(self) -> int:
        with self.connect() as connection:
            return connection.info.server_version // 10000

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        container = self._container.get_wrapped_container()
        container.reload()
        # A restart may map another port.
        port = container.ports["5432/tcp"][0]["HostPort"]
        host = self._container.get_container_host_ip()
        return psycopg.conninfo.make_conninfo(
            host=host, port=port, user=user, password=CONTAINER_PASSWORD, dbname=database
        )

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn(database, user), autocommit=True, connect_timeout=10)

    def configure(self, settings: Mapping[str, Setting]) -> None:
        with self.connect() as connection:
            for name, value in settings.items():
                statement = psycopg.sql.SQL("ALTER SYSTEM SET {} = {}")
                connection.execute(statement.format(psycopg.sql.SQL(name), psycopg.sql.Literal(str(value))))  # type: ignore[arg-type]

    def reload(self) -> None:
        with self.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait_until_ready()

    def stop(self, mode: StopMode = "fast") -> None:
        self._container.get_wrapped_container().stop(timeout=10)

    def restart(self, mode: StopMode = "fast") -> None:
        self._container.get_wrapped_container().restart(timeout=10)
        self._wait_until_ready()

    def crash(self) -> None:
        self._container.get_wrapped_container().kill("SIGKILL")

    def log(self) -> str:
        output, errors = self._container.get_logs()
        return (output + errors).decode(errors="replace")

    def close(self) -> None:
        self._container.stop()

    def check_health(self) -> tuple[int, str]:
        """Run the image's own health check: its exit code, and what it said."""
        container = self._container.get_wrapped_container()
        container.reload()
        kind, *command = container.attrs["Config"]["Healthcheck"]["Test"]
        done = container.exec_run(["sh", "-c", *command] if kind == "CMD-SHELL" else command)
        return done.exit_code, done.output.decode(errors="replace")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + CONTAINER_START_TIMEOUT_S
        while True:
            try:
                # KeyError, IndexError: the port is not mapped yet.
                with self.connect() as connection:
                    connection.execute("SELECT 1")
                return
            except (psycopg.OperationalError, KeyError, IndexError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
