"""Code of the user's that fails where Nova calls it: no thread dies of it, no task stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from nova import (
    Batch,
    ConfigError,
    CountAggregator,
    DecodeError,
    EncodeError,
    Middleware,
    Outcome,
    ReceivedTask,
    Retry,
    Task,
    TaskQueue,
    TimeCountAggregator,
    with_codec,
    with_memory,
    with_middleware,
    with_retry,
    with_topic_prefix,
)
from nova.brokers.base import Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.codecs import find_codec
from nova.envelope import Content
from nova.watchdog import Watchdog
from tests.eventually import eventually, never

TOPIC = "TASK_QUEUE_PRIORITY_NORMAL"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.nodeid)


def send(name: str, body: bytes, headers: Mapping[str, str]) -> None:
    """A message as some other producer might write it."""
    message = Message(TOPIC, body, {"nova-id": "foreign", "task_type": "t", **headers}, "foreign")
    assert MemoryDriver(MemoryConfig(name=name)).publish([message]).result() == [None]


class Broken:
    """A retry policy of the user's, with a bug."""

    max_retries = 1

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def delay(self, attempt: int, random: float) -> float:
        if isinstance(self._answer, Exception):
            raise self._answer
        answer: float = self._answer
        return answer


@pytest.mark.parametrize("answer", [RuntimeError("bug"), None, -1.0, float("inf"), float("nan"), 1e17])
def test_a_broken_policy_is_replaced_by_the_default_and_the_worker_lives(answer: Any) -> None:
    with TaskQueue(with_memory(), with_retry(Broken(answer))) as q:
        seen: list[str] = []

        def handle(task: ReceivedTask) -> None:
            seen.append(task.type)
            if task.type == "bad":
                raise ValueError

        q.start(handle, concurrency=2)
        q.enqueue_batch([Task("bad", i) for i in range(4)])
        q.enqueue_batch([Task("good", i) for i in range(4)])
        eventually(lambda: seen.count("good") == 4)
        eventually(lambda: q.depth().delayed == 4)


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), 1e17, -1, timedelta(days=-1)])
def test_an_impossible_retry_delay_is_an_ordinary_failure(delay: Any) -> None:
    with TaskQueue(with_memory(), with_retry(max_retries=0)) as q:

        def handle(task: ReceivedTask) -> None:
            raise Retry(delay=delay)

        q.enqueue(Task("t"))
        assert q.drain(handle) == 1
        assert [d.error_type for d in q.dead.list()] == ["ConfigError"]


def test_retry_takes_a_timedelta() -> None:
    assert Retry(delay=timedelta(minutes=1)).delay == 60.0


def test_a_codec_that_raises_anything_buries_only_its_own_message(name: str) -> None:
    class Fussy:
        name = "fussy"

        def encode(self, content: Content) -> bytes:
            return find_codec("json").encode(content)

        def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
            if b'"Type":"bad"' in body:
                raise KeyError("a bug of the codec")
            return find_codec("json").decode(body, headers)

    with TaskQueue(with_memory(), with_codec(Fussy())) as q:
        q.enqueue_batch([Task("bad" if i == 5 else "good", i) for i in range(20)])
        seen: list[str] = []
        q.start(lambda task: seen.append(task.type))
        eventually(lambda: len(seen) == 19)
        eventually(lambda: [d.reason for d in q.dead.list()] == ["undecodable"])
        assert "KeyError" in q.dead.list()[0].error


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[" * 200_000, {"nova": "1 json"}),
        (b"[" * 200_000, {"nova": "1 orjson"}),
        (b"[" * 200_000, {"nova": "1 protobuf"}),
        (b"", {}),
        (b"x", {"nova-due": "9" * 30, "nova": "1 blob"}),
        (b"x", {"nova-expires": "-5", "nova": "1 blob"}),
        (b"x", {"nova-attempt": "NaN", "nova": "1 blob"}),
        (b"x", {"priority": "urgent", "nova": "1 blob"}),
    ],
)
def test_hostile_messages_are_buried_and_hold_up_nobody(name: str, body: bytes, headers: dict[str, str]) -> None:
    send(name, body, headers)
    with TaskQueue(with_memory(name=name)) as q:
        q.enqueue(Task("fine"))
        seen: list[str] = []
        q.start(lambda task: seen.append(task.type))
        eventually(lambda: seen == ["fine"])
        eventually(lambda: [d.reason for d in q.dead.list()] == ["undecodable"])
        eventually(lambda: q.depth().running == 0)


