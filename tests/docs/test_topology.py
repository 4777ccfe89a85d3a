"""The page of names against brokers: what Nova has made there is what the page lists, and nothing else."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from nova import (
    ReceivedTask,
    Reject,
    Task,
    TaskQueue,
    with_group_id,
    with_kafka,
    with_rabbitmq,
    with_topic_prefix,
)
from nova.brokers.rabbitmq import delay_levels
from tests.conformance.processes import Workers
from tests.docs.reference.topology import (
    GROUP,
    PREFIX,
    QUEUES,
    kafka_groups,
    kafka_topics,
    rabbitmq_things,
    rocketmq_things,
)
from tests.eventually import eventually

ON_NEED = {f"{PREFIX}_LEASE", *(f"{PREFIX}_DELAY_{number}" for number in range(1, 7))}
"""The page says that these are made later."""


def refuse(task: ReceivedTask) -> None:
    raise Reject("for the dead letters")


def test_kafka_has_the_topics_and_groups_of_the_page() -> None:
    from confluent_kafka.admin import AdminClient

    from tests.servers.kafka.finding import shared_address
    from tests.servers.kafka.server import delete_topics

    address, prefix = shared_address(), f"D{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": address})
    broker = with_kafka(address, partitions=1, replication_factor=1)
    queue = TaskQueue(broker, with_group_id(GROUP), with_topic_prefix(prefix))

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


FOR_A_MOMENT = f"{PREFIX}_GROUPS_LOCK"
"""The page says that it is there while the registry is changed."""


def test_rabbitmq_has_the_exchanges_and_queues_of_the_page(tmp_path: Path) -> None:
    from tests.servers.rabbitmq.finding import private_node

    listed = {kind: names_of(kind) for kind in ("exchange", "queue")}
    server = private_node(tmp_path)
    queue = TaskQueue(with_rabbitmq(server.address), with_group_id(GROUP), with_topic_prefix(PREFIX))

    def made(kind: str) -> set[str]:
        lines = server.control(f"list_{kind}s", "name", "--no-table-headers").split()
        return {name for name in lines if not name.startswith("amq.")} - {FOR_A_MOMENT}

    try:
        queue.enqueue(Task("t"), process_in=3600)
        queue.enqueue(Task("t"))
        queue.start(refuse, queues=list(QUEUES))
        for kind, names in listed.items():
            eventually(lambda: made(kind) == names, timeout=40, what=f"{kind}s: {sorted(made(kind) ^ names)}")  # noqa: B023
    finally:
        queue.stop(timeout=10)
        server.stop()


def test_rocketmq_has_the_topics_and_groups_of_the_page(tmp_path: Path) -> None:
    from nova.brokers.rocketmq.admin import Admin
    from nova.brokers.rocketmq.config import RocketMQConfig
    from tests.servers.rocketmq.cleaning import delete_prefix
    from tests.servers.rocketmq.finding import shared_address
    from tests.servers.rocketmq.server import section

    options: dict[str, Any] = {**section(shared_address()), "invisible_duration": 2}
    prefix = f"D{uuid.uuid4().hex[:8]}"
    config = {"rocketmq": options, "group_id": GROUP, "topic_prefix": prefix}
    admin = Admin(RocketMQConfig(**options), "rocketmq", 10)
    listed = {kind: rocketmq_names(kind) for kind in ("topic", "group")}
    retry_v2, retry = sorted(name for name in listed["topic"] if name.startswith("%RETRY%"))

    def made(kind: str) -> set[str]:
        found = {name for broker in admin.brokers("looking") for name in getattr(broker, f"{kind}s")()}
        names = {name.replace(prefix, PREFIX) for name in found if prefix in name}
        return {retry if name == retry_v2 else name for name in names}  # it writes one or the other

    def is_made(kind: str, *but: str) -> None:
        names = listed[kind] - {retry_v2, *but}
        eventually(lambda: made(kind) == names, timeout=40, what=f"{kind}s: {sorted(made(kind) ^ names)}")

    workers = Workers(config, tmp_path / "log")
    queue = TaskQueue.from_config(config)
    try:
        queue.enqueue(Task("t"), process_in=3600)
        queue.enqueue(Task("hold"))
        killed = workers.start("handle")
        eventually(lambda: workers.lines("start"), timeout=40)
        workers.kill(killed)  # what it held comes back
        queue.start(refuse, queues=list(QUEUES))
        is_made("topic", f"{PREFIX}_DELAY_LOST")
        is_made("group", f"{PREFIX}%%ended")
        with TaskQueue.from_config({**config, "group_id": "other"}) as other:
            other.start(refuse)
            assert other.stop(timeout=10)
        queue.groups.remove("other")
        is_made("group")
    finally:
        workers.close()
        queue.stop(timeout=10)
        admin.close()
        delete_prefix(options["endpoints"], options["admin"], prefix)


def rocketmq_names(kind: str) -> set[str]:
    """What the page lists of this kind."""
    rows = [things for things, _ in rocketmq_things() if things.startswith(kind)]
    return {name for things in rows for name in re.findall("`(.+?)`", things)}


def names_of(kind: str) -> set[str]:
    """What the page lists of this kind; from … to is all levels of delay."""
    found: set[str] = set()
    for things, _ in rabbitmq_things():
        if kind in things:
            names = {level.name for level in delay_levels.levels()} if "…" in things else re.findall("`(.+?)`", things)
            found.update(names)
    return found - {FOR_A_MOMENT}
