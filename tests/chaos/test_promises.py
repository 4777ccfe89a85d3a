"""The long runs behind the promises, with their figures printed: `make chaos`. Results are kept in docs/measurements.md."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova import Batch, Priority, ReceivedTask, Task, TimeCountAggregator
from tests.conformance.brokers import Broker, make
from tests.conformance.processes import Workers
from tests.eventually import eventually, never

DURABLE = ("sqlite", "kafka", "rabbitmq", "rocketmq")
COMMIT_WINDOW = 0.5
"""Seconds within which a finished task's settlement is durable: Kafka commits every 0.25 s; the rest is a margin."""


@pytest.fixture(params=DURABLE)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made = make(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def workers(broker: Broker, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(broker.config(retry={"max_retries": 3, "base": 0.05}), tmp_path / "log")
    yield made
    made.close()


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"p50 {statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, max {ordered[-1] * 1000:.1f} ms"


def test_twenty_kills_of_four_workers_under_20_000_tasks_lose_nothing(broker: Broker, workers: Workers) -> None:
    seed = time.time_ns()
    chance = random.Random(seed)
    q = broker.queue()
    sent = [f"t{i}" for i in range(20_000)]
    running = [workers.start("handle") for _ in range(4)]
    sending = threading.Thread(
        target=lambda: [
            q.enqueue_batch([Task("work" if i % 10 else "fail", i, id=f"t{i}") for i in range(n, n + 100)])
            for n in range(0, 20_000, 100)
        ]
    )
    sending.start()
    in_flight = recent = 0
    for _ in range(20):
        never(lambda: False, during=chance.uniform(0.1, 0.9))
        victim = running.pop(chance.randrange(4))
        workers.kill(victim)
        stake = workers.at_stake(victim.pid, time.time(), COMMIT_WINDOW)
        in_flight, recent = in_flight + stake[0], recent + stake[1]
        running.append(workers.start("handle"))
    sending.join()
    eventually(lambda: len(workers.words("done")) >= 20_000, timeout=180)
    eventually(lambda: q.depth().waiting + q.depth().running + q.depth().delayed == 0, timeout=60)
    done = workers.words("done")
    lost, unexpected = set(sent) - set(done), set(done) - set(sent)
    twice = sum(count - 1 for count in done.values())
    print(
        f"\n{broker.name}: 20 SIGKILLs, 4 processes, 20,000 tasks: lost {len(lost)}, unexpected {len(unexpected)}, "
        f"duplicates {twice} (running when killed {in_flight}, finished in the {COMMIT_WINDOW} s before {recent}), "
        f"buried {q.depth().dead}, seed {seed}"
    )
    assert twice <= in_flight + recent
    assert not lost
    assert not unexpected
    assert q.dead.list() == []


def test_a_killer_among_1000_tasks_and_five_clean_restarts(broker: Broker, workers: Workers) -> None:
    q = broker.queue()
    q.enqueue_batch([Task("work", i, id=f"t{i}") for i in range(500)])
    q.enqueue(Task("exit", id="killer"))
    q.enqueue_batch([Task("work", i, id=f"t{i}") for i in range(500, 1000)])
    deaths = clean = 0
    while not q.dead.list() or clean < 5:
        process = workers.start("handle")
        never(lambda: False, during=0.3)
        if process.poll() is None and clean < 5:
            ended_well = workers.kill(process, signal.SIGTERM) == 0  # or the killer was quicker than the signal
            clean, deaths = clean + ended_well, deaths + (not ended_well)
            continue
        eventually(lambda: process.poll() is not None or q.dead.list(), timeout=60)  # noqa: B023
        if process.poll() is None:
            workers.kill(process, signal.SIGTERM)
            clean += 1
        else:
            workers.alive.remove(process)
            deaths += 1
    workers.start("handle")
    eventually(lambda: len(workers.words("done")) == 1000, timeout=60)
    buried = [(d.id, d.reason) for d in q.dead.list()]
    done = workers.words("done")
    print(f"\n{broker.name}: {len(done)} completed, {len(buried)} buried, {deaths} deaths, {clean} clean restarts")
    assert len(done) == 1000
    assert buried == [("killer", "crashed its worker 3 times")]
    assert deaths <= 6


def test_2000_delays_at_200_a_second_are_never_early(broker: Broker) -> None:
    q, producer = broker.queue(), broker.queue()
    late: list[float] = []

    def handle(task: ReceivedTask) -> None:
        now = time.time()
        assert task.due_at is not None
        late.append(now - task.due_at.timestamp())

    q.start(handle)
    chance = random.Random(11)
    begin = time.monotonic()
    for n in range(2000):
        producer.enqueue(Task("t"), process_in=chance.uniform(0.001, 30.0))
        time.sleep(max(0.0, begin + (n + 1) / 200 - time.monotonic()))  # the rate
    eventually(lambda: len(late) == 2000, timeout=60)
    early = sum(lateness < 0 for lateness in late)
    print(f"\n{broker.name}: 2,000 delays of 1 ms to 30 s at 200/s: early {early}, late {percentiles(late)}")
    assert early == 0
    assert len(late) == 2000


def test_a_sink_that_refuses_everything_for_60_seconds(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 3})
    loaded: Counter[str] = Counter()
    runs = [0, 0]
    begin = time.monotonic()

    def load(batch: Batch) -> None:
        runs[0] += 1
        if time.monotonic() - begin < 60:
            runs[1] += 1
            raise ConnectionError("sink away")
        loaded.update(batch.ids)

    q.start_batch(load, TimeCountAggregator(5000, 1.0), concurrency=2)
    for n in range(0, 25_000, 1000):
        q.enqueue_batch([Task("row", i, id=f"row-{i}") for i in range(n, n + 1000)])
    eventually(lambda: len(loaded) == 25_000, timeout=240)
    twice = sum(count - 1 for count in loaded.values())
    print(
        f"\n{broker.name}: sink away 60 s, 25,000 rows in batches of 5,000: {runs[1]} runs failed, {runs[0]} in all, "
        f"loaded {len(loaded)} with {twice} twice, buried {q.depth().dead}, {time.monotonic() - begin:.0f} s"
    )
    assert runs[1] <= 100
    assert q.depth().dead == 0
    assert not twice


def test_a_poison_row_among_5000_ends_alone_with_the_default_policy(broker: Broker) -> None:
    q = broker.queue(retry={})
    loaded: set[str] = set()
    runs = [0]
    begin = time.monotonic()

    def load(batch: Batch) -> None:
        runs[0] += 1
        if "row-3210" in batch.ids:
            raise ValueError("cannot parse")
        loaded.update(batch.ids)

    q.start_batch(load, TimeCountAggregator(5000, 1.0))
    q.enqueue_batch([Task("row", i, id=f"row-{i}") for i in range(5000)])
    eventually(lambda: len(loaded) == 4999, timeout=60)
    isolated = time.monotonic() - begin
    # Other traffic shows that the sink works, so the poison row is charged at its ordinary pace.
    number = 5000
    while not q.dead.list():
        q.enqueue_batch([Task("row", number, id=f"row-{number}")])
        number += 1
        never(lambda: False, during=0.5)
        assert time.monotonic() - begin < 200
    print(
        f"\n{broker.name}: one poison row in 5,000: the others loaded after {isolated:.1f} s, it was buried after "
        f"{time.monotonic() - begin:.0f} s and {runs[0]} runs in all"
    )
    assert [d.id for d in q.dead.list()] == ["row-3210"]
    eventually(lambda: len(loaded) == number - 1)


def test_high_tasks_behind_20_000_slow_low_ones(broker: Broker) -> None:
    q, producer = broker.queue(), broker.queue()
    waits: list[float] = []
    low: list[float] = []

    def handle(task: ReceivedTask) -> None:
        if task.priority is Priority.HIGH:
            waits.append(time.time() - task.json())
        else:
            low.append(time.monotonic())
            time.sleep(0.5)  # the length of a low task

    for n in range(0, 20_000, 1000):
        producer.enqueue_batch([Task("low", i) for i in range(n, n + 1000)], priority=Priority.LOW)
    q.start(handle, concurrency=8)
    eventually(lambda: len(low) >= 8)
    begin, first_low = time.monotonic(), len(low)
    for n in range(150):
        producer.enqueue(Task("high", time.time()), priority=Priority.HIGH)
        time.sleep(max(0.0, begin + (n + 1) / 5 - time.monotonic()))  # the rate
    eventually(lambda: len(waits) == 150)
    rate = (len(low) - first_low) / (time.monotonic() - begin)
    print(f"\n{broker.name}: high at 5/s behind 20,000 low of 0.5 s on 8 slots: {percentiles(waits)}; low {rate:.1f}/s")
    assert rate > 12, "low has 8 slots of 0.5 s: 16/s; the margin is for a loaded machine"
    assert sorted(waits)[75] < 1.0
    q.stop(timeout=5)
