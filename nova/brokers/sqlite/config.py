"""What `with_sqlite` holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from nova.brokers.checks import Bounds, OptionChecks, Seconds, Whole
from nova.errors import ConfigError

__all__ = ["SQLiteConfig"]

_CHECK = OptionChecks("with_sqlite")


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteConfig:
    """Options of the SQLite driver.

    Attributes:
        path: the file; made with its schema at first use. Never on a network file system (SQLite's locks fail there).
        lease: seconds after which the tasks of a dead process go to another; renewed every third of it.
        busy_timeout: seconds to wait for another process's write before an operation fails.
        max_bytes: the file's largest size; beyond it `enqueue` fails with `QueueFull`. None = the disk's.
        max_body_bytes: larger bodies are refused before they are sent.
    """

    path: str = "nova.db"
    lease: float = 30.0
    busy_timeout: float = 5.0
    max_bytes: int | None = None
    max_body_bytes: int = 64 << 20

    factory = "nova.brokers.sqlite.driver:SQLiteDriver"
    extra = ""
    bounds: ClassVar[Bounds] = {
        "lease": Seconds(0.5),
        "busy_timeout": Seconds(0.0),
        "max_bytes": Whole(1),
        "max_body_bytes": Whole(1, 900 << 20, hint="; SQLite's own limit is near"),
    }

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise ConfigError(f"with_sqlite(path): expected the path of a file, got {self.path!r}")
        if self.path == ":memory:" or self.path.startswith("file:"):
            raise ConfigError(f"with_sqlite(path): expected the path of a file, got {self.path!r}; use with_memory()")
        # Absolute from the start: a daemon that forks and changes its directory reopens the same file.
        object.__setattr__(self, "path", os.path.abspath(self.path))
        _CHECK.bounds(self, self.bounds)
