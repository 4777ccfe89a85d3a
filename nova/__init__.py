"""Nova: one task queue over several brokers.

from nova import Task, TaskQueue, with_sqlite

queue = TaskQueue(with_sqlite("nova.db"))
queue.enqueue(Task("email.send", {"to": "a@b.c"}))
queue.run(lambda task: print(task.json()))
"""

from nova.aggregators import CountAggregator, TimeAggregator, TimeCountAggregator
from nova.batch import Batch, BatchResult
from nova.brokers.base import Finding
from nova.check import CheckReport
from nova.dead import DeadTask
from nova.depth import Depth, QueueDepth
from nova.enqueue_options import (
    expires_at,
    key,
    max_retries,
    metadata,
    priority,
    process_at,
    process_in,
    process_timeout,
    queue,
    queue_timeout,
    task_id,
)
from nova.errors import (
    BrokerError,
    BrokerUnavailable,
    CodecError,
    ConfigError,
    DecodeError,
    EncodeError,
    NotSupported,
    NovaError,
    PublishError,
    QueueClosed,
    QueueFull,
    Reject,
    Retry,
    Unroutable,
)
from nova.groups import GroupInfo
from nova.middleware import Middleware, Outcome
from nova.options import (
    with_codec,
    with_delay_slots,
    with_driver,
    with_group_id,
    with_kafka,
    with_memory,
    with_message_format,
    with_middleware,
    with_priority_weights,
    with_queues,
    with_rabbitmq,
    with_retry,
    with_rocketmq,
    with_sqlite,
    with_topic_prefix,
)
from nova.received import ReceivedTask
from nova.registry import DecoratedTask
from nova.task import Enqueued, EnqueueReport, Priority, Task
from nova.taskqueue import TaskQueue

__all__ = [
    "Batch",
    "BatchResult",
    "BrokerError",
    "BrokerUnavailable",
    "CheckReport",
    "CodecError",
    "ConfigError",
    "CountAggregator",
    "DeadTask",
    "DecodeError",
    "DecoratedTask",
    "Depth",
    "EncodeError",
    "EnqueueReport",
    "Enqueued",
    "Finding",
    "GroupInfo",
    "Middleware",
    "NotSupported",
    "NovaError",
    "Outcome",
    "Priority",
    "PublishError",
    "QueueClosed",
    "QueueDepth",
    "QueueFull",
    "ReceivedTask",
    "Reject",
    "Retry",
    "Task",
    "TaskQueue",
    "TimeAggregator",
    "TimeCountAggregator",
    "Unroutable",
    "expires_at",
    "key",
    "max_retries",
    "metadata",
    "priority",
    "process_at",
    "process_in",
    "process_timeout",
    "queue",
    "queue_timeout",
    "task_id",
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
