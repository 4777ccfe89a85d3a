"""The main job on real data: exact totals, with the enqueuing and the loading process killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.servers.kafka.finding import shared_address
from tests.servers.kafka.server import delete_topics
from tests.servers.rabbitmq import finding as rabbitmq_finding
from tests.servers.rabbitmq.cleaning import delete_prefix
from tests.servers.rocketmq import cleaning as rocketmq_cleaning
from tests.servers.rocketmq import finding as rocketmq_finding
from tests.servers.rocketmq.server import section as rocketmq_section

ROOT = Path(__file__).parents[2]
TOTAL = "336,776"


WORK = {"enqueue": 30_000, "load": 3_000_000}
"""What each role does before it is killed: rows confirmed, bytes stored. Both are about a tenth of its work."""


@pytest.fixture(params=["sqlite", "kafka", "rabbitmq", "rocketmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The arguments that pick a broker."""
    topics = tmp_path / "demo" / "topics"
    if request.param == "rabbitmq":
        url = rabbitmq_finding.shared_address()
        yield ["--broker", "rabbitmq", "--servers", url]
        if topics.exists():
            delete_prefix(url, topics.read_text(encoding="ascii"))
        return
    if request.param == "rocketmq":
        url = rocketmq_finding.shared_address()
        yield ["--broker", "rocketmq", "--servers", url]
        if topics.exists():
            place = rocketmq_section(url)
            rocketmq_cleaning.delete_prefix(place["endpoints"], place["admin"], topics.read_text(encoding="ascii"))
        return
    if request.param != "kafka":
        yield ["--broker", request.param]
        return
    address = shared_address()
    yield ["--broker", "kafka", "--servers", address]
    if topics.exists():
        delete_topics(address, topics.read_text(encoding="ascii"))


@pytest.mark.timeout(400)
def test_336_776_flights_are_exact_after_kills_on_both_sides(broker: list[str], tmp_path: Path) -> None:
    log, directory = tmp_path / "log", tmp_path / "demo"
    with log.open("w") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "examples.flights_etl", "--dir", str(directory), *broker],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for role in ("enqueue", "load", "load"):
            eventually(lambda: pids(log, role), timeout=180, what=f"{role} starts")  # noqa: B023
            known = set(pids(log, role))
            wanted = done(directory, role) + WORK[role]
            eventually(lambda: done(directory, role) > wanted, timeout=60, what=f"{role} goes on")  # noqa: B023
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


@pytest.mark.timeout(200)
def test_the_fifth_configuration_is_exact_too(tmp_path: Path) -> None:
    """Memory has no second process to kill; the file is the one that `switch_broker` runs on."""
    config = ROOT / "examples" / "switch_broker" / "memory.toml"
    finished = subprocess.run(
        [sys.executable, "-m", "examples.flights_etl", "--dir", str(tmp_path / "demo"), "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(rf"total\W+{TOTAL}\W+{TOTAL}\W+ok", finished.stdout)


def pids(log: Path, role: str) -> list[int]:
    """The processes of a role, in the order they were started."""
    return [int(pid) for pid in re.findall(rf"^{role}: .*process (\d+)", log.read_text(encoding="utf-8"), re.M)]


def done(directory: Path, role: str) -> int:
    """Rows that the broker has confirmed to the enqueuing side; bytes that the loading side has stored."""
    if role == "enqueue":
        checkpoint = directory / "enqueued"
        return int(checkpoint.read_text(encoding="ascii")) if checkpoint.exists() else 0
    stored = 0
    for folder, _, names in os.walk(directory / "chdb"):  # which is silent about what vanishes while it looks
        for name in names:
            with suppress(FileNotFoundError):
                stored += os.lstat(os.path.join(folder, name)).st_size
    return stored
