"""Building the extension: what is staged, what is left alone, and what is said when something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import packaging
from scheduler.errors import PackagingError
from tests.support.samples import write_sample
from tests.support.targets import Target


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources of a tiny extension in the place of ours."""
    root = write_sample(tmp_path / "sources")
    monkeypatch.setattr(packaging, "source_root", lambda: root)
    return root


@pytest.fixture
def pg_config(target: Target) -> Path:
    if target.pg_config is None:
        pytest.skip("needs a PostgreSQL on this machine")
    return target.pg_config


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def write_pg_config(path: Path, *, pgxs: Path, includes: Path, version: str = "15.3") -> Path:
    """A pg_config that answers what we say."""
    return write_program(
        path,
        f"""#!/bin/sh
case $1 in
--pgxs) echo {pgxs} ;;
--includedir-server) echo {includes} ;;
--version) echo PostgreSQL {version} ;;
esac
""",
    )


# What is built.


def test_a_staged_extension_has_the_form_that_a_server_looks_for(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    staged = packaging.stage(pg_config, tmp_path / "staged")
    library = "pg_clockwork.dylib" if (staged / "lib" / "pg_clockwork.dylib").exists() else "pg_clockwork.so"
    assert tree(staged) == {
        "lib",
        f"lib/{library}",
        "share",
        "share/extension",
        "share/extension/pg_clockwork.control",
        "share/extension/pg_clockwork--0.1.0.sql",
    }


def test_building_leaves_the_sources_as_they_were(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    before = tree(sample)
    packaging.stage(pg_config, tmp_path / "staged")
    assert tree(sample) == before


def test_a_read_only_checkout_can_be_built(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    for path in [sample, *sample.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert (packaging.stage(pg_config, tmp_path / "staged") / "lib").is_dir()
    finally:
        for path in [sample, *sample.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


def test_what_an_earlier_build_left_in_the_sources_is_not_used(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    (sample / "native" / "pg_clockwork.o").write_text("of another major")
    assert (packaging.stage(pg_config, tmp_path / "staged") / "lib").is_dir()


def test_destdir_is_obeyed(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    packaging.build_and_install(pg_config, tmp_path / "packaged")
    assert len(list((tmp_path / "packaged").rglob("pg_clockwork.control"))) == 1


@pytest.mark.parametrize("name", ["two words", "it's", "a;b", "$HOME", "(1)", "a\\b"])
def test_a_path_that_make_cannot_work_with_is_named(sample: Path, pg_config: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackagingError, match=re.escape(f'make cannot work with the path "{tmp_path / name}"')):
        packaging.build_and_install(pg_config, tmp_path / name)


def test_the_flags_of_a_calling_make_do_not_reach_ours(
    sample: Path, pg_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEFLAGS", "--dry-run")
    assert (packaging.stage(pg_config, tmp_path / "staged") / "lib").is_dir()


def test_a_checkout_has_all_sources() -> None:
    root = packaging.source_root()
    assert all((root / name).exists() for name in packaging.SOURCES)


# What is said.


def test_a_compiler_error_is_shown(sample: Path, pg_config: Path, tmp_path: Path) -> None:
    (sample / "native" / "pg_clockwork.c").write_text("#error this will not do\n")
    with pytest.raises(PackagingError, match="make ended with exit code 2") as caught:
        packaging.stage(pg_config, tmp_path / "staged")
    assert "this will not do" in caught.value.hint


def test_a_missing_pg_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match=r'could not run pg_config ".*nowhere": no such program'):
        packaging.build_and_install(tmp_path / "nowhere")


def test_a_pg_config_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = write_program(tmp_path / "pg_config", "#!/bin/sh\nexit 3\n")
    with pytest.raises(PackagingError, match=r'could not run pg_config ".*": .*exit status 3'):
        packaging.build_and_install(broken)


@pytest.mark.parametrize(
    ("present", "missing"), [((), "make and gcc"), (("make",), "gcc"), (("gcc",), "make"), (("cc",), "make")]
)
def test_missing_tools_come_with_the_line_to_paste(
    present: tuple[str, ...], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in present:
        write_program(tmp_path / "bin" / name, "#!/bin/sh\n")
    pg_config = write_pg_config(tmp_path / "bin" / "pg_config", pgxs=tmp_path, includes=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(PackagingError, match=f"could not build the extension: {missing} not found") as caught:
        packaging.build_and_install(pg_config)
    assert "apt-get install -y gcc make" in caught.value.hint


def test_missing_headers_come_with_the_package_of_that_major(tmp_path: Path) -> None:
    pg_config = write_pg_config(tmp_path / "pg_config", pgxs=tmp_path / "no.mk", includes=tmp_path, version="17.2")
    with pytest.raises(PackagingError, match="its server headers are not installed") as caught:
        packaging.build_and_install(pg_config)
    assert "apt-get install -y postgresql-server-dev-17." in caught.value.hint


def test_an_embedded_major_that_does_not_exist_is_refused_with_the_way_out() -> None:
    with pytest.raises(PackagingError, match="could not find an embedded PostgreSQL 12") as caught:
        packaging.find_embedded(12)
    assert "pg-clockwork[embedded]" in caught.value.hint


def test_finding_the_embedded_one_does_not_import_its_package() -> None:
    code = "import sys; from scheduler.packaging import *; find_embedded(); print(CARRIER in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(packaging.source_root())},
    )
    if "could not find an embedded PostgreSQL" in done.stderr:
        pytest.skip("the extra [embedded] is not installed")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_installation_of_somebody_else_is_refused_with_the_way_out(
    sample: Path, pg_config: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(PackagingError) as caught:
        packaging.build_and_install(pg_config, locked)
    assert "give --destdir" in caught.value.hint
    shutil.rmtree(locked)
