"""One RocketMQ group as this process consumes it: its session, its registration, what the server says of it. Any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nova.brokers.rocketmq.client import Connection, Session, consumer_settings
from nova.brokers.rocketmq.finished import Finished
from nova.brokers.rocketmq.limits import LEAST_RETRIES
from nova.brokers.rocketmq.stubs import definition, service
from nova.errors import BrokerError, BrokerUnavailable, NovaError

__all__ = ["Consumer"]

HEARTBEAT_EVERY = 10.0


class Consumer:
    """What the subscriptions of one group share.

    Args:
        join: registers the group for topics; returns since when delayed tasks are for it, by topic.
        is_registered: whether the server still knows that.
        request_timeout: seconds one request may take.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        *,
        join: Callable[[list[str]], Mapping[str, int]],
        is_registered: Callable[[list[str]], bool],
        request_timeout: float,
    ) -> None:
        self.connection = connection
        self.group = group
        self.request_timeout = request_timeout
        self.since: dict[str, int] = {}
        self.finished = Finished()
        self._topics: list[str] = []
        self._join = join
        self._is_registered = is_registered
        self._refusal: str | None = None
        self._epoch = 0
        self._checked = 0
        self._last_beat = time.monotonic()
        self._using = threading.Lock()
        self._session: Session | None = None

    @property
    def client_id(self) -> str:
        """Under which the server knows it."""
        assert self._session is not None, "read() comes first"
        return self._session.client_id

    def read(self, topics: Iterable[str]) -> None:
        """Register for topics, and tell the server.

        Raises:
            BrokerError: the group cannot be registered.
        """
        with self._using:
            wanted = [topic for topic in topics if topic not in self._topics]
            if wanted:
                self.since.update(self._join(wanted))
                self._topics = [*self._topics, *wanted]
            if self._session is None:
                self._session = Session(self.connection, self._settings, self._heard)
            elif wanted:
                self._session.update()

    def await_settings(self, timeout: float) -> None:
        """Until the server has told the group's settings, or that we may not: for groups that nobody could look at.

        Raises:
            BrokerError: it does not know the group, or the group would lose tasks.
        """
        assert self._session is not None, "read() comes first"
        if not self._session.await_answer(timeout):
            why = self._session.trouble or f"the server has told no settings in {timeout:g} s"
            raise BrokerUnavailable(f"{self.connection.where}: the group {self.group!r}: {why}")
        if self._refusal is not None:
            raise BrokerError(self._refusal)

    def prepare(self, timeout: float) -> str | None:
        """Before a receive: the server must know us and the group; returns what is wrong, after at most so long."""
        session = self._session
        if session is None or not session.await_ready(timeout):
            return (
                session.trouble if session is not None else None
            ) or "the server has not taken the consumer's settings"
        if self._refusal is not None:
            return self._refusal
        if self._checked != self._epoch:
            return self._check_registration()
        return None

    def interrupted(self) -> None:
        """The connection was lost: the server may have been killed, and may know less than before."""
        self._epoch += 1

    def forgotten(self) -> None:
        """The server answers as if it had no settings of ours: tell it again."""
        if self._session is not None:
            self._session.forget()

    def beat(self) -> None:
        """Say now and then that we live."""
        now = time.monotonic()
        if self._session is not None and now - self._last_beat >= HEARTBEAT_EVERY:
            self._last_beat = now
            request = service.HeartbeatRequest(client_type=definition.ClientType.SIMPLE_CONSUMER)
            request.group.name = self.group
            self._session.heartbeat(request, self.request_timeout)

    def close(self, timeout: float) -> None:
        """Leave the group, so that it is seen at once that nobody consumes it here."""
        goodbye = service.NotifyClientTerminationRequest()
        goodbye.group.name = self.group
        if self._session is not None:
            self._session.close(goodbye, timeout)

    def _check_registration(self) -> str | None:
        """A server that was killed has forgotten positions of the last seconds; without them it would skip messages."""
        with self._using:
            epoch = self._epoch
            if self._checked == epoch:
                return None
            try:
                if not self._is_registered(self._topics):
                    self.since.update(self._join(self._topics))
            except NovaError as exc:
                return str(exc)
            self._checked = epoch
            return None

    def _settings(self) -> Any:
        return consumer_settings(self.connection, self.group, self._topics, self.request_timeout)

    def _heard(self, settings: Any) -> None:
        attempts = settings.backoff_policy.max_attempts
        if 0 < attempts <= LEAST_RETRIES:
            self._refusal = (
                f"{self.connection.where}: the consumer group {self.group!r} is missing or has "
                f"retryMaxTimes={attempts - 1}, after which the server takes a task away while it runs; expected at least "
                f"{LEAST_RETRIES}: run mqadmin updateSubGroup -n NAMESERVER -c CLUSTER -g '{self.group}' -r 1000000, or "
                "give with_rocketmq(admin=…) so that Nova can make it"
            )
        else:
            self._refusal = None
