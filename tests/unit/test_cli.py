"""The command line: exit codes, what goes to which stream, and a demo that leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import pytest

from scheduler import __version__, cli
from scheduler.cluster import Cluster
from scheduler.demo import JOBS, RunRow
from scheduler.packaging import source_root
from tests.support.targets import Target
from tests.support.waiting import wait_until

DEMO_TIMEOUT_S = 120


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, from elsewhere."""
    return subprocess.run(
        [sys.executable, "-m", "scheduler", *arguments],
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(source_root()), **environment},
    )


# Exit codes and streams.


def test_the_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"clockwork, version {__version__}\n"


def test_without_a_command_it_explains_itself() -> None:
    done = run()
    assert done.returncode == 2
    assert "demo" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("next",), 2, "Missing argument 'EXPRESSION'"),
        (("next", "* * * * *", "-n", "0"), 2, "0 is not in the range"),
        (("next", "* * * * *", "--after", "soon"), 2, '"soon" is not an instant'),
        (("next", "61 * * * *"), 1, "error: invalid schedule: 61 * * * *"),
        (("next", "* * * * *", "--tz", "Mars/Olympus"), 1, 'error: time zone "Mars/Olympus" not recognized'),
        (("explain", "soon"), 1, "error: invalid schedule: soon"),
        (("install", "--pg-config", "/nowhere/pg_config"), 1, 'error: could not run pg_config "/nowhere/pg_config"'),
        (("demo", "--pg-config", "/nowhere/pg_config"), 1, 'error: could not run pg_config "/nowhere/pg_config"'),
        (("demo", "--seconds", "-1"), 2, "-1.0 is not in the range"),
    ],
)
def test_what_cannot_be_done_is_said_on_standard_error(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_error_is_one_line_where_it_is_not_read_on_a_terminal() -> None:
    text = "61 * * * * " + "x" * 200
    first = run("next", text).stderr.splitlines()[0]
    assert first == f"error: invalid schedule: {text}"


def test_a_hint_follows_its_error_on_a_line_of_its_own() -> None:
    lines = run("next", "* * * * *", "--tz", "Mars/Olympus").stderr.splitlines()
    assert lines == ['error: time zone "Mars/Olympus" not recognized', "  Use an IANA name such as Europe/Berlin."]


def test_no_colour_is_no_colour() -> None:
    assert "\x1b[3" not in run("next", "soon", NO_COLOR="1", FORCE_COLOR="1").stderr
    assert "\x1b[3" in run("next", "soon", FORCE_COLOR="1", NO_COLOR="").stderr


def test_square_brackets_in_messages_are_kept() -> None:
    assert "invalid schedule: [red]x" in run("next", "[red]x").stderr


# Schedules.


def test_next_prints_instants_in_the_zone() -> None:
    done = run("next", "30 2 * * *", "--tz", "Europe/Berlin", "-n", "2", "--after", "2030-07-01T00:00+00:00")
    assert done.stdout.splitlines() == ["2030-07-01 02:30:00+02:00", "2030-07-02 02:30:00+02:00"]


def test_an_instant_without_an_offset_is_meant_in_the_zone() -> None:
    done = run("next", "0 * * * *", "--tz", "Europe/Berlin", "-n", "1", "--after", "2030-07-01T00:30")
    assert done.stdout == "2030-07-01 01:00:00+02:00\n"


def test_next_as_json_is_json() -> None:
    done = run("next", "0 3 * * *", "--json", "-n", "1", "--after", "2030-01-01T00:00+00:00")
    assert json.loads(done.stdout) == {
        "schedule": "0 3 * * *",
        "timezone": "UTC",
        "next": ["2030-01-01T03:00:00+00:00"],
    }


def test_a_schedule_that_is_never_due_prints_nothing_and_says_why() -> None:
    done = run("next", "0 0 30 2 *")
    assert (done.returncode, done.stdout) == (0, "")
    assert "has day 30 in February" in done.stderr


def test_explain_has_words_and_both_clocks() -> None:
    done = run("explain", "0 3 * * *", "--tz", "Asia/Tokyo", "-n", "2", "--after", "2030-01-01T00:00+00:00")
    assert done.stdout.splitlines() == [
        "Schedule: 0 3 * * *",
        "Meaning: At 03:00 every day.",
        "Next due times in Asia/Tokyo:",
        "  2030-01-02 03:00:00 +09:00 = 2030-01-01 18:00:00 UTC",
        "  2030-01-03 03:00:00 +09:00 = 2030-01-02 18:00:00 UTC",
    ]


def test_an_interval_is_counted_from_the_moment_asked_about() -> None:
    done = run("next", "@every 90 minutes", "-n", "2", "--after", "2030-01-01T00:10+00:00")
    assert done.stdout.splitlines() == ["2030-01-01 01:40:00+00:00", "2030-01-01 03:10:00+00:00"]


def test_explain_knows_what_a_job_waits_for() -> None:
    done = run("explain", '@after "load", "clean" finished')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        'Schedule: @after "load", "clean" finished',
        'Meaning: After "load" succeeds and "clean" finishes, all for the same due time.',
        "Due when those runs have ended, with their due time, never by the clock.",
    ]
    refused = run("explain", "@after load")
    assert refused.returncode != 0
    assert "Character 8: a job's name must stand in double quotes." in refused.stderr


