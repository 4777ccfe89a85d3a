"""The `with_…` options of a `TaskQueue`: each checks its values when called and names what it sets.

`nova.config` reads the same functions' signatures, so a configuration file knows exactly these options and no others.
"""

from nova.options.brokers import with_driver, with_kafka, with_memory, with_rabbitmq, with_rocketmq, with_sqlite
from nova.options.option import Option
from nova.options.queue import (
    DelaySlots,
    Weights,
    check_queues,
    with_codec,
    with_delay_slots,
    with_group_id,
    with_message_format,
    with_middleware,
    with_priority_weights,
    with_queues,
    with_retry,
    with_topic_prefix,
)
from nova.options.settings import QueueSettings, settle

__all__ = [
    "DelaySlots",
    "Option",
    "QueueSettings",
    "Weights",
    "check_queues",
    "settle",
    "with_codec",
    "with_delay_slots",
    "with_driver",
    "with_group_id",
    "with_kafka",
    "with_memory",
    "with_message_format",
    "with_middleware",
    "with_priority_weights",
    "with_queues",
    "with_rabbitmq",
    "with_retry",
    "with_rocketmq",
    "with_sqlite",
    "with_topic_prefix",
]
