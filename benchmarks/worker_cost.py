"""Runner: what the worker itself costs per task, on the memory driver.

`python -m benchmarks.worker_cost run TASKS CONCURRENCY` lets a worker empty a full queue: decode, dispatch, settle.
`python -m benchmarks.worker_cost parts TASKS` calls the same functions by hand, a thousand tasks at a time in one thread,
and takes the time of each part. What the first has beyond the sum of the second is threads: switches, locks, the GIL.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from benchmarks import workload
from benchmarks.nova_sqlite import unsettled
from nova import Priority, ReceivedTask, Task, TaskQueue, with_memory
from nova.admission import Admission
from nova.brokers.base import Delivery, Driver, SubscribeRequest
from nova.envelope import read_envelope
from nova.execution import Slot
from nova.handlers import OneHandler
from nova.intake import Intake, TaskFeed
from nova.lanes import Lanes
from nova.received import ReceivedTask as Received
from nova.routing import CLASSES
from nova.running import TaskRunner
from nova.scheduler import Reserves, Scheduler
from nova.settlement import Settler
from nova.watchdog import Watchdog
from nova.worker import WorkerConfig, make_outcomes

CHUNK = 1000
"""The most an intake receives at once (`nova.intake.MAX_STOCK`)."""
NORMAL = CLASSES.index(Priority.NORMAL)

T = TypeVar("T")


def run(tasks: int, concurrency: int) -> None:
    seen: list[str] = []

    def handler(task: ReceivedTask) -> None:
        seen.append(task.id)

    with full_queue(tasks) as queue:
        start, cpu = time.perf_counter(), time.process_time()
        queue.start(handler, concurrency=concurrency)
        workload.wait_for(lambda: len(seen), tasks)
        workload.wait_for(lambda: -unsettled(queue), 0)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    workload.answer(tasks, seconds, map(int, seen), cpu_seconds=cpu, concurrency=concurrency)


def parts(tasks: int) -> None:
    with full_queue(tasks) as queue:
        json.dump(Bench(queue._open(), queue._worker_config(16, None, None)).run(tasks // CHUNK), sys.stdout)


class Bench:
    """The parts of one worker without its threads."""

    def __init__(self, driver: Driver, config: WorkerConfig) -> None:
        self._config = config
        self._settler = Settler(driver, "bench")
        self._outcomes = make_outcomes(config, self._settler)
        self._admission = Admission(self._outcomes, config.codec, config.topics, config.clock)
        scheduler = Scheduler(1, config.weights, Reserves.of(1, None))
        self._lanes: Lanes[Received] = Lanes(scheduler, on_work=_ignore, on_idle=lambda: None, on_low=_ignore)
        topics = tuple(config.topics.ready(queue, Priority.NORMAL) for queue in config.queues)
        self._subscription = driver.subscribe(SubscribeRequest(topics=topics, group=config.group, prefetch=3 * CHUNK))
        feed = TaskFeed(self._lanes, NORMAL, 4, 3 * CHUNK)
        self._intake = Intake("bench", self._subscription, self._admission, feed)
        handlers = OneHandler(_ignore)
        self._runner = TaskRunner(handlers, self._outcomes, Watchdog("bench"), _ignore, _ignore)
        self._times: dict[str, list[float]] = {}

    def run(self, rounds: int) -> dict[str, float]:
        """Median microseconds per task of each part; a name with a dot is contained in the part before the dot."""
        for _ in range(rounds):
            self._one_chunk()
        return {name: 1e6 * statistics.median(times) / CHUNK for name, times in self._times.items()}

    def _one_chunk(self) -> None:
        deliveries = self._time("receive", lambda: self._subscription.receive(CHUNK, 0.0))
        self._time("receive", lambda: self._intake.held.update(deliveries), more=True)
        self._look_into_admission(deliveries)
        tasks = self._time("admit", lambda: self._admission.admit(deliveries, self._intake))
        self._time("lanes", lambda: self._pass(tasks))
        slot = Slot()
        self._time("run.call handler", lambda: [self._runner.call(task) for task in tasks])
        self._time("run", lambda: self._run_all(tasks, slot))
        self._time("settle", self._settler.flush)

    def _look_into_admission(self, deliveries: Iterable[Delivery]) -> None:
        decode = self._config.codec.decode
        contents = self._time("admit.codec", lambda: [decode(d.body, d.headers) for d in deliveries])
        pairs = list(zip(deliveries, contents, strict=True))
        self._time("admit.envelope", lambda: [read_envelope(d.headers, content) for d, content in pairs])
        read = self._config.topics.read
        self._time("admit.topic name", lambda: [read(d.topic) for d in deliveries])

    def _pass(self, tasks: list[Received]) -> None:
        self._lanes.offer(NORMAL, tasks)
        rank = None
        while (taken := self._lanes.take(rank)) is not None:
            rank = taken[0]

    def _run_all(self, tasks: list[Received], slot: Slot) -> None:
        for task in tasks:
            self._runner.run(task, slot)

    def _time(self, name: str, action: Callable[[], T], *, more: bool = False) -> T:
        start = time.perf_counter()
        result = action()
        seconds = time.perf_counter() - start
        times = self._times.setdefault(name, [])
        if more:
            times[-1] += seconds
        else:
            times.append(seconds)
        return result


def full_queue(tasks: int) -> TaskQueue:
    """A queue in memory that holds all tasks already."""
    queue = TaskQueue(with_memory())
    for chunk in workload.chunks(workload.bodies(tasks), CHUNK):
        queue.enqueue_batch([Task("bench.row", body, id=str(body["n"])) for body in chunk]).raise_for_failures()
    # The stored messages are the broker's; a real one would not have the worker's garbage collector visit them.
    gc.collect()
    gc.freeze()
    return queue


def _ignore(_: Any) -> None:
    """Nothing."""


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[2]), int(sys.argv[3]))
    else:
        parts(int(sys.argv[2]))
