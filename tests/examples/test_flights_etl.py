"""The main job on real data: exact totals, with the enqueuing and the loading process killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
TOTAL = "336,776"


@pytest.mark.timeout(400)
def test_336_776_flights_are_exact_after_kills_on_both_sides(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "examples.flights_etl", "--dir", str(tmp_path / "demo")],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for role in ("enqueue", "load", "load"):
            eventually(lambda: pids(log, role), timeout=180, what=f"{role} starts")  # noqa: B023
            known = set(pids(log, role))
            before = size(tmp_path / "demo")
            eventually(lambda: size(tmp_path / "demo") > before + 5_000_000, timeout=60, what="work goes on")  # noqa: B023
            os.kill(pids(log, role)[-1], signal.SIGKILL)
            eventually(lambda: set(pids(log, role)) - known, timeout=60, what=f"{role} starts again")  # noqa: B023
        code = demo.wait(300)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
    text = log.read_text(encoding="utf-8")
    print(text)
    assert code == 0, text
    assert re.search(rf"total\W+{TOTAL}\W+{TOTAL}\W+ok", text)
    assert text.rstrip().endswith("exact")
    assert len(pids(log, "enqueue")) == 2
    assert len(pids(log, "load")) == 3


def pids(log: Path, role: str) -> list[int]:
    """The processes of a role, in the order they were started."""
    return [int(pid) for pid in re.findall(rf"^{role}: .*process (\d+)", log.read_text(encoding="utf-8"), re.M)]


def size(directory: Path) -> int:
    """Bytes on disk, which grow while either side works."""
    return sum(entry.stat().st_size for entry in directory.rglob("*") if entry.is_file() and not entry.is_symlink())
