"""Runs `nova` as its users run it: a process of its own, in a directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.eventually import eventually

NOVA = Path(sys.executable).with_name("nova")

APP = '''
import os, time
from nova import Batch, ReceivedTask, Reject, Task

LOG = os.open("log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def write(*words):
    os.write(LOG, (" ".join(map(str, [*words, os.getpid()])) + "\\n").encode())

def handle(task: ReceivedTask) -> None:
    """Writes each task down before and after; `bad` is rejected, `slow` takes as many seconds as its payload says."""
    write("start", task.id)
    if task.type == "bad":
        raise Reject("it is bad")
    if task.type == "slow":
        time.sleep(task.json())
    if task.type == "work":
        time.sleep(0.005)
    write("done", task.id)

def load(batch: Batch) -> None:
    write("batch", len(batch))
'''
"""A user's module. What it writes into the file `log` of the directory: an event, its word, the process."""


def clean_environment(given: Mapping[str, str]) -> dict[str, str]:
    """This environment without what would name another queue."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("NOVA_")}, **given}


def run(directory: Path, *arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, from its start to its end; `text` is its standard input."""
    return subprocess.run(
        [NOVA, *arguments],
        cwd=directory,
        env=clean_environment(environment),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_complains(finished: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout."""
    assert finished.returncode == code, finished
    assert finished.stdout == ""
    assert finished.stderr.startswith("nova: ")
    assert finished.stderr.count("\n") == 1, finished.stderr
    for word in words:
        assert word in finished.stderr


class NovaWorker:
    """A `nova worker` that runs, and what the module `APP` wrote."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self.directory = directory
        (directory / "log").touch()
        if not (directory / "app.py").exists():
            (directory / "app.py").write_text(APP, encoding="utf-8")
        with (directory / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [NOVA, "worker", *arguments],
                cwd=directory,
                env=clean_environment(environment),
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it and its processes logged."""
        return (self.directory / "stderr").read_text(encoding="utf-8")

    def words(self, event: str) -> Counter[str]:
        """The words behind an event, counted."""
        return Counter(line[1] for line in self._lines() if line[0] == event)

    def pids(self, event: str) -> Counter[int]:
        """The processes that wrote an event, counted."""
        return Counter(int(line[2]) for line in self._lines() if line[0] == event)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the command itself."""
        self.process.send_signal(number)

    def end(self, timeout: float) -> int:
        """Wait for the end; the exit code."""
        eventually(lambda: self.process.poll() is not None, timeout, f"the end of nova worker; it said: {self.said}")
        return self.process.returncode

    def close(self) -> None:
        """Kill what is left; its processes then end by themselves."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def _lines(self) -> list[list[str]]:
        text = (self.directory / "log").read_text(encoding="utf-8")
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
