"""A private PostgreSQL, made from any installation and gone when it is closed.

A cluster lives in one short directory under /tmp that only its owner can enter;
it listens on a unix socket there and nowhere else. The demo, the tests and the
benchmarks use the same class, so what they show is the same server.

The installation is only read. An extension that is to be tried is laid beside
it: from PostgreSQL 18 on by `extension_control_path`, before that by a private
replica of the installation. (A server finds its libraries and its SQL relative
to its own executable, so a copied executable among symbolic links is enough.)

PostgreSQL refuses to run as root. Then the server runs as an ordinary user that
exists already; where that user cannot read the installation, in a user
namespace; and where those are forbidden, from a full copy. No permission of
anything outside the cluster's directory is ever changed.

Only processes started here are ended, by process id.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg import sql

from scheduler.errors import ClusterError

StopMode = Literal["smart", "fast", "immediate"]
Setting = str | int | float | bool

EXTENSION = "pg_clockwork"
SUPERUSER = "postgres"
PORT = 5432

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.02

# sockaddr_un has 108 bytes, the last of them for the terminating zero.
SOCKET_PATH_BYTES = 107

# `extension_control_path` appeared here.
CONTROL_PATH_MAJOR = 18

# Programs that look for others, or for their own files, beside their executable: links would lead them away.
RELOCATED_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_config", "pg_basebackup", "pg_rewind", "pg_upgrade")
LINKED_PROGRAMS = (
    "pg_controldata",
    "pg_dump",
    "pg_dumpall",
    "pg_isready",
    "pg_resetwal",
    "pg_restore",
    "pg_waldump",
    "pgbench",
    "psql",
    "vacuumdb",
)

SHUTDOWN_SIGNALS: Mapping[str, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


# --- installations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installation:
    """A PostgreSQL on this machine, as its pg_config describes it."""

    pg_config: Path
    version: str
    bindir: Path
    pkglibdir: Path
    sharedir: Path

    @classmethod
    def of(cls, pg_config: str | os.PathLike[str]) -> Self:
        """Ask a pg_config, given as a path or as a name to be found in PATH."""
        found = shutil.which(os.fspath(pg_config))
        if found is None:
            raise ClusterError(
                f'could not run pg_config "{os.fspath(pg_config)}": no such program',
                "Give the path of a pg_config, for example /usr/lib/postgresql/15/bin/pg_config.",
            )
        path = Path(found).absolute()
        answers = _ask(path)
        try:
            return cls(
                pg_config=path,
                version=answers["VERSION"].split()[1],
                bindir=Path(answers["BINDIR"]),
                pkglibdir=Path(answers["PKGLIBDIR"]),
                sharedir=Path(answers["SHAREDIR"]),
            )
        except (KeyError, IndexError) as exc:
            raise ClusterError(f'could not read the answer of pg_config "{path}": {exc} is missing') from exc

    @property
    def major(self) -> int:
        """18 of 18.6, 19 of 19rc1."""
        digits = re.match(r"\d+", self.version)
        if digits is None:
            raise ClusterError(f'could not read the version "{self.version}" of pg_config "{self.pg_config}"')
        return int(digits.group())

    @property
    def root(self) -> Path:
        """The deepest directory that holds the programs, the libraries and the SQL."""
        return Path(os.path.commonpath([self.bindir, self.pkglibdir, self.sharedir]))

    @property
    def bundled_libraries(self) -> Path:
        """Where a Python wheel keeps the shared libraries it brings (it need not exist)."""
        package = self.root.parent
        return package.parent / f"{package.name}.libs"


def _ask(pg_config: Path) -> dict[str, str]:
    try:
        answer = subprocess.run([pg_config], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise ClusterError(f'could not run pg_config "{pg_config}": {exc}') from exc
    pairs = (line.partition(" = ") for line in answer.stdout.splitlines())
    return {name: value for name, _, value in pairs}


def _replicate(installation: Installation, directory: Path, *, full: bool) -> Installation:
    """Make a private replica of an installation: executables copied, all else linked (or copied, when `full`)."""
    # The relative positions must stay as they were compiled in, those of the wheel's own libraries included.
    root = directory / installation.root.parent.name / (installation.root.name or "root")
    inside = functools.partial(_inside, installation.root, root)
    replica = Installation(
        pg_config=inside(installation.bindir) / "pg_config",
        version=installation.version,
        bindir=inside(installation.bindir),
        pkglibdir=inside(installation.pkglibdir),
        sharedir=inside(installation.sharedir),
    )
    replica.bindir.mkdir(parents=True)
    for name in RELOCATED_PROGRAMS + LINKED_PROGRAMS:
        program = (installation.bindir / name).resolve()
        if not program.exists():
            continue
        if full or name in RELOCATED_PROGRAMS:
            shutil.copy2(program, replica.bindir / name)
        else:
            (replica.bindir / name).symlink_to(program)
    copy = _copy_tree if full else _link_tree
    copy(installation.pkglibdir, replica.pkglibdir)
    copy(installation.sharedir, replica.sharedir)
    if not full:
        extensions = replica.sharedir / "extension"
        extensions.unlink()
        _link_tree(installation.sharedir / "extension", extensions)
    if installation.bundled_libraries.is_dir():
        _copy_tree(installation.bundled_libraries, replica.bundled_libraries)
    return replica


def _overlay(extension: Path, replica: Installation) -> None:
    """Lay an extension's files into a replica, in the place of those that the installation may have."""
    places = {extension / "lib": replica.pkglibdir, extension / "share" / "extension": replica.sharedir / "extension"}
    for source, target in places.items():
        for file in source.iterdir():
            # A link is taken away first: writing through it would change the installation.
            (target / file.name).unlink(missing_ok=True)
            shutil.copy2(file, target / file.name)


