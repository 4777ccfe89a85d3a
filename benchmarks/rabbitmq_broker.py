"""What the suite and its runners ask of RabbitMQ itself, by the same means for everybody: how many messages are ready.

Standard library and pika only: peers' runners import this from their own environments.
"""

from __future__ import annotations

import time
from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker

from benchmarks.workload import STALL

__all__ = ["answers", "delete", "ready", "until_ready"]

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


def ready(address: str, *queues: str) -> int:
    """Messages that wait in queues; those that do not exist have none."""
    connection = pika.BlockingConnection(pika.URLParameters(address))
    found = 0
    for queue in queues:
        channel = connection.channel()
        try:
            found += channel.queue_declare(queue, passive=True).method.message_count
        except ChannelClosedByBroker:
            continue
    connection.close()
    return found


def until_ready(address: str, messages: int, *queues: str) -> int:
    """How many are ready, as soon as it is so many, or when nothing has moved for `STALL` seconds."""
    best, since = -1, time.monotonic()
    while (now := ready(address, *queues)) < messages:
        if now > best:
            best, since = now, time.monotonic()
        elif time.monotonic() - since > STALL:
            break
        time.sleep(0.05)
    return now


def make(address: str, queue: str, arguments: dict[str, Any]) -> None:
    """Make a durable queue."""
    connection = pika.BlockingConnection(pika.URLParameters(address))
    connection.channel().queue_declare(queue, durable=True, arguments=arguments)
    connection.close()


def delete(address: str, *queues: str) -> None:
    """Delete queues; those that do not exist are no error."""
    connection = pika.BlockingConnection(pika.URLParameters(address))
    for queue in queues:
        connection.channel().queue_delete(queue)
    connection.close()


def answers(address: str) -> bool:
    """Whether a server lets us in."""
    try:
        pika.BlockingConnection(pika.URLParameters(address)).close()
    except Exception:  # noqa: BLE001 - whatever it is, nobody answers
        return False
    return True
