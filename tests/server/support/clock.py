"""A server whose clock the test sets, forward and back, as often as it likes.

A small library, compiled here and preloaded into that one server, adds what the test says to every reading of the
clock. The product is untouched: it reads the time as it always does.
"""

from __future__ import annotations

import contextlib
import mmap
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler.cluster import Setting
from tests.server.support.jobs import Connection, launcher_pid
from tests.support.servers import LocalServer

SOURCE = Path(__file__).with_name("shifted_clock.c")
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# From here on the server may read the processor's own counter, which cannot be shifted.
COUNTER_MAJOR = 19


class Clock:
    """What is added to the wall clock and to the monotonic clock of a server, and the moment at which both stop."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shift"
        self.path.write_bytes(bytes(24))
        self.path.chmod(0o644)
        with open(self.path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 24)
        self._wall = self._monotonic = timedelta()
        self._stop: datetime | None = None

    def now(self) -> datetime:
        """What the server's wall clock shows."""
        now = datetime.now(UTC) + self._wall
        return now if self._stop is None else min(now, self._stop)

    def set(self, by: timedelta) -> None:
        """Set the wall clock, as an administrator would: time itself does not pass."""
        self._write(self._wall + by, self._monotonic)

    def pass_until(self, moment: datetime) -> None:
        """Let the time pass in an instant, on both clocks."""
        by = moment - self.now()
        self._write(self._wall + by, self._monotonic + by)

    def stop_at(self, moment: datetime) -> None:
        """No time passes for the server from that moment on, until `go_on`."""
        self._stop = moment
        self._write(self._wall, self._monotonic)

    def go_on(self) -> None:
        """The time that did not pass meanwhile passes in an instant."""
        self._stop = None
        self._write(self._wall, self._monotonic)

    def _write(self, wall: timedelta, monotonic: timedelta) -> None:
        self._wall, self._monotonic = wall, monotonic
        stop = 0 if self._stop is None else (self._stop - EPOCH) // MICROSECOND
        self._shared[:] = struct.pack("=qqq", wall // MICROSECOND, monotonic // MICROSECOND, stop)


def wake(server: LocalServer, conn: Connection) -> None:
    """Let the launcher look at its clock, which it does by itself every half minute."""
    pid = launcher_pid(conn)
    if pid is not None:
        server.kill(pid, signal.SIGUSR1)


@contextlib.contextmanager
def clocked_server(
    pg_config: Path, extension: Path, settings: Mapping[str, Setting] | None = None, *, start: datetime | None = None
) -> Iterator[tuple[LocalServer, Clock]]:
    """A private server with the extension created, and its clock, set to `start` before anything else."""
    folder = Path(tempfile.mkdtemp(prefix="clockwork-clock-"))
    folder.chmod(0o755)
    try:
        library = folder / "shifted_clock.so"
        subprocess.run(["gcc", "-O2", "-fPIC", "-shared", "-o", library, SOURCE], check=True)
        clock = Clock(folder)
        if start is not None:
            clock.set(start - clock.now())
        environment = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(clock.path)}
        server = LocalServer.create(pg_config, extension=extension, settings=settings, environment=environment)
        try:
            if server.major >= COUNTER_MAJOR:
                server.configure({"timing_clock_source": "system"})
            server.start()
            with server.connect() as conn:
                conn.execute("CREATE EXTENSION pg_clockwork")
            yield server, clock
        finally:
            server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
