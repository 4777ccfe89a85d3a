"""RocketMQ under SIGKILLs of workers and of the server, delays on servers as they come and tuned, a long lease: `make chaos`.

Results: docs/measurements.md.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import ReceivedTask, Task
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
    q, producer = broker.queue(), broker.queue()
    done: Counter[str] = Counter()
    accepted: set[str] = set()
    unknown: set[str] = set()

    def handle(task: ReceivedTask) -> None:
        if task.type == "fail" and task.attempt == 1:
            raise RuntimeError("once")
        done.update([task.id])
        time.sleep(0.002)

    def send() -> None:
        waiting = [Task("fail" if i % 20 == 0 else "work", i, id=f"t{i}") for i in range(10_000)]
        while waiting:
            report = producer.enqueue_batch(waiting[:100], process_in=0.5 if len(waiting) % 500 == 0 else 0.0)
            accepted.update(task.task_id for task in report.accepted)
            unknown.update(report.unknown)
            again = {*report.failed, *report.unknown}
            waiting = [task for task in waiting[:100] if task.id in again] + waiting[100:]

    q.start(handle, concurrency=8)
    sending = threading.Thread(target=send)
    sending.start()
    away: list[float] = []
    for kill in range(3):
        eventually(lambda: len(done) > 2000 * (kill + 1), timeout=180)  # noqa: B023
        before = len(done)
        begin = time.monotonic()
        broker.kill_server()
        eventually(lambda: len(done) > before + 10, timeout=120, what="a worker is deaf")  # noqa: B023
        away.append(time.monotonic() - begin)
    sending.join()
    eventually(lambda: len(done) == 10_000, timeout=180)
    twice = sum(done.values()) - len(done)
    print(
        f"\nrocketmq: 3 SIGKILLs of the server, 10,000 tasks: lost {len(accepted - set(done))}, duplicates {twice}, unknown "
        f"and sent again {len(unknown)}, tasks again after {', '.join(f'{seconds:.1f}' for seconds in away)} s, "
        f"buried {q.depth().dead}"
    )
    assert accepted <= set(done)
    assert q.depth().dead == 0


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
