"""What librdkafka is told, from `KafkaConfig`. Pure.

Source of the names and defaults: librdkafka's CONFIGURATION.md. Its queue of 64 MB per consumer would hold thousands of
stale tasks, so it is kept small; with a small queue `fetch.queue.backoff.ms` must be small too, or the client sleeps a
second whenever the queue is full (measured: 4,500 records/s with the default, 200,000/s with 1 ms).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from nova.brokers.kafka.config import KafkaConfig

__all__ = ["HEADROOM_BYTES", "admin_settings", "consumer_settings", "producer_settings", "reader_settings"]

HEADROOM_BYTES = 256 << 10
"""What a record may hold beside its body: headers, metadata, the error of a dead letter."""

SAID_AGAIN_AFTER = 30.0
"""Seconds for which a line of the client is not repeated: it logs every attempt to connect, many a second."""


class _Calm(logging.Filter):
    """Lets a line of librdkafka through once in a while, whatever numbers stand in it. Any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was not said lately. What the client calls an error it recovers from by itself: a warning."""
        text, now = re.sub(r"\d+", "0", record.getMessage()), time.monotonic()
        with self._lock:
            if now - self._said.get(text, -SAID_AGAIN_AFTER) < SAID_AGAIN_AFTER:
                return False
            if len(self._said) >= 1000:
                self._said.clear()
            self._said[text] = now
        if record.levelno > logging.WARNING:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


_client_log = logging.getLogger("nova.brokers.kafka.client")
_client_log.addFilter(_Calm())


def _common(config: KafkaConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap.servers": config.bootstrap_servers,
        "client.id": "nova",
        "security.protocol": config.security_protocol,
        "socket.timeout.ms": 10_000,
        "socket.connection.setup.timeout.ms": 5_000,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,
        "logger": _client_log,
    }
    optional = {
        "ssl.ca.location": config.ca_file,
        "ssl.certificate.location": config.cert_file,
        "ssl.key.location": config.key_file,
        "ssl.key.password": config.key_password,
        "sasl.mechanism": config.sasl_mechanism,
        "sasl.username": config.username,
        "sasl.password": config.password,
        "oauth_cb": config.oauth_token,
    }
    settings.update({name: value for name, value in optional.items() if value is not None})
    return settings


def producer_settings(config: KafkaConfig, on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Idempotent, confirmed by all replicas; a message is given up after `delivery_timeout`."""
    return {
        **_common(config),
        "error_cb": on_error,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 0,
        "delivery.timeout.ms": int(config.delivery_timeout * 1000),
        "message.max.bytes": config.max_body_bytes + HEADROOM_BYTES,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        **config.client_config,
    }


def consumer_settings(config: KafkaConfig, group: str) -> dict[str, Any]:
    """A member of a classic group that commits by hand."""
    heartbeat = min(1000, int(config.session_timeout * 1000 / 3))
    return {
        **_fetching(config),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(config.session_timeout * 1000),
        "heartbeat.interval.ms": heartbeat,
        "max.poll.interval.ms": int(config.max_poll_interval * 1000),
        "topic.metadata.refresh.interval.ms": 10_000,
        **config.client_config,
    }


def reader_settings(config: KafkaConfig, group: str) -> dict[str, Any]:
    """A reader of whole topics: it joins no group, but librdkafka asks for the coordinator of one, and for the right to."""
    return {
        **_fetching(config),
        "group.id": group,
        "auto.offset.reset": "error",
        # The broker answers one request of a connection after the other: a question would wait for an idle fetch.
        "fetch.wait.max.ms": 10,
        **config.client_config,
    }


def admin_settings(config: KafkaConfig) -> dict[str, Any]:
    """Topics, groups and offsets."""
    return {**_common(config), **config.client_config}


def _fetching(config: KafkaConfig) -> dict[str, Any]:
    return {
        **_common(config),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "fetch.message.max.bytes": 262_144,
        "queued.min.messages": 2000,
        "queued.max.messages.kbytes": 4096,
        "fetch.queue.backoff.ms": 1,
    }
