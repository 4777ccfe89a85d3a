"""A worker: intakes, lanes, executor, settler and the keeper of leases, put together, started and stopped.

Threads it owns: one intake per priority class and one for the quarantine, the executor's, the settler, the keeper, the
watchdog once a task has a time limit. `stop` ends them all.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nova.admission import Admission
from nova.aggregators import Aggregator
from nova.batching import BatchRunner
from nova.brokers.base import Driver, SubscribeRequest
from nova.clock import Clock
from nova.codecs import Codec
from nova.errors import BrokerError, ConfigError
from nova.execution import LoopExecutor, LoopThread, Slot, ThreadExecutor
from nova.handlers import BatchHandler, Handlers, is_async
from nova.intake import MAX_STOCK, BatchFeed, Feed, Intake, QuarantineFeed, TaskFeed
from nova.lanes import Lanes
from nova.middleware import Chain
from nova.outcomes import OnError, Outcomes
from nova.received import ReceivedTask
from nova.retry import RetryPolicy
from nova.routing import CLASSES, Topics
from nova.running import TaskRunner
from nova.scheduler import Reserves, Scheduler
from nova.settlement import Settler
from nova.watchdog import Watchdog

__all__ = ["BatchWork", "TaskWork", "Worker", "WorkerConfig", "drain"]

ENDS_WITHIN = 0.5
"""Seconds that threads without a handler have to end, also where the broker has used up the time of a stop."""

_log = logging.getLogger(__name__)
_serials = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What every worker of a queue shares, and its own numbers.

    Attributes:
        concurrency: handlers (or batches) of one class at once.
        reserve: the user's own number of slots for high on top; None = the default.
        queues: logical queue names.
    """

    group: str
    topics: Topics
    codec: Codec
    policy: RetryPolicy
    chain: Chain
    clock: Clock
    queues: tuple[str, ...]
    concurrency: int
    weights: tuple[int, int, int] = (6, 3, 1)
    reserve: int | None = None
    on_error: OnError | None = None
    on_exhausted: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class TaskWork:
    """Tasks one at a time."""

    handlers: Handlers


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Tasks in batches."""

    handler: BatchHandler
    aggregator: Aggregator
    bisect: bool = True


class Worker:
    """Runs handlers on the tasks of some queues from construction until `stop`.

    Raises:
        ConfigError: the batches need more unsettled deliveries than the driver can hold.
        BrokerError: the group or its topics cannot be set up.
    """

    def __init__(self, driver: Driver, config: WorkerConfig, work: TaskWork | BatchWork) -> None:
        self._driver = driver
        self._config = config
        self._name = f"nova-worker-{next(_serials)}"
        self._watchdog = Watchdog(f"{self._name}-watchdog")
        self._settler = Settler(driver, self._name)
        self._outcomes = make_outcomes(config, self._settler)
        self._admission = Admission(self._outcomes, config.codec, config.topics, config.clock)
        self._scheduler = Scheduler(config.concurrency, config.weights, Reserves.of(config.concurrency, config.reserve))
        self._intakes: list[Intake] = []
        self._feeds: list[BatchFeed] = []
        self._loop: LoopThread | None = None
        self._batches: BatchRunner | None = None
        self._lanes: Lanes[Any]
        self._executor: ThreadExecutor[Any] | LoopExecutor[Any] | None = None
        self._stopping = threading.Event()
        try:
            if isinstance(work, BatchWork):
                self._prepare_batches(work)
            else:
                self._prepare_tasks(work)
        except BaseException:
            self._undo()
            raise
        self._keeper = threading.Thread(target=self._keep, name=f"{self._name}-keeper", daemon=True)
        self._start()

    @property
    def last_receive_age(self) -> float:
        """Seconds since the intake heard longest ago had its last answer from the broker."""
        return time.monotonic() - min(intake.last_receive for intake in self._intakes[: len(CLASSES)])

    def stop(self, timeout: float) -> bool:
        """Receive no more, finish what runs, settle it, give the rest back.

        Returns:
            False if handlers still ran after `timeout` seconds; their tasks run again elsewhere.
        """
        deadline = time.monotonic() + timeout
        for intake in self._intakes:
            intake.stop()
        for intake in self._intakes:
            intake.join(max(1.0, deadline - time.monotonic()))
        if self._batches is not None:
            self._batches.stop()
        self._flush_batches(deadline)
        self._release_unstarted()
        finished = self._executor is None or self._executor.close(max(ENDS_WITHIN, deadline - time.monotonic()))
        if not finished:
            _log.warning("%s: %d handlers still ran at the end of the stop", self._name, self._lanes.running)
        settled = self._settler.close(max(1.0, deadline - time.monotonic()))
        self._stopping.set()
        self._keeper.join(max(1.0, deadline - time.monotonic()))
        self._watchdog.close()
        for intake in self._intakes:
            intake.close(max(1.0, deadline - time.monotonic()))
        if self._loop is not None:
            self._loop.close()
        _log.info("%s stopped", self._name)
        return finished and settled

    def _prepare_tasks(self, work: TaskWork) -> None:
        config = self._config
        slots = self._scheduler.slots
        runner = TaskRunner(work.handlers, self._outcomes, self._watchdog, self._abandon, self._count_abandoned)
        if work.handlers.any_async:
            self._bind(LoopExecutor(self._name, runner.run_async))
        else:
            self._bind(ThreadExecutor(self._name, slots, runner.run))
        prefetch = min(slots + 2 * MAX_STOCK, self._driver.capabilities.max_unsettled or 1 << 30)
        floor = max(1, -(-config.concurrency // 4))
        for rank in range(len(CLASSES)):
            self._add_intake(rank, TaskFeed(self._lanes, rank, floor, prefetch), prefetch)
        self._add_quarantine(lambda task: [task])

    def _prepare_batches(self, work: BatchWork) -> None:
        config = self._config
        prefetch = work.aggregator.max_count * (config.concurrency + 1)
        most = self._driver.capabilities.max_unsettled
        if most is not None and prefetch > most:
            raise ConfigError(
                f"start_batch: max_count * (concurrency + 1) = {prefetch} unsettled tasks, but the driver "
                f"{self._driver.capabilities.name!r} holds at most {most}; lower max_count or concurrency"
            )
        self._loop = LoopThread(f"{self._name}-loop") if is_async(work.handler) else None
        runner = BatchRunner(work.handler, self._outcomes, config.policy, bisect=work.bisect, loop=self._loop)
        self._batches = runner
        self._bind(ThreadExecutor(self._name, self._scheduler.slots, runner.run))
        held = max(prefetch, min(4 * MAX_STOCK, most or 4 * MAX_STOCK))
        for rank in range(len(CLASSES)):
            feed = BatchFeed(self._lanes, rank, work.aggregator, prefetch, held, self._outcomes.failed)
            self._feeds.append(feed)
            self._add_intake(rank, feed, held)
        self._add_quarantine(lambda task: [[task]])

    def _bind(self, executor: ThreadExecutor[Any] | LoopExecutor[Any]) -> None:
        self._executor = executor
        self._lanes = Lanes(self._scheduler, on_work=executor.wake, on_idle=executor.idle, on_low=self._want_more)
        executor.bind(self._lanes)

    def _add_intake(self, rank: int, feed: Feed, prefetch: int) -> None:
        config = self._config
        topics = tuple(config.topics.ready(queue, CLASSES[rank]) for queue in config.queues)
        request = SubscribeRequest(topics=topics, group=config.group, prefetch=prefetch)
        self._subscribe(f"{self._name}-{CLASSES[rank].name.lower()}", request, feed)

    def _add_quarantine(self, wrap: Callable[[ReceivedTask], list[Any]]) -> None:
        config = self._config

        def offer(task: ReceivedTask) -> None:
            if not self._lanes.offer(CLASSES.index(task.priority), wrap(task)):
                task._source.release([task._delivery])

        topics = tuple(map(config.topics.quarantine, config.queues))
        request = SubscribeRequest(topics=topics, group=config.group, prefetch=1, charged=True)
        self._subscribe(f"{self._name}-quarantine", request, QuarantineFeed(offer))

    def _subscribe(self, name: str, request: SubscribeRequest, feed: Feed) -> None:
        self._intakes.append(Intake(name, self._driver.subscribe(request), self._admission, feed))

    def _undo(self) -> None:
        """Close what a failed start has opened."""
        for intake in self._intakes:
            intake.close()
        if self._executor is not None:
            self._executor.close(0.0)
        if self._loop is not None:
            self._loop.close()

    def _start(self) -> None:
        self._settler.start()
        self._keeper.start()
        for intake in self._intakes:
            intake.start()
        config = self._config
        _log.info(
            "%s started: group %s, queues %s, concurrency %d",
            self._name, config.group, ", ".join(config.queues), config.concurrency,
        )  # fmt: skip

    def _want_more(self, rank: int) -> None:
        event = self._intakes[rank].room_made
        if not event.is_set():
            event.set()

    def _flush_batches(self, deadline: float) -> None:
        """Run the open batches, as far as the time goes."""
        for feed in self._feeds:
            feed.flush()
        while self._feeds and any(map(self._lanes.length, range(3))) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _release_unstarted(self) -> None:
        for job in self._lanes.shut():
            tasks: Sequence[ReceivedTask] = [job] if isinstance(job, ReceivedTask) else job
            for task in tasks:
                task._source.release([task._delivery])

    def _keep(self) -> None:
        """Renew leases every third of their length and do the driver's housekeeping."""
        capabilities = self._driver.capabilities
        every = capabilities.housekeeping_every
        lease = capabilities.lease
        if lease is not None:
            every = min(every, lease / 3)
        extended = time.monotonic()
        while not self._stopping.wait(every):
            now = time.monotonic()
            if lease is not None and now - extended >= lease / 3:
                extended = now
                for intake in self._intakes:
                    self._try("renewing leases", intake.extend)
            self._try("housekeeping", self._driver.housekeeping)

    def _try(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except BrokerError as exc:
            _log.warning("%s: %s failed, trying again soon: %s", self._name, what, exc)
        except Exception:  # noqa: BLE001 - a thread's top: the keeper must live, or every lease runs out
            _log.exception("%s: %s failed, trying again soon", self._name, what)

    def _abandon(self, slot: Slot) -> None:
        if isinstance(self._executor, ThreadExecutor):
            self._executor.abandon(slot)

    def _count_abandoned(self, abandoned: int) -> None:
        if abandoned == self._config.concurrency:
            _log.error("%s: %d handlers overran their time and cannot be stopped; draining", self._name, abandoned)
            self._config.on_exhausted()


def make_outcomes(config: WorkerConfig, settler: Settler) -> Outcomes:
    """The outcomes of a worker of this config."""
    return Outcomes(
        settler=settler,
        policy=config.policy,
        chain=config.chain,
        clock=config.clock,
        group=config.group,
        topics=config.topics,
        worker=f"{socket.gethostname()}-{os.getpid()}",
        on_error=config.on_error,
    )


def drain(driver: Driver, config: WorkerConfig, handlers: Handlers) -> int:
    """Run everything due now in the calling thread, most urgent first; returns how many runs there were."""
    settler = Settler(driver, "nova-drain")
    outcomes = make_outcomes(config, settler)
    admission = Admission(outcomes, config.codec, config.topics, config.clock)
    runner = TaskRunner(handlers, outcomes, Watchdog("nova-drain"), lambda _: None, lambda _: None)
    ran = 0

    class RunHere:
        def room(self, held: int) -> int:
            del held
            return 1

        def wait(self) -> float:
            return 0.0

        def surplus(self) -> list[ReceivedTask]:
            return []

        def full(self, held: int) -> None: ...

        def put(self, tasks: list[ReceivedTask]) -> None:
            nonlocal ran
            for task in tasks:
                error = runner.call(task)
                if error is None:
                    outcomes.completed((task,))
                else:
                    outcomes.failed(task, error)
                ran += 1

    intakes = []
    for priority in CLASSES:
        topics = tuple(config.topics.ready(queue, priority) for queue in config.queues)
        request = SubscribeRequest(topics=topics, group=config.group, prefetch=1)
        intakes.append(Intake(f"nova-drain-{priority.name}", driver.subscribe(request), admission, RunHere()))
    try:
        while any(intake.step(0.0) and settler.flush() for intake in intakes):
            pass
    finally:
        settler.flush()
        for intake in intakes:
            intake.close()
    return ran
