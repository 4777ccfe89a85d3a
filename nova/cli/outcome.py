"""How a command ends: its exit code, and one line on stderr if it did not do what was asked."""

from __future__ import annotations

import sys

__all__ = ["DONE", "EXIT_CODES", "FAILED", "INTERRUPTED", "USAGE", "USED_UP", "Failed", "complain"]

DONE = 0
FAILED = 1
"""The broker refused or was not there, what was named does not exist, or a worker gave up what it was doing."""
USAGE = 2
"""The command line, the configuration or the named module is wrong; nothing was opened."""
USED_UP = 75
"""Overdue handlers hold all of a worker's threads: start it again. Source: sysexits.h, EX_TEMPFAIL."""
INTERRUPTED = 130
"""Ctrl-C. Source: 128 + SIGINT, as shells say it."""

EXIT_CODES = (DONE, FAILED, USAGE, USED_UP, INTERRUPTED)
"""All there are; docs/cli.md says what each means."""


class Failed(Exception):
    """What was asked could not be done; the message is for the user."""


def complain(message: object) -> None:
    """One line on stderr, whatever the message holds."""
    sys.stderr.write(f"nova: {' '.join(str(message).split())}\n")
