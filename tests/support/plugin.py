"""The options and fixtures of the server tests.

`server`          one shared server per target (and per xdist worker), the extension created in `postgres`
`fresh_server`    one for this test alone: to crash, to stop, to configure (see the marker `settings`)
`make_server`     as many as the test asks for
`conn`            a connection to `server` that finds no job and no run of an earlier test
`wait_until`      polls a condition instead of sleeping

A test that uses a server runs once per target; its id names the version, as in `[pg18.4]`.
The extension is built once per target and test run, shared by all xdist workers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scheduler.cluster import Setting
from scheduler.errors import ClockworkError
from scheduler.packaging import stage
from tests.support.servers import DockerServer, LocalServer, Server
from tests.support.targets import Target, find_no_engine, parse_targets
from tests.support.waiting import wait_until as poll

Connection = psycopg.Connection[tuple[Any, ...]]

BUILDS = pytest.StashKey[Path]()
TARGETS = pytest.StashKey[list[Target]]()


# --- options, targets and the report header ----------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pg",
        default=os.environ.get("PG_TARGETS", "auto"),
        metavar="TARGETS",
        help="where server tests run: auto, all, majors, paths of pg_config, docker:IMAGE; separated by commas",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(mapping): settings of the fresh_server of this test")
    config.addinivalue_line("markers", "local_only: needs what a container cannot do, such as a standby")
    config.addinivalue_line("markers", "container: also meant for a container, as run by tests/docker/lane")
    config.stash[TARGETS] = parse_targets(config.getoption("--pg"))
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        config.stash[BUILDS] = Path(workerinput["clockwork_builds"])
    else:
        config.stash[BUILDS] = Path(tempfile.mkdtemp(prefix="clockwork-builds-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the builds of this run are."""
    node.workerinput["clockwork_builds"] = str(node.config.stash[BUILDS])


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and BUILDS in config.stash:
        shutil.rmtree(config.stash[BUILDS], ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> list[str]:
    targets = config.stash[TARGETS]
    lines = [f"postgres: {'; '.join(target.description for target in targets)}"]
    if not any(target.image for target in targets):
        why = find_no_engine()
        lines.append(f"docker: {f'no target, {why}' if why else 'an engine answers; try --pg docker:IMAGE'}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        targets = metafunc.config.stash[TARGETS]
        metafunc.parametrize("target", targets, ids=[target.label for target in targets], scope="session")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs a private cluster is not for a container."""
    parameters = getattr(item, "callspec", None)
    target = parameters.params.get("target") if parameters is not None else None
    if target is not None and target.image and item.get_closest_marker("local_only"):
        pytest.skip("needs what a container cannot do")


# --- servers -----------------------------------------------------------------------------------

ServerMaker = Callable[..., Server]


@pytest.fixture(scope="session")
def extension_files(target: Target, pytestconfig: pytest.Config) -> Path:
    """The extension built for the target, as `lib/` and `share/extension/`."""
    _require(target)
    assert target.pg_config is not None
    root = pytestconfig.stash[BUILDS]
    built, lock = root / target.label, root / f"{target.label}.lock"
    failure = root / f"{target.label}.failed"
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if failure.exists():
            pytest.fail(failure.read_text(), pytrace=False)
        if not built.exists():
            try:
                stage(target.pg_config, root / f"{target.label}.part").rename(built)
            except ClockworkError as exc:
                failure.write_text(f"{exc.message}\n{exc.hint}")
                pytest.fail(failure.read_text(), pytrace=False)
    return built


def _require(target: Target) -> None:
    """Skip a target that cannot be had, or fail where CI asked for it."""
    if target.missing and os.environ.get("CI"):
        pytest.fail(f"{target.label} was asked for: {target.missing}", pytrace=False)
    if target.missing:
        pytest.skip(target.missing)


def _launch(target: Target, request: pytest.FixtureRequest, settings: Mapping[str, Setting] | None = None) -> Server:
    _require(target)
    server: Server
    if target.image:
        server = DockerServer(target.image, settings)
    else:
        assert target.pg_config is not None
        server = LocalServer.launch(target.pg_config, request.getfixturevalue("extension_files"), settings)
    try:
        with server.connect() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_clockwork")
    except BaseException:
        server.close()
        raise
    return server


@pytest.fixture(scope="session")
def server(target: Target, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that all ordinary tests of a target share."""
    shared = _launch(target, request)
    yield shared
    shared.close()


@pytest.fixture
def make_server(target: Target, request: pytest.FixtureRequest) -> Iterator[ServerMaker]:
    """Call it for a server of one's own, with settings if need be; all are closed after the test."""
    made: list[Server] = []

    def make(settings: Mapping[str, Setting] | None = None) -> Server:
        made.append(_launch(target, request, settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def fresh_server(make_server: ServerMaker, request: pytest.FixtureRequest) -> Server:
    """A server for one test. `@pytest.mark.settings({"cron.timezone": "Europe/Berlin"})` configures it."""
    marker = request.node.get_closest_marker("settings")
    return make_server(marker.args[0] if marker else None)


# --- connections -------------------------------------------------------------------------------


@pytest.fixture
def conn(server: Server) -> Iterator[Connection]:
    """A superuser's autocommit connection; the jobs and runs of earlier tests are gone, their history may stay."""
    with server.connect() as connection:
        forget_jobs(connection)
        yield connection


def forget_jobs(connection: Connection) -> None:
    """Unschedule every job, end every run, and wait until none is left."""
    connection.execute("SELECT cron.unschedule(jobid) FROM cron.job")

    def none_runs() -> bool:
        # A process id may have passed to somebody's session since: only background workers are ended.
        connection.execute(
            "SELECT pg_terminate_backend(a.pid)"
            " FROM cron.job_run_details d JOIN pg_stat_activity a ON a.pid = d.job_pid"
            " WHERE d.status IN ('queued', 'starting', 'running') AND a.backend_type <> 'client backend'"
        )
        left = connection.execute(
            "SELECT count(*) FROM cron.job_run_details WHERE status IN ('queued', 'starting', 'running')"
        ).fetchone()
        return left == (0,)

    poll(none_runs, message="the runs of earlier tests to end")


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """tests.support.waiting.wait_until(predicate, timeout, message)."""
    return poll
