"""The Python side of pg_clockwork: what surrounds the scheduler that lives inside PostgreSQL.

The layers, from top to bottom; each imports only what is below it:

    cli → dashboard → client → jobs → cron → errors
    cli → worlds → simulator → cron       years of schedules in seconds
    cli → demo → cluster → errors         a private PostgreSQL, to try and to test on
    cli → demo → packaging → errors       build and install the extension
"""

from __future__ import annotations

__version__ = "0.1.0"