def test_a_key_function_that_raises_fails_its_own_task_only() -> None:
    def key(task: ReceivedTask) -> str:
        return str(task.json()["tenant"])

    with TaskQueue(with_memory(), with_retry(max_retries=1, base=0.01)) as q:
        loaded: list[str] = []

        def load(batch: Batch) -> None:
            loaded.extend(batch.ids)

        q.enqueue_batch([Task("row", {"tenant": 1} if i else {}, id=f"row-{i}") for i in range(100)])
        q.start_batch(load, TimeCountAggregator(50, 0.2, key=key))
        eventually(lambda: len(loaded) == 99)
        eventually(lambda: [(d.id, d.error_type) for d in q.dead.list()] == [("row-0", "KeyError")])


def test_a_retry_is_not_measured_by_the_queue_timeout() -> None:
    with TaskQueue(with_memory(), with_retry(max_retries=1, base=0.3, jitter=0)) as q:
        attempts: list[int] = []

        def handle(task: ReceivedTask) -> None:
            attempts.append(task.attempt)
            if task.attempt == 1:
                raise ValueError

        q.start(handle)
        q.enqueue(Task("t"), queue_timeout=0.2)
        eventually(lambda: attempts == [1, 2])
        never(lambda: q.dead.list(), during=0.1)


@pytest.mark.parametrize("prefix", ["SHOP_PRIORITY_X", "A_DELAY_", "A_DEAD"])
def test_a_prefix_that_could_not_be_read_back_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="topic prefix"):
        with_topic_prefix(prefix)


def test_decorating_after_start_is_refused() -> None:
    with TaskQueue(with_memory()) as q:

        @q.task("first")
        def first() -> None: ...

        def second() -> None: ...

        with pytest.raises(ConfigError, match="plain function"):
            q.task("twice")(first)
        q.start()
        with pytest.raises(ConfigError, match="before the worker starts"):
            q.task("second")(second)


def test_a_later_due_option_replaces_the_earlier_of_either_name() -> None:
    from datetime import UTC, datetime

    with TaskQueue(with_memory()) as q:

        @q.task("t", process_in=500)
        def handle() -> None: ...

        instant = datetime(2100, 1, 1, tzinfo=UTC)
        assert handle.options(process_at=instant).enqueue().due_at == instant
        due = handle.options(process_at=instant).options(process_in=0).enqueue().due_at
        assert due is None


@pytest.mark.parametrize("hook", [lambda: None, lambda task: None, "hook"])
def test_on_error_is_checked_when_the_worker_starts(hook: Any) -> None:
    with TaskQueue(with_memory()) as q, pytest.raises(ConfigError, match="on_error"):
        q.start(print, on_error=hook)


def test_run_is_refused_off_the_main_thread_before_anything_starts() -> None:
    import threading

    with TaskQueue(with_memory()) as q:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                q.run(print)
            except ConfigError as exc:
                errors.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert len(errors) == 1
        assert q.last_receive_age is None


def test_handlers_that_raise_system_exit_use_an_attempt_and_no_thread_dies() -> None:
    actions: list[Callable[[], None]] = []
    with TaskQueue(with_memory(), with_retry(max_retries=0)) as q:

        def handle(task: ReceivedTask) -> None:
            actions.append(lambda: None)
            raise SystemExit(3)

        q.start(handle, concurrency=1)
        q.enqueue_batch([Task("t", i) for i in range(3)])
        eventually(lambda: [d.error_type for d in q.dead.list()] == ["SystemExit"] * 3)


