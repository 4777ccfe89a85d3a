"""The facade: one object to enqueue, handle, look and replay. Its verbs may be called from any thread or event loop.

Building one validates options and touches nothing. The driver opens at first use, at `connect`, `with queue:` or the first
worker's start. After a fork a child opens its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from nova import config, producer
from nova.aggregators import Aggregator
from nova.brokers.base import CheckRequest, Confirmation, Driver, DriverContext, Message
from nova.brokers.loading import build_driver
from nova.check import CheckReport, check_broker
from nova.clock import SystemClock, seconds
from nova.confirmations import await_for, wait_for
from nova.dead import Dead
from nova.depth import Depth, depth_of, topics_of
from nova.enqueue_options import EnqueueOption, resolve
from nova.errors import ConfigError, PublishError, QueueClosed
from nova.groups import Groups
from nova.handlers import BatchHandler, ByType, Handler, Handlers, OneHandler, check_handler, is_async
from nova.options import Option, QueueSettings, check_queues, settle
from nova.outcomes import OnError
from nova.producer import Producer
from nova.registry import DecoratedTask, Registry, decorate
from nova.routing import CLASSES
from nova.signals import CountedSignals, StopRequests
from nova.task import Enqueued, EnqueueReport, Task
from nova.worker import BatchWork, TaskWork, Worker, WorkerConfig, drain

__all__ = ["TaskQueue"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

EXIT_TEMPORARY = 75
"""The exit code that asks a supervisor to start the worker again. Source: sysexits.h, EX_TEMPFAIL."""

_log = logging.getLogger(__name__)
_inherited: list[Driver] = []
"""Drivers a fork brought along: kept, never closed here, because closing would harm the parent's files and locks."""


