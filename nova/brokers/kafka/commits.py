"""Committing what is finished, with the map of what is finished above it. On the pump's thread only."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from nova.brokers.kafka.failures import is_denied
from nova.brokers.kafka.health import Health
from nova.brokers.kafka.partition import Partition

__all__ = ["Commits"]

NO_COORDINATOR = frozenset(
    {
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
    }
)

_log = logging.getLogger(__name__)


class Commits:
    """The commits of one consumer.

    Args:
        partitions: those assigned, by topic and number.
        label: address and consumer, for messages.
    """

    def __init__(self, partitions: Mapping[tuple[str, int], Partition], health: Health, label: str) -> None:
        self._partitions = partitions
        self._health = health
        self._label = label
        self._unheard_since: float | None = None

    @property
    def unheard(self) -> float:
        """Seconds for which commits found no coordinator of the group, or 0."""
        return 0.0 if self._unheard_since is None else time.monotonic() - self._unheard_since

    def begin_again(self) -> None:
        """There is a new consumer."""
        self._unheard_since = None

    def later(self, consumer: Consumer, partitions: Sequence[Partition]) -> None:
        """In the background; what fails is dirty again."""
        offsets = self._offsets(partitions, clean=False)
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=True)

    def now(self, consumer: Consumer, partitions: Sequence[Partition], *, clean: bool = False) -> bool:
        """And wait for it; False if any was refused."""
        offsets = self._offsets(partitions, clean=clean)
        if not offsets:
            return True
        try:
            answers = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exc:
            self._refused(offsets, exc.args[0])
            return False
        failed = [answer for answer in answers if answer.error is not None]
        if failed:
            self._refused(failed, failed[0].error)
        else:
            self._unheard_since = None
        return not failed

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """The broker's answer to a background commit, called inside `poll`."""
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            self._refused(offsets, error)
            return
        failed = [place for place in offsets or () if place.error is not None]
        if failed:
            self._refused(failed, failed[0].error)
        else:
            self._unheard_since = None

    def _offsets(self, partitions: Sequence[Partition], *, clean: bool) -> list[TopicPartition]:
        offsets = []
        for partition in partitions:
            base = partition.base
            if base is None:
                continue
            cut = partition.truncated
            text = partition.text(clean=clean)
            if partition.truncated > cut == 0:
                _log.warning(
                    "%s: topic %r, partition %d: too many tasks in between are unfinished to note all that are finished; "
                    "after a takeover some would run again",
                    self._label, partition.topic, partition.number,
                )  # fmt: skip
            offsets.append(TopicPartition(partition.topic, partition.number, base, text))
            partition.dirty = False
        return offsets

    def _refused(self, offsets: Sequence[TopicPartition], error: Any) -> None:
        has_coordinator = not isinstance(error, KafkaError) or error.code() not in NO_COORDINATOR
        self._unheard_since = None if has_coordinator else self._unheard_since or time.monotonic()
        for place in offsets:
            partition = self._partitions.get((place.topic, place.partition))
            if partition is not None:
                partition.dirty = True
        if isinstance(error, KafkaError) and is_denied(error):
            self._health.deny(error)
        _log.info("%s: a commit was refused, trying again: %s", self._label, error)
