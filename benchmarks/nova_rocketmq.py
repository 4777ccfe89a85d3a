"""Runner: Nova on RocketMQ, default settings. `python -m benchmarks.nova_rocketmq HOW ADDRESS PREFIX TASKS [SIZE]`."""

from __future__ import annotations

import time

from benchmarks.nova_runner import GROUP, Broker, topic_of
from benchmarks.rocketmq_broker import config, until_stored
from nova import TaskQueue, with_group_id, with_rocketmq, with_topic_prefix
from nova.brokers.rocketmq.driver import RocketMQDriver
from nova.brokers.rocketmq.names import Names


def _open(address: str, prefix: str) -> TaskQueue:
    place = config(address)
    driver = with_rocketmq(place.endpoints, admin=place.admin)
    return TaskQueue(driver, with_topic_prefix(prefix), with_group_id(GROUP))


def _until_acked(queue: TaskQueue, prefix: str) -> None:
    """Until the broker has confirmed every ack. A stop would wait for receives of 5 s besides, and no count tells."""
    driver = queue._driver
    assert isinstance(driver, RocketMQDriver)
    for _ in range(2):  # what the settler had in hand at the first look has left it at the second
        time.sleep(0.005)
        assert driver._open_parts._acker.flush(Names(prefix).consumer_group(GROUP), 30)


BROKER = Broker(
    open=_open,
    stored=lambda address, prefix, tasks: until_stored(address, tasks, topic_of(prefix)),
    watch=lambda address, prefix: lambda queue, tasks: _until_acked(queue, prefix),
)

if __name__ == "__main__":
    BROKER.main()
