"""What a server says when something in it broke a rule of the server's own.

No test provokes any of this: a crash that was not asked for, a failed assertion, a reference that somebody forgot to
give back. Builds with assertions say more of it than others, sanitizers and valgrind more still.
"""

from __future__ import annotations

import re

COMPLAINTS = re.compile(
    "|".join(
        [
            # Crashes. Signals 3, 9 and 15 are what tests send.
            r"TRAP: ",
            r"PANIC: ",
            r"was terminated by signal (?!3\b|9\b|15\b)\d+",
            # Resources of a transaction that were left to its end.
            r"resource was not closed",
            r"(?:refcount|reference|context|memory|file) leak: ",
            r"snapshot 0x\w{1,16} still active",
            r"registered snapshots seem to remain",
            r"leaked hash_seq_search",
            r"left non-empty SPI stack",
            r"GUC nest level = ",
            r"you don't own a lock of type",
            r"too many (?:dynamic shared memory segments|LWLocks taken)",
            # Transactions out of step.
            r"(?:Start|Commit|Prepare|Abort)\w*Transaction while in ",
            r"unexpected (?:transaction )?state ",
            # Memory.
            r"problem in alloc set ",
            r"detected write past chunk end",
            r"AddressSanitizer",
            r"runtime error: ",
            r"VALGRINDERROR-BEGIN",
        ]
    )
)

# Complaints are short, but some tests fill the log with megabytes in one line.
MOST_OF_A_LINE = 1000


def find_complaints(log: str) -> list[str]:
    """The lines of a server's log that no test should cause, or their beginnings."""
    beginnings = (line[:MOST_OF_A_LINE] for line in log.split("\n"))
    return [line for line in beginnings if COMPLAINTS.search(line)]
