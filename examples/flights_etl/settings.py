"""What one run of the demo was asked for, and the files it keeps: the same in every process that takes part."""

from __future__ import annotations

import fcntl
import shutil
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from examples.flights_etl.errors import DemoError
from nova import TaskQueue

ORPHANS_END = 15.0  # how long children may take to notice that the process that started them was killed


@dataclass(frozen=True, slots=True)
class Settings:
    """The choices of one run."""

    directory: Path
    cache: Path
    broker: str = "sqlite"
    config: Path | None = None

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
        """Build the queue; this one place is all that differs between brokers."""
        if self.config is not None:
            return TaskQueue.from_config(self.config)
        chosen: dict[str, object] = {"broker": self.broker, "topic_prefix": "FLIGHTS", "group_id": "loader"}
        if self.broker == "sqlite":
            # A short lease, so that a killed loader's flights go on soon.
            chosen["sqlite"] = {"path": str(self.directory / "nova.db"), "lease": 5.0}
        return TaskQueue.from_config(chosen)

    def arguments(self) -> list[str]:
        """Return the command line that gives another process the same settings."""
        broker = ["--broker", self.broker] if self.config is None else ["--config", str(self.config)]
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
        """Remove what an earlier run left, and nothing else that may be in the directory."""
        shutil.rmtree(self.sink, ignore_errors=True)
        for left in (*self.directory.glob("nova.db*"), *self.directory.glob("enqueued*")):
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

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "enqueued"


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
