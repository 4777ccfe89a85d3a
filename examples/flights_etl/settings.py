"""What one run of the demo was asked for, and the files it keeps: the same in every process that takes part."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, urlsplit

from examples.flights_etl import kafka_topics
from examples.flights_etl.errors import DemoError
from nova import TaskQueue

ADDRESSES = {
    "kafka": ("NOVA_KAFKA", "host:port"),
    "rabbitmq": ("NOVA_RABBITMQ", "amqp://user:password@host:port/"),
    "rocketmq": ("NOVA_ROCKETMQ", "rocketmq://host:8081?admin=host:9876"),
}
"""Brokers with servers: the variable that says where they are, and how."""
ORPHANS_END = 15.0  # how long children may take to notice that the process that started them was killed


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of one run.

    Attributes:
        directory: where it keeps its files.
        cache: where the downloaded flights are.
        broker: the driver's name.
        config: a configuration file of Nova, instead of `broker`.
        servers: where the broker is, if it has servers: `host:port` of Kafka, a URL of RabbitMQ or RocketMQ.
    """

    directory: Path
    cache: Path
    broker: str = "sqlite"
    config: Path | None = None
    servers: str | None = None

    @property
    def sink(self) -> Path:
        """The chDB directory the flights end in."""
        return self.directory / "chdb"

    @property
    def in_one_process(self) -> bool:
        """Whether the broker lives in the memory of the process that uses it, so that no other can take part."""
        if self.config is None:
            return self.broker == "memory"
        chosen = tomllib.loads(self.config.read_text(encoding="utf-8"))
        return chosen.get("broker") == "memory" or str(chosen.get("url", "")).startswith("memory:")

    def open_queue(self) -> TaskQueue:
        """Build the queue; this one place is all that differs between brokers.

        Raises:
            DemoError: nobody said where the broker's servers are.
            nova.ConfigError: the broker does not exist, or its options are wrong.
        """
        if self.config is not None:
            return TaskQueue.from_config(self.config)
        chosen: dict[str, object] = {"broker": self.broker, "topic_prefix": "FLIGHTS", "group_id": "loader"}
        if self.broker == "sqlite":
            # A short lease, so that a killed loader's flights go on soon.
            chosen["sqlite"] = {"path": str(self.directory / "nova.db"), "lease": 5.0}
        elif self.broker == "kafka":
            # For the same reason the shortest time that brokers allow by default until a silent member counts as dead.
            chosen["kafka"] = {"bootstrap_servers": self._address, "session_timeout": 6.0}
            chosen["topic_prefix"] = self._topic_prefix()
        elif self.broker == "rabbitmq":
            chosen["rabbitmq"] = {"url": self._address}
            chosen["topic_prefix"] = self._topic_prefix()
        elif self.broker == "rocketmq":
            # Again so that a killed loader's flights go on soon: the shortest lease of a server as it comes.
            chosen["rocketmq"] = {**_rocketmq_section(self._address), "invisible_duration": 10.0}
            chosen["topic_prefix"] = self._topic_prefix()
        return TaskQueue.from_config(chosen)

    def arguments(self) -> list[str]:
        """Return the command line that gives another process the same settings."""
        broker = ["--broker", self.broker] if self.config is None else ["--config", str(self.config)]
        if self.servers is not None:
            broker += ["--servers", self.servers]
        return [*broker, "--dir", str(self.directory), "--cache", str(self.cache)]

    @contextmanager
    def held(self) -> Generator[IO[str]]:
        """Keep other runs out of the directory, after waiting up to `ORPHANS_END` seconds for it.

        A child that inherits the yielded file keeps them out as long as it lives, even if this process is killed.

        Raises:
            DemoError: another run uses the directory.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / ".gitignore").write_text("*\n", encoding="utf-8")
        with (self.directory / "lock").open("w", encoding="utf-8") as lock:
            deadline = time.monotonic() + ORPHANS_END
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise DemoError(f"{self.directory}: another run uses it; wait until it has ended, or give --dir")
                time.sleep(0.1)
            yield lock

    def wipe(self) -> None:
        """Remove what an earlier run left, and nothing else that may be in the directory or on the broker."""
        shutil.rmtree(self.sink, ignore_errors=True)
        if self.broker == "kafka" and self._topics.exists():
            kafka_topics.delete(self._address, self._topic_prefix())
        elif self.broker in ("rabbitmq", "rocketmq") and self._topics.exists():
            with self.open_queue() as queue:
                queue.groups.remove("loader")
        for name in ("nova.db*", "enqueued*", "topics*"):
            for left in self.directory.glob(name):
                left.unlink()

    def read_checkpoint(self) -> int:
        """Return how many rows, from the first, the broker is known to hold."""
        try:
            return int(self._checkpoint.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0  # sending all of them again is only slower: the sink knows each row by its task id

    def write_checkpoint(self, rows: int) -> None:
        """Remember that the broker holds the first `rows` rows; a reader sees the old number or the new one."""
        partial = self._checkpoint.with_suffix(".partial")
        partial.write_text(str(rows), encoding="ascii")
        partial.replace(self._checkpoint)

    def _topic_prefix(self) -> str:
        """Return what this run's topics on a server begin with: drawn once, kept in the directory, the same everywhere."""
        if not self._topics.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            drawn = self._topics.with_suffix(f".{os.getpid()}")
            drawn.write_text(f"FLIGHTS-{secrets.token_hex(4)}", encoding="ascii")
            with suppress(FileExistsError):  # another process was quicker
                self._topics.hardlink_to(drawn)
            drawn.unlink()
        return self._topics.read_text(encoding="ascii")

    @property
    def _address(self) -> str:
        if self.servers is None:
            variable, form = ADDRESSES[self.broker]
            raise DemoError(
                f"{self.broker} needs an address: --servers {form} or {variable}={form}; "
                f"`make demo BROKER={self.broker}` starts a server where it can"
            )
        return self.servers

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "enqueued"

    @property
    def _topics(self) -> Path:
        return self.directory / "topics"


def _rocketmq_section(address: str) -> dict[str, str]:
    parts = urlsplit(address)
    return {"endpoints": parts.netloc, **dict(parse_qsl(parts.query))}


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
