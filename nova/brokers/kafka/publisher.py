"""Publishing: one idempotent producer, one thread that serves its reports, one future per call.

`publish` only appends to librdkafka's bounded buffer. A message ends as stored, as surely refused, or as unknown (the
report never came), within `delivery_timeout`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from nova.brokers.base import Confirmation
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.failures import construction_error, publish_error
from nova.brokers.kafka.records import Record
from nova.brokers.kafka.settings import producer_settings
from nova.errors import PublishError

__all__ = ["Pending", "Publisher"]

_log = logging.getLogger(__name__)


class Pending:
    """The messages of one `publish` call whose reports are still to come.

    Reports come from the report thread, refusals from the caller's; whoever is last resolves the future.
    """

    __slots__ = ("_expected", "_once", "_reported", "_where", "future", "outcome")

    def __init__(self, count: int, where: str) -> None:
        self.future: Confirmation = Future()
        self.future.set_running_or_notify_cancel()
        self.outcome: list[PublishError | None] = [None] * count
        self._where = where
        self._reported = 0
        self._expected: int | None = None
        self._once = threading.Lock()

    def report(self, index: int, error: KafkaError | None, _message: object) -> None:
        """The broker's word on one message."""
        if error is not None:
            self.outcome[index] = publish_error(self._where, error)
        self._reported += 1
        if self._reported == self._expected:
            self._resolve()

    def refuse(self, error: PublishError) -> None:
        """None of them was sent."""
        self.outcome[:] = [error] * len(self.outcome)
        self.expect(0)

    def expect(self, reports: int) -> None:
        """All were handed over (or refused); this many reports will come."""
        self._expected = reports
        if self._reported == reports:
            self._resolve()

    def _resolve(self) -> None:
        if self._once.acquire(blocking=False):
            self.future.set_result(self.outcome)


class Publisher:
    """Sends records from any thread.

    Args:
        where: the broker's address, for messages.
        on_unknown_topic: told a topic that the broker does not know.
    """

    def __init__(self, config: KafkaConfig, where: str, on_unknown_topic: Callable[[str], None]) -> None:
        self._config = config
        self._where = where
        self._on_unknown_topic = on_unknown_topic
        self._fatal = threading.Event()
        self._closed = threading.Event()
        self.last_error: KafkaError | None = None
        self._producer = self._build()
        self._thread = threading.Thread(target=self._serve, name="nova-kafka-reports", daemon=True)
        self._thread.start()

    @property
    def producer(self) -> Producer:
        """The client, for metadata."""
        return self._producer

    def send(self, pending: Pending, records: Sequence[Record]) -> None:
        """Hand over the records of a call."""
        producer, report = self._producer, pending.report
        count = len(records)
        for index, record in enumerate(records):
            try:
                if self._closed.is_set():
                    raise KafkaException(KafkaError(KafkaError._DESTROY, "the driver is closed"))
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=partial(report, index),
                    headers=record.headers,  # type: ignore[arg-type]  # a mapping of text is fine
                )
            except BufferError:
                pending.outcome[index] = publish_error(self._where, KafkaError(KafkaError._QUEUE_FULL))
                count -= 1
            except KafkaException as exc:
                pending.outcome[index] = self._refusal(record, exc)
                count -= 1
        pending.expect(count)

    def close(self, timeout: float) -> None:
        """Wait for reports, then give up what has none: unknown if it was on its way, failed if it was not. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join(timeout)
        deadline = time.monotonic() + timeout
        if self._producer.flush(max(0.0, timeout)):
            self._producer.purge()
            while len(self._producer) and time.monotonic() < deadline + 1:
                self._producer.poll(0.05)

    def _refusal(self, record: Record, exc: KafkaException) -> PublishError:
        error = exc.args[0]
        if error.code() == KafkaError._DESTROY:
            return PublishError(f"{self._where}: the driver is closed")
        if error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            self._on_unknown_topic(record.topic)
        return publish_error(f"{self._where}: topic {record.topic!r}", error)

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(0.1)
                if self._fatal.is_set():
                    self._replace()
            except Exception:  # noqa: BLE001 - a thread's top: without it no publish would ever end
                _log.exception("%s: serving delivery reports failed, going on", self._where)
                self._closed.wait(0.2)

    def _replace(self) -> None:
        """A producer with a fatal error sends nothing any more: what it still held ends as unknown or failed."""
        old, self._producer = self._producer, self._build()
        self._fatal.clear()
        old.purge()
        old.flush(1.0)

    def _build(self) -> Producer:
        settings: dict[str, Any] = producer_settings(self._config, self._note)
        try:
            return Producer(settings)
        except KafkaException as exc:
            raise construction_error(exc) from exc

    def _note(self, error: KafkaError) -> None:
        self.last_error = error
        if error.fatal():
            _log.error("%s: the producer failed and is replaced: %s", self._where, error.str())
            self._fatal.set()
        else:
            _log.info("%s: %s", self._where, error.str())