def test_a_configured_queue_takes_options_that_no_file_can_say() -> None:
    class Mark(Middleware):
        def before_enqueue(self, task: Task) -> Task:
            return Task(task.type, task.payload, metadata={"marked": "yes"})

    q = TaskQueue.from_config({"broker": "memory"}, with_middleware(Mark()))
    q.enqueue(Task("t"))
    seen: list[dict[str, str]] = []
    q.drain(lambda task: seen.append(task.metadata))
    assert seen == [{"marked": "yes"}]
    with pytest.raises(ConfigError, match="two drivers"):
        TaskQueue.from_config({"broker": "memory"}, with_memory())
    with pytest.raises(ConfigError, match="aggregator"):
        q.start_batch(print, CountAggregator)  # type: ignore[arg-type]
    q.stop()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), RuntimeError()])
@pytest.mark.parametrize("kind", ["def", "async def", "batch", "async batch"])
def test_whatever_a_handler_raises_no_slot_is_lost(error: BaseException, kind: str) -> None:
    """Sixteen ways to die; the good tasks behind them must run, at concurrency 1."""
    good: list[str] = []

    def handle(task: ReceivedTask) -> None:
        if task.type == "bad":
            raise error
        good.append(task.id)

    async def handle_async(task: ReceivedTask) -> None:
        if isinstance(error, SystemExit):  # also from a task of its own, which asyncio lets out of the loop

            async def inner() -> None:
                handle(task)

            await asyncio.gather(inner())
        else:
            handle(task)

    def load(batch: Batch) -> None:
        for task in batch:
            handle(task)

    async def load_async(batch: Batch) -> None:
        load(batch)

    with TaskQueue(with_memory(), with_retry(max_retries=1, base=0.01)) as q:
        q.enqueue(Task("bad", id="bad"))
        q.enqueue_batch([Task("good", i) for i in range(5)])
        if kind == "batch":
            q.start_batch(load, CountAggregator(1), concurrency=1)
        elif kind == "async batch":
            q.start_batch(load_async, CountAggregator(1), concurrency=1)
        else:
            q.start(handle if kind == "def" else handle_async, concurrency=1)
        eventually(lambda: len(good) == 5)
        if "batch" not in kind:
            eventually(lambda: [d.error_type for d in q.dead.list()] == [type(error).__name__])
        assert q.stop(timeout=5)


def test_an_on_error_that_exits_loses_no_thread() -> None:
    def leave(task: ReceivedTask, error: BaseException) -> None:
        raise SystemExit(3)

    with TaskQueue(with_memory(), with_retry(max_retries=0)) as q:

        def fail(task: ReceivedTask) -> None:
            raise ValueError

        q.start(fail, concurrency=2, on_error=leave)
        q.enqueue_batch([Task("t", i) for i in range(40)])
        eventually(lambda: q.depth().dead == 40)


@pytest.mark.parametrize("answer", [RuntimeError("bug"), None])
def test_a_broken_policy_stops_no_batches(answer: Any) -> None:
    loaded: list[str] = []

    def load(batch: Batch) -> None:
        if len(batch) > 1 and "bad" in {task.type for task in batch}:
            raise ValueError
        loaded.extend(batch.ids)

    with TaskQueue(with_memory(), with_retry(Broken(answer))) as q:
        q.start_batch(load, TimeCountAggregator(4, 0.1))
        q.enqueue_batch([Task("bad" if i == 2 else "good", i) for i in range(4)])
        eventually(lambda: len(loaded) == 4, timeout=20)


def test_a_key_that_is_no_text_fails_its_own_task_only() -> None:
    with TaskQueue(with_memory(), with_retry(max_retries=0)) as q:
        loaded: list[str] = []
        q.enqueue_batch([Task("row", {"k": ["list"] if i == 3 else "a"}, id=f"row-{i}") for i in range(10)])
        q.start_batch(lambda b: loaded.extend(b.ids), TimeCountAggregator(5, 0.2, key=lambda t: t.json()["k"]))
        eventually(lambda: len(loaded) == 9)
        eventually(lambda: [(d.id, d.error_type) for d in q.dead.list()] == [("row-3", "TypeError")])


