"""Runs a program that ends when the process that wanted it ends, however that ends.

`guard.py run OWNER COMMAND…` becomes COMMAND, with the same process id, and leaves a child behind that looks twice a
second whether process OWNER still lives; if not, it kills the program. A pipe would do the same, but forks of a test
inherit a pipe's end, and the server would live on with them; a death signal of Linux comes when the *thread* ends that
started the server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LOOKS = 0.5
"""Seconds between two looks: this long a server may outlive its owner."""


_FILE = str(Path(__file__))


THIS_PROCESS = -1
"""As an owner: the process that asks."""


def guarded(owner: int | None, *command: str) -> list[str]:
    """The command line that runs a command for as long as `owner` lives; None = for as long as it likes."""
    if owner is None:
        return list(command)
    return [sys.executable, "-S", _FILE, "run", str(_id(owner)), *command]


def when_gone(owner: int | None, *command: str) -> None:
    """Run a command once `owner` is gone, for what is no process of this machine's: a container. None = never."""
    if owner is None:
        return
    subprocess.Popen(
        [sys.executable, "-S", _FILE, "after", str(_id(owner)), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # Linux: "pid (name) state …"; elsewhere there is no such file, and a zombie counts as running.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return sys.platform != "linux"


def _id(owner: int) -> int:
    return os.getpid() if owner == THIS_PROCESS else owner


def _watch(owner: int, program: int) -> None:
    while os.getppid() == program:
        if not alive(owner):
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)
            return
        time.sleep(LOOKS)


def _main(mode: str, owner: int, command: list[str]) -> None:
    program = os.getpid()
    if mode == "run" and os.fork() == 0:
        _watch(owner, program)
        os._exit(0)
    while mode == "after" and alive(owner):
        time.sleep(LOOKS)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
