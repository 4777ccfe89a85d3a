"""A server that outlives the command which starts it: the `up`, `down` and `address` of each broker's package."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.servers.cache import cache_directory, locked
from tests.servers.sharing import Unavailable


class Startable(Protocol):
    """What `up` needs of a server."""

    address: str

    @property
    def end(self) -> tuple[str, ...]: ...
    def start(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One broker's standing server.

    Attributes:
        name: of its package in `tests.servers`.
        variable: lets tests use it.
        port: where it listens unless told otherwise.
        make: a new server in a directory, on a port, that nobody owns.
        answers: whether one answers at an address within so many seconds.
    """

    name: str
    variable: str
    port: int
    make: Callable[[Path, int], Startable]
    answers: Callable[[str, float], bool]

    def main(self, doc: str | None) -> int:
        """Run one command."""
        parser = argparse.ArgumentParser(prog=f"python -m tests.servers.{self.name}", description=doc)
        parser.add_argument("command", choices=["up", "down", "address"])
        parser.add_argument("--port", type=int, default=self.port)
        arguments = parser.parse_args()
        with locked(cache_directory() / f"{self.name}-up.lock"):
            if arguments.command == "up":
                try:
                    print(f"export {self.variable}={self.up(arguments.port)}")
                except Unavailable as exc:
                    print(exc, file=sys.stderr)
                    return 1
            elif arguments.command == "down":
                self.down()
            else:
                address = self._running()
                print(
                    address or "no server is up; start one with `make brokers-up`",
                    file=sys.stdout if address else sys.stderr,
                )
                return 0 if address else 1
        return 0

    def up(self, port: int) -> str:
        """Start it unless it runs; its data begin empty."""
        running = self._running()
        if running is not None:
            return running
        self.down()
        server = self.make(self._directory, port)
        server.start()
        self._state.write_text(json.dumps({"address": server.address, "end": server.end}), encoding="utf-8")
        return server.address

    def down(self) -> None:
        """Kill it and drop its data; nothing happens when it does not run."""
        if self._state.exists():
            state = json.loads(self._state.read_text(encoding="utf-8"))
            subprocess.run(state["end"], capture_output=True, check=False)
            while self.answers(state["address"], 1):
                pass
            self._state.unlink()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _running(self) -> str | None:
        """The address of the server that `up` started and that answers."""
        if not self._state.exists():
            return None
        address = str(json.loads(self._state.read_text(encoding="utf-8"))["address"])
        return address if self.answers(address, 5) else None

    @property
    def _directory(self) -> Path:
        return cache_directory() / f"{self.name}-up"

    @property
    def _state(self) -> Path:
        return cache_directory() / f"{self.name}-up.json"
