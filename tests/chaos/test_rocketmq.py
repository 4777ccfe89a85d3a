"""RocketMQ under SIGKILLs of workers and of the server, delays on servers as they come and tuned, a long lease: `make chaos`.

Results: docs/measurements.md.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import ReceivedTask, Task
from tests.chaos.server_kills import three_kills_under_10_000_tasks_lose_nothing
from tests.conformance.brokers import Broker, make
from tests.conformance.processes import Workers
from tests.eventually import eventually, never
from tests.servers.rocketmq.finding import shared_stock
from tests.servers.rocketmq.server import section


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    made = make("rocketmq", tmp_path, own_server=request.node.get_closest_marker("own_server") is not None)
    yield made
    made.close()


@pytest.fixture(params=["tuned", "stock"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    stock = {**section(shared_stock()), "invisible_duration": 10.0, "poll_timeout": 5.0}
    made = make("rocketmq", tmp_path, stock if request.param == "stock" else None)
    yield made
    made.close()


def test_20_kills_of_workers_under_10_000_tasks_lose_nothing(broker: Broker, tmp_path: Path) -> None:
    workers = Workers(broker.config(retry={"max_retries": 3, "base": 0.05}), tmp_path / "log")
    seed = time.time_ns()
    chance = random.Random(seed)
    q = broker.queue()
    sent = {f"t{i}" for i in range(10_000)}
    running = [workers.start("handle") for _ in range(4)]

    def send() -> None:
        for n in range(0, 10_000, 100):
            q.enqueue_batch([Task("work" if i % 10 else "fail", i, id=f"t{i}") for i in range(n, n + 100)])
            time.sleep(0.1)  # so that there is work under every kill

    sending = threading.Thread(target=send)
    sending.start()
    try:
        for _ in range(20):
            never(lambda: False, during=chance.uniform(0.1, 0.9))
            workers.kill(running.pop(chance.randrange(4)))
            running.append(workers.start("handle"))
        sending.join()
        eventually(lambda: len(workers.words("done")) >= 10_000, timeout=300)
        eventually(lambda: q.depth().waiting == 0, timeout=60)
        done = workers.words("done")
    finally:
        workers.close()
    lost, unexpected = sent - set(done), set(done) - sent
    twice = sum(count - 1 for count in done.values())
    print(
        f"\nrocketmq: 20 SIGKILLs, 4 processes, 10,000 tasks: lost {len(lost)}, unexpected {len(unexpected)}, "
        f"duplicates {twice}, buried {q.depth().dead}, seed {seed}"
    )
    assert not lost
    assert not unexpected
    assert q.dead.list() == []


@pytest.mark.own_server
def test_three_kills_of_the_server_under_10_000_tasks_lose_nothing(broker: Broker) -> None:
    three_kills_under_10_000_tasks_lose_nothing(broker, catch_up=180, back=120)


def test_1000_delays_of_50_ms_to_60_s_are_never_early(either: Broker, request: pytest.FixtureRequest) -> None:
    q, producer = either.queue(), either.queue()
    late: list[float] = []

    def handle(task: ReceivedTask) -> None:
        now = time.time()
        assert task.due_at is not None
        late.append(now - task.due_at.timestamp())

    q.start(handle)
    chance = random.Random(13)
    for _ in range(1000):
        producer.enqueue(Task("t"), process_in=chance.uniform(0.05, 60.0))
    eventually(lambda: len(late) == 1000, timeout=120)
    never(lambda: len(late) > 1000, during=1.0)
    ordered = sorted(late)
    early, p99 = sum(lateness < 0 for lateness in late), ordered[989]
    server = request.node.callspec.params["either"]
    print(
        f"\nrocketmq, {server} server: 1,000 delays of 50 ms to 60 s: early {early}, late p50 "
        f"{statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, max {ordered[-1] * 1000:.1f} ms"
    )
    assert early == 0
    assert p99 < 1.5


def test_a_lease_is_renewed_for_ten_times_its_length(either: Broker, request: pytest.FixtureRequest) -> None:
    lease = either.section["invisible_duration"]
    q = either.queue()
    starts: list[float] = []
    done: list[str] = []

    def handle(task: ReceivedTask) -> None:
        starts.append(time.monotonic())
        time.sleep(10 * lease)
        done.append(task.id)

    q.start(handle, concurrency=8)
    q.enqueue_batch([Task("t") for _ in range(8)])
    eventually(lambda: len(done) == 8, timeout=10 * lease + 30)
    never(lambda: len(starts) > 8, during=lease + 5, what="one came a second time")
    server = request.node.callspec.params["either"]
    print(f"\nrocketmq, {server} server: 8 tasks of 10 leases of {lease:g} s: {len(starts)} starts, {len(done)} done")
