"""Runner: Nova on Kafka, default settings. `python -m benchmarks.nova_kafka HOW ADDRESS PREFIX TASKS [SIZE]`."""

from __future__ import annotations

from benchmarks.kafka_broker import PARTITIONS, Watch
from benchmarks.nova_runner import GROUP, Broker, Settled, topic_of
from nova import TaskQueue, with_group_id, with_kafka, with_topic_prefix


def _open(address: str, prefix: str) -> TaskQueue:
    kafka = with_kafka(address, partitions=PARTITIONS, replication_factor=1)
    return TaskQueue(kafka, with_topic_prefix(prefix), with_group_id(GROUP))


def _watch(address: str, prefix: str) -> Settled:
    watch = Watch(address, topic_of(prefix), f"{prefix}.{GROUP}.normal")
    return lambda queue, tasks: watch.until_committed(tasks)


BROKER = Broker(
    open=_open, stored=lambda address, prefix, tasks: Watch(address, topic_of(prefix)).stored(), watch=_watch
)

if __name__ == "__main__":
    BROKER.main()
