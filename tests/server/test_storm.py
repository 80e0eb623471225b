"""A randomized storm of faults, and a checker over everything that was recorded meanwhile.

Short and with fixed seeds by default. Longer, or with other seeds:

    STORM_SEEDS=7,8,9 STORM_SECONDS=600 .venv/bin/python -m pytest tests/server/test_storm.py -s
"""

from __future__ import annotations

import os

import pytest

from tests.server.support.storm import SETTINGS, Storm
from tests.support.servers import LocalServer

SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1").split(",")]
SECONDS = float(os.environ.get("STORM_SECONDS", "0"))


@pytest.mark.local_only
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.settings(SETTINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_guarantee_breaks_in_a_storm_of_faults(fresh_server: LocalServer, seed: int) -> None:
    storm = Storm(fresh_server, seed)
    storm.run(SECONDS)
    print(storm.statistics)
    assert storm.violations == [], "\n".join([storm.statistics, *storm.violations[:40]])