def test_h_is_that_of_the_job_s_name() -> None:
    for name, minute in (("", 25), ("nightly", 1)):
        arguments = ("H * * * 1-5", "--job-name", name, "--after", "2030-01-01T00:59+00:00", "-n", "1")
        assert run("next", *arguments).stdout == f"2030-01-01 01:{minute:02}:00+00:00\n"
        assert run("explain", *arguments).stdout.splitlines() == [
            f"Schedule: {minute} * * * 1-5",
            f"Meaning: At minute {minute} of every hour, on Monday through Friday.",
            "What stands for H depends on the job's name.",
            "Next due times in UTC:",
            f"  2030-01-01 01:{minute:02}:00 +00:00 = 2030-01-01 01:{minute:02}:00 UTC",
        ]


def test_what_holds_for_h_is_not_said_of_other_letters() -> None:
    for text in ("0 0 * * THU", "0 0 * MAR 4", "@hourly", '@after "H"'):
        assert "depends on the job's name" not in run("explain", text).stdout


def test_no_due_times_asked_for_is_not_never() -> None:
    at = ("--after", "2030-01-01T00:00+00:00")
    assert run("explain", "0 3 * * *", "-n", "0", *at).stdout.splitlines() == [
        "Schedule: 0 3 * * *",
        "Meaning: At 03:00 every day.",
    ]
    assert "Never due again." in run("explain", "@at 2029-01-01", "-n", "0", *at).stdout


def test_explain_as_json_says_the_same() -> None:
    facts = json.loads(run("explain", "@daily", "--json").stdout)
    assert facts["normalised"] == "0 0 * * *"
    assert facts["kind"] == "calendar"
    assert len(facts["next"]) == 5


# The demo.


@pytest.fixture(scope="module")
def pg_config(target: Target) -> str:
    if target.pg_config is None:
        pytest.skip("needs a PostgreSQL on this machine")
    return str(target.pg_config)


def demo_directory(text: str) -> Path:
    """Where the demo's server is, from the line that says how to reach it."""
    (line,) = [line for line in text.splitlines() if " -h /" in line]
    return Path(line.split(" -h ")[1].split()[0])


def test_a_demo_shows_the_history_of_its_jobs_and_leaves_nothing(pg_config: str) -> None:
    done = run("demo", "--pg-config", pg_config, "--seconds", "7")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split()[:4] == ["run", "job", "database", "status"]
    assert "\x1b" not in done.stdout
    assert [line for line in lines if "heartbeat" in line and "succeeded" in line]
    assert [line for line in lines if "count sessions" in line and "reports" in line and "succeeded" in line]
    assert [line for line in lines if "always fails" in line and "failed" in line and "division by zero" in line]
    assert not demo_directory(done.stderr).exists()


def test_each_run_of_a_demo_is_printed_once(pg_config: str) -> None:
    done = run("demo", "--pg-config", pg_config, "--seconds", "5")
    runids = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert runids
    assert len(runids) == len(set(runids))


