"""Publishing: one idempotent producer, one thread that serves its reports, one future per call.

`publish` only appends to librdkafka's bounded buffer. A message ends as stored, as surely refused, or as unknown (the
report never came), within `delivery_timeout`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from nova.brokers.base import Confirmation
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.failures import closed_error, publish_error, text_of
from nova.brokers.kafka.handles import close_producer, open_handle
from nova.brokers.kafka.records import Record
from nova.brokers.kafka.settings import producer_settings
from nova.errors import PublishError

__all__ = ["Pending", "Publisher"]

CALM = 60.0
"""Seconds after which a failed producer is replaced at once again."""
REPLACE_MOST = 10.0
LOOK_EVERY = 5.0
ANSWER_WITHIN = 2.0
SILENT_LOOKS = 2
"""Looks without an answer, one after the other, after which a producer is replaced."""
NO_OFFSET = "the broker stored later messages and did not tell where this one is"

_log = logging.getLogger(__name__)


class Pending:
    """The messages of one `publish` call whose reports are still to come.

    Reports come from the report thread, refusals from the caller's; whoever is last resolves the future. All messages share
    one callback, because an object for each would cost more than sending it (measured: 3.0 µs against 1.0 µs); which of them
    failed is found by what it holds.
    """

    __slots__ = ("_expected", "_once", "_places", "_records", "_reported", "_where", "future", "outcome")

    def __init__(self, records: Sequence[Record], where: str) -> None:
        self.future: Confirmation = Future()
        self.future.set_running_or_notify_cancel()
        self.outcome: list[PublishError | None] = [None] * len(records)
        self._records = records
        self._places: dict[tuple[str, bytes, bytes | None], list[int]] | None = None
        self._where = where
        self._reported = 0
        self._expected: int | None = None
        self._once = threading.Lock()

    def report(self, error: KafkaError | None, message: Message) -> None:
        """The broker's word on one message.

        One without an offset only counts as stored because later ones of its partition are. That is wrong where the first
        request to a new partition was refused and the next one taken, before Kafka 4.5 (KAFKA-15591).
        """
        if error is not None:
            self._mark(message, publish_error(f"{self._where}: topic {message.topic()!r}", error))
        elif message.offset() is None:
            self._mark(
                message, PublishError(f"{self._where}: topic {message.topic()!r}: {NO_OFFSET}", may_be_stored=True)
            )
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

    def _mark(self, message: Message, error: PublishError) -> None:
        """Note a failure. The client shows topic, key and value; if several look alike, none of them counts as stored."""
        if self._places is None:
            self._places = {}
            for index, record in enumerate(self._records):
                look = (record.topic, _as_bytes(record.key), record.value)
                self._places.setdefault(look, []).append(index)
        places = self._places.get(
            (message.topic() or "", message.key() or b"", message.value()), range(len(self.outcome))
        )
        if len(places) > 1:
            error = PublishError(str(error), may_be_stored=True, is_permanent=error.is_permanent)
        for index in places:
            self.outcome[index] = error

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
        self._fatal: KafkaError | None = None
        self._replace_wait = 0.0
        self._replace_at = -CALM
        self._closed = threading.Event()
        self.last_error: KafkaError | None = None
        self._topic: str | None = None
        self._producer = self._build()
        self._retired: list[Producer] = []
        self._swapping = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="nova-kafka-reports", daemon=True)
        self._thread.start()
        self._watch = threading.Thread(target=self._look_after, name="nova-kafka-watch", daemon=True)
        self._watch.start()

    @property
    def producer(self) -> Producer:
        """The client, for metadata."""
        return self._producer

    def send(
        self, pending: Pending, records: Sequence[Record], refused: Mapping[str, PublishError] | None = None
    ) -> None:
        """Hand over the records of a call, but for those of refused topics."""
        if self._closed.is_set():
            pending.refuse(closed_error(self._where))
            return
        producer, report = self._producer, pending.report
        count = len(records)
        self._topic = records[0].topic if records else self._topic
        for index, record in enumerate(records):
            if refused and record.topic in refused:
                pending.outcome[index] = refused[record.topic]
                count -= 1
                continue
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=report,
                    headers=record.headers,  # type: ignore[arg-type]  # a mapping of text is fine
                )
            except BufferError:
                pending.outcome[index] = publish_error(self._where, KafkaError(KafkaError._QUEUE_FULL))
                count -= 1
            except KafkaException as exc:
                pending.outcome[index] = self._refusal(record, exc)
                count -= 1
            except Exception as exc:  # noqa: BLE001 - closed at this very moment, or text that UTF-8 cannot hold
                pending.outcome[index] = PublishError(f"{self._where}: not sent: {exc}")
                count -= 1
        pending.expect(count)

    def renew(self) -> None:
        """Go on with another producer; the old one may still bring what it holds to its end."""
        fresh = self._build()
        with self._swapping:
            self._retired.append(self._producer)
            self._producer = fresh

    def close(self, timeout: float) -> None:
        """Wait for reports, then give up what has none: unknown if it was on its way, failed if it was not. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        deadline = time.monotonic() + timeout
        for thread in (self._thread, self._watch):
            thread.join(max(0.0, deadline - time.monotonic()))
        is_unused = not self._thread.is_alive() and not self._watch.is_alive()
        for producer in (*self._retired, self._producer):
            with contextlib.suppress(KafkaException):  # a fatal one: what was not sent has ended as refused
                if producer.flush(max(0.0, deadline - time.monotonic())):
                    producer.purge()
                    while len(producer) and time.monotonic() < deadline + 1:
                        producer.poll(0.05)
            if is_unused and not len(producer):
                close_producer(producer)

    def _refusal(self, record: Record, exc: KafkaException) -> PublishError:
        error = exc.args[0]
        if error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            self._on_unknown_topic(record.topic)
        if error.code() == KafkaError._FATAL and self._fatal is not None:
            error = self._fatal  # why it is fatal
        refusal = publish_error(f"{self._where}: topic {record.topic!r}", error)
        refusal.may_be_stored = False  # the client never took it
        return refusal

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(0.1)
                if self._retired:
                    self._serve_retired()
                if self._fatal is not None and time.monotonic() >= self._replace_at:
                    self._replace()
            except KafkaException as exc:  # the client raises what is fatal, and does not tell `_note`
                self._fail(exc.args[0])
            except Exception:  # noqa: BLE001 - a thread's top: without it no publish would ever end
                _log.exception("%s: serving delivery reports failed, going on", self._where)
                self._closed.wait(0.2)

    def _look_after(self) -> None:
        """Replace a producer that has lost its brokers for good.

        A client knows its brokers from their own answers. One that is being let in again after a pause answers that there are
        none, and librdkafka (2.10 to 2.16, its issue 5301) may then have nobody left to ask: it never connects again and says
        nothing. In an outage of the brokers a replacement does no harm. Only while something waits to be sent: asked for a
        topic that was deleted meanwhile, brokers whose `auto.create.topics.enable` is on would make it again.
        """
        silent = 0
        while not self._closed.wait(LOOK_EVERY):
            try:
                silent = 0 if self._is_heard() else silent + 1
                if silent >= SILENT_LOOKS and not self._closed.is_set():
                    _log.warning("%s: no broker answers, connecting anew", self._where)
                    self.renew()
                    silent = 0
            except Exception:  # noqa: BLE001 - a thread's top, and what the client library makes of a changed certificate
                _log.exception("%s: looking after the producer failed, going on", self._where)

    def _is_heard(self) -> bool:
        producer = self._producer
        if not len(producer):
            return True
        try:
            producer.list_topics(self._topic, timeout=ANSWER_WITHIN)
        except KafkaException:
            return False
        return True

    def _serve_retired(self) -> None:
        with self._swapping:
            for producer in list(self._retired):
                try:
                    producer.poll(0)
                except KafkaException as exc:  # a fatal one: it sends no more
                    _log.warning("%s: a replaced producer failed: %s", self._where, text_of(exc.args[0]))
                    producer.purge()
                if not len(producer):
                    self._retired.remove(producer)
                    close_producer(producer)

    def _fail(self, error: KafkaError) -> None:
        """Refuse everything with this reason until there is another producer: at once, then after growing waits."""
        now = time.monotonic()
        wait = 0.0 if now - self._replace_at > CALM else min(max(2 * self._replace_wait, 0.5), REPLACE_MOST)
        self._fatal, self._replace_wait, self._replace_at = error, wait, now + wait
        _log.error("%s: the producer failed and is replaced in %.1f s: %s", self._where, wait, text_of(error))

    def _replace(self) -> None:
        """A producer with a fatal error sends nothing any more: what it still held ends as unknown or failed."""
        with self._swapping:
            old, self._producer = self._producer, self._build()
        self._fatal = None
        with contextlib.suppress(KafkaException):  # it says again why it failed
            old.purge()
            old.flush(1.0)
            close_producer(old)

    def _build(self) -> Producer:
        return open_handle(Producer, producer_settings(self._config, self._note))

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self.last_error is None:  # the others say why
            self.last_error = error
        _log.debug("%s: %s", self._where, error.str())


def _as_bytes(key: str | bytes | None) -> bytes:
    return key.encode(errors="replace") if isinstance(key, str) else key or b""
