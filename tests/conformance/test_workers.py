"""Workers: threads and coroutines, time limits, stops, forks, deaths."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from nova import ConfigError, CountAggregator, PublishError, ReceivedTask, Task
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never, soon


def test_async_handlers_share_one_loop_and_keep_to_the_concurrency(broker: Broker) -> None:
    q = broker.queue()
    loops: set[int] = set()
    running, most, done = 0, 0, 0

    async def handle(task: ReceivedTask) -> None:
        nonlocal running, most, done
        loops.add(id(asyncio.get_running_loop()))
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        done += 1

    q.start(handle, concurrency=50)
    q.enqueue_batch([Task("t", i) for i in range(300)])
    eventually(lambda: done == 300)
    assert len(loops) == 1
    assert 1 < most <= 50


def test_async_failures_follow_the_same_rules(broker: Broker) -> None:
    q = broker.queue()
    attempts: list[int] = []

    async def fail(task: ReceivedTask) -> None:
        attempts.append(task.attempt)
        if task.type == "cancelled":
            raise asyncio.CancelledError  # a handler's own, not ours
        raise RuntimeError

    q.start(fail)
    q.enqueue(Task("plain"))
    q.enqueue(Task("cancelled"))
    eventually(lambda: len(q.dead.list()) == 2)
    assert sorted(attempts) == [1, 1, 2, 2, 3, 3]


def test_def_and_async_tasks_live_in_one_registry(broker: Broker) -> None:
    q = broker.queue()
    seen: list[tuple[str, str]] = []

    @q.task("plain")
    def plain(n: int) -> None:
        seen.append(("plain", threading.current_thread().name))

    @q.task("coroutine")
    async def coroutine(n: int, note: str = "none") -> None:
        seen.append((f"coroutine {note}", threading.current_thread().name))

    q.start(concurrency=4)
    plain.enqueue(1)
    coroutine.enqueue(2, note="x")
    asyncio.run(coroutine.options(priority=3).aenqueue(3))
    eventually(lambda: sorted(kind for kind, _ in seen) == ["coroutine none", "coroutine x", "plain"])
    assert not any(name == "MainThread" for _, name in seen)


def test_a_handler_that_returns_a_coroutine_is_no_success(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 0})

    async def inner(task: ReceivedTask) -> None: ...

    q.start(lambda task: inner(task))
    q.enqueue(Task("t"))
    eventually(lambda: [d.error_type for d in q.dead.list()] == ["TypeError"])
    assert "async def" in q.dead.list()[0].error


@pytest.mark.parametrize("kind", ["def", "async"])
def test_an_overdue_handler_loses_its_slot_and_its_outcome(broker: Broker, kind: str) -> None:
    q = broker.queue(retry={"max_retries": 0})
    release = threading.Event()
    fine: list[str] = []

    def block(task: ReceivedTask) -> None:
        if task.type == "stuck":
            release.wait(20)
        else:
            fine.append(task.id)

    async def block_async(task: ReceivedTask) -> None:
        if task.type == "stuck":
            await asyncio.sleep(20)
        fine.append(task.id)

    q.start(block if kind == "def" else block_async, concurrency=2)
    stuck = q.enqueue(Task("stuck"), process_timeout=0.2)
    eventually(lambda: [d.id for d in q.dead.list()] == [stuck.task_id])
    assert q.dead.list()[0].error_type == "ProcessTimeout"
    q.enqueue_batch([Task("fine", i) for i in range(20)])
    eventually(lambda: len(fine) == 20)
    release.set()
    never(lambda: len(q.dead.list()) != 1 or len(fine) != 20, during=0.2)


def test_a_worker_whose_slots_are_all_stuck_drains_and_exits_75(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 0})
    release = threading.Event()
    q.start(lambda task: release.wait(20), concurrency=2)
    q.enqueue_batch([Task("stuck", i) for i in range(2)], process_timeout=0.1)
    with pytest.raises(SystemExit) as exit_:
        q.run(timeout=0.5)
    assert exit_.value.code == 75
    release.set()
    other = broker.queue()
    eventually(lambda: len(other.dead.list()) == 2)


def test_stop_finishes_what_runs_and_gives_back_the_rest_uncounted(broker: Broker) -> None:
    q = broker.queue()
    ended: list[str] = []
    started: list[str] = []

    def slow(task: ReceivedTask) -> None:
        started.append(task.id)
        time.sleep(0.3)  # the length of the task
        ended.append(task.id)

    q.start(slow, concurrency=2)
    q.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(20)])
    eventually(lambda: len(started) >= 2, what="both run")
    assert q.stop(timeout=20)
    first = list(ended)
    assert 2 <= len(first) < 20
    other = broker.queue()
    soon(lambda: other.depth().waiting == 20 - len(first))
    attempts: Counter[int] = Counter()

    def rest(task: ReceivedTask) -> None:
        attempts[task.attempt] += 1
        ended.append(task.id)

    other.start(rest)
    eventually(lambda: len(ended) == 20)
    never(lambda: len(ended) > 20, during=0.3)
    assert sorted(ended) == sorted(f"t{i}" for i in range(20))
    assert attempts == {1: 20 - len(first)}


def test_stop_under_load_duplicates_nothing(broker: Broker) -> None:
    seen: list[str] = []
    producer = broker.queue()
    producer.enqueue_batch([Task("t", i, id=f"t{i}") for i in range(3000)])
    for n in range(4):
        q = broker.queue()
        before = len(seen)
        producer.enqueue(Task("t", id=f"more{n}"))
        q.start(lambda task: seen.append(task.id), concurrency=4)
        eventually(lambda: len(seen) > before)  # noqa: B023
        assert q.stop(timeout=20)
    last = broker.queue()
    last.start(lambda task: seen.append(task.id))
    eventually(lambda: len(set(seen)) == 3004)
    never(lambda: len(seen) > 3004, during=0.3)


def test_a_slow_task_holds_back_no_other(broker: Broker) -> None:
    q = broker.queue()
    release = threading.Event()
    seen: list[str] = []

    def handle(task: ReceivedTask) -> None:
        if task.type == "slow":
            release.wait(30)
        seen.append(task.id)

    q.start(handle, concurrency=2)
    q.enqueue(Task("slow"), key="k")
    q.enqueue_batch([Task("fast", i, key="k") for i in range(500)])
    eventually(lambda: len(seen) == 500)
    release.set()
    eventually(lambda: len(seen) == 501)


def test_a_task_longer_than_its_lease_runs_once(broker: Broker) -> None:
    lease = broker.driver().capabilities.lease or 0.5
    one, two = broker.queue(), broker.queue()
    starts: list[str] = []

    def long(task: ReceivedTask) -> None:
        starts.append(task.id)
        time.sleep(2.5 * lease)  # the length of the task

    one.start(long, concurrency=1)
    two.start(long, concurrency=1)
    one.enqueue(Task("t"))
    eventually(lambda: starts)
    never(lambda: len(starts) > 1, during=2 * lease)
    eventually(lambda: one.depth().running == 0)
    assert len(starts) == 1


def test_a_queue_is_read_once(broker: Broker) -> None:
    q = broker.queue()
    q.start(lambda task: None, queues=["a", "b"])
    with pytest.raises(ConfigError, match="'b' is read by start"):
        q.start_batch(lambda batch: None, CountAggregator(5), queues=["b", "c"])
    q.start_batch(lambda batch: None, CountAggregator(5), queues=["c"])


def test_health_is_the_age_of_the_last_receive(broker: Broker) -> None:
    q = broker.queue()
    assert q.last_receive_age is None
    q.start(lambda task: None)
    never(lambda: (q.last_receive_age or 0) > 5, during=0.5)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_fork_reopens_or_refuses(broker: Broker) -> None:
    q = broker.queue()
    unopened = broker.queue()
    q.enqueue(Task("t"))
    pid = os.fork()
    if pid == 0:  # the child: no pytest here, only an exit code
        code = 1
        try:
            q.enqueue(Task("t"))
            unopened.enqueue(Task("t"))
            code = 0
        except ConfigError as exc:
            code = 75 if "fork" in str(exc) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    expected = 0 if broker.driver().capabilities.after_fork == "reopen" else 75
    assert os.waitstatus_to_exitcode(status) == expected
    q.enqueue(Task("t"))
    soon(lambda: q.depth().waiting == (4 if expected == 0 else 2))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_queue_that_cannot_follow_a_fork_says_so_at_every_use(broker: Broker) -> None:
    """A server that forked its workers from an open queue would else find the reason beside the first request alone."""
    if broker.driver().capabilities.after_fork == "reopen":
        return
    q = broker.queue()
    q.enqueue(Task("t"))
    uses: tuple[Callable[[], object], ...] = (
        lambda: q.enqueue(Task("t")),
        lambda: q.enqueue(Task("t")),
        q.depth,
        lambda: q.start(lambda task: None),
    )
    pid = os.fork()
    if pid == 0:  # the child: no pytest here, only an exit code
        refused = 0
        try:
            for use in uses:
                try:
                    use()
                except ConfigError as exc:
                    refused += "before a fork" in str(exc)
        finally:
            os._exit(refused)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == len(uses)


def test_a_child_keeps_what_it_stored_after_its_parent_has_stopped(broker: Broker) -> None:
    if broker.driver().capabilities.after_fork == "refuse":
        return
    q = broker.queue()
    q.enqueue(Task("parent"))
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            q.enqueue_batch([Task("child", i) for i in range(5)]).raise_for_failures()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            for i in range(100):
                q.enqueue(Task("child", i))
            code = 0
        finally:
            os._exit(code)
    assert os.read(ready[0], 1) == b"x"
    q.stop()
    os.write(go[1], b"x")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert broker.queue().depth().waiting == 106


def test_forks_under_load_neither_hang_nor_lose(broker: Broker) -> None:
    if broker.driver().capabilities.after_fork == "refuse":
        return
    q = broker.queue()
    stop = threading.Event()
    stored = [0, 0, 0]

    def accepted() -> None:
        """Enqueue until it is taken: so many writers may keep one out for longer than its busy_timeout."""
        while True:
            try:
                q.enqueue(Task("t"))
            except PublishError as exc:
                if exc.may_be_stored:
                    raise
            else:
                return

    def produce(n: int) -> None:
        while not stop.is_set():
            accepted()
            stored[n] += 1

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                accepted()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    ended: list[int] = []

    def reap() -> bool:
        ended.extend(pid for pid in children if pid not in ended and os.waitpid(pid, os.WNOHANG)[0])
        return len(ended) == len(children)

    eventually(reap, timeout=30)
    stop.set()
    for thread in threads:
        thread.join()
    assert q.depth().waiting == sum(stored) + 10


def test_drain_runs_everything_due_in_this_thread(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 2, "base": 0.0})
    attempts: list[int] = []

    def handle(task: ReceivedTask) -> None:
        assert threading.current_thread() is threading.main_thread()
        attempts.append(task.attempt)
        if task.type == "bad":
            raise RuntimeError

    q.enqueue(Task("good"))
    q.enqueue(Task("bad"))
    q.enqueue(Task("later"), process_in=60)
    if broker.driver().capabilities.shared:
        with pytest.raises(ConfigError, match="with_memory"):
            q.drain(handle)
        return
    assert q.drain(handle) == 4
    assert sorted(attempts) == [1, 1, 2, 3]
    assert [d.reason for d in q.dead.list()] == ["retries exhausted"]
    assert q.depth().delayed == 1


def test_a_handler_may_enqueue_until_the_stop_has_let_it_finish(broker: Broker) -> None:
    q = broker.queue()
    started = threading.Event()

    def handle(task: ReceivedTask) -> None:
        started.set()
        time.sleep(0.3)  # so that the stop begins meanwhile
        q.enqueue(Task("next"))

    q.start(handle, concurrency=1)
    q.enqueue(Task("first"))
    assert started.wait(10)
    other = threading.Thread(target=q.stop)
    other.start()
    assert q.stop(timeout=20)
    other.join()
    after = broker.queue()
    soon(lambda: broker.tells(after.depth(), waiting=1, delayed=0, dead=0))


def test_handlers_may_fork_all_at_once(broker: Broker) -> None:
    q = broker.queue(retry={"max_retries": 0})
    done: list[int] = []

    def handle(task: ReceivedTask) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        done.append(os.waitstatus_to_exitcode(status))

    q.start(handle, concurrency=4)
    q.enqueue_batch([Task("t", i) for i in range(40)])
    eventually(lambda: len(done) == 40, timeout=30)
    assert set(done) == {0}
    assert q.stop(timeout=10)


def test_a_child_may_leave_the_with_block_of_its_parents_queue(broker: Broker) -> None:
    q = broker.queue()
    with q:
        q.start(lambda task: None)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                q.__exit__(None, None, None)
                code = 0
            finally:
                os._exit(code)
        ended: list[int] = []

        def reap() -> bool:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended.append(os.waitstatus_to_exitcode(status))
            return bool(found)

        eventually(reap, timeout=10)
        assert ended == [0]
        done = q.enqueue(Task("t"))
        assert done.task_id
