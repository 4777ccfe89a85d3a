"""Batches: complete in time, settled in part, isolated poison, outages that bury nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter

from nova import (
    Batch,
    BatchResult,
    CountAggregator,
    Priority,
    ReceivedTask,
    Reject,
    Retry,
    Task,
    TimeAggregator,
    TimeCountAggregator,
)
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never, soon

MARGIN = 2.0
"""Seconds by which a loaded machine may be late."""


def tasks(count: int, kind: str = "row") -> list[Task]:
    return [Task(kind, {"n": i}, id=f"{kind}-{i}") for i in range(count)]


def test_three_tasks_flush_on_time_without_another_message(broker: Broker) -> None:
    q = broker.queue()
    batches: list[tuple[float, list[str]]] = []
    q.start_batch(lambda batch: batches.append((time.monotonic(), batch.ids)), TimeCountAggregator(100, 1.0))
    started = time.monotonic()
    q.enqueue_batch(tasks(3))
    eventually(lambda: batches)
    assert batches[0][1] == ["row-0", "row-1", "row-2"]
    assert 0.9 <= batches[0][0] - started < 1.0 + MARGIN
    never(lambda: len(batches) > 1, during=0.3)


def test_full_batches_go_at_once_and_priorities_never_mix(broker: Broker) -> None:
    q = broker.queue()
    sizes: list[tuple[Priority, int]] = []

    def load(batch: Batch) -> None:
        assert len({task.priority for task in batch}) == 1
        sizes.append((batch[0].priority, len(batch)))

    q.enqueue_batch(tasks(250))
    q.enqueue_batch(tasks(100, "high"), priority=Priority.HIGH)
    q.start_batch(load, TimeCountAggregator(50, 60.0))
    eventually(lambda: Counter(sizes) == {(Priority.NORMAL, 50): 5, (Priority.HIGH, 50): 2})
    eventually(lambda: q.depth().running == 0)


def test_an_open_batch_is_run_at_stop(broker: Broker) -> None:
    q = broker.queue()
    seen: list[str] = []
    q.start_batch(lambda batch: seen.extend(batch.ids), CountAggregator(100, None))
    q.enqueue_batch(tasks(7))
    eventually(lambda: broker.tells(q.depth(), running=7, waiting=0))
    assert seen == []
    assert q.stop()
    assert len(seen) == 7
    assert broker.queue().depth().waiting == 0


def test_bytes_and_keys_bound_a_batch(broker: Broker) -> None:
    q = broker.queue()
    batches: list[list[tuple[str, int]]] = []
    aggregator = TimeAggregator(0.3, max_bytes=1000, key=lambda task: task.key or "")
    q.start_batch(lambda batch: batches.append([(task.key or "", len(task.payload)) for task in batch]), aggregator)
    q.enqueue_batch([Task("t", bytes(300), key=f"k{i % 2}") for i in range(20)] + [Task("t", bytes(5000), key="k0")])
    eventually(lambda: sum(map(len, batches)) == 21)
    for batch in batches:
        assert len({key for key, _ in batch}) == 1
        assert len(batch) == 1 or sum(size for _, size in batch) <= 1000


def test_a_partial_failure_retries_only_the_failed(broker: Broker) -> None:
    q = broker.queue()
    runs: Counter[str] = Counter()

    def load(batch: Batch) -> BatchResult:
        runs.update(batch.ids)
        failed: dict[str, BaseException | str] = {}
        for task in batch:
            if task.id == "row-3":
                failed[task.id] = "bad value"
            elif task.id == "row-4" and task.attempt == 1:
                failed[task.id] = Retry(delay=0.01)
            elif task.id == "row-5":
                failed[task.id] = Reject("hopeless")
        return BatchResult(failed)

    q.start_batch(load, TimeCountAggregator(10, 0.1))
    q.enqueue_batch(tasks(10))
    eventually(lambda: sorted((d.id, d.reason) for d in q.dead.list()) == [
        ("row-3", "retries exhausted"), ("row-5", "rejected"),
    ])  # fmt: skip
    assert runs == {**{f"row-{i}": 1 for i in range(10)}, "row-3": 3, "row-4": 2}


def test_a_result_that_names_a_stranger_settles_nothing(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 1, "base": 0.01})
    runs: Counter[str] = Counter()
    wrong = [True]

    def load(batch: Batch) -> BatchResult:
        runs.update(batch.ids)
        return BatchResult({"stranger": "?"} if wrong[0] else {})

    q.start_batch(load, TimeCountAggregator(5, 0.1))
    q.enqueue_batch(tasks(5))
    eventually(lambda: min(runs.values(), default=0) >= 2)
    eventually(lambda: broker.unfinished(q.depth()) in (5, None))
    wrong[0] = False
    eventually(lambda: q.depth().running + q.depth().delayed + q.depth().waiting == 0)
    assert q.dead.list() == []


def test_retry_and_reject_are_for_the_whole_batch(broker: Broker) -> None:
    q = broker.queue()
    calls: list[tuple[str, int]] = []

    def load(batch: Batch) -> None:
        calls.append((batch[0].type, len(batch)))
        if batch[0].type == "reject":
            raise Reject("all of it")
        if batch[0].attempt == 1:
            raise Retry(delay=0.05)

    q.start_batch(load, TimeCountAggregator(4, 10.0, key=lambda task: task.type))
    q.enqueue_batch(tasks(4, "reject") + tasks(4, "retry"))
    eventually(lambda: len(q.dead.list()) == 4)
    eventually(lambda: sorted(calls) == [("reject", 4), ("retry", 4), ("retry", 4)])
    assert {d.reason for d in q.dead.list()} == {"rejected"}


def test_poison_rows_end_alone_in_the_dead_letters(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 1, "base": 0.01, "cap": 0.02})
    poison = {"row-17", "row-180", "row-181"}  # in both halves: two failing halves are no outage
    loaded: set[str] = set()
    runs = [0]

    def load(batch: Batch) -> None:
        runs[0] += 1
        if poison & set(batch.ids):
            raise ValueError("cannot parse")
        loaded.update(batch.ids)

    q.start_batch(load, TimeCountAggregator(200, 0.2))
    q.enqueue_batch(tasks(200))
    eventually(lambda: len(loaded) == 197, timeout=30)
    eventually(lambda: {d.id for d in q.dead.list()} == poison, timeout=30)
    assert {d.attempt for d in q.dead.list()} == {2}
    assert runs[0] < 150


def test_an_outage_of_the_sink_buries_nothing(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 2, "base": 0.05, "cap": 0.4})
    out = threading.Event()
    loaded: Counter[str] = Counter()
    runs = [0]
    out.set()

    def load(batch: Batch) -> None:
        runs[0] += 1
        if out.is_set():
            raise ConnectionError("sink away")
        loaded.update(batch.ids)

    q.start_batch(load, TimeCountAggregator(100, 0.1), concurrency=2)
    q.enqueue_batch(tasks(1000))
    eventually(lambda: runs[0] >= 12, timeout=30)
    out.clear()
    eventually(lambda: len(loaded) == 1000, timeout=30)
    assert q.dead.list() == []
    assert set(loaded.values()) == {1}


def test_a_stop_during_an_outage_gives_everything_back(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 5, "base": 30.0})
    failed = threading.Event()

    def load(batch: Batch) -> None:
        failed.set()
        raise ConnectionError

    q.start_batch(load, TimeCountAggregator(10, 0.1))
    q.enqueue_batch(tasks(30))
    assert failed.wait(10)
    started = time.monotonic()
    q.stop(timeout=20)
    assert time.monotonic() - started < 10
    other = broker.queue()
    soon(lambda: broker.tells(other.depth(), waiting=30, dead=0))


def test_bisect_off_charges_every_task_of_the_batch(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 1, "base": 0.01})
    runs: Counter[str] = Counter()

    def load(batch: Batch) -> None:
        runs.update(batch.ids)
        raise ValueError

    q.start_batch(load, TimeCountAggregator(4, 0.1), bisect=False)
    q.enqueue_batch(tasks(4))
    eventually(lambda: len(q.dead.list()) == 4)
    assert set(runs.values()) == {2}


def test_async_batch_handlers_and_the_same_id_for_the_same_batch(broker: Broker) -> None:
    q = broker.queue()
    ids: list[str] = []

    async def load(batch: Batch) -> None:
        ids.append(batch.id)
        if len(ids) == 1:
            raise ConnectionError

    q.start_batch(load, TimeCountAggregator(5, 5.0))
    q.enqueue_batch(tasks(5))
    eventually(lambda: len(ids) == 2)
    assert ids[0] == ids[1]
    eventually(lambda: q.depth().running == 0)


def test_leases_hold_while_a_batch_waits_for_its_window(broker: Broker) -> None:
    lease = broker.driver().capabilities.lease or 0.5
    one, two = broker.queue(), broker.queue()
    seen: list[str] = []

    def load(batch: Batch) -> None:
        seen.extend(batch.ids)

    for q in (one, two):
        q.start_batch(load, TimeAggregator(2.0 * lease))
    one.enqueue_batch(tasks(20))
    eventually(lambda: len(seen) >= 20, timeout=2 * lease + 10)
    never(lambda: len(seen) > 20, during=0.5)


def test_tasks_and_batches_live_side_by_side_on_different_queues(broker: Broker) -> None:
    q = broker.queue()
    single: list[ReceivedTask] = []
    batched: list[str] = []
    q.start(single.append, queues=["default"])
    q.start_batch(lambda batch: batched.extend(batch.ids), TimeCountAggregator(10, 0.1), queues=["imports"])
    q.enqueue_batch(tasks(10), queue="imports")
    q.enqueue(Task("one"))
    eventually(lambda: len(batched) == 10 and len(single) == 1)


def test_many_keys_that_use_up_the_prefetch_still_go(broker: Broker) -> None:
    """Ten at a time, as many as may be held: fewer of them would wait for the stop, which `window=None` asks for."""
    q = broker.queue()
    seen: set[str] = set()
    q.start_batch(
        lambda batch: seen.update(batch.ids), CountAggregator(5, None, key=lambda task: task.id), concurrency=1
    )
    sent: set[str] = set()
    for number in range(5):
        sent.update(stored.task_id for stored in q.enqueue_batch(tasks(10, f"row{number}")).accepted)
        eventually(lambda: seen == sent, timeout=60)


def test_keys_without_a_window_wait_for_the_stop_and_go_then(broker: Broker) -> None:
    q = broker.queue()
    collected: list[str] = []
    seen: set[str] = set()

    def key(task: ReceivedTask) -> str:
        collected.append(task.id)
        return task.id

    q.start_batch(lambda batch: seen.update(batch.ids), CountAggregator(5, None, key=key), concurrency=1)
    q.enqueue_batch(tasks(3))
    eventually(lambda: len(collected) == 3)
    never(lambda: seen, during=0.5)
    q.stop()
    assert seen == set(collected)
