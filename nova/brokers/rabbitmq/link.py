"""One connection to the server, kept up on a loop's thread: it reconnects, and tells whoever uses it."""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import pika
from pika.adapters.select_connection import SelectConnection
from pika.connection import Connection

from nova.brokers.rabbitmq.config import Node, RabbitMQConfig
from nova.brokers.rabbitmq.failures import is_final, text_of
from nova.brokers.rabbitmq.incoming import DeliveryReader
from nova.brokers.rabbitmq.loop import Loop
from nova.errors import BrokerUnavailable, ConfigError

__all__ = ["Link", "LinkUser", "connection_parameters"]

WAIT_FIRST = 0.2
WAIT_MOST = 5.0
CONNECT_WITHIN = 5.0
HANDSHAKE_WITHIN = 8.0
"""Below the time that a queue has to open: what is wrong with one node is told in time, and the next one tried."""
CLOSED_WITHIN = 10.0
CUT_WITHIN = 1.0
NOT_YET = "no answer yet; check host and port in the URL, and that the server runs"
UNANSWERED = "the server does not answer to the end of the connection"

_log = logging.getLogger(__name__)


class LinkUser(Protocol):
    """Who has channels on a link. Called on its thread."""

    def up(self, connection: Connection) -> None:
        """There is a connection, perhaps a new one: every channel must be opened."""
        ...

    def down(self, reason: str) -> None:
        """There is none, and no channel. Told again whenever another one could not be had."""
        ...


