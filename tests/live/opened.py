"""What tests of one broker open for themselves, and close at their end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel

from nova.brokers.base import DriverContext
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.kafka.driver import KafkaDriver
from tests.conformance.brokers import Broker


@contextmanager
def kafka_driver(broker: Broker) -> Generator[KafkaDriver]:
    """A driver of its own on a broker."""
    driver = KafkaDriver(KafkaConfig(**broker.section))
    driver.open(DriverContext(prefix=broker.prefix), 10)
    yield driver
    driver.close(5)


@contextmanager
def amqp_channel(broker: Broker) -> Generator[BlockingChannel]:
    """A channel on a broker's server, past Nova."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.section["url"]))
    yield connection.channel()
    connection.close()
