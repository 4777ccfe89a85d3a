"""The one error of this example."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on for a reason its user should read in one line, not in a traceback."""