@pytest.mark.parametrize("kind", ["blocks the loop", "swallows the cancellation"])
def test_a_stop_ends_in_time_whatever_an_async_handler_does(kind: str) -> None:
    import time

    started: list[str] = []
    release: list[bool] = []

    async def handle(task: ReceivedTask) -> None:
        started.append(task.id)
        if kind == "blocks the loop":
            time.sleep(6)  # what an async handler must not do
            return
        while not release:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    q = TaskQueue(with_memory())
    q.start(handle)
    q.enqueue(Task("t"))
    eventually(lambda: started)
    begin = time.monotonic()
    assert not q.stop(timeout=0.5)
    assert time.monotonic() - begin < 5.5, "0.5 s, the graces, and a wide margin"
    release.append(True)


def test_a_time_limit_keeps_nothing_of_a_task_that_has_ended() -> None:
    import gc
    import weakref

    dog = Watchdog("dog")
    held: list[weakref.ref[object]] = []

    class Payload:
        pass

    def limit_and_withdraw() -> None:
        payload = Payload()
        held.append(weakref.ref(payload))
        dog.withdraw(dog.call_after(3600, lambda: print(payload)))

    for _ in range(1000):
        limit_and_withdraw()
    gc.collect()
    assert sum(ref() is not None for ref in held) <= 1
    assert len(dog) <= 200
    dog.close()


def test_delays_count_from_the_call_and_are_never_early() -> None:
    import time

    with TaskQueue(with_memory(), with_retry(max_retries=1, base=0.01, jitter=0)) as q:
        early: list[float] = []
        failed: dict[str, float] = {}

        def handle(task: ReceivedTask) -> None:
            now = time.time()
            if task.type == "delayed":
                early.append(task.json() + 0.010 - now)
            elif task.attempt == 1:
                failed[task.id] = time.time()
                raise ValueError
            else:
                early.append(failed[task.id] + 0.010 - now)

        q.start(handle)
        for _ in range(200):
            q.enqueue(Task("delayed", time.time()), process_in=0.010)
            q.enqueue(Task("retried"))
        eventually(lambda: len(early) == 400)
        assert max(early) <= 0


def test_a_full_queue_of_failing_tasks_gets_through() -> None:
    with TaskQueue(with_memory(max_messages=10), with_retry(max_retries=1, base=0.01)) as q:

        def fail(task: ReceivedTask) -> None:
            raise ValueError

        q.enqueue_batch([Task("t", i) for i in range(10)]).raise_for_failures()
        q.start(fail)
        eventually(lambda: q.depth().dead == 10)
        assert q.enqueue_batch([Task("t")]).failed


def test_a_codec_that_breaks_its_word_is_an_encode_error_and_sends_nothing() -> None:
    class Wrong:
        name = "wrong"

        def __init__(self, answer: Any) -> None:
            self._answer = answer

        def encode(self, content: Content) -> bytes:
            if isinstance(self._answer, Exception):
                raise self._answer
            answer: bytes = self._answer
            return answer

        def decode(self, body: bytes, headers: Mapping[str, str]) -> Content:
            raise DecodeError("never asked")

    for answer in ("text", None, KeyError("bug")):
        with TaskQueue(with_memory(), with_codec(Wrong(answer))) as q:
            with pytest.raises(EncodeError, match="'wrong'"):
                q.enqueue(Task("t"))
            assert q.depth().waiting == 0


def test_async_hooks_are_refused_because_they_would_never_run() -> None:
    async def on_error(task: ReceivedTask, error: BaseException) -> None: ...

    class Hooks(Middleware):
        async def after_handle(self, task: ReceivedTask, outcome: Outcome) -> None: ...  # type: ignore[override]

    with TaskQueue(with_memory()) as q, pytest.raises(ConfigError, match="use def"):
        q.start(print, on_error=on_error)
    with pytest.raises(ConfigError, match="use def"):
        with_middleware(Hooks())


def test_a_replay_starts_at_attempt_one() -> None:
    with TaskQueue(with_memory(), with_retry(max_retries=2, base=0)) as q:
        seen: list[tuple[int, int]] = []

        def fail(task: ReceivedTask) -> None:
            seen.append((task.attempt, task.run))
            raise ValueError

        q.enqueue(Task("t"))
        q.drain(fail)
        assert q.dead.requeue() == 1
        q.drain(fail)
        assert seen == [(1, 1), (2, 2), (3, 3), (1, 4), (2, 5), (3, 6)]
