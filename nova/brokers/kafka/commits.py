"""Committing what is finished, with the map of what is finished above it. On the pump's thread only."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from nova.brokers.kafka.failures import is_denied
from nova.brokers.kafka.health import Health
from nova.brokers.kafka.names import Place
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

    def __init__(self, partitions: Mapping[Place, Partition], health: Health, label: str) -> None:
        self._partitions = partitions
        self._health = health
        self._label = label
        self._unheard: dict[Place, float] = {}
        """Since when the commits of a partition have found no coordinator."""

    @property
    def unheard(self) -> float:
        """Seconds for which commits of what is assigned have found no coordinator of the group, or 0."""
        waiting = [since for place, since in self._unheard.items() if place in self._partitions]
        return time.monotonic() - min(waiting) if waiting else 0.0

    def forget(self, place: Place) -> None:
        """It is assigned anew."""
        self._unheard.pop(place, None)

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
        return self._note(answers)

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """The broker's answer to a background commit, called inside `poll`."""
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            self._refused(offsets, error)
            return
        self._note(offsets or ())

    def _note(self, answers: Sequence[TopicPartition]) -> bool:
        for answer in answers:
            if answer.error is None:
                self._unheard.pop((answer.topic, answer.partition), None)
                self._health.let_in(answer.topic)
                self._health.let_in(None)
        failed = [answer for answer in answers if answer.error is not None]
        if failed:
            self._refused(failed, failed[0].error)
        return not failed

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
        for place in offsets:
            key = place.topic, place.partition
            partition = self._partitions.get(key)
            if partition is not None:
                partition.dirty = True
            if has_coordinator:
                self._unheard.pop(key, None)
            elif partition is not None:
                self._unheard.setdefault(key, time.monotonic())
        if isinstance(error, KafkaError) and is_denied(error):
            self._health.deny(
                error, offsets[0].topic if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else None
            )
        _log.info("%s: a commit was refused, trying again: %s", self._label, error)
