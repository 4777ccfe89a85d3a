"""From a delivery to a task that may run: decoded by its own header, not pointless, not early, not a suspect.

What may not run is settled here. Called by intake threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from nova.brokers.base import Delivery
from nova.clock import Clock
from nova.codecs import Codec, find_codec
from nova.envelope import CODEC, ID, TARGET, TASK_TYPE, read_envelope
from nova.errors import ConfigError, DecodeError
from nova.outcomes import Outcomes
from nova.received import ReceivedTask
from nova.routing import Topics
from nova.settlement import Source

__all__ = ["Admission"]

MAX_CHARGES = 3
"""Crashes in the quarantine after which a task is buried (DESIGN section 4)."""


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
        self._outcomes.bury(source, delivery, reason, None, delivery.headers.get("nova-id", "without id"))

    def _read(self, delivery: Delivery, source: Source) -> ReceivedTask:
        headers = delivery.headers
        name = headers.get(CODEC) or "json"
        codec = self._codecs.get(name) or self._find(name)
        try:
            content = codec.decode(delivery.body, headers)
        except DecodeError:
            raise
        except Exception as exc:  # a codec of the user's: whatever it raises, these bytes cannot be read
            raise DecodeError(f"the codec {name!r} raised {type(exc).__name__}: {exc}") from exc
        envelope = read_envelope(headers, content)
        if ID not in headers:  # a foreign producer's, whose body alone names it: the copies made of it must say it too
            delivery.headers = headers = {**headers, ID: envelope.task_id, TASK_TYPE: envelope.type}
        try:
            queue, _ = self._topics.read(headers.get(TARGET) or delivery.topic)
        except ConfigError as exc:
            raise DecodeError(f"message {envelope.task_id}: {exc}") from exc
        return ReceivedTask(
            envelope.task_id,
            envelope.type,
            envelope.payload,
            envelope.content_type,
            queue,
            envelope.attempt,
            envelope.run,
            envelope,
            delivery,
            source,
        )

    def _find(self, name: str) -> Codec:
        try:
            codec = self._codecs[name] = find_codec(name)
        except ConfigError as exc:
            raise DecodeError(f"no codec for a body written as {name!r}: {exc}") from exc
        return codec
