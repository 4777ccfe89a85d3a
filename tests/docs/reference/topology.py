"""docs/topology.md: what a prefix, its queues and a group are called on each broker, composed by the drivers' own names."""

from __future__ import annotations

import re

from nova.brokers.kafka.delay_lanes import LEVELS
from nova.brokers.kafka.names import Names as KafkaNames
from nova.brokers.rabbitmq import delay_levels
from nova.brokers.rabbitmq.names import Names as RabbitNames
from nova.brokers.rocketmq.names import Names as RocketNames
from nova.brokers.sqlite import schema
from nova.routing import CLASSES, DEFAULT_QUEUE, Topics

__all__ = [
    "GROUP",
    "PREFIX",
    "QUEUES",
    "kafka_groups",
    "kafka_topics",
    "rabbitmq_things",
    "rocketmq_things",
    "topology_page",
]

PREFIX = "SHOP"
GROUP = "billing"
YEAR_MS = 365.25 * 86_400_000
QUEUES = (DEFAULT_QUEUE, "imports")

PAGE = """\
# Topology

What you find on the broker: which topics, queues and exchanges a topic prefix, a queue and a group make. `make
reference` writes this page with the very functions that name them in the drivers. The example is the prefix
`{prefix}` (`with_topic_prefix`), the queues `{queues}`, and the group `{group}` (`with_group_id`). Pictures of who
publishes and who reads are in [brokers.md](brokers.md), what the messages hold in [wire.md](wire.md).

- [Topics of Nova](#topics-of-nova)
- [Kafka](#kafka)
- [RabbitMQ](#rabbitmq)
- [RocketMQ](#rocketmq)
- [SQLite and memory](#sqlite-and-memory)

## Topics of Nova

These names are the same on every broker; on Kafka and RocketMQ they are the broker's topics.

{ready}
Custom queues have a dash, classes `_PRIORITY_`; names may hold `A-Z a-z 0-9 _ -`, no dots
([configuration.md](configuration.md#names)).

## Kafka

{kafka}
A further group adds no topic, only consumer groups of its own.

## RabbitMQ

{rabbitmq}
A further group adds queues of its own, bound to the same exchange with the topic as routing key. The
`nova_delay_{version}` exchanges and queues belong to the vhost, not to a prefix.

## RocketMQ

{rocketmq}
A further group adds a consumer group of its own and retry topics of its own.

## SQLite and memory

SQLite has the tables {tables} in its file; a topic and a group are a row of `nova_lanes`. Memory has the same lanes
as objects. With both, delayed, dead and suspect tasks are rows of lanes like all others, in the topics above.
"""


def topology_page() -> str:
    """The text of the page."""
    return PAGE.format(
        prefix=PREFIX,
        queues="` and `".join(QUEUES),
        group=GROUP,
        ready=_table("topic", [(f"`{name}`", what) for name, what in _ready() + _own()]),
        kafka=_table("topic", [(f"`{name}`", what) for name, what in kafka_topics()])
        + "\n"
        + _table("consumer group", [(f"`{name}`", what) for name, what in kafka_groups()]),
        rabbitmq=_table("exchange or queue", rabbitmq_things()),
        rocketmq=_table("topic or group", rocketmq_things()),
        version=delay_levels.VERSION,
        tables=", ".join(f"`{name}`" for name in re.findall(r"TABLE IF NOT EXISTS (\w+)", " ".join(schema._DDL))),
    )


def kafka_topics() -> list[tuple[str, str]]:
    """Every topic that Nova makes for the example, and what it is for."""
    names = KafkaNames(PREFIX)
    return [
        *_ready(),
        *_own(),
        (names.near, "delayed tasks that are due soon"),
        *((names.level(number), "delayed tasks; made when a delay is long enough for it") for number in _levels()),
        (names.groups, "compacted: which group reads which topic, and from where"),
        (names.leases, "compacted: who still runs a long task; made with the first"),
    ]


