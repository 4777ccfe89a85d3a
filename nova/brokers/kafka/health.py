"""Whether a consumer can receive, from what the client says of its connections and rights. Any thread reads, one writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message

from nova.brokers.kafka.failures import is_denied, text_of

__all__ = ["Health"]

PROBE_EVERY = 1.0
QUIET = 5.0
"""Seconds without a record after which a broker is asked without a reason; see `Publisher._look_after`."""

_log = logging.getLogger(__name__)


class Health:
    """The health of one consumer.

    Args:
        where: the broker's address, for messages.
        name: the consumer's, for messages.

    Attributes:
        trouble: why nothing can be received now, or None.
    """

    def __init__(self, where: str, name: str) -> None:
        self.trouble: str | None = None
        self._where = where
        self._name = name
        self._doubt: str | None = None
        self._denied: dict[str | None, str] = {}
        """What the broker refuses, by topic; None = of the whole consumer."""
        self._last_probe = self._heard = time.monotonic()
        self._away_since: float | None = None

    @property
    def away(self) -> float:
        """Seconds for which no broker has answered."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def begin_again(self) -> None:
        """There is a new client to speak of; the doubt stays until it has an answer."""
        self._away_since = None

    def heard(self) -> None:
        """Something came of a broker."""
        self._heard = time.monotonic()

    def let_in(self, topic: str | None) -> None:
        """A record of this topic was received, or its offset committed; None = the group let the consumer in.

        A topic's denial ends with that topic alone: the client says each only once, whatever else it receives.
        """
        if self._denied and self._denied.pop(topic, None) is not None:
            self.trouble = self._refusal()

    def deny(self, error: KafkaError, topic: str | None = None) -> None:
        """The broker refuses what waiting does not mend; said once, though each partition says it."""
        denied = f"topic {topic!r}: {text_of(error)}" if topic else text_of(error)
        if denied != self._denied.get(topic):
            _log.error("%s: %s: %s", self._where, self._name, denied)
        self._denied[topic] = denied
        self.trouble = self._refusal()

    def note(self, error: KafkaError) -> None:
        """The client's own word on its connections, called inside `poll`."""
        if is_denied(error):
            self.deny(error)
        else:
            self._doubt = error.str()

    def note_read(self, error: KafkaError, message: Message) -> None:
        """An error that came in the place of a record."""
        topic = message.topic()
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            _log.debug("%s: topic %r does not exist (yet)", self._where, topic)
        elif is_denied(error):
            self.deny(error, topic)
        else:
            _log.warning("%s: %s: %s", self._where, self._name, text_of(error))
            self._doubt = error.str()

    def failed(self, exc: Exception) -> None:
        """A bug, or something nobody thought of."""
        self.trouble = f"{self._where}: {exc}"
        self._doubt = str(exc)

    def probe(self, ask: Callable[[], object]) -> None:
        """In doubt, or after a silence, ask a broker: the client also reports connections closed when idle."""
        now = time.monotonic()
        if self._doubt is not None:
            due = self._last_probe + PROBE_EVERY
        else:
            due = max(self._last_probe, self._heard) + QUIET
        if now < due:
            return
        self._last_probe = now
        try:
            ask()
        except KafkaException as exc:
            self._doubt = self._doubt or text_of(exc.args[0])
            self._away_since = self._away_since or now
            self.trouble = f"{self._where}: {self._doubt}"
        else:
            self._doubt = self._away_since = None
            self.trouble = self._refusal()

    def _refusal(self) -> str | None:
        return f"{self._where}: {next(iter(self._denied.values()))}" if self._denied else None
