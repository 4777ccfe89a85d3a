"""Giving space back: records that every registered group has finished are deleted by the owner of their partition.

Topics are made with endless retention, because retention deletes by age what may still be waiting. The bound of a partition
is the least committed base over the groups registered for its topic; a registered group without a commit holds everything
from its beginning on. Offsets are read before the registrations, so a group that registers meanwhile loses nothing that was
sent after its registration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from nova.brokers.kafka.failures import was_denied
from nova.brokers.kafka.names import Names, Place
from nova.brokers.kafka.offsets import Offsets
from nova.brokers.kafka.registry import Registration
from nova.errors import BrokerError

__all__ = ["Reclaimer", "bounds"]

_log = logging.getLogger(__name__)


class Reclaimer:
    """Does it for the partitions this process owns. One thread at a time."""

    def __init__(
        self, offsets: Offsets, names: Names, registrations: Callable[[float], Sequence[Registration]], where: str
    ) -> None:
        self._offsets = offsets
        self._names = names
        self._registrations = registrations
        self._where = where
        self._refused = False

    def run(self, owned: Iterable[Place], timeout: float) -> dict[Place, int]:
        """Delete what is finished; returns the new beginnings.

        Raises:
            BrokerError: the broker does not answer.
        """
        places = [place for place in owned if self._may_delete(place[0])]
        if self._refused or not places:
            return {}
        readers = _readers(self._names, self._registrations(timeout), places)
        bases: dict[tuple[str, Place], int] = {}
        for group in sorted({group for groups in readers.values() for group in groups}):
            of_group = [place for place in places if group in readers[place]]
            for place, committed in self._offsets.committed(group, of_group, timeout).items():
                bases[group, place] = committed.base
        found = bounds(self._names, self._registrations(timeout), places, bases)
        beginnings = self._offsets.beginnings(found, timeout)
        due = {place: bound for place, bound in found.items() if bound > beginnings.get(place, bound)}
        try:
            self._offsets.delete_before(due, timeout)
        except BrokerError as exc:
            if not was_denied(exc):
                raise
            self._refused = True
            _log.warning("%s: finished tasks are not deleted, their space is kept: %s", self._where, exc)
            return {}
        return due

    def _may_delete(self, topic: str) -> bool:
        return self._names.owns(topic) and topic != self._names.go_delayed and not self._names.is_compacted(topic)


def bounds(
    names: Names,
    registrations: Sequence[Registration],
    places: Iterable[Place],
    bases: dict[tuple[str, Place], int],
) -> dict[Place, int]:
    """Below which offset each place is finished by everyone; a place that nobody is registered for is missing. Pure.

    Args:
        bases: (consumer group, place) to committed offset.
    """
    found: dict[Place, int] = {}
    for place in places:
        topic, number = place
        if names.level_of(topic) is not None:
            claims = [bases.get((names.forwarder, place), 0)]
        else:
            claims = [
                bases.get((names.consumer_group(entry.group, topic), place), entry.starts.get(number, 0))
                for entry in registrations
                if entry.topic == topic
            ]
        if claims:
            found[place] = min(claims)
    return found


def _readers(names: Names, registrations: Sequence[Registration], places: Iterable[Place]) -> dict[Place, set[str]]:
    """The consumer groups that read each place."""
    readers: dict[Place, set[str]] = {}
    for place in places:
        topic = place[0]
        if names.level_of(topic) is not None:
            readers[place] = {names.forwarder}
        else:
            readers[place] = {
                names.consumer_group(entry.group, topic) for entry in registrations if entry.topic == topic
            }
    return readers
