"""The thread that owns one `Consumer`: it polls, tracks, commits and answers rebalances; others only leave it commands.

Why one thread: while a thread is inside `poll`, confluent-kafka makes every other caller of the same consumer wait for a gap
between two polls (measured: 1.5 s without one). Why it never stops polling: a consumer that does not poll is thrown out of
its group after `max.poll.interval.ms`, however long its handlers may run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from nova.brokers.kafka import offset_map
from nova.brokers.kafka.caution import Caution
from nova.brokers.kafka.commits import Commits
from nova.brokers.kafka.handles import abandon_consumer, close_consumer, open_handle
from nova.brokers.kafka.health import Health
from nova.brokers.kafka.names import Place
from nova.brokers.kafka.partition import KafkaDelivery, Partition
from nova.brokers.kafka.reading import RecordReader
from nova.brokers.kafka.receiving import PumpOptions, Receiver
from nova.brokers.kafka.tracker import OffsetTracker

__all__ = ["COMMIT_EVERY", "Pump"]

_partition = attrgetter("partition")

COMMIT_EVERY = 0.25
"""Seconds between commits: what a process finished since runs again after its death."""
COMMIT_DRAINED = 0.05
"""And when nothing is left to finish: a stop or a death then repeats nothing."""
POLL = 0.05
"""The longest single wait for records: commands wait no longer."""
CHUNK = 1000
FULL_PATIENCE = 0.1
"""Seconds of fullness before partitions are paused: a pause throws away what was fetched ahead."""
BACKLOG = 50
"""Charged records read ahead of the one that is lent, or each would cost a pause and a fetch."""
COMMITTED_TIMEOUT = 10.0
RENEW_AFTER = 10.0
"""Seconds without an answer after which the consumer is replaced; never within its session, which may still hold."""
LAST_COMMIT = 2.0
"""Seconds for which the last commit of a partition that leaves is tried."""

_log = logging.getLogger(__name__)


class Pump:
    """Reads for one receiver from `start` to `close`."""

    def __init__(self, options: PumpOptions, receiver: Receiver) -> None:
        self._options = options
        self._label = f"{options.where}: {options.name}"
        self._health = Health(options.where, options.name)
        self._receiver = receiver
        self._reader = RecordReader(options)
        self._renew_after = max(RENEW_AFTER, float(options.settings["session.timeout.ms"]) / 1000)
        self._partitions: dict[Place, Partition] = {}
        self._commits = Commits(self._partitions, self._health, self._label)
        self._generation = 0
        self._caution = Caution()
        self._owner = secrets.randbelow((1 << 28) - 1) + 1
        self._lent_at_loss: dict[Place, tuple[int, ...]] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._unlent: list[KafkaDelivery] = []
        self._backlog: list[KafkaDelivery] = []
        """Read and not lent yet: a charged record must not be lent beside another, which would be charged with its crash."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._has_lost_records = False
        self._full_since: float | None = None
        self._all_paused = False
        self._last_commit = time.monotonic()
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name=options.name, daemon=True)

    def start(self) -> None:
        """Build the consumer (settings are checked here) and read from now on.

        Raises:
            ConfigError: librdkafka refuses a setting.
        """
        self._consumer = self._build()
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be received now, or None."""
        return self._health.trouble

    def call(self, command: Callable[[], None]) -> None:
        """Run a command on the pump's thread, soon. Any thread."""
        self._commands.append(command)
        if not self._wake.is_set():
            self._wake.set()

    def wake(self) -> None:
        """There may be room again. Any thread."""
        if not self._wake.is_set():
            self._wake.set()

    def ack(self, deliveries: Sequence[KafkaDelivery]) -> None:
        """On the pump's thread: these are done; those it does not hold are passed over."""
        for partition, own in groupby(deliveries, _partition):
            if not partition.over:
                partition.finish(partition.settle(own))

    def give_back(self, deliveries: Sequence[KafkaDelivery]) -> None:
        """On the pump's thread: lend these again. Kafka cannot take one record back, so they stay in this process."""
        again: list[KafkaDelivery] = []
        for delivery in deliveries:
            partition = delivery.partition
            if partition.over or not partition.settle((delivery,)):
                continue
            if partition.charged:
                partition.charges[delivery.offset] -= 1
            again.append(delivery.again())
        if not self._closing.is_set():
            self._lend(again)

    def partitions(self) -> list[Partition]:
        """Those assigned now; for reading by other threads."""
        return list(self._partitions.values())

    def close(self, timeout: float) -> None:
        """Take no more, apply what was handed over, commit with the mark of a clean end, leave the group. Idempotent."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
            if self._thread.is_alive():
                _log.warning(
                    "%s: %s could not leave its group in %.1f s", self._options.where, self._options.name, timeout
                )

    def _build(self) -> Consumer:
        """A consumer; what one says that was abandoned since is not heard."""
        generation = self._generation + 1

        def note(error: KafkaError) -> None:
            if generation == self._generation:
                self._health.note(error)

        def answered(error: KafkaError | None, places: list[TopicPartition]) -> None:
            if generation == self._generation:
                self._commits.answered(error, places)

        consumer = open_handle(Consumer, {**self._options.settings, "error_cb": note, "on_commit": answered})
        self._generation = generation
        return consumer

    # --- the pump's thread

    def _run(self) -> None:
        backoff = POLL
        try:
            self._subscribe()
            while not self._closing.is_set():
                try:
                    self._step()
                    backoff = POLL
                except Exception as exc:  # noqa: BLE001 - a thread's top: a dead pump would be a deaf worker
                    _log.exception("%s failed, going on", self._label)
                    self._health.failed(exc)
                    self._closing.wait(backoff)
                    backoff = min(2 * backoff, 5.0)
        finally:
            self._end()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            list(self._options.topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
        )

    def _renew(self) -> None:
        """Join the group with a new consumer: this one has lost its brokers, perhaps for good (`Publisher._look_after`).

        Or only the group's coordinator: measured once, commits found none for 75 s while metadata came.
        """
        _log.warning("%s: no broker answers, or takes commits, or reading failed: connecting anew", self._label)
        old, self._consumer = self._consumer, self._build()
        self._has_lost_records = False
        self._give_up(list(self._partitions))
        abandon_consumer(old)
        self._health.begin_again()
        self._subscribe()

    def _step(self) -> None:
        if self._has_lost_records:
            self._renew()
        self._apply()
        if self._unlent:
            self._lend_waiting()
        if self._backlog:
            self._lend_backlog()
        self._commit_in_time()
        room = 0 if self._unlent else self._room()
        self._steer(room)
        if room > 0 or self._all_paused or self._unlent:
            self._read(max(room, 1))
        else:
            self._wake.wait(FULL_PATIENCE)
        self._health.probe(lambda: self._consumer.list_topics(self._options.topics[0], timeout=1.0))
        if max(self._health.away, self._commits.unheard) > self._renew_after:
            self._renew()

    def _commit_in_time(self) -> None:
        """Before the next wait for records, not after it: what was just finished need not wait for that."""
        now = time.monotonic()
        since = now - self._last_commit
        if since >= COMMIT_EVERY or (since >= COMMIT_DRAINED and self._has_drained()):
            self._last_commit = now
            self._commits.later(self._consumer, [p for p in self._partitions.values() if p.dirty])
            for partition in self._partitions.values():
                partition.calm_down(now - partition.since)
            self._receiver.tick()

    def _has_drained(self) -> bool:
        """All that was read is finished, and the broker, which answers, does not know yet."""
        partitions = self._partitions.values()
        drained = any(p.dirty for p in partitions) and not any(p.held for p in partitions)
        return drained and not self._commits.unheard

    def _room(self) -> int:
        if self._options.charged:
            return BACKLOG - len(self._backlog)
        careful = [len(partition.held) for partition in self._partitions.values() if partition.is_careful]
        room = self._receiver.room()
        if not careful:
            return room
        return min(room, self._caution.room(sum(careful)))

    def _apply(self) -> None:
        self._wake.clear()
        commands = self._commands
        while commands:
            commands.popleft()()

    def _read(self, room: int) -> None:
        """What has come, or what comes first: one call where records stream, for each call waits for Python's lock."""
        consumer, most = self._consumer, min(room, CHUNK)
        try:
            messages = consumer.consume(most, 0)
            if not messages:
                first = consumer.poll(POLL)
                if first is None:
                    return
                messages = [first, *(consumer.consume(most - 1, 0) if most > 1 else ())]
        except Exception:
            # What the client had in hand, it has thrown away. The next record would leave a gap, and gaps count as finished.
            self._has_lost_records = True
            raise
        self._take(messages)

    def _take(self, messages: list[Message]) -> None:
        """Note what came and lend it; empties the list as it goes.

        A record's headers are six objects that Python's collector follows. Kept until the last of a thousand was read they
        cost it a full collection every few thousand records, 1 µs a record (measured).
        """
        fresh: list[KafkaDelivery] = []
        messages.reverse()
        while messages:
            message = messages.pop()
            error = message.error()
            if error is not None:
                self._health.note_read(error, message)
                continue
            partition = self._partitions.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            offset = message.offset()
            if partition is None or offset is None:
                continue
            tracker = partition.tracker
            if tracker is not None and offset < tracker.next:
                self._begin_again(partition, tracker, offset)
                fresh = [delivery for delivery in fresh if delivery.partition is not partition]
            elif tracker is not None and offset > tracker.next == tracker.base and not partition.held:
                self._look_for_loss(partition, offset)
            if not partition.fetch(offset):
                continue
            try:
                delivery = self._reader.read(partition, offset, message)
            except Exception:  # noqa: BLE001 - it stays unfinished: its successor sees it again, and no other is touched
                _log.exception(
                    "%s: topic %r, partition %d, offset %d cannot be read",
                    self._label, partition.topic, partition.number, offset,
                )  # fmt: skip
                continue
            if delivery is None:
                partition.finish((offset,))
            else:
                fresh.append(delivery)
        if fresh:
            self._health.heard()
            for partition in {delivery.partition for delivery in fresh} if self._health.trouble else ():
                self._health.let_in(partition.topic)
            if self._options.charged:
                self._backlog += fresh
                self._lend_backlog()
            else:
                self._lend(fresh)

    def _begin_again(self, partition: Partition, tracker: OffsetTracker, offset: int) -> None:
        """A client brings no record twice: these offsets mean other records now."""
        _log.error(
            "%s: topic %r, partition %d begins again at %d, before %d: it was made anew; what it holds is taken",
            self._label, partition.topic, partition.number, offset, tracker.next,
        )  # fmt: skip
        partition.begin_again()
        self._backlog = [delivery for delivery in self._backlog if delivery.partition is not partition]

    def _look_for_loss(self, partition: Partition, offset: int) -> None:
        """Offsets were left out: markers and compaction do that, but so does retention, and then tasks are gone."""
        place = TopicPartition(partition.topic, partition.number)
        try:
            marks = self._consumer.get_watermark_offsets(place, timeout=1.0)
        except KafkaException:
            return
        missing = 0 if marks is None or partition.base is None else marks[0] - partition.base
        if missing > 0:
            _log.error(
                "%s: topic %r, partition %d: %d records were deleted before they were read (retention); now at %d",
                self._options.where, partition.topic, partition.number, missing, offset,
            )  # fmt: skip

    def _lend(self, deliveries: list[KafkaDelivery]) -> None:
        """Hand out, after the commit that must come first where one must."""
        for partition, own in groupby(deliveries, _partition):
            partition.lend(list(own))
        self._unlent += deliveries
        self._lend_waiting()

    def _lend_backlog(self) -> None:
        """As many as there is room for."""
        backlog = [delivery for delivery in self._backlog if not delivery.partition.over]
        room = 0 if self._unlent else max(0, self._receiver.room())
        self._backlog = backlog[room:]
        if backlog[:room]:
            self._lend(backlog[:room])

    def _lend_waiting(self) -> None:
        """Those that are lent and not handed out: all of them, or none if a commit that must come first is refused."""
        waiting = [delivery for delivery in self._unlent if not delivery.lost]
        unmarked = [partition for partition in {d.partition for d in waiting} if partition.needs_mark]
        if unmarked and not self._commits.now(self._consumer, unmarked):
            return
        for partition in unmarked:
            partition.marked = True
        self._unlent = []
        if waiting:
            self._receiver.put(waiting)

    def _steer(self, room: int) -> None:
        """Pause and resume partitions: all when there is no room for a while, single ones at their own limits."""
        now = time.monotonic()
        if room > 0:
            self._full_since = None
            self._all_paused = False
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since > FULL_PATIENCE:
            self._all_paused = True
        limit_of = self._options.partition_limit
        pause: list[TopicPartition] = []
        resume: list[TopicPartition] = []
        for partition in self._partitions.values():
            wanted = self._all_paused or partition.fenced
            if limit_of is not None and not wanted:
                records, size = limit_of(partition.topic)
                share = 5 if partition.paused else 1  # resumed at a fifth, so that pauses stay rare
                wanted = len(partition.held) >= records // share or partition.held_bytes >= size // share
            if wanted != partition.paused:
                partition.paused = wanted
                (pause if wanted else resume).append(TopicPartition(partition.topic, partition.number))
        if pause:
            self._consumer.pause(pause)
        if resume:
            self._consumer.resume(resume)

    # --- rebalances: called inside `poll` and `close`

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if consumer is not self._consumer or not places:  # an abandoned one may still be given some
            consumer.incremental_assign([])
            return
        known = self._positions(consumer, places)
        self._caution.begin_again()
        targets: list[TopicPartition] = []
        for place in places:
            topic, number = place.topic, place.partition
            start = self._options.starts.get(topic, {}).get(number)
            left: offset_map.OffsetMap | None = None
            target = TopicPartition(topic, number)
            found = known.get((topic, number))
            if found is None:
                pass  # the broker did not tell: the client goes on from the committed offset by itself, without the map
            elif found.offset >= 0:
                left = offset_map.decode(found.offset, found.metadata)
                left = left or offset_map.OffsetMap(found.offset, found.offset)
                target.offset = found.offset
            elif start is not None:
                left = offset_map.OffsetMap(start, start)
                target.offset = start
            else:
                target.offset = -2  # OFFSET_BEGINNING
            targets.append(target)
            shown = self._options.shown.get(topic, topic)
            partition = self._partitions[topic, number] = Partition(
                topic,
                number,
                shown,
                left,
                charged=self._options.charged,
                watchful=self._options.watchful,
                owner=self._owner,
            )
            lent = self._lent_at_loss.pop((topic, number), ())
            if left is not None and left.owner == self._owner:
                partition.forgive(lent)
            self._commits.forget((topic, number))
            partition.since = time.monotonic()
        consumer.incremental_assign(targets)
        self._health.heard()
        self._health.let_in(None)
        _log.debug("%s: got %s", self._options.name, ", ".join(f"{p.topic}[{p.partition}]" for p in places))

    def _positions(self, consumer: Consumer, places: list[TopicPartition]) -> dict[Place, TopicPartition]:
        """What was committed; empty if the broker does not tell in time."""
        for _ in range(2):
            try:
                found = consumer.committed(places, timeout=COMMITTED_TIMEOUT)
            except KafkaException as exc:
                _log.warning(
                    "%s: %s cannot read its committed offsets: %s", self._options.where, self._options.name, exc
                )
                continue
            return {(place.topic, place.partition): place for place in found if place.error is None}
        return {}

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Drop what has not started, wait for what runs, hand what still runs to the escrow, commit, give away."""
        if consumer is not self._consumer:  # an abandoned one says goodbye
            consumer.incremental_unassign(places)
            return
        leaving = [
            partition
            for place in places
            if (partition := self._partitions.get((place.topic, place.partition))) is not None
        ]
        if not self._closing.is_set():
            self._unlent = [d for d in self._unlent if d.partition not in leaving]
            deadline = time.monotonic() + self._options.revoke_grace
            while sum(len(partition.drop_unstarted()) for partition in leaving) and time.monotonic() < deadline:
                self._wake.wait(0.01)
                self._apply()
            running = [delivery for partition in leaving for delivery in partition.held.values()]
            if running:
                self.ack(self._receiver.give_away(running, time.monotonic() + self._options.revoke_grace))
        self._finish(leaving, time.monotonic() + LAST_COMMIT)
        for partition in leaving:
            self._partitions.pop((partition.topic, partition.number), None)
        consumer.incremental_unassign(places)

    def _lose(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Others have them already: nothing here may be committed."""
        if consumer is self._consumer:
            self._give_up([(place.topic, place.partition) for place in places])
        consumer.incremental_unassign(places)

    def _give_up(self, places: Sequence[Place]) -> None:
        lost = 0
        for place in places:
            partition = self._partitions.pop(place, None)
            if partition is not None:
                lost += len(partition.held)
                self._lent_at_loss[place] = tuple(partition.held)
                partition.lose()
        self._unlent = [delivery for delivery in self._unlent if not delivery.lost]
        if lost:
            _log.warning(
                "%s: %s was away too long and lost %d tasks to another worker",
                self._options.where, self._options.name, lost,
            )  # fmt: skip

    def _finish(self, partitions: Sequence[Partition], deadline: float, *, may_poll: bool = False) -> None:
        """The last commit of these, with the mark of a clean end, tried until `deadline`.

        Args:
            may_poll: not called inside `poll`. While the group is being balanced anew a commit is refused until this member
                has taken part, which needs a poll; partitions may go that way meanwhile.
        """
        for partition in partitions:
            partition.take_back_charges()
        while waiting := [p for p in partitions if not p.over and (p.marked or p.dirty)]:
            if self._commits.now(self._consumer, waiting, clean=True):
                break
            if time.monotonic() >= deadline:
                _log.warning("%s: the last commit was refused; some tasks run again", self._label)
                break
            if may_poll:
                self._consumer.poll(POLL)
            else:
                time.sleep(POLL)
        for partition in partitions:
            partition.lose()

    def _end(self) -> None:
        try:
            self._apply()
            deadline = max(self._deadline - LAST_COMMIT, time.monotonic() + POLL)
            self._finish(list(self._partitions.values()), deadline, may_poll=True)
            self._partitions.clear()
        except Exception:  # noqa: BLE001 - the consumer must be closed whatever happens
            _log.exception("%s did not end in order", self._label)
        finally:
            close_consumer(self._consumer)
