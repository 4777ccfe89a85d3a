"""Where handlers run: threads for `def`, one event loop for `async def`. Jobs come from `Lanes`.

Both executors call `run(job, slot)`; the job never raises. A slot whose handler has overrun its time is *abandoned*: its
outcome is ignored and its place is taken by another thread (a thread cannot be stopped from outside).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar, cast

from nova.lanes import Lanes

GRACE = 1.0
"""Seconds a cancelled coroutine has to end."""

__all__ = ["Executor", "LoopExecutor", "LoopThread", "Slot", "ThreadExecutor", "in_daemon_thread"]

J = TypeVar("J")
T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


_log = logging.getLogger(__name__)
_left_behind: list[asyncio.Task[Any]] = []
"""Tasks that outlived their worker, kept so that they end with the process and not in a garbage collection."""


class Slot:
    """One running job of a thread executor."""

    __slots__ = ("abandoned", "current", "lock", "rank")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.abandoned = False
        self.current: object = None
        self.rank = 0


class Executor(Protocol):
    """Runs jobs until closed."""

    def wake(self, jobs: int) -> None:
        """New jobs, or room for waiting ones. Called with the lanes' lock held: never blocks."""
        ...

    def idle(self) -> None:
        """An executor's look at the lanes found nothing. Called with the lanes' lock held."""
        ...

    def close(self, timeout: float) -> bool:
        """Start no more jobs, wait for the running ones; False if some still run."""
        ...


class ThreadExecutor(Generic[J]):
    """Up to `slots` threads, started when there is work for them.

    `_idle`, `_threads` and `_closing` change only under the lanes' lock; an idle thread sleeps until it gets a token.

    Args:
        name: thread name prefix.
        slots: the most threads (abandoned ones apart).
        run: does a job; never raises.
    """

    def __init__(self, name: str, slots: int, run: Callable[[J, Slot], None]) -> None:
        self._name = name
        self._slots = slots
        self._run = run
        self._lanes: Lanes[J]
        self._tokens = threading.Semaphore(0)
        self._idle = 0
        self._threads: dict[Slot, threading.Thread] = {}
        self._started = 0
        self._closing = False

    def bind(self, lanes: Lanes[J]) -> None:
        """Take jobs from these lanes from now on."""
        self._lanes = lanes

    def wake(self, jobs: int) -> None:
        """Let idle threads look again, start missing ones. The lanes' lock is held."""
        woken = min(jobs, self._idle)
        self._idle -= woken
        if woken:
            self._tokens.release(woken)
        for _ in range(min(jobs - woken, self._slots - len(self._threads))):
            self._start_thread()

    def idle(self) -> None:
        """A thread found nothing to run. The lanes' lock is held."""
        self._idle += 1

    def abandon(self, slot: Slot) -> None:
        """Give up on a slot's thread, whose `abandoned` is set: another one takes its place."""
        with self._lanes.lock:
            del self._threads[slot]
        self._lanes.finish(slot.rank)

    def close(self, timeout: float) -> bool:
        """Wait for the threads to end, each after its job."""
        with self._lanes.lock:
            self._closing = True
            self._tokens.release(self._slots)
            threads = list(self._threads.values())
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start_thread(self) -> None:
        self._started += 1
        slot = Slot()
        thread = threading.Thread(target=self._work, args=(slot,), name=f"{self._name}-{self._started}", daemon=True)
        self._threads[slot] = thread
        thread.start()

    def _work(self, slot: Slot) -> None:
        take, run = self._lanes.take, self._run
        finished: int | None = None
        while True:
            taken = take(finished)
            if taken is not None:
                finished = slot.rank = taken[0]
                try:
                    run(taken[1], slot)
                except BaseException:  # noqa: BLE001 - a thread's top: it must give its slot back whatever a job does
                    _log.exception("a job failed in a way it must not")
                if slot.abandoned:
                    return
                continue
            if self._closing:
                return
            finished = None
            self._tokens.acquire()


class LoopThread:
    """One event loop on its own thread, from `start` to `close`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Make a coroutine there, run it, and wait for it here, at most `timeout` seconds.

        Raises:
            BaseException: what the coroutine raised; `SystemExit` too, which would otherwise end the loop's thread.
            TimeoutError: it did not end in time; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(_captured(make), self.loop)
        try:
            result, error = future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise
        if error is not None:
            raise error
        return cast("T", result)

    def close(self) -> None:
        """Cancel what still runs and end the thread; a coroutine that does not end within `GRACE` is left behind."""
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2 * GRACE)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            try:
                self.loop.run_forever()
            except BaseException:  # noqa: BLE001 - SystemExit of a task the handler made leaves run_forever
                _log.exception("a task of an async handler tried to end the loop")
        pending = asyncio.all_tasks(self.loop)
        for task in pending:
            task.cancel()
        if pending:
            self.loop.run_until_complete(asyncio.wait(pending, timeout=GRACE))
        left = [task for task in pending if not task.done()]
        if left:
            _log.warning("%d async handlers did not end when cancelled; they are left behind", len(left))
            _left_behind.extend(left)
            return
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


async def _captured(make: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T | None, BaseException | None]:
    try:
        return await make(), None
    except asyncio.CancelledError:
        raise
    except BaseException as exc:  # noqa: BLE001 - user code: what it raises is handed to the waiting side
        return None, exc


async def in_daemon_thread(function: Callable[[A], R], argument: A) -> R:
    """Call a blocking function in a thread of its own and await it.

    Unlike a pool's, the thread does not keep the process alive: a handler that overran its time may never end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def deliver(result: R | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("R", result))

    def call() -> None:
        result: R | None = None
        error: BaseException | None = None
        try:
            result = function(argument)
        except BaseException as exc:  # noqa: BLE001 - user code: its outcome is handed to the awaiting side
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile; nobody awaits the outcome
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=call, name=f"{threading.current_thread().name}-def", daemon=True).start()
    return await future


class LoopExecutor(Generic[J]):
    """Runs `async` jobs as tasks of one event loop.

    Args:
        name: thread name prefix.
        run: does a job; never raises but CancelledError.
    """

    def __init__(self, name: str, run: Callable[[J], Awaitable[None]]) -> None:
        self._thread = LoopThread(f"{name}-loop")
        self._run = run
        self._lanes: Lanes[J]
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = False

    def bind(self, lanes: Lanes[J]) -> None:
        """Take jobs from these lanes from now on."""
        self._lanes = lanes

    def wake(self, jobs: int) -> None:
        """Let the loop look at the lanes again."""
        del jobs
        if not self._woken:
            self._woken = True
            self._thread.loop.call_soon_threadsafe(self._start_jobs)

    def idle(self) -> None:
        """The loop found nothing to run; `wake` will call it."""

    def close(self, timeout: float) -> bool:
        """Wait for the running jobs, cancel those left after `timeout` seconds."""
        try:
            finished = self._thread.run(lambda: self._drain(timeout), timeout + GRACE)
        except TimeoutError:  # a coroutine blocks the loop itself
            finished = False
        self._thread.close()
        return finished

    def _start_jobs(self) -> None:
        self._woken = False
        while (taken := self._lanes.take()) is not None:
            task = self._thread.loop.create_task(self._do(*taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, rank: int, job: J) -> None:
        try:
            await self._run(job)
        finally:
            self._lanes.finish(rank)

    async def _drain(self, timeout: float) -> bool:
        tasks = set(self._tasks)
        if not tasks:
            return True
        _, pending = await asyncio.wait(tasks, timeout=None if timeout == float("inf") else timeout)
        return not pending