def test_a_run_that_outlasts_others_is_printed_once_and_so_are_they(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(runid: int, status: str) -> RunRow:
        return RunRow(runid, f"job{runid}", "postgres", status, None, None, "")

    # The first run is still running when the second has ended, and a third comes when both have.
    history = [
        [row(1, "running"), row(2, "succeeded")],
        [row(1, "running"), row(2, "succeeded")],
        [row(1, "failed"), row(2, "succeeded")],
        [row(1, "failed"), row(2, "succeeded"), row(3, "succeeded")],
    ]
    looks = iter(history)

    def read(cluster: Cluster, *, after: int = 0) -> list[RunRow]:
        rows = next(looks, None)
        if rows is None:
            raise KeyboardInterrupt
        return [one for one in rows if one.runid > after]

    monkeypatch.setattr(cli, "read_history", read)
    monkeypatch.setattr(cli, "REFRESH_S", 0)
    with pytest.raises(KeyboardInterrupt):
        cli._watch_lines(cast("Cluster", None), None)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [(line.split()[0], line.split()[3]) for line in lines] == [
        ("2", "succeeded"),
        ("1", "failed"),
        ("3", "succeeded"),
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_demo_and_leaves_nothing(
    pg_config: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    said = tmp_path / "stderr"
    with open(said, "w") as stderr:
        demo = subprocess.Popen(
            [sys.executable, "-m", "scheduler", "demo", "--pg-config", pg_config],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": str(source_root())},
        )
    try:
        wait_until(lambda: "as it arrives" in said.read_text(), timeout=DEMO_TIMEOUT_S, message="the demo to run")
        directory = demo_directory(said.read_text())
        assert directory.exists()
        demo.send_signal(number)
        assert demo.wait(30) == code
    finally:
        demo.kill()
        demo.wait()
    assert not directory.exists()


def test_a_demo_that_is_kept_says_where(pg_config: str) -> None:
    done = run("demo", "--pg-config", pg_config, "--seconds", "0", "--keep")
    directory = demo_directory(done.stderr)
    try:
        assert f"kept: {directory}" in done.stderr
        assert (directory / "data" / "PG_VERSION").exists()
        assert not (directory / "data" / "postmaster.pid").exists()
    finally:
        shutil.rmtree(directory)


# What the simulator says.


def test_a_simulation_prints_what_happened() -> None:
    done = run("simulate", "--worlds", "2", "--days", "2", "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert (facts["worlds"], facts["violations"]) == (2, [])
    assert facts["due times"] >= facts["records"]["succeeded"] > 0
    assert run("simulate", "--worlds", "2", "--days", "2").stdout.splitlines()[-1].split() == ["violations", "0"]


def test_a_simulation_that_finds_something_says_in_which_world(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scheduler.worlds.check", lambda world: ["something is wrong"])
    with pytest.raises(SystemExit) as left:
        cli.main(["simulate", "--worlds", "1", "--days", "2", "--first", "7"])
    assert left.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "  world 7: something is wrong"


def test_the_demo_has_a_job_in_another_database_and_one_that_fails() -> None:
    assert len(JOBS) == 4
    assert any(job.database for job in JOBS)
    assert {"1 second", "* * * * *"} <= {job.schedule for job in JOBS}


# What the table shows.

START = datetime(2030, 1, 1, 3, 0, 0, 5_000, tzinfo=timezone.utc)


def test_a_finished_run_has_a_duration_and_a_one_line_message() -> None:
    row = RunRow(7, "nightly", "postgres", "failed", START, START + timedelta(milliseconds=2.5), "ERROR: no\nHINT: yes")
    assert cli._cells(row) == ("7", "nightly", "postgres", "failed", "03:00:00.005", "2.5 ms", "ERROR: no HINT: yes")
    assert row.finished


@pytest.mark.parametrize("status", ["queued", "starting", "running"])
def test_an_unfinished_run_has_no_duration(status: str) -> None:
    row = RunRow(7, "nightly", "postgres", status, None, None, "")
    assert cli._cells(row) == ("7", "nightly", "postgres", status, "", "", "")
    assert not row.finished
