"""Wait for a condition, and say what was waited for when it does not come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WAIT_TIMEOUT_S = 15.0
POLL_S = 0.05


def wait_until(predicate: Callable[[], T], timeout: float = WAIT_TIMEOUT_S, message: str = "") -> T:
    """Poll until the predicate is true, and return what it returned; fail when it does not come true in time.

    The message may be a plain sentence; the last value seen is added to it. CLOCKWORK_PATIENCE multiplies every
    timeout, for servers that are slow by nature.
    """
    timeout *= float(os.environ.get("CLOCKWORK_PATIENCE", "1"))
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{message or 'condition'}: not within {timeout:g} s (last seen: {value!r})")
        time.sleep(POLL_S)
