"""What every test may use: see tests/support/plugin.py."""

from __future__ import annotations

pytest_plugins = ["tests.support.plugin"]
