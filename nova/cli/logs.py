"""Log lines of a worker: plain, on stderr, unless the user's module has set logging up itself."""

from __future__ import annotations

import logging
from enum import StrEnum

__all__ = ["LogLevel", "set_up_logging"]


class LogLevel(StrEnum):
    """How much is said."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_logging(level: LogLevel) -> None:
    """Send what is at least this urgent to stderr; does nothing if the root logger has a handler already."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s", stream=None
    )
