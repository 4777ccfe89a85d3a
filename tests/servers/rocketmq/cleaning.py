"""Leaves a shared server as it was: thousands of forgotten topics slow it down."""

from __future__ import annotations

import contextlib

from nova.brokers.prefixes import topics_of
from nova.brokers.rocketmq.admin import Admin
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.rocketmq.names import Names
from nova.errors import BrokerError


def delete_prefix(endpoints: str, name_server: str, prefix: str) -> None:
    """Delete the groups and topics of a topic prefix."""
    admin = Admin(RocketMQConfig(endpoints=endpoints, admin=name_server), f"rocketmq at {endpoints}", 10)
    names = Names(prefix)
    try:
        brokers = admin.brokers("cleaning up")
        topics = {topic for broker in brokers for topic in broker.topics()}
        groups = {group for broker in brokers for group in broker.groups()}
        mine = topics_of(prefix, topics) | {names.near, names.lost, names.dead} & topics
        mine |= {topic for topic in topics if topic.startswith("%RETRY%") and f"%{prefix}_{prefix}" in topic}
        for topic in mine:
            with contextlib.suppress(BrokerError):
                admin.delete_topic(topic)
        for group in groups:
            if names.group_of(group) is not None or group in (names.forwarder, names.ended):
                for broker in brokers:
                    broker.delete_group(group)
    finally:
        admin.close()