def kafka_groups() -> list[tuple[str, str]]:
    """The consumer groups of a worker of the example."""
    names, topics = KafkaNames(PREFIX), Topics(PREFIX)
    found = [
        (
            names.consumer_group(GROUP, topics.ready(DEFAULT_QUEUE, priority)),
            f"{priority.name.lower()} tasks of all its queues",
        )
        for priority in CLASSES
    ]
    return [
        *found,
        (names.consumer_group(GROUP, topics.quarantine(DEFAULT_QUEUE)), "suspects of all its queues, one at a time"),
        (names.forwarder, "forwards delayed tasks; shared by all groups of the prefix"),
    ]


def rabbitmq_things() -> list[tuple[str, str]]:
    """Every exchange and queue of the example, each with its kind before it, and what is in it."""
    names = RabbitNames(PREFIX, f"{PREFIX}-exchange")
    levels = delay_levels.levels()
    return [
        (f"exchange `{names.exchange}`", "topic; fresh tasks, with their topic as routing key"),
        *((f"queue `{names.queue(GROUP, name)}`", what) for name, what in _ready() + _own()),
        *((f"queue `{names.unclaimed(name)}`", f"{what} that came before its first group") for name, what in _ready()),
        (
            f"queue `{names.near}`",
            f"delayed tasks that are due soon; bound to `{delay_levels.DELIVER}` with `#.{PREFIX}`",
        ),
        (f"queue `{names.registry}`", "one message: which group reads what"),
        (f"queue `{names.registry_lock}`", "exclusive, while the registry is changed"),
        (
            f"exchanges and queues `{levels[0].name}` … `{levels[-1].name}`",
            f"delayed tasks: level k holds for 2^k ms, {levels[0].hold_ms} ms to {levels[-1].hold_ms / YEAR_MS:.1f} years",
        ),
        (f"exchange `{delay_levels.DELIVER}`", "from the last level to each prefix's own queue"),
        (f"exchange and queue `{delay_levels.LOST}`", "delayed messages of a prefix that is gone"),
        (f"exchange `{delay_levels.READY}`", "made last: the levels are complete"),
    ]


def rocketmq_things() -> list[tuple[str, str]]:
    """Every topic and consumer group of the example, each with its kind before it, and what is in it."""
    names = RocketNames(PREFIX)
    group = names.consumer_group(GROUP)
    first = names.default_topic
    return [
        *((f"topic `{name}`", what) for name, what in _ready() + _own()),
        (
            f"topic `{names.near}`",
            f"of type `{names.type_of(names.near)}`, all others are `{names.type_of(first)}`: delayed tasks, in timers",
        ),
        (f"topic `{names.lost}`", "what lay among the delayed tasks and is none of Nova's; made when there is some"),
        (f"group `{group}`", "all that the group's workers read"),
        (f"group `{names.forwarder}`", "forwards delayed tasks; shared by all groups of the prefix"),
        (
            f"group `{names.ended}`",
            "nobody's: where the next first group of a topic begins; made when a group is removed",
        ),
        (
            f"topic `{names.retry_topics(group, first)[0]}`, or `{names.retry_topics(group, first)[1]}`",
            "the server's own, one for each topic: tasks whose worker died; made with the first",
        ),
    ]


def _ready() -> list[tuple[str, str]]:
    topics = Topics(PREFIX)
    return [
        (topics.ready(queue, priority), f"{priority.name.lower()} tasks of the queue `{queue}`")
        for queue in QUEUES
        for priority in CLASSES
    ]


def _own() -> list[tuple[str, str]]:
    topics = Topics(PREFIX)
    quarantines = [(topics.quarantine(queue), f"tasks of `{queue}` that may kill their process") for queue in QUEUES]
    return [*quarantines, (topics.dead, "dead letters of all queues")]


def _levels() -> range:
    return range(1, LEVELS + 1)


def _table(head: str, rows: list[tuple[str, str]]) -> str:
    return f"| {head} | what is in it |\n|---|---|\n" + "".join(f"| {name} | {what} |\n" for name, what in rows)
