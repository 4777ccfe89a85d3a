"""The connections of a driver that only reads with them: one to ask, one for each queue that is consumed, on one thread.

A server ends a connection (541) when one of its channels fails, and so does a channel that has waited too long for a queue
without a leader. All that other channels of the connection hold goes back then, and is counted. So no two queues share one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pika.connection import Connection

from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.link import Link
from nova.brokers.rabbitmq.loop import Loop

__all__ = ["Links"]


class Links:
    """From construction to `close`.

    Attributes:
        asking: for what is asked and waited for.
    """

    def __init__(self, config: RabbitMQConfig, where: str) -> None:
        self._config = config
        self._where = where
        self._loop = Loop(name="nova-rabbitmq-consuming", failed=self._failed)
        self._changing = threading.Lock()
        self._for_queues: set[Link] = set()
        self.asking = Link(self._loop, config, where, "asking")
        self._loop.run(lambda: self.asking.add(self))

    def start(self) -> None:
        """Connect, and stay connected."""
        self._loop.start()
        self.asking.start()

    def run(self, action: Callable[[], None]) -> None:
        """Do this on the thread of all of them, soon. Any thread."""
        self._loop.run(action)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this later; only on that thread."""
        self._loop.later(seconds, action)

    def open_for(self, queue: str) -> Link:
        """One for this queue alone; whoever asked for it ends it. Any thread."""
        link = Link(self._loop, self._config, self._where, f"consuming {queue}")
        with self._changing:
            self._for_queues.add(link)
        link.on_end(lambda: self._forget(link))
        link.run(lambda: link.add(self))
        link.start()
        return link

    def close(self, timeout: float) -> None:
        """Close all of them and end the thread. Idempotent."""
        deadline = time.monotonic() + timeout
        with self._changing:
            left = [*self._for_queues, self.asking]
        for link in left:
            link.begin_close()
        for link in left:
            link.close(max(0.0, deadline - time.monotonic()))
        self._loop.close()

    # --- the user of all of them, on their thread

    def up(self, connection: Connection) -> None:
        """One has found the server: the others need not wait for their next try."""
        del connection
        with self._changing:
            links = [*self._for_queues, self.asking]
        for link in links:
            link.hurry()

    def down(self, reason: str) -> None:
        """Each tries again by itself."""

    def _forget(self, link: Link) -> None:
        with self._changing:
            self._for_queues.discard(link)

    def _failed(self) -> None:
        with self._changing:
            links = [*self._for_queues, self.asking]
        for link in links:
            link.abandon("an error in the driver")
