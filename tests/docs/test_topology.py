"""The page of names against a broker: what Nova has made there is what the page lists, and nothing else."""

from __future__ import annotations

import uuid

from nova import ReceivedTask, Reject, Task, TaskQueue, with_group_id, with_kafka, with_topic_prefix
from tests.docs.reference.topology import GROUP, PREFIX, QUEUES, kafka_groups, kafka_topics
from tests.eventually import eventually

ON_NEED = {f"{PREFIX}_LEASE", *(f"{PREFIX}_DELAY_{number}" for number in range(1, 7))}
"""The page says that these are made later."""


def test_kafka_has_the_topics_and_groups_of_the_page() -> None:
    from confluent_kafka.admin import AdminClient

    from tests.servers.kafka.finding import shared_address
    from tests.servers.kafka.server import delete_topics

    address, prefix = shared_address(), f"D{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": address})
    broker = with_kafka(address, partitions=1, replication_factor=1)
    queue = TaskQueue(broker, with_group_id(GROUP), with_topic_prefix(prefix))

    def refuse(task: ReceivedTask) -> None:
        raise Reject("for the dead letters")

    def topics() -> set[str]:
        found = admin.list_topics(timeout=10).topics
        return {name.replace(prefix, PREFIX, 1) for name in found if name.startswith(prefix)}

    def groups() -> set[str]:
        found = admin.list_consumer_groups().result(10).valid
        return {one.group_id.replace(prefix, PREFIX, 1) for one in found if one.group_id.startswith(f"{prefix}.")}

    try:
        queue.enqueue(Task("t"), process_in=3600)
        queue.enqueue(Task("t"))
        queue.start(refuse, queues=list(QUEUES))
        listed = {name for name, _ in kafka_topics()}
        eventually(lambda: listed - ON_NEED <= topics() <= listed, timeout=40, what=f"topics {sorted(topics())}")
        listed_groups = {name for name, _ in kafka_groups()}
        eventually(lambda: groups() == listed_groups, timeout=40, what=f"groups {sorted(groups())}")
    finally:
        queue.stop(timeout=10)
        delete_topics(address, prefix)
