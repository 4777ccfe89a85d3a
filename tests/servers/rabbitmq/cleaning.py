"""Leaves a shared server as it was: a thousand forgotten quorum queues keep two cores busy."""

from __future__ import annotations

import contextlib

import pika

from nova.brokers.base import DriverContext
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rabbitmq.driver import RabbitMQDriver
from nova.brokers.rabbitmq.names import Names
from nova.errors import BrokerError


def delete_prefix(address: str, prefix: str) -> None:
    """Delete the groups, queues and exchange of a topic prefix; queues that no group ever read by their usual names."""
    driver = RabbitMQDriver(RabbitMQConfig(url=address))
    driver.open(DriverContext(prefix=prefix), 10)
    topics = {f"{prefix}_PRIORITY_{rank}" for rank in ("HIGH", "NORMAL", "LOW")}
    try:
        for group in driver.groups():
            topics.update(group.topics)
            with contextlib.suppress(BrokerError):  # a worker that a test has just killed may still be seen
                driver.remove_group(group.name)
    finally:
        driver.close()
    names = Names(prefix, f"{prefix}-exchange")
    connection = pika.BlockingConnection(pika.URLParameters(address))
    channel = connection.channel()
    for queue in (names.registry, names.near, *map(names.unclaimed, topics)):
        channel.queue_delete(queue)
    channel.exchange_delete(names.exchange)
    connection.close()
