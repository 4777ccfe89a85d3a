"""A server's process held up with signals: its connections stay open, and nothing is answered."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

STOPS_WITHIN = 5.0


def pause(process: subprocess.Popen[bytes] | None) -> None:
    """SIGSTOP; returns when the process stands still."""
    assert process is not None, "the server does not run"
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + STOPS_WITHIN
    while not _is_stopped(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # a signal takes a moment


def resume(process: subprocess.Popen[bytes] | None) -> None:
    """End a pause."""
    assert process is not None, "the server does not run"
    process.send_signal(signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True  # no /proc here, or no such process
    return stat.rpartition(")")[2].split()[0] == "T"