class TaskQueue:
    """A task queue on one broker.

    Args:
        options: `with_…` options, each at most once; without a driver option SQLite at `./nova.db`.

    Raises:
        ConfigError: an option is wrong, given twice, or two drivers are given. Nothing was opened.
    """

    def __init__(self, *options: Option) -> None:
        self._settings: QueueSettings = settle(options)
        self._topics = self._settings.topics
        self._clock = SystemClock()
        self._registry = Registry()
        self._lock = threading.RLock()
        self._driver: Driver | None = None
        self._pid = os.getpid()
        self._refusal: str | None = None
        self._producer: Producer | None = None
        self._ensured: set[str] = set()
        self._workers: list[Worker] = []
        self._claimed: dict[str, str] = {}
        self._stopping = False
        self._stopped = False
        self._stopped_clean = True
        self._over = threading.Event()
        self._exit_code = 0
        self._is_from_environment = False
        self.dead = Dead(self._open, self._topics, self._settings.group_id)
        self.groups = Groups(self._open, self._topics)

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any], *options: Option) -> Self:
        """A queue from a TOML file or a mapping of the same form; see docs/configuration.md.

        Args:
            source: the file or mapping.
            options: what a file cannot say, for example `with_middleware(…)`.

        Raises:
            ConfigError: unreadable, an unknown key (the nearest name is suggested), or an illegal value.
        """
        return cls(*config.from_config(source), *options)

    @classmethod
    def from_url(cls, url: str, *options: Option) -> Self:
        """A queue from a URL such as `sqlite:///nova.db?group_id=billing` or `memory://?retry.max_retries=5`.

        Raises:
            ConfigError: unknown scheme or parameter, an illegal value, or a variable that is not set.
        """
        return cls(*config.from_url(url), *options)

    @classmethod
    def from_env(cls, *options: Option) -> Self:
        """A queue from `NOVA_CONFIG` (a TOML file) or `NOVA_URL`, and a variable for every option, such as `NOVA_GROUP_ID`.

        Raises:
            ConfigError: nothing names a broker, something is said twice, a name looks like an option's and is none, or a
                value is wrong.
        """
        queue = cls(*config.from_environment(os.environ), *options)
        queue._is_from_environment = True
        return queue

    def connect(self, timeout: float | timedelta = 10.0) -> Self:
        """Open the driver now instead of at first use; returns the queue.

        Raises:
            BrokerUnavailable: not reachable within `timeout` seconds.
            ConfigError: the driver's package is missing, or a secret's file cannot be read.
            QueueClosed: the queue was stopped.
        """
        self._open(seconds("connect(timeout)", timeout))
        return self

    def enqueue(self, task: Task, *options: EnqueueOption, **keywords: Any) -> Enqueued:
        """Enqueue one task; returns when the broker has stored it.

        Args:
            task: what to run.
            options: `priority(…)`, `process_in(…)` and so on; each may be a keyword instead.

        Raises:
            ConfigError: an option is wrong or given twice; nothing was sent.
            EncodeError: the payload cannot be encoded or is too large; nothing was sent.
            PublishError: not confirmed; `may_be_stored` tells whether the broker may hold it.
            BrokerUnavailable: the driver could not be opened; nothing was sent.
            QueueClosed: the queue was stopped.
        """
        messages, accepted = self._prepare_one(task, options, keywords)
        outcome = wait_for(self._publish(messages), len(messages))
        return self._accept_one(accepted[0], outcome[0])

    async def aenqueue(self, task: Task, *options: EnqueueOption, **keywords: Any) -> Enqueued:
        """`enqueue` for asyncio: the loop is free while the broker works."""
        messages, accepted = await self._opened(lambda: self._prepare_one(task, options, keywords))
        outcome = await await_for(await self._apublish(messages), len(messages))
        return self._accept_one(accepted[0], outcome[0])

    def enqueue_batch(self, tasks: Iterable[Task], *options: EnqueueOption, **keywords: Any) -> EnqueueReport:
        """Enqueue many tasks with one wait; every task is checked before the first is sent.

        Args:
            tasks: what to run; their own id, key and metadata rule over the options.
            options: defaults for all of them, as for `enqueue`.

        Returns:
            Which tasks were accepted, which surely were not, and which nobody can tell.

        Raises:
            ConfigError: an option or a task is wrong; nothing was sent.
            EncodeError: a payload cannot be encoded or is too large; nothing was sent.
            BrokerUnavailable: the driver could not be opened; nothing was sent.
            QueueClosed: the queue was stopped.
        """
        messages, accepted = self._prepare_many(tasks, options, keywords)
        return self._report(accepted, wait_for(self._publish(messages), len(messages)))

    async def aenqueue_batch(self, tasks: Iterable[Task], *options: EnqueueOption, **keywords: Any) -> EnqueueReport:
        """`enqueue_batch` for asyncio."""
        messages, accepted = await self._opened(lambda: self._prepare_many(tasks, options, keywords))
        return self._report(accepted, await await_for(await self._apublish(messages), len(messages)))

    @overload
    def task(self, type: Callable[P, R], /) -> DecoratedTask[P, R]: ...
    @overload
    def task(self, type: str | None = None, /, **options: Any) -> Callable[[Callable[P, R]], DecoratedTask[P, R]]: ...
    def task(self, type: Any = None, /, **options: Any) -> Any:
        """Make a function a task type: `@queue.task("invoice.send", max_retries=5)`.

        Args:
            type: the task type; default the function's module and name.
            options: enqueue options for every call of it.

        Raises:
            ConfigError: an illegal or taken type, an unknown option, or a signature no payload can have.
        """
        if callable(type):
            return decorate(self, self._registry, type, None, {})
        return lambda function: decorate(self, self._registry, function, type, options)

    def start(
        self,
        handler: Handler | None = None,
        *,
        concurrency: int = 16,
        queues: Sequence[str] | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """Run handlers in the background until `stop`.

        Args:
            handler: a function of one `ReceivedTask`, `def` (threads) or `async def` (one event loop); None = the decorated
                tasks.
            concurrency: handlers of one priority class at once.
            queues: logical names; default those of `with_queues`.
            on_error: called with the task and the exception after each failed attempt.

        Raises:
            ConfigError: a handler of the wrong form, an illegal number or name, or a queue that `start_batch` reads already.
            BrokerUnavailable: the driver could not be opened.
            QueueClosed: the queue was stopped.
        """
        handlers = self._handlers(handler)
        worker_config = self._worker_config(concurrency, queues, on_error)
        self._start_worker(worker_config, TaskWork(handlers), "start")

    def start_batch(
        self,
        handler: BatchHandler,
        aggregator: Aggregator,
        *,
        concurrency: int = 2,
        queues: Sequence[str] | None = None,
        on_error: OnError | None = None,
        bisect: bool = True,
    ) -> None:
        """Run a handler on batches in the background until `stop`. A task's `process_timeout` does not apply to batches.

        Args:
            handler: a function of one `Batch`; returns None (all done) or `BatchResult(failed=…)`.
            aggregator: when a batch is complete.
            concurrency: batches of one priority class at once.
            queues: logical names; default those of `with_queues`.
            on_error: called with the task and the exception after each failed attempt.
            bisect: after an exception look for the tasks at fault; False = every task of the batch used an attempt.

        Raises:
            ConfigError: as for `start`, or more unsettled tasks than the driver can hold.
            BrokerUnavailable: the driver could not be opened.
            QueueClosed: the queue was stopped.
        """
        check_handler(handler, "batch handler")
        if not isinstance(aggregator, Aggregator) or isinstance(aggregator, type):
            raise ConfigError(f"start_batch: expected an aggregator such as TimeCountAggregator(…), got {aggregator!r}")
        worker_config = self._worker_config(concurrency, queues, on_error)
        self._start_worker(worker_config, BatchWork(handler, aggregator, bisect), "start_batch")

    def run(
        self,
        handler: Any = None,
        aggregator: Aggregator | None = None,
        *,
        timeout: float | timedelta = 30.0,
        **worker_options: Any,
    ) -> None:
        """Start (unless workers run already and no handler is given), wait for SIGINT or SIGTERM, stop. Main thread only.

        A second signal stops at once. Exits the process with code 75 if overdue handlers have used up the worker.

        Args:
            handler: as for `start`, or for `start_batch` if `aggregator` is given.
            aggregator: makes it a batch worker.
            timeout: seconds the stop may take.
            worker_options: as for `start` or `start_batch`.

        Raises:
            ConfigError: as for `start` and `start_batch`, or not called in the main thread.
        """
        grace = seconds("run(timeout)", timeout)
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("run: only the main thread receives signals; use start() and stop() in other threads")

        def begin() -> None:
            if aggregator is not None:
                self.start_batch(handler, aggregator, **worker_options)
            elif handler is not None or not self._workers:
                self.start(handler, **worker_options)

        with CountedSignals() as signals:
            code = self._serve(signals, begin, grace)
        if code:
            sys.exit(code)

    def stop(self, timeout: float | timedelta = 30.0) -> bool:
        """Receive no more, flush open batches, finish what runs, settle it, close. A second call waits for the first.

        Handlers that still run may enqueue until they end. Not to be called by a handler, which would wait for itself.

        Returns:
            False if handlers still ran after `timeout` seconds; their tasks run again elsewhere. With a broker that does not
            answer it takes some seconds more.
        """
        grace = seconds("stop(timeout)", timeout)
        deadline = time.monotonic() + grace
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            workers, self._workers = self._workers, []
            is_first, self._stopping = not self._stopping, True
        if not is_first:
            return self._over.wait(grace) and self._stopped_clean
        threads = [_Stop(worker, grace) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:  # only now: handlers that were still running may have enqueued
            self._stopped = True
            driver, self._driver = self._driver, None
        self._stopped_clean = all(thread.clean for thread in threads)
        try:
            if driver is not None:
                driver.close(max(deadline - time.monotonic(), 1.0))
        finally:
            self._over.set()
        return self._stopped_clean

    def close(self) -> None:
        """`stop` with its default timeout."""
        self.stop()

    async def astop(self, timeout: float | timedelta = 30.0) -> bool:
        """`stop` for asyncio."""
        return await asyncio.to_thread(self.stop, timeout)

    async def aconnect(self, timeout: float | timedelta = 10.0) -> Self:
        """`connect` for asyncio."""
        return await asyncio.to_thread(self.connect, timeout)

    def check(self, queues: Sequence[str] | None = None, *, workers: int = 1) -> CheckReport:
        """Read the broker's limits and settings, and say which of them will hurt, with the numbers and the way out.

        Opens the queue as its first use would; makes no topic, group or task. A broker that cannot be reached, or goes away
        meanwhile, is a finding like any other.

        Args:
            queues: logical names; default those of `with_queues`.
            workers: how many worker processes are to run at once.

        Raises:
            ConfigError: an illegal name or number, or the driver's package is missing.
            QueueClosed: the queue was stopped.
        """
        if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= 100_000:
            raise ConfigError(f"check(workers): expected an integer from 1 to 100000, got {workers!r}")
        names = self._settings.queues if queues is None else check_queues(queues)
        request = CheckRequest(
            topics=tuple(self._topics.ready(queue, priority) for queue in names for priority in CLASSES),
            own_topics=(self._topics.dead, *map(self._topics.quarantine, names)),
            group=self._settings.group_id,
            workers=workers,
        )
        return check_broker(self._open, request)

    def depth(self, queues: Sequence[str] | None = None) -> Depth:
        """Waiting, delayed, running and dead tasks of this group, per queue and class, as the broker counts them.

        RocketMQ counts a task some milliseconds after it has confirmed it; see docs/brokers.md.

        Args:
            queues: logical names; default those of `with_queues` and of the workers started here.

        Raises:
            ConfigError: an illegal name.
            BrokerError: the broker does not tell now.
        """
        known = (*self._settings.queues, *(q for q in self._claimed if q not in self._settings.queues))
        names = known if queues is None else check_queues(queues)
        counts = self._open().depth(topics_of(self._topics, names), self._settings.group_id)
        return depth_of(self._topics, names, counts)

    def drain(self, handler: Handler | None = None, *, queues: Sequence[str] | None = None) -> int:
        """Run everything due now, in this thread, most urgent first; for your own tests with `with_memory()`.

        Retries due later stay; with `with_retry(base=0)` they run in the same drain.

        Returns:
            How many runs there were.

        Raises:
            ConfigError: a handler of the wrong form, an `async def` handler, or a driver that other processes share.
        """
        handlers = self._handlers(handler)
        if handlers.any_async:
            raise ConfigError("drain: expected def handlers, got async def; run those with start() and stop()")
        driver = self._open()
        if driver.capabilities.shared:
            raise ConfigError(
                f"drain: is for with_memory(); the driver {driver.capabilities.name!r} is shared: use start() and stop()"
            )
        return drain(driver, self._worker_config(1, queues, None), handlers)

    @property
    def group_id(self) -> str:
        """The group whose tasks this queue handles, counts and replays."""
        return self._settings.group_id

    @property
    def last_receive_age(self) -> float | None:
        """Health: seconds since the intake heard longest ago had an answer from the broker; None without a worker."""
        return max((worker.last_receive_age for worker in self._workers), default=None)

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.aconnect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.astop()

    def __repr__(self) -> str:
        return f"<TaskQueue group={self._settings.group_id!r} prefix={self._settings.topic_prefix!r}>"

    def _serve(self, requests: StopRequests, begin: Callable[[], None], grace: float) -> int:
        """Begin, wait for a request to stop, stop; a second request ends the stop. Returns the process's exit code.

        Requests are counted before `begin`: a task may run, and a signal come, before it has ended.
        """
        begin()
        while not requests.seen and not self._over.wait(0.2):
            pass
        _log.info("stopping, up to %g s", grace)
        stopping = threading.Thread(target=self.stop, args=(grace,), name="nova-stop", daemon=True)
        stopping.start()
        while stopping.is_alive() and requests.seen < 2:
            stopping.join(0.2)
        return self._exit_code

    def _open(self, timeout: float = 10.0) -> Driver:
        """The open driver, opened now if it is not."""
        driver = self._driver
        if driver is not None and self._pid == os.getpid():
            return driver
        if self._pid != os.getpid():
            self._leave_parent()
        with self._lock:
            if self._refusal is not None:
                raise ConfigError(self._refusal)
            if self._stopped:
                raise QueueClosed("this queue was stopped; build a new TaskQueue")
            if self._driver is None:
                given = self._settings.driver
                driver = given if isinstance(given, Driver) else build_driver(given)
                driver.open(self._driver_context(), timeout)
                self._driver = driver
            return self._driver

    def _forget_parent(self) -> None:
        """Drop what a fork brought along: the parent's driver, its workers, a lock that may be held."""
        self._lock = threading.RLock()
        driver, self._driver = self._driver, None
        self._workers = []
        self._claimed = {}
        self._ensured = set()
        if driver is not None:
            _inherited.append(driver)
        self._pid = os.getpid()

    def _leave_parent(self) -> None:
        """Start afresh in a forked child, or keep for every use why the parent's open driver cannot follow."""
        driver = self._driver
        if driver is not None and (
            driver.capabilities.after_fork == "refuse" or isinstance(self._settings.driver, Driver)
        ):
            self._refusal = (
                f"this queue was opened before a fork and its driver {driver.capabilities.name!r} cannot follow into the "
                "child; build the TaskQueue in the child, or use spawn"
            )
        self._forget_parent()

    async def _opened(self, prepare: Callable[[], T]) -> T:
        """Prepare on the loop if the driver is open, else on a thread, since opening blocks."""
        if self._driver is not None and self._pid == os.getpid():
            return prepare()
        return await asyncio.to_thread(prepare)

    def _prepare_one(
        self, task: Task, options: Sequence[EnqueueOption], keywords: Mapping[str, Any]
    ) -> producer.Prepared:
        settings = resolve(options, keywords)
        producer.check_single(task, settings)
        chain = self._settings.middleware
        return self._producing().prepare([chain.before_enqueue(task) if chain else task], settings)

    def _prepare_many(
        self, tasks: Iterable[Task], options: Sequence[EnqueueOption], keywords: Mapping[str, Any]
    ) -> producer.Prepared:
        settings = resolve(options, keywords)
        chain = self._settings.middleware
        if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
            raise ConfigError(
                f"enqueue_batch: expected several Tasks, got {tasks!r}; wrap it in a list, or use enqueue()"
            )
        wanted = list(tasks)
        producer.check_many(wanted, settings)
        return self._producing().prepare([chain.before_enqueue(t) for t in wanted] if chain else wanted, settings)

    def _producing(self) -> Producer:
        if self._producer is None:
            limit = self._open().capabilities.max_body_bytes
            self._producer = Producer(self._topics, self._settings.codec, self._clock, limit)
        return self._producer

    def _publish(self, messages: list[Message]) -> Confirmation:
        driver = self._open()
        missing = self._unknown_topics(messages)
        if missing:
            driver.ensure(sorted(missing))
            self._ensured |= missing
        return driver.publish(messages)

    async def _apublish(self, messages: list[Message]) -> Confirmation:
        """Publish on the loop, which never waits, unless a topic is new: making sure of one may block."""
        if self._unknown_topics(messages):
            return await asyncio.to_thread(self._publish, messages)
        return self._publish(messages)

    def _unknown_topics(self, messages: list[Message]) -> set[str]:
        return {message.topic for message in messages} - self._ensured

    def _driver_context(self) -> DriverContext:
        slots = self._settings.delay_slots
        return DriverContext(
            prefix=self._settings.topic_prefix, delay_slots=None if slots is None else (slots.count, slots.duration)
        )

    def _accept_one(self, enqueued: Enqueued, error: PublishError | None) -> Enqueued:
        if error is not None:
            raise error
        if self._settings.middleware:
            self._settings.middleware.after_enqueue([enqueued])
        return enqueued

    def _report(self, accepted: Sequence[Enqueued], outcome: Sequence[PublishError | None]) -> EnqueueReport:
        report = producer.report_of(accepted, outcome)
        if self._settings.middleware and report.accepted:
            self._settings.middleware.after_enqueue(report.accepted)
        return report

    def _handlers(self, handler: Handler | None) -> Handlers:
        if handler is not None:
            check_handler(handler)
            return OneHandler(handler)
        if not self._registry.by_type:
            raise ConfigError("start: no handler given and no @queue.task registered; give one or decorate a function")
        return ByType(self._registry.seal())

    def _worker_config(self, concurrency: int, queues: Sequence[str] | None, on_error: OnError | None) -> WorkerConfig:
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or not 1 <= concurrency <= 10_000:
            raise ConfigError(f"concurrency: expected an integer from 1 to 10000, got {concurrency!r}")
        if on_error is not None:
            check_handler(on_error, "on_error", "task", "error")
            if is_async(on_error):
                raise ConfigError("on_error: an async function would never run; use def")
        settings = self._settings
        return WorkerConfig(
            group=settings.group_id,
            topics=self._topics,
            codec=settings.codec,
            policy=settings.retry,
            chain=settings.middleware,
            clock=self._clock,
            queues=settings.queues if queues is None else check_queues(queues),
            concurrency=concurrency,
            weights=settings.weights.shares,
            reserve=settings.weights.reserve,
            on_error=on_error,
            on_exhausted=self._exhausted,
        )

    def _start_worker(self, worker_config: WorkerConfig, work: TaskWork | BatchWork, verb: str) -> None:
        with self._lock:
            if self._stopping:
                raise QueueClosed("this queue was stopped; build a new TaskQueue")
            for queue in worker_config.queues:
                if queue in self._claimed:
                    raise ConfigError(
                        f"{verb}: the queue {queue!r} is read by {self._claimed[queue]}() of this TaskQueue already; "
                        "a queue is read once: raise the concurrency, or use another TaskQueue"
                    )
            self._workers.append(Worker(self._open(), worker_config, work))
            self._claimed.update(dict.fromkeys(worker_config.queues, verb))

    def _exhausted(self) -> None:
        """Overdue handlers hold as many threads as the concurrency: drain, and let a supervisor start afresh."""
        self._exit_code = EXIT_TEMPORARY
        threading.Thread(target=self.stop, name="nova-stop", daemon=True).start()


class _Stop(threading.Thread):
    def __init__(self, worker: Worker, timeout: float) -> None:
        super().__init__(name="nova-stop", daemon=True)
        self._worker = worker
        self._timeout = timeout
        self.clean = False

    def run(self) -> None:
        self.clean = self._worker.stop(self._timeout)
