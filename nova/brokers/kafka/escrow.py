"""Long tasks leave their partition: a delayed copy and a lease stand in for the record until the handler is done.

A record is unfinished as long as its handler runs, so a task of hours would run again at every rebalance and keep the base
of its partition back. So, from `escrow_after` on and whenever its partition must be given away: (1) a lease is written to
the compacted topic `{prefix}_LEASE`; (2) a copy, due when the lease ends, goes to the delay topics; (3) the record counts as
finished. The holder renews the lease and writes "done" into it when the task is settled. When the copy falls due the
forwarder looks at the lease: done = the copy is dropped, and the lease deleted; renewed = the copy waits on; released = a
worker that stopped gave the task back, it runs again; run out or unknown = the holder is dead, it runs again and that is
counted. A crash between any two steps duplicates the task and never loses it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid

from nova import clock
from nova.brokers.base import Confirmation
from nova.brokers.kafka.compacted import TopicReader
from nova.brokers.kafka.delay_lanes import DelayLanes
from nova.brokers.kafka.names import Names
from nova.brokers.kafka.partition import KafkaDelivery
from nova.brokers.kafka.records import DEATHS, ESCROW, Publish, Record, delayed
from nova.envelope import GROUP, number, without_id

__all__ = ["DONE", "RELEASED", "Escrow", "Lease", "LeaseBook"]

DONE, RELEASED = "done", "released"

_log = logging.getLogger(__name__)


class Lease:
    """One task in escrow, held by this process.

    Attributes:
        is_taken: the copy is stored, so the record may count as finished.
        has_failed: it could not be stored; the record stays unfinished.
    """

    def __init__(self, escrow: Escrow, token: str, task: str, renewed: float) -> None:
        self.is_taken = False
        self.has_failed = False
        self._escrow = escrow
        self._token = token
        self._task = task
        self._renewed = renewed
        self._end: str | None = None
        self._decided = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Until it is taken, or cannot be."""
        self._decided.wait(timeout)
        return self.is_taken

    def renew(self) -> None:
        """Write it anew if a third of it is over."""
        now = time.monotonic()
        if self.is_taken and self._end is None and now - self._renewed >= self._escrow.lease / 3:
            self._renewed = now
            self._escrow.write(self._token)

    def end(self, how: str = DONE) -> None:
        """The task is settled, or (`RELEASED`) given back. If this is lost it runs again when the lease is over."""
        self._end = how
        if self.is_taken:
            self._escrow.write(self._token, how)

    def decide(self, *, taken: bool) -> None:
        """The broker's answer to the copy."""
        self.is_taken, self.has_failed = taken, not taken
        self._decided.set()
        if taken and self._end is not None:
            self._escrow.write(self._token, self._end)
        elif taken:
            _log.info("task %s runs long: in escrow until it ends", self._task)


class Escrow:
    """The holder's side, of one group. Any thread.

    Args:
        publish: hands records to the broker.
        lease: seconds after which a silent holder is dead.
    """

    def __init__(self, publish: Publish, names: Names, lanes: DelayLanes, group: str, lease: float) -> None:
        self._publish = publish
        self._names = names
        self._lanes = lanes
        self._group = group
        self.lease = lease

    def take_over(self, delivery: KafkaDelivery) -> Lease:
        """Begin; the lease tells when it is done."""
        token = uuid.uuid4().hex
        lease = Lease(self, token, delivery.task_id or "without id", time.monotonic())
        now_ms = clock.now_ms()
        due_ms = now_ms + int(self.lease * 1000)
        deaths = delivery.charges - 1 if delivery.charges else delivery.deaths
        key = delivery.task_id
        own = {ESCROW: token, GROUP: self._group, DEATHS: str(deaths)}
        headers = {**without_id(dict(delivery.headers), key), **own}
        copy = delayed(self._names, self._lanes, delivery.topic, key, delivery.body, headers, due_ms, now_ms)

        def copied(done: Confirmation) -> None:
            (error,) = done.result()
            lease.decide(taken=error is None)
            if error is not None and error.may_be_stored:  # the record stays; its copy, if there is one, must not run
                self.write(token, DONE)

        def written(done: Confirmation) -> None:
            if done.result() == [None]:
                self._publish([copy]).add_done_callback(copied)
            else:
                lease.decide(taken=False)

        self._publish([self._entry(token, str(due_ms))]).add_done_callback(written)
        return lease

    def write(self, token: str, how: str | None = None) -> None:
        """How it ended, or (None) that the holder lives: another lease from now on."""
        value = how or str(clock.now_ms() + int(self.lease * 1000))
        self._publish([self._entry(token, value)])

    def _entry(self, token: str, value: str) -> Record:
        return Record(self._names.leases, token, value.encode(), {})


class LeaseBook:
    """The forwarder's side: which leases there are. One thread."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        self._states: dict[str, int | str] = {}

    def catch_up(self, timeout: float) -> None:
        """Read what was written since.

        Raises:
            BrokerError: not to the end; nothing may be decided now.
        """
        for message in self._reader.catch_up(timeout):
            token = (message.key() or b"").decode(errors="replace")
            text = (message.value() or b"").decode(errors="replace")
            state = text if text in (DONE, RELEASED) else number(text)
            if state is None:
                self._states.pop(token, None)
            else:
                self._states[token] = state

    def state(self, token: str) -> int | str | None:
        """When the lease runs out (epoch ms), `DONE`, `RELEASED`, or None if there is none."""
        return self._states.get(token)

    def is_running(self, token: str) -> bool:
        """Somebody holds it."""
        return isinstance(self._states.get(token), int)

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()
