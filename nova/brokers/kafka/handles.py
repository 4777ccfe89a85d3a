"""The client library's handles: destroyed when they are closed, and never touched by a forked child.

A handle has threads of its own, which a fork does not copy. A child that destroys one (Python would, when it collects what
the parent's threads had held) crashes or hangs: measured with confluent-kafka 2.16. So every open handle is known here, and a
child gives each a reference that is never taken back.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from nova.brokers.kafka.failures import construction_error

__all__ = ["abandon_consumer", "close_admin", "close_consumer", "close_producer", "let_go", "open_handle"]

T = TypeVar("T", Consumer, Producer, AdminClient)

_open: dict[int, Any] = {}


def open_handle(kind: type[T], settings: Mapping[str, Any]) -> T:
    """A new handle, to be closed by one of the functions below.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    try:
        handle = kind(dict(settings))
    except KafkaException as exc:
        raise construction_error(exc) from exc
    _open[id(handle)] = handle
    return handle


def close_consumer(consumer: Consumer) -> None:
    """Leave the group and destroy the handle; may wait for the broker."""
    consumer.close()
    _open.pop(id(consumer), None)


def abandon_consumer(consumer: Consumer) -> None:
    """Let it go without waiting: one that has lost its brokers for good tries to leave its group for ever."""
    threading.Thread(target=close_consumer, args=(consumer,), name="nova-kafka-abandoned", daemon=True).start()


def close_producer(producer: Producer) -> None:
    """Destroy the handle; nothing may be left in it."""
    producer.close()
    _open.pop(id(producer), None)


def close_admin(admin: AdminClient) -> None:
    """Destroy the handle."""
    admin.__exit__(None, None, None)
    _open.pop(id(admin), None)


def let_go(handle: Any) -> None:
    """Forget a handle that others may still use: it is destroyed when the last of them is through."""
    _open.pop(id(handle), None)


def _abandon() -> None:
    for handle in _open.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))
    _open.clear()


os.register_at_fork(after_in_child=_abandon)
