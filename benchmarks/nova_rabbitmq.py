"""Runner: Nova on RabbitMQ, default settings. `python -m benchmarks.nova_rabbitmq HOW ADDRESS PREFIX TASKS [SIZE]`."""

from __future__ import annotations

from benchmarks.nova_runner import GROUP, Broker, topic_of
from benchmarks.rabbitmq_broker import until_ready
from nova import TaskQueue, with_group_id, with_rabbitmq, with_topic_prefix


def _open(address: str, prefix: str) -> TaskQueue:
    return TaskQueue(with_rabbitmq(address), with_topic_prefix(prefix), with_group_id(GROUP))


def _stop(queue: TaskQueue, tasks: int) -> None:
    """A stop waits for all acks."""
    del tasks
    queue.stop()


BROKER = Broker(
    open=_open,
    stored=lambda address, prefix, tasks: until_ready(address, tasks, f"{GROUP}.{topic_of(prefix)}"),
    watch=lambda address, prefix: _stop,
)

if __name__ == "__main__":
    BROKER.main()