class Link:
    """A connection that comes back.

    Args:
        loop: whose thread it lives on; others may live there too.
        where: the address, for messages.
        role: what it is for; part of the connection's name.

    Attributes:
        connection: the open one, or None.
        reader: of that connection; the link's thread alone.
        trouble: why there is none, or None.
    """

    def __init__(self, loop: Loop, config: RabbitMQConfig, where: str, role: str) -> None:
        self.connection: Connection | None = None
        self.reader: DeliveryReader | None = None
        self.trouble: str | None = f"{where}: {NOT_YET}"
        self.where = where
        self._config = config
        self._role = role
        self._parameters = [connection_parameters(config, node, role) for node in config.address.nodes]
        self._turn = 0
        self._wait = WAIT_FIRST
        self._final = False
        self._waits = True
        """Until it connects; on the link's thread."""
        self._users: list[LinkUser] = []
        self._loop = loop
        self._opening: Connection | None = None
        self._closing = False
        self._ended = threading.Event()
        self._on_end: list[Callable[[], None]] = []
        self._changed = threading.Condition()

    def start(self) -> None:
        """Connect, and go on doing so until `close`."""
        _quiet_pika()
        self.run(self._connect)

    def add(self, user: LinkUser) -> None:
        """Tell it from now on; on the link's thread."""
        self._users.append(user)
        if self.connection is not None:
            user.up(self.connection)

    def remove(self, user: LinkUser) -> None:
        """Tell it no more; on the link's thread."""
        if user in self._users:
            self._users.remove(user)

    def run(self, action: Callable[[], None]) -> None:
        """Do this on the link's thread, soon; after `close` never."""
        self._loop.run(action)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this later; only on the link's thread."""
        self._loop.later(seconds, action)

    def await_up(self, timeout: float, *, patient: bool = True) -> Connection:
        """The connection, once there is one.

        Args:
            patient: wait on although the server has refused us; False = that ends the wait.

        Raises:
            BrokerUnavailable: there is none after `timeout` seconds, or the link is closed.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while self.connection is None:
                left = deadline - time.monotonic()
                if left <= 0 or self._closing or (self._final and not patient):
                    raise BrokerUnavailable(self.trouble or f"{self.where}: the driver is closed")
                self._changed.wait(left)
            return self.connection

    def on_end(self, done: Callable[[], None]) -> None:
        """Told when it has ended, on the link's thread. Before `start`, or on that thread."""
        if self._ended.is_set():
            done()
        else:
            self._on_end.append(done)

    def begin_close(self) -> None:
        """Close the connection, soon and for good; one that the server does not close is cut. Idempotent; any thread."""
        self.run(self._close)

    def close(self, timeout: float) -> None:
        """Close the connection and wait for it. Idempotent; any other thread."""
        self.begin_close()
        if not self._ended.wait(timeout):
            # One that stays open holds what it was sent until the server misses its heartbeats.
            self.run(lambda: self.abandon(UNANSWERED))
            self._ended.wait(CUT_WITHIN)

    # --- the link's thread

    def hurry(self) -> None:
        """Connect now if it waits to do so: the server is there."""
        if self._waits:
            self._connect()

    def _connect(self) -> None:
        if self._closing or not self._waits:
            return
        self._waits = False
        parameters = self._parameters[self._turn]
        try:
            self._opening = SelectConnection(
                parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_refused,
                on_close_callback=self._on_closed,
                custom_ioloop=self._loop.pika,
            )
        except Exception as exc:  # noqa: BLE001 - whatever a certificate or an address makes the library raise
            self._on_refused(None, exc)

    def _on_open(self, connection: Connection) -> None:
        self._wait = WAIT_FIRST
        self.reader = DeliveryReader(connection)
        with self._changed:
            self.connection = connection
            self.trouble = None
            self._final = False
            self._changed.notify_all()
        _log.info("%s: connected for %s", self.where, self._role)
        for user in list(self._users):
            user.up(connection)

    def _on_refused(self, connection: Connection | None, exc: BaseException | str) -> None:
        del connection
        self._lost(exc if isinstance(exc, BaseException) else ConnectionError(exc))

    def _on_closed(self, connection: Connection, exc: BaseException) -> None:
        if connection is self.connection or self._opening is connection:
            self._lost(exc)

    def _lost(self, exc: BaseException) -> None:
        was_up = self.connection is not None
        reason = f"{self.where}: {text_of(exc, tls=self._config.address.tls)}"
        self._opening = None
        with self._changed:
            self.connection = None
            self.trouble = reason
            self._final = is_final(exc)
            self._changed.notify_all()
        for user in list(self._users):
            user.down(reason)
        if self._closing:
            self._end()
            return
        wait = self._next_wait(was_up)
        self._waits = True
        _log.log(
            logging.WARNING if was_up or wait > 0.5 else logging.INFO,
            "%s; connecting again for %s in %.1f s",
            reason,
            self._role,
            wait,
        )
        self.later(wait, self._connect)

    def _next_wait(self, was_up: bool) -> float:
        """Another node is tried at once, the same ones again after growing waits."""
        self._turn = (self._turn + 1) % len(self._parameters)
        if self._turn != 0 and not was_up:
            return 0.0
        wait = self._wait * random.uniform(0.75, 1.25)
        self._wait = min(2 * self._wait, WAIT_MOST)
        return wait

    def abandon(self, reason: str) -> None:
        """Cut a connection of which nobody knows what state it is in."""
        connection = self.connection or self._opening
        if connection is not None and not connection.is_closed:
            _cut(connection, reason)
        elif connection is None and not self._closing:
            self._waits = True
            self.later(self._wait, self._connect)

    def reset(self, reason: str) -> None:
        """Give this connection up for a new one; on the link's thread."""
        _log.warning("%s: %s; connecting anew for %s", self.where, reason, self._role)
        self.abandon(reason)

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        connection = self.connection or self._opening
        if connection is None or connection.is_closed:
            self._end()
        elif connection.is_open:
            connection.close()
            self.later(CLOSED_WITHIN, lambda: self.abandon(UNANSWERED))
        else:
            _cut(connection, "closed while connecting")

    def _end(self) -> None:
        self._ended.set()
        told, self._on_end = self._on_end, []
        for done in told:
            done()


def _cut(connection: Any, reason: str) -> None:
    """End a connection without a word: pika has no public way to, and `close` waits for the server's answer."""
    connection._terminate_stream(ConnectionError(reason))


def connection_parameters(config: RabbitMQConfig, node: Node, role: str) -> pika.ConnectionParameters:
    """What pika is told for one node.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    address = config.address
    name = config.connection_name or "nova"
    return pika.ConnectionParameters(
        host=node.host,
        port=node.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.username, address.password),
        ssl_options=_tls(config, node) if address.tls else None,
        heartbeat=max(1, round(config.heartbeat)),
        connection_attempts=1,
        socket_timeout=CONNECT_WITHIN,
        stack_timeout=HANDSHAKE_WITHIN,
        client_properties={"connection_name": f"{name} ({role})", "product": "Nova"},
    )


def _tls(config: RabbitMQConfig, node: Node) -> pika.SSLOptions:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file, config.key_password)
    except (OSError, ssl.SSLError) as exc:
        names = "ca_file, cert_file, key_file and key_password"
        raise ConfigError(f"with_rabbitmq: {exc}; check {names}") from exc
    return pika.SSLOptions(context, node.host)


def _quiet_pika() -> None:
    """Pika logs each attempt to connect with several errors; what matters is logged here. A level set before stays."""
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
