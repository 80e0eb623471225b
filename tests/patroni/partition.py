"""Cut the primary of a Patroni cluster off the network, again and again, and check what the history says.

Two servers, each with its Patroni and in a network namespace of its own, and etcd in a third, which is also where
the cables meet. A round takes the cable of the primary out. In odd rounds Patroni is there to stop the primary; in
even ones it is killed first, so that for a while two primaries run jobs, each on a timeline of its own. Then the cable is put
back, and the round is over when the old primary follows the new one.

All the while the history is read on both servers, through their unix sockets, so that what a deposed primary ran is known
even after pg_rewind has taken it away. At the end the checker looks at all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from scheduler.cluster import Cluster, Installation
from scheduler.packaging import find_embedded, stage

T = TypeVar("T")

NETWORK = "10.77.0"
HUB = f"{NETWORK}.1"
OPEN = ("queued", "starting", "running")
START_TIMEOUT_S = 45.0
# The lock of a primary that cannot be reached lasts so long: Patroni's smallest.
TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 1, 3
TAKEOVER_TIMEOUT_S = 90.0
REJOIN_TIMEOUT_S = 90.0
# So long may records be open that nothing is wrong with: the longest job takes three seconds.
OPEN_AT_MOST_S = 10.0

JOBS = {
    "tick": ("1 second", "INSERT INTO public.effects DEFAULT VALUES"),
    "minutely": ("* * * * *", "SELECT 1"),
    "slow": ("5 seconds", "SELECT pg_sleep(3)"),
}


def run(*command: str | os.PathLike[str]) -> None:
    subprocess.run([os.fspath(word) for word in command], check=True, stdin=subprocess.DEVNULL)


def wait_for(condition: Callable[[], T], timeout: float, what: str, pause: float = 0.05) -> T:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
    return value


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S.%f}"[:12], text, flush=True)


# --- the network -------------------------------------------------------------------------------


class Net:
    """Namespaces on one switch. The cable of each can be taken out."""

    def __init__(self) -> None:
        self.tag = f"cw{os.getpid()}"
        self.spaces: list[str] = []
        self.hub = self._space("hub")
        self._in(self.hub, "ip", "link", "add", "switch", "type", "bridge")
        self._in(self.hub, "ip", "address", "add", f"{HUB}/24", "dev", "switch")
        self._in(self.hub, "ip", "link", "set", "switch", "up")

    def _space(self, name: str) -> str:
        space = f"{self.tag}-{name}"
        run("ip", "netns", "add", space)
        self.spaces.append(space)
        self._in(space, "ip", "link", "set", "lo", "up")
        return space

    def _in(self, space: str, *command: str) -> None:
        run("ip", "netns", "exec", space, *command)

    def plug(self, name: str, address: str) -> str:
        """A namespace with that address."""
        space = self._space(name)
        self._in(self.hub, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
        self._in(self.hub, "ip", "link", "set", name, "master", "switch", "up")
        self._in(space, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self._in(space, "ip", "link", "set", "eth0", "up")
        return space

    def cut(self, name: str) -> None:
        self._in(self.hub, "ip", "link", "set", name, "down")

    def heal(self, name: str) -> None:
        self._in(self.hub, "ip", "link", "set", name, "up")

    def close(self) -> None:
        for space in reversed(self.spaces):
            with suppress(subprocess.CalledProcessError):
                run("ip", "netns", "delete", space)


# --- the servers -------------------------------------------------------------------------------


@dataclass
class Node:
    """A server with its Patroni."""

    name: str
    address: str
    space: str
    place: Cluster
    patroni: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.place.directory / "patroni.log"

    def configure(self) -> None:
        settings: dict[str, Any] = {
            "shared_preload_libraries": "pg_clockwork",
            "max_worker_processes": 24,
            "wal_log_hints": "on",
            "wal_keep_size": "512MB",
            "fsync": "off",
            # pg_rewind's query is dear enough for JIT, whose library some installations have without LLVM.
            "jit": "off",
            "timezone": "UTC",
            "log_line_prefix": "%m [%p] %b: ",
        }
        place = {"unix_socket_directories": str(self.place.directory), "logging_collector": "off"}
        if self.place.installation is self.place.origin:
            place["extension_control_path"] = f"{self.place.directory}/extension/share:$system"
            place["dynamic_library_path"] = f"{self.place.directory}/extension/lib:$libdir"
        trusted = [
            "local all all trust",
            f"host all all {NETWORK}.0/24 trust",
            f"host replication all {NETWORK}.0/24 trust",
        ]
        user = {"username": "postgres", "password": "unused"}
        configuration = {
            "scope": "clockwork",
            "name": self.name,
            "restapi": {"listen": f"{self.address}:8008", "connect_address": f"{self.address}:8008"},
            "etcd3": {"hosts": [f"{HUB}:2379"]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_WAIT_S,
                    "retry_timeout": RETRY_TIMEOUT_S,
                    "postgresql": {"use_pg_rewind": True, "parameters": settings},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, {"auth": "trust"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{self.address}:5432",
                "connect_address": f"{self.address}:5432",
                "data_dir": str(self.place.data),
                "bin_dir": str(self.place.installation.bindir),
                "pgpass": str(self.place.directory / "pgpass"),
                "authentication": {"replication": user, "superuser": user, "rewind": user},
                "parameters": place,
                "pg_hba": trusted,
                "basebackup": ["no-sync", {"checkpoint": "fast"}],
            },
        }
        (self.place.directory / "patroni.yml").write_text(json.dumps(configuration))
        self.place.account.own(self.place.directory)

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                as_account(self.place, self.space, self.patroni, self.place.directory / "patroni.yml"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.place.directory,
                env=self.place._environment(),
                start_new_session=True,
            )

    def kill_patroni(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        dsn = psycopg.conninfo.make_conninfo(
            host=str(self.place.directory), port=5432, user="postgres", dbname="postgres"
        )
        return psycopg.connect(dsn, autocommit=True, connect_timeout=3)

    def ask(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows, or none while the server does not answer."""
        try:
            with self.connect() as connection:
                connection.execute("SET synchronous_commit = local; SET statement_timeout = '5s'")
                return connection.execute(statement.encode(), parameters or None).fetchall()
        except psycopg.Error:
            return []

    def is_primary(self) -> bool:
        return self.ask("SELECT pg_is_in_recovery()") == [(False,)]

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        # A server whose Patroni was killed goes on.
        with suppress(OSError, ValueError):
            os.kill(int((self.place.data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            wait_for(lambda: not (self.place.data / "postmaster.pid").exists(), 20, "the server to stop")
        self.place.close()


def as_account(place: Cluster, space: str, program: Path, *arguments: str | os.PathLike[str]) -> list[str]:
    """A program in a namespace, run as the account that runs servers."""
    command = ["ip", "netns", "exec", space]
    account = place.account
    if account.uid is not None:
        command += ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--"]
    return command + account.command(program, *arguments)


@contextmanager
def cluster(options: argparse.Namespace) -> Iterator[tuple[Net, list[Node]]]:
    """The network, etcd and both servers, the second of them streaming from the first."""
    net = Net()
    nodes: list[Node] = []
    etcd: subprocess.Popen[bytes] | None = None
    build = Path(tempfile.mkdtemp(prefix="clockwork-patroni-"))
    try:
        extension = stage(options.pg_config, build / "extension")
        for number in (1, 2):
            place = Cluster._prepare(Installation.of(options.pg_config), extension, {})
            address = f"{NETWORK}.{10 + number}"
            node = Node(f"n{number}", address, net.plug(f"n{number}", address), place, options.patroni)
            nodes.append(node)
            node.configure()
        url = f"http://{HUB}:2379"
        with open(build / "etcd.log", "wb") as log:
            # fmt: off
            etcd = subprocess.Popen(
                ["ip", "netns", "exec", net.hub, options.etcd, "--data-dir", build / "etcd", "--unsafe-no-fsync",
                 "--listen-client-urls", url, "--advertise-client-urls", url,
                 "--listen-peer-urls", f"http://{HUB}:2380", "--initial-advertise-peer-urls", f"http://{HUB}:2380",
                 "--initial-cluster", f"default=http://{HUB}:2380"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
            # fmt: on
        nodes[0].start()
        wait_for(nodes[0].is_primary, START_TIMEOUT_S, "the first primary")
        nodes[1].start()
        wait_for(lambda: follows(nodes[1], nodes[0]), START_TIMEOUT_S, "its standby")
        yield net, nodes
    except BaseException:
        for node in nodes:
            with suppress(OSError):
                lines = node.log.read_text(errors="replace").splitlines()
                print("\n".join([f"--- {node.name}", *lines[:40], "...", *lines[-60:]]))
        raise
    finally:
        for node in nodes:
            node.close()
        if etcd is not None:
            etcd.terminate()
            etcd.wait(20)
        net.close()
        shutil.rmtree(build, ignore_errors=True)


def follows(standby: Node, primary: Node) -> bool:
    return bool(
        standby.ask("SELECT 1 WHERE pg_is_in_recovery()")
        and primary.ask(
            "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = %s", standby.name
        )
    )


# --- the history -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A run record as one of the servers showed it."""

    runid: int
    job: str
    due: datetime
    attempt: int
    status: str
    reason: str | None
    timeline: int
    start: datetime | None
    end: datetime | None


RECORDS = """
    SELECT d.runid, j.jobname, d.due_time, d.attempt, d.status, d.reason, d.timeline, d.start_time, d.end_time
      FROM cron.job_run_details d JOIN cron.job j USING (jobid)
     WHERE d.due_time IS NOT NULL AND d.runid > %s ORDER BY d.due_time, d.runid
"""


def read(node: Node, after: int = 0) -> list[Record]:
    return [Record(*row) for row in node.ask(RECORDS, after)]


@dataclass
class Observer(threading.Thread):
    """Reads the history of all servers twice a second, and keeps every record it ever saw."""

    nodes: Sequence[Node]
    seen: dict[tuple[int, str, datetime, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    primaries: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        newest: dict[str, int] = {}
        while not self.done.wait(0.5):
            for node in self.nodes:
                # What is not final may still change, and a rewound server counts again.
                for record in read(node, max(0, newest.get(node.name, 0) - 200)):
                    newest[node.name] = record.runid
                    if record.status != "skipped":
                        self.seen[record.timeline, record.job, record.due, record.attempt].add(record.runid)
                if node.is_primary():
                    self.primaries[node.name].append(datetime.now(UTC))


def step_of(job: str) -> timedelta:
    return {"tick": timedelta(seconds=1), "minutely": timedelta(minutes=1), "slow": timedelta(seconds=5)}[job]


def check(observer: Observer, primary: Node) -> list[str]:
    """Everything that is wrong with the history, in words."""
    wrong = [
        f"{job}, due {due:%H:%M:%S}: runs {sorted(runids)} on timeline {timeline}"
        for (timeline, job, due, _), runids in observer.seen.items()
        if len(runids) > 1
    ]
    now = datetime.now(UTC)
    history = read(primary)
    current = max(record.timeline for record in history)
    for record in history:
        age = (now - (record.start or record.due)).total_seconds()
        if record.status in OPEN and (record.timeline < current or age > OPEN_AT_MOST_S):
            wrong.append(f"{record.job}, run {record.runid}: still {record.status} after {age:.0f} s")
        if record.status not in OPEN and record.end is None:
            wrong.append(f"{record.job}, run {record.runid}: {record.status} without an end")
        if record.status in ("failed", "skipped") and record.reason is None:
            wrong.append(f"{record.job}, run {record.runid}: {record.status} without a reason")
        if record.status == "failed" and record.reason not in ("failover", "terminated"):
            wrong.append(f"{record.job}, run {record.runid}: failed, {record.reason}")
    for job in JOBS:
        mine = [record for record in history if record.job == job]
        if len({record.due for record in mine}) != len(mine):
            wrong.append(f"{job}: two records for one due time")
        for earlier, later in pairwise(mine):
            if later.due - earlier.due != step_of(job) and later.reason != "missed":
                wrong.append(f"{job}: nothing says what became of {earlier.due:%H:%M:%S} to {later.due:%H:%M:%S}")
    # One statement sees one state: jobs go on meanwhile.
    ((effects, began, succeeded),) = primary.ask(
        "SELECT (SELECT count(*) FROM public.effects), count(*) FILTER (WHERE d.status <> 'skipped'),"
        " count(*) FILTER (WHERE d.status = 'succeeded')"
        " FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE j.jobname = 'tick'"
    )
    if not succeeded <= effects <= began:
        wrong.append(f"{effects} effects of {succeeded} successful and {began} begun runs")
    return wrong


# --- the rounds --------------------------------------------------------------------------------


def seconds(span: timedelta | float) -> str:
    return f"{span.total_seconds() if isinstance(span, timedelta) else span:.2f} s"


def play(number: int, net: Net, nodes: Sequence[Node], observer: Observer) -> dict[str, str]:
    """Cut, watch the promotion, heal, watch the old primary rejoin; the timings."""
    old = next(node for node in nodes if node.is_primary())
    new = next(node for node in nodes if node is not old)
    alone = number % 2 == 0
    # A second on which a run of each kind is under way.
    wait_for(lambda: old.ask("SELECT 1 FROM cron.job_run_details WHERE status = 'running'"), 20, "a run to cut")
    if alone:
        old.kill_patroni()
    cut = datetime.now(UTC)
    net.cut(old.name)
    say(f"round {number}: {old.name} is cut off{', its Patroni killed' if alone else ''}")
    wait_for(new.is_primary, TAKEOVER_TIMEOUT_S, "the promotion")
    promoted = datetime.now(UTC)
    ((after, first),) = wait_for(
        lambda: new.ask(
            "SELECT timeline, min(start_time) FROM cron.job_run_details WHERE status = 'succeeded' AND timeline ="
            " (SELECT max(timeline) FROM cron.job_run_details WHERE start_time > %s) AND start_time > %s"
            " GROUP BY 1 HAVING min(start_time) > %s",
            cut,
            cut,
            promoted - timedelta(seconds=1),
        ),
        30,
        "a run after the promotion",
    )
    say(f"round {number}: {new.name} promoted to timeline {after}")
    # A while in which both could run jobs.
    time.sleep(5)
    newest = observer.primaries[old.name][-1]
    last_alone = old.ask(
        "SELECT count(*) FROM cron.job_run_details WHERE timeline < %s AND due_time > %s", after, promoted
    )
    healed = time.monotonic()
    net.heal(old.name)
    if alone:
        old.start()
    wait_for(lambda: follows(old, new), REJOIN_TIMEOUT_S, "the old primary to rejoin")
    rejoined = time.monotonic() - healed
    ((last,),) = new.ask(
        "SELECT max(due_time) FROM cron.job_run_details d JOIN cron.job USING (jobid)"
        " WHERE jobname = 'tick' AND status = 'succeeded' AND timeline < %s",
        after,
    )
    launchers = old.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_clockwork%'")
    if launchers != [(0,)]:
        raise AssertionError(f"the old primary is not idle: {launchers}")
    ((closed,),) = new.ask(
        "SELECT count(*) FROM cron.job_run_details WHERE reason = 'failover' AND timeline < %s AND end_time > %s",
        after,
        cut,
    )
    return {
        "round": f"{number}{' (Patroni killed)' if alone else ''}",
        "cut to promotion": seconds(promoted - cut),
        "promotion to first run": seconds(first - promoted),
        "gap between runs": seconds(first - last),
        "old primary ran on for": seconds(max(timedelta(0), newest - cut)),
        "of that due after the promotion": str(last_alone[0][0]) if last_alone else "-",
        "records closed": str(closed),
        "heal to rejoined": seconds(rejoined),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pg-config", default=None, help="of the PostgreSQL to take (the one that came as a wheel)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--patroni", type=Path, required=True)
    parser.add_argument("--etcd", type=Path, required=True)
    options = parser.parse_args()
    options.pg_config = options.pg_config or find_embedded()
    # Whoever ends us wants everything gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    timings = []
    with cluster(options) as (net, nodes):
        first = nodes[0]
        with first.connect() as connection:
            connection.execute("CREATE EXTENSION pg_clockwork")
            connection.execute("CREATE TABLE public.effects (made timestamptz DEFAULT clock_timestamp())")
            for name, (schedule, command) in JOBS.items():
                connection.execute("SELECT cron.schedule(%s, %s, %s)", (name, schedule, command))
        observer = Observer(nodes)
        observer.start()
        for number in range(1, options.rounds + 1):
            timings.append(play(number, net, nodes, observer))
            say(", ".join(f"{name} {value}" for name, value in timings[-1].items()))
            time.sleep(10)
        observer.done.set()
        observer.join()
        primary = next(node for node in nodes if node.is_primary())
        wrong = check(observer, primary)
        history = read(primary)
        version = Installation.of(options.pg_config).version
    print(
        f"\nPostgreSQL {version}: {len(history)} records survive, {len(observer.seen)} runs were seen on all timelines"
    )
    for reason in sorted({record.reason for record in history if record.reason}):
        print(f"    {reason}: {sum(record.reason == reason for record in history)} records")
    for row in timings:
        print("    " + ", ".join(f"{name} {value}" for name, value in row.items()))
    print(f"violations: {len(wrong)}")
    for line in wrong:
        print(f"    {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
