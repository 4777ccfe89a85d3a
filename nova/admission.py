"""From a delivery to a task that may run: decoded by its own header, not pointless, not early, not a suspect.

What may not run is settled here. Called by intake threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nova.brokers.base import Delivery
from nova.clock import Clock
from nova.codecs import Codec, find_codec
from nova.envelope import ID, PRIORITY, TARGET, TASK_TYPE, Content, Envelope, codec_of, read_envelope
from nova.errors import ConfigError, DecodeError
from nova.outcomes import Outcomes
from nova.received import ReceivedTask
from nova.routing import Topics
from nova.settlement import Source

__all__ = ["Admission"]

MAX_CHARGES = 3
"""Crashes in the quarantine after which a task is buried (DESIGN section 4)."""


_NO_CONTENT = Content("", "", b"", "", 0)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What headers that several deliveries share say of each task."""

    headers: Mapping[str, str]
    topic: str
    codec: Codec
    queue: str
    envelope: Envelope


class Admission:
    """The door of one worker.

    Args:
        codec: the queue's own codec, known by its name; the others are found when first met.
    """

    def __init__(self, outcomes: Outcomes, codec: Codec, topics: Topics, clock: Clock) -> None:
        self._outcomes = outcomes
        self._codecs = {codec.name: codec}
        self._topics = topics
        self._clock = clock
        self._known: _Known | None = None
        """Of the delivery read last; several threads replace it, each as a whole."""

    def admit(self, deliveries: Sequence[Delivery], source: Source) -> list[ReceivedTask]:
        """The tasks among them that may run now; the others are settled."""
        now_ms = self._clock.now_ms()
        admitted: list[ReceivedTask] = []
        for delivery in deliveries:
            if (delivery.suspect and not delivery.charges) or delivery.charges > MAX_CHARGES:
                self._isolate(source, delivery)
                continue
            try:
                task = self._read(delivery, source)
            except DecodeError as exc:
                self._outcomes.bury_undecodable(source, delivery, exc)
                continue
            envelope = task._envelope
            if envelope.due_ms is not None and envelope.due_ms > now_ms:
                self._outcomes.not_due(source, task)
            elif envelope.expires_ms is not None and envelope.expires_ms <= now_ms:
                self._outcomes.skip(task, "expired")
            elif envelope.start_by_ms is not None and envelope.start_by_ms <= now_ms:
                self._outcomes.bury_unstarted(task, "queue timeout")
            else:
                admitted.append(task)
        return admitted

    def _isolate(self, source: Source, delivery: Delivery) -> None:
        if not delivery.charges:
            self._outcomes.suspect(source, delivery)
            return
        reason = f"crashed its worker {MAX_CHARGES} times"
        self._outcomes.bury(source, delivery, reason, None, delivery.task_id or "without id")

    def _read(self, delivery: Delivery, source: Source) -> ReceivedTask:
        headers = delivery.headers
        task_id = delivery.id
        known = self._known
        if known is not None and headers is known.headers and delivery.topic == known.topic:
            codec, queue, envelope = known.codec, known.queue, known.envelope
        else:
            name, envelope = codec_of(headers), None
            codec = self._codecs.get(name) or self._find(name)
            queue = self._queue_of(delivery)
            if task_id is not None and not headers.get(ID) and headers.get(TASK_TYPE) and headers.get(PRIORITY):
                _, envelope = read_envelope(headers, _NO_CONTENT, task_id)
                self._known = _Known(headers, delivery.topic, codec, queue, envelope)
        content = _decode(codec, delivery)
        if envelope is None or task_id is None:
            task_id, envelope = read_envelope(headers, content, delivery.id)
            if (
                delivery.id is None and ID not in headers
            ):  # a foreign producer's: copies must say what its body alone says
                delivery.headers = {**headers, ID: task_id, TASK_TYPE: envelope.type}
        return ReceivedTask(
            task_id,
            envelope.type,
            content.payload,
            envelope.content_type,
            queue,
            envelope.attempt,
            envelope.run,
            envelope,
            delivery,
            source,
        )

    def _queue_of(self, delivery: Delivery) -> str:
        try:
            queue, _ = self._topics.read(delivery.headers.get(TARGET) or delivery.topic)
        except ConfigError as exc:
            raise DecodeError(f"message {delivery.task_id}: {exc}") from exc
        return queue

    def _find(self, name: str) -> Codec:
        try:
            codec = self._codecs[name] = find_codec(name)
        except ConfigError as exc:
            raise DecodeError(f"no codec for a body written as {name!r}: {exc}") from exc
        return codec


def _decode(codec: Codec, delivery: Delivery) -> Content:
    try:
        return codec.decode(delivery.body, delivery.headers)
    except DecodeError:
        raise
    except Exception as exc:  # a codec of the user's: whatever it raises, these bytes cannot be read
        raise DecodeError(f"the codec {codec.name!r} raised {type(exc).__name__}: {exc}") from exc
