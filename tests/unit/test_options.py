"""Bad input: one clear error of the right class, before anything is opened or sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nova
from nova import (
    ConfigError,
    CountAggregator,
    EncodeError,
    Priority,
    Retry,
    Task,
    TaskQueue,
    expires_at,
    key,
    max_retries,
    metadata,
    priority,
    process_at,
    process_in,
    process_timeout,
    queue,
    queue_timeout,
    task_id,
    with_delay_slots,
    with_driver,
    with_group_id,
    with_kafka,
    with_memory,
    with_message_format,
    with_middleware,
    with_priority_weights,
    with_queues,
    with_rabbitmq,
    with_retry,
    with_rocketmq,
    with_sqlite,
    with_topic_prefix,
)

QUEUE_MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: TaskQueue(with_memory(), with_sqlite()), "two drivers given, by with_memory.* and with_sqlite"),
    (lambda: TaskQueue(with_group_id("a"), with_group_id("b")), "group id twice"),
    (lambda: TaskQueue("sqlite"), "expected options such as with_sqlite"),  # type: ignore[arg-type]
    (lambda: with_sqlite(":memory:"), "use with_memory"),
    (lambda: with_sqlite(""), "path of a file"),
    (lambda: with_sqlite("x.db", lease=0), "lease"),
    (lambda: with_sqlite("x.db", lease=0.1), "at least 0.5"),
    (lambda: with_sqlite("x.db", max_bytes=-1), "max_bytes"),
    (lambda: with_sqlite("x.db", busy_timeout=float("inf")), "busy_timeout"),
    (lambda: with_memory(max_messages=0), "max_messages"),
    (lambda: with_driver(object()), "nova.brokers.base.Driver"),  # type: ignore[arg-type]
    (lambda: with_group_id("a.b"), "no dots"),
    (lambda: with_topic_prefix("x" * 51), "1 to 50"),
    (lambda: with_queues(), "at least one"),
    (lambda: with_queues("a", "a"), "different names"),
    (lambda: with_queues("tasks"), "reserved"),
    (lambda: with_queues("x_PRIORITY_y"), "reserved"),
    (lambda: with_queues("x_DELAY_0"), "reserved"),
    (lambda: with_queues("my_DEAD"), "reserved"),
    (lambda: with_queues("my_QUARANTINE"), "reserved"),
    (lambda: with_delay_slots(0, 60), "integer from 1 to 64, got 0; leave with_delay_slots"),
    (lambda: with_delay_slots(65, 60), "from 1 to 64"),
    (lambda: with_delay_slots(24, 0), "duration"),
    (lambda: with_delay_slots(24, timedelta(days=31)), "1 to 2592000 seconds"),
    (lambda: with_retry(max_retries=-1), "max_retries"),
    (lambda: with_retry(base=-1), "base"),
    (lambda: with_retry(base=float("nan")), "got nan"),
    (lambda: with_retry(cap=float("inf")), "got inf"),
    (lambda: with_retry(cap=10**400), "got 3.2e"),
    (lambda: with_retry(jitter=2), "jitter"),
    (lambda: with_retry(object()), "max_retries and delay"),  # type: ignore[arg-type]
    (lambda: with_priority_weights(0, 3, 1), "high"),
    (lambda: with_priority_weights(reserve=-1), "reserve"),
    (lambda: with_message_format("xml"), "expected one of json, orjson, blob, protobuf, got 'xml'"),
    (lambda: with_message_format("jsn"), "did you mean 'json'"),
    (lambda: with_message_format([]), "expected one of json"),  # type: ignore[arg-type]
    (lambda: TaskQueue.from_config(None), "path of a TOML file or a mapping"),  # type: ignore[arg-type]
    (lambda: TaskQueue.from_config({"queues": 5}), "list of names"),
    (lambda: TaskQueue.from_config({"auto_commit": True}), "acknowledges after success"),
    (lambda: with_kafka("a:1", auto_commit=True), "with_kafka: 'auto_commit' is refused: it would acknowledge"),  # type: ignore[call-arg]
    (lambda: with_kafka("a:1", session_timeout_ms=9), "with_kafka: unknown 'session_timeout_ms'; Nova calls it"),  # type: ignore[call-arg]
    (lambda: with_rabbitmq("amqp://a", prefetch_size=9), "with_rabbitmq: 'prefetch_size' is refused"),  # type: ignore[call-arg]
    (lambda: with_rocketmq("a:1", consume_orderly=True), "with_rocketmq: 'consume_orderly' is refused"),  # type: ignore[call-arg]
    (lambda: TaskQueue.from_url("sqlite:///a.db#x"), "means nothing"),
    (lambda: with_middleware(object()), "Middleware"),  # type: ignore[arg-type]
]

ENQUEUE_MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda q: q.enqueue("t"), "wrap it: Task"),
    (lambda q: q.enqueue(Task("t"), "high"), "expected options"),
    (lambda q: q.enqueue(Task("t"), prioritty=3), "did you mean 'priority'"),
    (lambda q: q.enqueue(Task("t"), priority(3), priority=3), "'priority' is given twice"),
    (lambda q: q.enqueue(Task("t"), process_in=-1), "process_in: expected a duration >= 0"),
    (lambda q: q.enqueue(Task("t"), process_in="soon"), "seconds or a timedelta"),
    (lambda q: q.enqueue(Task("t"), process_in=1, process_at=datetime.now(UTC)), "both given"),
    (lambda q: q.enqueue(Task("t"), process_at=datetime(2026, 1, 1)), "naive"),
    (lambda q: q.enqueue(Task("t"), process_at=5), "aware datetime"),
    (lambda q: q.enqueue(Task("t"), expires_at=datetime(2026, 1, 1)), "naive"),
    (lambda q: q.enqueue(Task("t"), priority=4), "LOW, NORMAL or HIGH"),
    (lambda q: q.enqueue(Task("t"), priority=True), "LOW, NORMAL or HIGH"),
    (lambda q: q.enqueue(Task("t"), queue="tasks"), "reserved"),
    (lambda q: q.enqueue(Task("t"), queue="a.b"), "no dots"),
    (lambda q: q.enqueue(Task("t"), max_retries=-1), "max_retries"),
    (lambda q: q.enqueue(Task("t"), process_timeout=0), "process_timeout"),
    (lambda q: q.enqueue(Task("t"), queue_timeout=0), "queue_timeout"),
    (lambda q: q.enqueue(Task("t"), key=""), "key"),
    (lambda q: q.enqueue(Task("t"), metadata={"a": 1}), "text for every name"),
    (lambda q: q.enqueue(Task("t"), task_id="with space"), "task id"),
    (lambda q: q.enqueue(Task("t", id="a"), task_id="b"), "id is given twice"),
    (lambda q: q.enqueue(Task("t", key="a"), key="b"), "key is given twice"),
    (lambda q: q.enqueue(Task("t"), process_in=10**400), "process_in"),
    (lambda q: q.enqueue_batch(Task("t")), "wrap it in a list"),
    (lambda q: q.enqueue_batch(5), "wrap it in a list"),
    (lambda q: q.enqueue_batch([Task("t"), Task("t")], task_id="b"), "for one task"),
    (lambda q: q.enqueue_batch([Task("t", id="a"), Task("t", id="a")]), "'a' stands twice"),
    (lambda q: q.enqueue_batch([Task("t"), "x"]), "expected a Task"),
    (lambda q: Task(""), "task type"),
    (lambda q: Task("two\nlines"), "task type"),
    (lambda q: Task("t", id="ä"), "ASCII"),
    (lambda q: Task("t", metadata="x"), "mapping"),  # type: ignore[arg-type]
]


def no_arguments() -> None: ...


def two_arguments(task: object, other: object) -> None: ...


def generator(task: object) -> Any:
    yield task


WORKER_MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda q: q.start(no_arguments), "cannot be called with one argument"),
    (lambda q: q.start(two_arguments), "cannot be called with one argument"),
    (lambda q: q.start("handler"), "function of one argument"),
    (lambda q: q.start(generator), "generator"),
    (lambda q: q.start(), "no handler given and no @queue.task"),
    (lambda q: q.start(print, concurrency=0), "concurrency"),
    (lambda q: q.start(print, concurrency=True), "concurrency"),
    (lambda q: q.start(print, queues="default"), r"write \['default'\]"),
    (lambda q: q.start(print, queues=[]), "one or more"),
    (lambda q: q.start(print, queues=5), "list of names"),
    (lambda q: q.start(print, on_error=5), "on_error"),
    (lambda q: q.start_batch(no_arguments, CountAggregator()), "batch handler"),
    (lambda q: q.start_batch(print, CountAggregator), "aggregator"),
    (
        lambda q: q.start_batch(print, 100),
        "aggregator",
    ),
    (lambda q: q.stop(timeout=-1), "stop"),
    (lambda q: q.dead.list(limit=0), "limit"),
    (lambda q: q.depth(["tasks"]), "reserved"),
]


@pytest.mark.parametrize(("mistake", "words"), QUEUE_MISTAKES)
def test_wrong_options_fail_when_the_queue_is_built(
    mistake: Callable[[], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        mistake()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mistake", "words"), ENQUEUE_MISTAKES)
def test_wrong_enqueues_fail_before_anything_is_sent(mistake: Callable[[Any], Any], words: str) -> None:
    with TaskQueue(with_memory()) as q:
        with pytest.raises(ConfigError, match=words):
            mistake(q)
        assert q.depth().waiting + q.depth().delayed == 0


@pytest.mark.parametrize(("mistake", "words"), WORKER_MISTAKES)
def test_wrong_workers_fail_at_start_and_leave_no_thread(mistake: Callable[[Any], Any], words: str) -> None:
    import threading

    q = TaskQueue(with_memory())
    before = threading.active_count()
    with pytest.raises(ConfigError, match=words):
        mistake(q)
    assert threading.active_count() == before
    q.stop()


@pytest.mark.parametrize("payload", [object(), {"x": {1j}}, {("a",): 1}, float, [iter([])]])
def test_payloads_that_cannot_be_encoded_name_the_task_and_send_nothing(payload: object) -> None:
    with TaskQueue(with_memory()) as q:
        with pytest.raises(EncodeError, match=r"type 'report.make'.*payload: expected bytes"):
            q.enqueue(Task("report.make", payload))
        assert q.depth().waiting == 0


def test_building_a_queue_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    q = TaskQueue()
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before
    q.enqueue(Task("t"))
    assert (tmp_path / "nova.db").exists()
    q.stop()


def test_every_option_is_also_a_keyword() -> None:
    instant = datetime(2100, 1, 1, tzinfo=UTC)
    both: list[tuple[Any, dict[str, Any]]] = [
        (queue("imports"), {"queue": "imports"}),
        (priority(Priority.LOW), {"priority": Priority.LOW}),
        (process_in(5), {"process_in": timedelta(seconds=5)}),
        (process_at(instant), {"process_at": instant}),
        (max_retries(7), {"max_retries": 7}),
        (process_timeout(9), {"process_timeout": 9}),
        (queue_timeout(9), {"queue_timeout": 9}),
        (expires_at(instant), {"expires_at": instant}),
        (key("k"), {"key": "k"}),
        (metadata({"a": "b"}), {"metadata": {"a": "b"}}),
        (task_id("mine"), {"task_id": "mine"}),
    ]
    from nova.enqueue_options import EnqueueSettings, resolve

    for option, keywords in both:
        assert resolve([option], {}) == resolve([], keywords) != EnqueueSettings()


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nova.codecs.orjson", "orjson"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'nova-taskqueue\[orjson\]'"):
        with_message_format("orjson")


def test_a_driver_whose_package_is_missing_is_named_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from nova.brokers.sqlite.config import SQLiteConfig
    from nova.options import Option

    class Foreign(SQLiteConfig):
        factory = "no_such_client.driver:Driver"
        extra = "foreign"

    q = TaskQueue(Option("driver", Foreign(), "with_foreign"))
    with pytest.raises(ConfigError, match=r"'no_such_client' is missing; pip install 'nova-taskqueue\[foreign\]'"):
        q.enqueue(Task("t"))


def test_import_nova_loads_no_optional_package() -> None:
    import subprocess

    optional = {"orjson", "google", "pydantic", "clickhouse_connect", "chdb", "asyncio"}
    code = f"import sys, nova; print(sorted({optional!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['asyncio']"


def test_all_public_names_exist_and_retry_checks_its_delay() -> None:
    for name in nova.__all__:
        assert hasattr(nova, name), name
    with pytest.raises(ConfigError, match="Retry"):
        Retry(delay=-1)
