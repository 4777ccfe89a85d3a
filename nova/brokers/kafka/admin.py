"""Questions to the cluster, through a client that is made anew when it gets no answer.

It may fail for good otherwise: after a restart of the broker `describe_consumer_groups` times out for ever (confluent-kafka
2.16, measured), and a client that was told of no brokers has nobody left to ask (see `Publisher._look_after`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka.admin import AdminClient

from nova.brokers.kafka.handles import close_admin, let_go, open_handle
from nova.brokers.kafka.patience import ask, left
from nova.errors import BrokerUnavailable

__all__ = ["Admin"]

ATTEMPTS = 3

T = TypeVar("T")


class Admin:
    """The client for questions. Any thread.

    Attributes:
        client: to be taken anew for each question: it may be replaced.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self.client = open_handle(AdminClient, settings)
        self._replacing = threading.Lock()

    def ask(self, where: str, question: Callable[[AdminClient, float], T], timeout: float) -> T:
        """The answer, asked for again while it is only "not yet", and of a new client when there is none.

        Args:
            where: the address and the question, for messages.
            question: given a client and the seconds that one attempt may take.

        Raises:
            BrokerError: refused, or no answer after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            client = self.client
            try:
                return ask(where, lambda: question(client, timeout / ATTEMPTS), left(deadline))  # noqa: B023
            except BrokerUnavailable:
                self._renew(client)
                if time.monotonic() + timeout / ATTEMPTS > deadline:
                    raise

    def close(self) -> None:
        """Destroy the client."""
        close_admin(self.client)

    def _renew(self, failed: AdminClient) -> None:
        with self._replacing:
            if self.client is not failed:
                return
            self.client = open_handle(AdminClient, self._settings)
        let_go(failed)
