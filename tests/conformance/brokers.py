"""The brokers the suite runs on, and the pinned table of what may be skipped where.

A new driver adds a `Broker` here. Scenarios ask capabilities, never names; the only skips are in `SKIPS`, and
`test_capabilities` fails if any other appears.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nova import TaskQueue, config
from nova.brokers.base import Driver, DriverConfig, DriverContext
from nova.brokers.loading import build_driver
from nova.options import Option, settle

SKIPS: dict[tuple[str, str], str] = {
    ("memory", "survives the death of its processes"): "memory's durability: its tasks live in the process",
    ("memory", "shared between processes"): "memory's durability: its tasks live in the process",
    ("memory", "broker away"): "memory's durability: its broker cannot be away while the process lives",
    ("memory", "server killed"): "memory's durability: its broker cannot be away while the process lives",
    ("sqlite", "server killed"): "SQLite's broker kill: the file has no process of its own",
}
"""(driver, scenario) -> reason. Nothing else may be skipped."""

_serial = itertools.count(1)


@dataclass
class Broker:
    """One real broker, with names of its own for one test.

    Attributes:
        name: the driver's capability name.
        section: the driver's options, as in a configuration file.
        prefix: the topic prefix of this test.
    """

    name: str
    section: dict[str, Any]
    prefix: str = field(default_factory=lambda: f"T{os.getpid()}-{next(_serial)}")
    _queues: list[TaskQueue] = field(default_factory=list)

    def config(self, group: str = "g", **values: Any) -> dict[str, Any]:
        """A configuration that reaches this broker, also from another process."""
        return {
            "broker": self.name,
            self.name: self.section,
            "group_id": group,
            "topic_prefix": self.prefix,
            **values,
        }

    def queue(self, *options: Option, group: str = "g", **values: Any) -> TaskQueue:
        """A queue on this broker; closed at the end of the test."""
        values.setdefault("retry", {"max_retries": 2, "base": 0.02, "cap": 0.05})
        queue = TaskQueue(*config.from_config(self.config(group, **values)), *options)
        self._queues.append(queue)
        return queue

    def driver(self) -> Driver:
        """A driver of its own, opened."""
        given = settle(config.from_config(self.config())).driver
        assert not isinstance(given, Driver)
        driver = build_driver(_as_config(given))
        driver.open(DriverContext(prefix=self.prefix), 10)
        return driver

    @contextmanager
    def away(self) -> Generator[None]:
        """Make the broker refuse or ignore everybody inside the block; a server is paused, a file is locked."""
        blocker = sqlite3.connect(self.section["path"], isolation_level=None, timeout=10)
        blocker.execute("BEGIN IMMEDIATE")
        yield
        blocker.execute("ROLLBACK")
        blocker.close()

    def kill_server(self) -> None:
        """SIGKILL the server and start it again. No driver of today has one."""
        raise NotImplementedError(self.name)

    def close(self) -> None:
        """Stop every queue of the test."""
        for queue in self._queues:
            queue.stop(timeout=10)


def _as_config(given: DriverConfig) -> DriverConfig:
    return given


def make(name: str, directory: Path, overrides: Mapping[str, Any] | None = None) -> Broker:
    """The broker of a name, in a directory of its own."""
    sections: dict[str, dict[str, Any]] = {
        "memory": {"name": str(directory)},
        "sqlite": {"path": str(directory / "nova.db"), "lease": 2.0, "busy_timeout": 1.0},
    }
    return Broker(name, {**sections[name], **(overrides or {})})


NAMES = ("memory", "sqlite")
