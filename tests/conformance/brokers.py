"""The brokers the suite runs on, and the pinned table of what may be skipped where.

A new driver adds a `Broker` here. Scenarios ask capabilities, never names; the only skips are in `SKIPS`, and
`test_capabilities` fails if any other appears.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nova import Depth, TaskQueue, config
from nova.brokers.base import Driver, DriverConfig, DriverContext
from nova.brokers.loading import build_driver
from nova.options import Option, settle
from tests.servers.kafka import finding as kafka_finding
from tests.servers.kafka.server import delete_topics
from tests.servers.rabbitmq import finding as rabbitmq_finding
from tests.servers.rabbitmq.cleaning import delete_prefix
from tests.servers.rocketmq import cleaning as rocketmq_cleaning
from tests.servers.rocketmq import finding as rocketmq_finding
from tests.servers.rocketmq.server import section as rocketmq_section
from tests.servers.sharing import Server

SKIPS: dict[tuple[str, str], str] = {
    ("memory", "survives the death of its processes"): "memory's durability: its tasks live in the process",
    ("memory", "shared between processes"): "memory's durability: its tasks live in the process",
    ("memory", "broker away"): "memory's durability: its broker cannot be away while the process lives",
    ("memory", "server killed"): "memory's durability: its broker cannot be away while the process lives",
    ("sqlite", "server killed"): "SQLite's broker kill: the file has no process of its own",
}
"""(driver, scenario) -> reason. Nothing else may be skipped."""

UNTOLD: dict[str, frozenset[str]] = {
    "rabbitmq": frozenset({"delayed", "running"}),
    "rocketmq": frozenset({"delayed", "running"}),
}
"""driver -> the counts that its broker does not tell: AMQP and RocketMQ know no call for them. Every other must tell all."""

_serial = itertools.count(1)


@dataclass
class Broker:
    """One real broker, with names of its own for one test.

    Attributes:
        name: the driver's capability name.
        section: the driver's options, as in a configuration file.
        prefix: the topic prefix of this test.
        server: the server of this test alone, where it has one: it may be paused and killed.
    """

    name: str
    section: dict[str, Any]
    prefix: str = field(default_factory=lambda: f"T{os.getpid()}-{next(_serial)}")
    server: Server | None = None
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

    def tells(self, depth: Depth, **expected: int) -> bool:
        """Whether the counts are these; one that the broker does not tell must say so, and is passed over."""
        untold = UNTOLD.get(self.name, frozenset())
        for queue in depth.queues:
            for name in ("delayed", "running"):
                assert (getattr(queue, name) is None) == (name in untold), f"{self.name}: {name} of {queue}"
        return all(getattr(depth, name) == count for name, count in expected.items() if name not in untold)

    def unfinished(self, depth: Depth) -> int | None:
        """Tasks that wait, run or are due later; None if the broker does not tell."""
        return None if self.name in UNTOLD else depth.waiting + depth.running + depth.delayed

    @contextmanager
    def away(self) -> Generator[None]:
        """Make the broker refuse or ignore everybody inside the block; a server is paused, a file is locked."""
        with _paused(self.server) if self.server is not None else _locked(self.section["path"]):
            yield

    def kill_server(self) -> None:
        """SIGKILL the server and start it again on the same data; returns when it answers."""
        assert self.server is not None, f"{self.name}: mark the test with own_server; it must not kill the shared one"
        self.server.restart()

    def close(self) -> None:
        """Stop every queue of the test, then drop what it left on a server."""
        try:
            for queue in self._queues:
                queue.stop(timeout=10)
        finally:
            if self.server is not None:
                self.server.stop()
            elif self.name == "kafka":
                delete_topics(self.section["bootstrap_servers"], self.prefix)
            elif self.name == "rabbitmq":
                delete_prefix(self.section["url"], self.prefix)
            elif self.name == "rocketmq":
                rocketmq_cleaning.delete_prefix(self.section["endpoints"], self.section["admin"], self.prefix)


@contextmanager
def _paused(server: Server) -> Generator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _locked(file: str) -> Generator[None]:
    blocker = sqlite3.connect(file, isolation_level=None, timeout=10)
    blocker.execute("BEGIN IMMEDIATE")
    yield
    blocker.execute("ROLLBACK")
    blocker.close()


def _as_config(given: DriverConfig) -> DriverConfig:
    return given


def make(name: str, directory: Path, overrides: Mapping[str, Any] | None = None, *, own_server: bool = False) -> Broker:
    """The broker of a name, in a directory of its own.

    Args:
        name: one of `NAMES`.
        directory: where its files are.
        overrides: options of the driver, instead of the usual ones.
        own_server: the test kills or pauses the server, so it gets one that no other test uses.
    """
    if name == "kafka":
        return _kafka(directory, overrides or {}, own_server)
    if name == "rabbitmq":
        return _rabbitmq(directory, overrides or {}, own_server)
    if name == "rocketmq":
        return _rocketmq(directory, overrides or {}, own_server)
    sections: dict[str, dict[str, Any]] = {
        "memory": {"name": str(directory)},
        "sqlite": {"path": str(directory / "nova.db"), "lease": 2.0, "busy_timeout": 1.0},
    }
    return Broker(name, {**sections[name], **(overrides or {})})


def _kafka(directory: Path, overrides: Mapping[str, Any], own_server: bool) -> Broker:
    server = kafka_finding.private_server(directory / "kafka") if own_server else None
    section = {
        "bootstrap_servers": kafka_finding.shared_address() if server is None else server.address,
        "partitions": 2,
        "replication_factor": 1,
        "session_timeout": 3.0,
        "delivery_timeout": 5.0,
    }
    return Broker("kafka", {**section, **overrides}, _lasting_prefix(), server)


def _rabbitmq(directory: Path, overrides: Mapping[str, Any], own_server: bool) -> Broker:
    server = rabbitmq_finding.private_server(directory / "rabbitmq") if own_server else None
    section = {
        "url": rabbitmq_finding.shared_address() if server is None else server.address,
        "confirm_timeout": 5.0,
        "heartbeat": 3.0,  # two of them without a sign, and the server takes a paused worker for dead
    }
    return Broker("rabbitmq", {**section, **overrides}, _lasting_prefix(), server)


def _rocketmq(directory: Path, overrides: Mapping[str, Any], own_server: bool) -> Broker:
    server = rocketmq_finding.private_server(directory / "rocketmq") if own_server else None
    section = {
        **rocketmq_section(rocketmq_finding.shared_address() if server is None else server.address),
        "request_timeout": 3.0,
        "send_timeout": 5.0,
        "invisible_duration": 3.0,
        "poll_timeout": 0.3,
        "queues_per_topic": 2,
    }
    return Broker("rocketmq", {**section, **overrides}, _lasting_prefix(), server)


def _lasting_prefix() -> str:
    """Of a server that may outlive the run, while process ids come again."""
    return f"T{os.getpid()}-{next(_serial)}-{secrets.token_hex(3)}"


NAMES = ("memory", "sqlite", "kafka", "rabbitmq", "rocketmq")
