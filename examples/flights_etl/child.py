"""One role of the demo in a process of its own, started again whenever it dies before its work is done.

`tend` and `stop` belong to one thread. A second thread for each process reads what it prints: a line of JSON is a
report of its progress, any other line goes to the console. It ends with the process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from examples.flights_etl.errors import DemoError
from examples.flights_etl.settings import Settings

PROGRAM = "examples.flights_etl"
MAX_DEATHS = 5
STOP_TIMEOUT = 60.0


class Child:
    """Runs `role` until it is done.

    Args:
        role: the role's name on the command line.
        settings: passed on to it.
        lock: the run's lock file, which the process holds as long as it lives.
        say: prints one line for the user.
        ends: whether the role comes to an end by itself; otherwise it runs until `stop`.
    """

    def __init__(self, role: str, settings: Settings, lock: IO[str], say: Callable[[str], None], *, ends: bool) -> None:
        self.role = role
        self.rows = 0
        self.done = False
        self._command = [sys.executable, "-m", PROGRAM, role, *settings.arguments()]
        self._lock = lock
        self._say = say
        self._ends = ends
        self._deaths = 0
        self._rows_at_death = -1
        self._start()

    def tend(self) -> None:
        """Start the process again if it has died; call it often.

        Raises:
            DemoError: it died `MAX_DEATHS` times in a row without a new row between; SIGKILL does not count, as that
                comes from outside.
        """
        status = self._process.poll()
        if self.done or status is None:
            return
        self._reader.join()
        if self._ends and status == 0:
            self.done = True
            return
        if status != -signal.SIGKILL:
            self._endure(status)
        self._start(f"{_cause(status)}; started again as")

    def stop(self) -> None:
        """Ask the process to finish, wait for it, and kill it if it does not."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._say(f"{self.role}: still running {STOP_TIMEOUT:.0f} s after SIGTERM; killed")
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _endure(self, status: int) -> None:
        """Count a death nobody outside may have wanted, and give its broker a moment if it is not the first."""
        self._deaths = self._deaths + 1 if self.rows == self._rows_at_death else 1
        self._rows_at_death = self.rows
        if self._deaths == MAX_DEATHS:
            raise DemoError(f"{self.role}: {_cause(status)}, {MAX_DEATHS} times without getting any further")
        time.sleep(self._deaths - 1)

    def _start(self, how: str = "started as") -> None:
        # A new program, never a mere fork: chDB hangs in a forked child. A process group of its own, so that Ctrl-C
        # reaches only the one who started it.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(self._lock.fileno(),),
            process_group=0,
        )
        self._say(f"{self.role}: {how} process {self._process.pid}")
        assert self._process.stdout is not None  # it is a pipe
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name=f"demo-{self.role}")
        self._reader.start()

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._take(line.rstrip())

    def _take(self, line: str) -> None:
        try:
            self.rows = int(json.loads(line)["rows"])
        except (ValueError, TypeError, KeyError):
            self._say(f"{self.role}: {line}")


def _cause(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
