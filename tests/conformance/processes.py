"""Starts, kills and reads worker processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]


class Workers:
    """Worker processes of one test and the log they share."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        self._config = json.dumps(config)
        self._log = log
        log.touch()
        self.alive: list[subprocess.Popen[bytes]] = []

    def start(self, mode: str) -> subprocess.Popen[bytes]:
        """A new process, up and connected."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.worker_process", self._config, mode, str(self._log)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        self.alive.append(process)
        eventually(lambda: str(process.pid) in self.words("up"), timeout=30)
        return process

    def kill(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        process.send_signal(number)
        self.alive.remove(process)
        return process.wait(30)

    def words(self, event: str) -> Counter[str]:
        """The first word behind an event, counted."""
        lines = (line.split() for line in self._log.read_text(encoding="utf-8").splitlines())
        return Counter(line[1] for line in lines if len(line) > 1 and line[0] == event)

    def lines(self, event: str) -> list[list[str]]:
        """The words behind an event; the last two are the process id and the time."""
        lines = (line.split() for line in self._log.read_text(encoding="utf-8").splitlines())
        return [line[1:] for line in lines if len(line) > 3 and line[0] == event]

    def at_stake(self, pid: int, killed: float, window: float) -> tuple[int, int]:
        """What a process was running when it was killed, and what it had finished in the `window` seconds before."""
        started: set[str] = set()
        finished: dict[str, float] = {}
        for line in self._log.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) > 3 and words[-2] == str(pid):
                if words[0] == "start":
                    started.add(words[1])
                elif words[0] in ("done", "failed"):
                    finished[words[1]] = float(words[-1])
        return len(started - set(finished)), sum(1 for at in finished.values() if at >= killed - window)

    def close(self) -> None:
        """Kill what is left."""
        for process in list(self.alive):
            self.kill(process)
