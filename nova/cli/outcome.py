"""How a command ends: its exit code, and one line on stderr if it did not do what was asked."""

from __future__ import annotations

import sys

__all__ = ["DONE", "FAILED", "USAGE", "Failed", "complain"]

DONE = 0
FAILED = 1
"""The broker refused or was not there, or what was named does not exist."""
USAGE = 2
"""The command line or the configuration is wrong; nothing was opened."""


class Failed(Exception):
    """What was asked could not be done; the message is for the user."""


def complain(message: object) -> None:
    """One line on stderr, whatever the message holds."""
    sys.stderr.write(f"nova: {' '.join(str(message).split())}\n")
