"""What the values of options may be, by the function that takes them. For docs and schema."""

from __future__ import annotations

from collections.abc import Mapping

from nova.brokers.checks import Bounds
from nova.brokers.kafka.config import MECHANISMS, KafkaConfig
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.codecs import NAMES
from nova.options.queue import DELAY_SLOTS, PRIORITY_WEIGHTS, RETRY

__all__ = ["BOUNDS", "CHOICES"]

BOUNDS: Mapping[str, Bounds] = {
    "with_kafka": KafkaConfig.bounds,
    "with_memory": MemoryConfig.bounds,
    "with_rabbitmq": RabbitMQConfig.bounds,
    "with_rocketmq": RocketMQConfig.bounds,
    "with_sqlite": SQLiteConfig.bounds,
    "with_retry": RETRY,
    "with_delay_slots": DELAY_SLOTS,
    "with_priority_weights": PRIORITY_WEIGHTS,
}
CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("with_kafka", "sasl_mechanism"): MECHANISMS,
    ("with_rocketmq", "consumer_model"): ("clustering",),
    ("with_message_format", "name"): NAMES,
}
