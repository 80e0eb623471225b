"""A private PostgreSQL: where it lives, how it is told things, how it ends, and whose processes it leaves alone."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler import cluster as cluster_module
from scheduler import packaging
from scheduler.cluster import Account, Cluster, Host, Installation, check_socket_path, choose_host
from scheduler.errors import ClusterError
from tests.support.samples import write_sample
from tests.support.targets import Target
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def pg_config(target: Target) -> Path:
    if target.pg_config is None:
        pytest.skip("needs a PostgreSQL on this machine")
    return target.pg_config


@pytest.fixture(scope="module")
def cluster(pg_config: Path) -> Iterator[Cluster]:
    """A running cluster that the tests of this file leave running."""
    with Cluster.create(pg_config) as running:
        running.start()
        yield running


@pytest.fixture(scope="module")
def sample(pg_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged files of a tiny extension."""
    root = write_sample(tmp_path_factory.mktemp("sample") / "sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaging, "source_root", lambda: root)
        return packaging.stage(pg_config, root.parent / "staged")


def is_alive(pid: int) -> bool:
    return pid in {process.pid for process in cluster_module._processes() if process.state != "Z"}


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


# Where it lives.


def test_it_listens_on_a_unix_socket_only(cluster: Cluster) -> None:
    assert cluster.sql("SHOW listen_addresses") == [("",)]
    assert cluster.sql("SELECT inet_server_addr()") == [(None,)]


def test_only_its_owner_can_enter_its_directory(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.directory.stat().st_mode) == 0o700


def test_it_speaks_utf8_and_utc(cluster: Cluster) -> None:
    assert cluster.sql("SELECT current_setting('server_encoding'), current_setting('TimeZone')") == [("UTF8", "UTC")]


def test_two_live_side_by_side(cluster: Cluster, pg_config: Path) -> None:
    with Cluster.create(pg_config) as other:
        other.start()
        assert other.directory != cluster.directory
        assert other.sql("SHOW data_directory") != cluster.sql("SHOW data_directory")


def test_a_socket_path_of_107_bytes_is_accepted_and_one_more_is_not() -> None:
    longest = Path("/" + "x" * (107 - len("/" + "/.s.PGSQL.5432")))
    check_socket_path(longest)
    with pytest.raises(ClusterError, match="its path has 108 bytes, 107 are possible") as caught:
        check_socket_path(longest.with_name(longest.name + "x"))
    assert "TMPDIR" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step aside")
def test_as_root_the_server_sees_another_user(cluster: Cluster) -> None:
    assert cluster.account != Account()


# What it is told.


@pytest.mark.parametrize("value", ["plain", "it's", r"back\slash", r"\'both\'", "", "#not a comment"])
def test_a_setting_arrives_as_it_was_given(cluster: Cluster, value: str) -> None:
    cluster.configure({"cluster.test": value})
    cluster.reload()
    wait_until(lambda: cluster.sql("SHOW cluster.test") == [(value,)], message=f"the setting {value!r}")


def test_numbers_and_truths_are_settings(pg_config: Path) -> None:
    with Cluster.create(pg_config, settings={"max_connections": 17, "autovacuum": False}) as told:
        told.start()
        assert told.sql("SELECT current_setting('max_connections'), current_setting('autovacuum')") == [("17", "off")]


def test_durability_is_a_choice(cluster: Cluster, pg_config: Path) -> None:
    assert cluster.sql("SHOW fsync") == [("off",)]
    with Cluster.create(pg_config, durable=True) as durable:
        assert "fsync = on" in (durable.data / "postgresql.conf").read_text()


def test_an_unusable_setting_is_reported_with_the_words_of_the_log(pg_config: Path) -> None:
    with Cluster.create(pg_config, settings={"shared_buffers": "much"}) as misconfigured:
        with pytest.raises(ClusterError, match="could not start PostgreSQL") as caught:
            misconfigured.start()
        assert 'invalid value for parameter "shared_buffers"' in caught.value.hint


def test_a_statement_without_rows_and_one_with_parameters(cluster: Cluster) -> None:
    assert cluster.sql("CREATE TABLE IF NOT EXISTS numbers (n int)") == []
    assert cluster.sql("SELECT %s::int + 1", (41,)) == [(42,)]


# How it ends, and comes back.


def test_closing_leaves_nothing(pg_config: Path) -> None:
    closing = Cluster.create(pg_config)
    closing.start()
    pids = [closing.pid, *closing.children()]
    closing.close()
    assert not closing.directory.exists()
    wait_until(lambda: not any(is_alive(pid) for pid in pids if pid), message="every process to end")
    closing.close()


def test_an_exception_inside_leaves_nothing(pg_config: Path) -> None:
    def start_and_fall() -> None:
        with Cluster.create(pg_config) as doomed:
            doomed.start()
            raise RuntimeError(str(doomed.directory))

    with pytest.raises(RuntimeError) as caught:
        start_and_fall()
    assert not Path(str(caught.value)).exists()


def test_a_failed_creation_leaves_nothing(pg_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    make = cluster_module._make_directory
    monkeypatch.setattr(cluster_module, "_make_directory", lambda: made.append(make()) or made[-1])
    monkeypatch.setattr(Cluster, "_run", lambda *arguments: (_ for _ in ()).throw(ClusterError("could not run initdb")))
    with pytest.raises(ClusterError, match="could not run initdb"):
        Cluster.create(pg_config)
    assert len(made) == 1
    assert not made[0].exists()


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_it_stops_and_starts_again(pg_config: Path, mode: cluster_module.StopMode) -> None:
    with Cluster.create(pg_config) as restarted:
        restarted.start()
        restarted.sql("CREATE TABLE kept AS SELECT 1 AS n")
        restarted.stop(mode)
        assert restarted.pid is None
        restarted.stop(mode)
        restarted.start()
        assert restarted.sql("SELECT n FROM kept") == [(1,)]


def test_a_crash_is_recovered_from(pg_config: Path) -> None:
    with Cluster.create(pg_config) as crashed:
        crashed.start()
        crashed.sql("CREATE TABLE kept AS SELECT 1 AS n")
        crashed.crash()
        crashed.start()
        assert crashed.sql("SELECT n FROM kept") == [(1,)]
        assert "was not properly shut down" in crashed.log()


def test_a_killed_postmaster_leaves_no_children_and_starts_again(pg_config: Path) -> None:
    with Cluster.create(pg_config) as killed:
        killed.start()
        children = killed.children()
        assert children
        killed.kill_postmaster()
        assert not any(map(is_alive, children))
        killed.start()
        assert killed.sql("SELECT 1") == [(1,)]


def test_a_killed_backend_is_noticed_by_the_server(cluster: Cluster) -> None:
    with cluster.connect() as victim:
        cluster.kill(victim.info.backend_pid)
        wait_until(lambda: "was terminated by signal 9" in cluster.log(), message="the crash to be logged")
    cluster.wait_until_ready()


def test_a_stranger_is_never_signalled(cluster: Cluster) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(ClusterError, match=f"process {stranger.pid} does not belong to this server"):
            cluster.kill(stranger.pid, signal.SIGTERM)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_standby_follows_and_is_promoted(pg_config: Path) -> None:
    with Cluster.create(pg_config) as primary:
        primary.start()
        primary.sql("CREATE TABLE kept AS SELECT 1 AS n")
        with primary.standby({"cluster.role": "second"}) as standby:
            standby.start()
            assert standby.sql("SELECT pg_is_in_recovery(), current_setting('cluster.role')") == [(True, "second")]
            primary.sql("INSERT INTO kept VALUES (2)")
            wait_until(lambda: standby.sql("SELECT count(*) FROM kept") == [(2,)], message="the standby to catch up")
            primary.close()
            standby.promote()
            standby.sql("INSERT INTO kept VALUES (3)")
            assert standby.sql("SELECT count(*) FROM kept") == [(3,)]


# The extension beside it.


def test_an_extension_is_found_without_touching_the_installation(pg_config: Path, sample: Path) -> None:
    installation = Installation.of(pg_config)
    before = snapshot(installation.pkglibdir) | snapshot(installation.sharedir)
    with Cluster.create(pg_config, extension=sample) as extended:
        extended.start()
        extended.sql("CREATE EXTENSION pg_clockwork")
        assert extended.sql("SELECT sample_two()") == [(2,)]
        assert extended.sql("SHOW shared_preload_libraries") == [("pg_clockwork",)]
    assert snapshot(installation.pkglibdir) | snapshot(installation.sharedir) == before


def test_what_is_tried_is_ours_even_where_another_is_installed(pg_config: Path, sample: Path, tmp_path: Path) -> None:
    installed = cluster_module._replicate(Installation.of(pg_config), tmp_path / "installed", full=True)
    (installed.pkglibdir / "pg_clockwork.so").write_text("not even a library")
    (installed.sharedir / "extension" / "pg_clockwork.control").write_text("default_version = '0.0.1'\n")
    with Cluster.create(installed.pg_config, extension=sample) as extended:
        extended.start()
        extended.sql("CREATE EXTENSION pg_clockwork")
        assert extended.sql("SELECT sample_two()") == [(2,)]


def test_a_standby_keeps_the_extension_after_its_primary_is_gone(pg_config: Path, sample: Path) -> None:
    with Cluster.create(pg_config, extension=sample) as primary:
        primary.start()
        primary.sql("CREATE EXTENSION pg_clockwork")
        with primary.standby() as standby:
            primary.close()
            standby.start()
            standby.promote()
            assert standby.sql("SELECT sample_two()") == [(2,)]


def test_a_replica_hides_an_installed_extension_of_the_same_name(pg_config: Path, sample: Path, tmp_path: Path) -> None:
    origin = cluster_module._replicate(Installation.of(pg_config), tmp_path / "origin", full=False)
    installed = origin.sharedir / "extension" / "pg_clockwork.control"
    installed.write_text("an older one")
    replica = cluster_module._replicate(origin, tmp_path / "replica", full=False)
    cluster_module._overlay(sample, replica)
    assert (replica.sharedir / "extension" / "pg_clockwork.control").read_text() != "an older one"
    assert installed.read_text() == "an older one"


def test_a_full_copy_runs_without_the_original(pg_config: Path, monkeypatch: pytest.MonkeyPatch, sample: Path) -> None:
    host = choose_host(Installation.of(pg_config))
    monkeypatch.setattr(cluster_module, "choose_host", lambda installation: Host(host.account, copy=True))
    with Cluster.create(pg_config, extension=sample) as copied:
        assert not [path for path in (copied.directory / "postgresql").rglob("*.so*") if path.is_symlink()]
        copied.start()
        copied.sql("CREATE EXTENSION pg_clockwork")
        assert copied.sql("SELECT sample_two()") == [(2,)]


# Installations.


def test_a_missing_pg_config_is_named() -> None:
    with pytest.raises(ClusterError, match='could not run pg_config "/nowhere/pg_config": no such program'):
        Installation.of("/nowhere/pg_config")


def test_an_answer_without_a_version_is_refused(tmp_path: Path) -> None:
    silent = tmp_path / "pg_config"
    silent.write_text("#!/bin/sh\necho 'BINDIR = /nowhere'\n")
    silent.chmod(0o755)
    with pytest.raises(ClusterError, match="'VERSION' is missing"):
        Installation.of(silent)


@pytest.mark.parametrize(("version", "major"), [("15.18", 15), ("18.4", 18), ("19rc1", 19), ("19devel", 19)])
def test_the_major_of_a_version(version: str, major: int) -> None:
    here = Path("/")
    assert Installation(here, version, here, here, here).major == major


def test_the_common_root_is_the_deepest_one() -> None:
    debian = Installation(
        pg_config=Path("/usr/lib/postgresql/15/bin/pg_config"),
        version="15.18",
        bindir=Path("/usr/lib/postgresql/15/bin"),
        pkglibdir=Path("/usr/lib/postgresql/15/lib"),
        sharedir=Path("/usr/share/postgresql/15"),
    )
    assert debian.root == Path("/usr")
    assert not debian.bundled_libraries.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="root has to play somebody else")
def test_a_plain_user_needs_no_other_account(pg_config: Path) -> None:
    assert choose_host(Installation.of(pg_config)).account != Account()