def _inside(old: Path, new: Path, path: Path) -> Path:
    return new / path.relative_to(old)


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        (target / entry.name).symlink_to(entry)


def _copy_tree(source: Path, target: Path) -> None:
    # Headers and makefiles build extensions; no server reads them.
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("pgxs", "bitcode"))


# --- who runs the server -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """How server programs are started: as whom, and through what."""

    uid: int | None = None
    gid: int | None = None
    wrapper: tuple[str, ...] = ()

    def command(self, program: str | os.PathLike[str], *arguments: str | os.PathLike[str]) -> list[str]:
        return [*self.wrapper, os.fspath(program), *(os.fspath(argument) for argument in arguments)]

    def process_options(self) -> dict[str, Any]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, tree: Path) -> None:
        """Hand a tree to the account."""
        if self.uid is None or self.gid is None:
            return
        os.chown(tree, self.uid, self.gid)
        for folder, names, files in os.walk(tree):
            for name in names + files:
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)

    def can_run(self, installation: Installation) -> bool:
        """Whether the account can execute the server and read its files."""
        readable = ["sh", "-c", '"$1" --version && test -r "$2" && test -x "$3"', "sh"]
        paths = [installation.bindir / "postgres", installation.sharedir / "postgres.bki", installation.pkglibdir]
        try:
            done = subprocess.run(
                [*self.wrapper, *readable, *map(os.fspath, paths)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                **self.process_options(),
            )
        except OSError:
            return False
        return done.returncode == 0


ORDINARY_USERS = ("postgres", "nobody")


def _ordinary_account() -> Account | None:
    for name in ORDINARY_USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(entry.pw_uid, entry.pw_gid)
    return None


def _namespace_account() -> Account | None:
    """Root without a name: the server sees an ordinary uid while the kernel still grants root's own files."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    account = Account(wrapper=(unshare, "--user", "--"))
    seen = subprocess.run([*account.wrapper, "id", "-u"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return account if seen.returncode == 0 and seen.stdout.strip() not in ("", "0") else None


@dataclass(frozen=True, slots=True)
class Host:
    """An installation, who can run it, and whether it has to be copied for that."""

    account: Account
    copy: bool = False


def choose_host(installation: Installation) -> Host:
    """Choose the account that runs an installation's server, preferring the plainest that works."""
    if os.geteuid() != 0:
        return Host(Account())
    ordinary = _ordinary_account()
    if ordinary is not None and ordinary.can_run(installation):
        return Host(ordinary)
    namespace = _namespace_account()
    if namespace is not None and namespace.can_run(installation):
        return Host(namespace)
    if ordinary is not None:
        return Host(ordinary, copy=True)
    raise ClusterError(
        "could not find an ordinary user to run PostgreSQL: it refuses to run as root",
        "Run this as an ordinary user, or create one named postgres.",
    )


# --- the cluster -------------------------------------------------------------------------------


@dataclass(slots=True)
class Cluster:
    """One private PostgreSQL. Create it, start it, close it; or use it as a context manager."""

    origin: Installation
    installation: Installation
    directory: Path
    account: Account
    extension: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    _postmaster: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    carrier = "local"

    @classmethod
    def create(
        cls,
        pg_config: str | os.PathLike[str],
        *,
        extension: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        durable: bool = False,
        environment: Mapping[str, str] | None = None,
        template: Path | None = None,
    ) -> Self:
        """Initialise and configure a cluster without starting it.

        `extension` is a directory with `lib/` and `share/extension/`, as packaging.stage() makes it;
        its library is then preloaded. Without `durable` the server does not wait for the disk.
        `template` is a data directory fresh from initdb, of the same PostgreSQL, to copy: copies are made much
        faster, and share their system identifier. If it is not there yet it is made.
        """
        cluster = cls._prepare(Installation.of(pg_config), extension, environment or {})
        try:
            if template is not None and template.exists():
                shutil.copytree(template, cluster.data)
                cluster.account.own(cluster.data)
            else:
                cluster._initialise(durable=durable)
            if template is not None and not template.exists():
                _keep_template(cluster.data, template)
            cluster._configure_defaults(durable=durable)
            cluster._configure_place()
            cluster.configure(settings or {})
        except BaseException:
            cluster.close()
            raise
        return cluster

    def _initialise(self, *, durable: bool) -> None:
        durability = () if durable else ("--no-sync",)
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        # fmt: off
        self._run(
            "initdb", "--pgdata", self.data, "--username", SUPERUSER, "--auth", "trust",
            "--encoding", "UTF8", "--locale", locale, *durability,
        )
        # fmt: on

    @classmethod
    def _prepare(cls, origin: Installation, extension: Path | None, environment: Mapping[str, str]) -> Self:
        """Make the directory, settle who runs the server and from where, and lay the extension beside it."""
        host = choose_host(origin)
        installation = origin
        by_path = origin.major >= CONTROL_PATH_MAJOR
        directory = _make_directory()
        try:
            if host.copy or (extension is not None and not by_path):
                installation = _replicate(origin, directory / "postgresql", full=host.copy)
            if extension is not None and by_path:
                shutil.copytree(extension, directory / "extension")
            elif extension is not None:
                _overlay(extension, installation)
            host.account.own(directory)
            if host.copy and not host.account.can_run(installation):
                raise ClusterError(
                    f'could not run PostgreSQL "{origin.bindir}" as an ordinary user, not even from a copy',
                    "Run this as an ordinary user, or put PostgreSQL where every user can read it.",
                )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return cls(origin, installation, directory, host.account, extension, environment)

    def _configure_place(self) -> None:
        """Write the settings that depend on where the cluster is."""
        settings: dict[str, Setting] = {"unix_socket_directories": str(self.directory)}
        if self.extension is not None and self.major >= CONTROL_PATH_MAJOR:
            # Ours first: a copy that happens to be installed must not be what is tried.
            settings["extension_control_path"] = f"{self.directory}/extension/share:$system"
            settings["dynamic_library_path"] = f"{self.directory}/extension/lib:$libdir"
        self.configure(settings)

    def _configure_defaults(self, *, durable: bool) -> None:
        settings: dict[str, Setting] = {
            "listen_addresses": "",
            "port": PORT,
            "jit": False,  # a private prefix may come without LLVM, and then expensive queries fail
            "fsync": durable,
            "full_page_writes": durable,
            "shared_buffers": "32MB",
            "max_worker_processes": 48,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_messages": "info",
            "log_line_prefix": "%m [%p] %b: ",
        }
        if self.extension is not None:
            settings["shared_preload_libraries"] = EXTENSION
        self.configure(settings)

    # What it is.

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log_file(self) -> Path:
        return self.directory / "log"

    @property
    def version(self) -> str:
        return self.installation.version

    @property
    def major(self) -> int:
        return self.installation.major

    @property
    def pid(self) -> int | None:
        """The postmaster, while it runs."""
        if self._postmaster is None or self._postmaster.poll() is not None:
            return None
        return self._postmaster.pid

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        return psycopg.conninfo.make_conninfo(host=str(self.directory), port=PORT, user=user, dbname=database)

    def log(self) -> str:
        """Everything the server has logged so far."""
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # What it is told.

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Append settings to postgresql.conf: they count from the next start, or from reload() where that suffices."""
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.writelines(f"{name} = {_quote(value)}\n" for name, value in settings.items())

    def reload(self) -> None:
        self._signal(signal.SIGHUP)

    def start(self, *, wait: bool = True) -> None:
        """Start the server and wait until it answers."""
        if self.pid is not None:
            return
        with open(self.log_file, "ab") as log:
            # A session of its own: Ctrl-C in a terminal is for us, and we decide how the server ends.
            self._postmaster = subprocess.Popen(
                self.account.command(*self._server_command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
                **self.account.process_options(),
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, timeout: float = START_TIMEOUT_S) -> None:
        """Return when a query is answered; raise when the server has ended or is silent for too long."""
        reason = ""

        def answers() -> bool:
            nonlocal reason
            if self.pid is None:
                raise ClusterError("could not start PostgreSQL", _last_lines(self.log()))
            try:
                self.sql("SELECT 1")
            except psycopg.OperationalError as exc:
                reason = str(exc).strip().splitlines()[0]
                return False
            return True

        if not _poll(answers, timeout):
            raise ClusterError(f"PostgreSQL did not answer within {timeout:g} s: {reason}", _last_lines(self.log()))

    def stop(self, mode: StopMode = "fast", timeout: float = STOP_TIMEOUT_S) -> None:
        """Stop the server and wait for its end. Stopping a stopped one is nothing."""
        if self._postmaster is None:
            return
        if self.pid is not None:
            self._signal(SHUTDOWN_SIGNALS[mode])
        try:
            self._postmaster.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise ClusterError(
                f"PostgreSQL did not stop within {timeout:g} s of a {mode} shutdown", _last_lines(self.log())
            ) from exc
        self._postmaster = None

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def crash(self) -> None:
        """End the server as a power cut would, as far as its data can tell: the next start recovers."""
        self.stop("immediate")

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one backend of this server, never to anybody else's process."""
        if pid not in self.children():
            raise ClusterError(f"process {pid} does not belong to this server")
        os.kill(pid, number)

    def kill_postmaster(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Kill the postmaster alone, and wait until its children have noticed."""
        orphans = self.children()
        self._signal(signal.SIGKILL)
        assert self._postmaster is not None
        self._postmaster.wait(timeout)
        self._postmaster = None
        if not _poll(lambda: not _alive(orphans), timeout):
            raise ClusterError(f"processes {_alive(orphans)} outlived their postmaster by {timeout:g} s")

    def children(self) -> list[int]:
        """The processes of this server other than the postmaster."""
        if self.pid is None:
            return []
        return [process.pid for process in _processes() if process.parent == self.pid]

    def promote(self, timeout: float = START_TIMEOUT_S) -> None:
        """Make a standby the primary, and wait until it takes writes."""
        self._run("pg_ctl", "promote", "--pgdata", self.data, "--wait", "--timeout", str(int(timeout)))
        if not _poll(lambda: self.sql("SELECT NOT pg_is_in_recovery()") == [(True,)], timeout):
            raise ClusterError(f"the standby was not promoted within {timeout:g} s", _last_lines(self.log()))

    def standby(self, settings: Mapping[str, Setting] | None = None) -> Self:
        """Make a streaming standby of this running primary, configured but not started."""
        twin = self._prepare(self.origin, self.extension, self.environment)
        try:
            # fmt: off
            twin._run(
                "pg_basebackup", "--pgdata", twin.data, "--dbname", self.dsn(), "--write-recovery-conf",
                "--checkpoint", "fast", "--no-sync",
            )
            # fmt: on
            twin._configure_place()
            twin.configure(settings or {})
        except BaseException:
            twin.close()
            raise
        return twin

    # What it is asked.

    def connect(
        self, database: str = "postgres", user: str = SUPERUSER, *, autocommit: bool = True
    ) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn(database, user), autocommit=autocommit, connect_timeout=10)

    def sql(
        self, statement: str, parameters: Sequence[Any] | None = None, *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own; the rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def create_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    # How it ends.

    def close(self) -> None:
        """Stop the server and remove everything it left. Closing twice is nothing."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How programs are run.

    def _server_command(self) -> list[str | os.PathLike[str]]:
        return [self.installation.bindir / "postgres", "-D", self.data]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8" if sys.platform == "linux" else "C",
            "TZ": "UTC",
            **self.environment,
        }

    def _run(self, name: str, *arguments: str | os.PathLike[str]) -> None:
        done = subprocess.run(
            self.account.command(self.installation.bindir / name, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self.directory,
            env=self._environment(),
            **self.account.process_options(),
        )
        if done.returncode != 0:
            raise ClusterError(f"could not run {name}: exit code {done.returncode}", _last_lines(done.stdout))

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise ClusterError("the server is not running")
        os.kill(self.pid, number)


# --- small help --------------------------------------------------------------------------------


def _make_directory() -> Path:
    """A new private directory whose name leaves room for the socket's."""
    base = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()
    directory = Path(tempfile.mkdtemp(prefix="clockwork-", dir=base))
    check_socket_path(directory)
    return directory


def _keep_template(data: Path, template: Path) -> None:
    """Copy a data directory for later clusters; another process may be first, and its copy is as good."""
    copy = Path(tempfile.mkdtemp(prefix=f"{template.name}-", dir=template.parent)) / "data"
    shutil.copytree(data, copy)
    with contextlib.suppress(OSError):
        copy.rename(template)
    shutil.rmtree(copy.parent)


def check_socket_path(directory: Path) -> None:
    """Raise when a server could not make its socket in the directory."""
    path = directory / f".s.PGSQL.{PORT}"
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise ClusterError(
            f'could not use "{path}" as a socket: its path has {length} bytes, {SOCKET_PATH_BYTES} are possible',
            "Set TMPDIR to a shorter directory.",
        )


def _quote(value: Setting) -> str:
    """A value as postgresql.conf wants it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value).replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"


def _last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.rstrip().splitlines()[-count:])


def _poll(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    state: str


def _processes() -> Iterator[_Process]:
    """Every process of this machine, those that end while we look left out."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,state="], check=True, capture_output=True, text=True)
        for line in listing.stdout.splitlines():
            pid, parent, state = line.split()
            yield _Process(int(pid), int(parent), state[:1])
        return
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The command name, in parentheses, may itself hold spaces and parentheses.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            yield _Process(int(entry.name), int(parent), state)


def _alive(pids: Sequence[int]) -> list[int]:
    return [process.pid for process in _processes() if process.pid in pids and process.state != "Z"]
