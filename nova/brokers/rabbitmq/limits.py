"""What a server's limits and rights mean for tasks: numbers in, findings out. Pure.

Much of what matters cannot be asked over AMQP 0-9-1: such a finding is `unread` and holds the command that tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nova.brokers.base import Finding

__all__ = ["QueueFacts", "Right", "ServerFacts", "judge_queues", "judge_rights", "judge_server", "judge_unread"]

LEAST_VERSION = (3, 10)
FLAGS_REQUIRED = (3, 12)
"""From then on a server does not start without the feature flags of quorum queues and streams."""
LEAST_CHANNELS = 16
"""On one connection: questions from several threads at once, each on a channel."""
USUAL_FRAME = 131_072
LEAST_FRAME = 32_768
"""Bytes: the headers of a task go in one frame, those of a dead letter hold a traceback beside its metadata."""
NEEDED = (
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "exchange_exchange_bindings",
    "publisher_confirms",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """A server as it says it is.

    Attributes:
        frame_max: bytes, as agreed.
        channel_max: channels of one connection, as agreed.
        capabilities: those that it has.
        blocked: why it takes nothing from publishers, in its words; None = it took a message.
    """

    product: str
    version: str
    frame_max: int
    channel_max: int
    capabilities: frozenset[str]
    blocked: str | None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One of the group's queues: whether it is there, and why it is not as Nova declares it, if it is not."""

    name: str
    is_there: bool
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Right:
    """Something tried: what RabbitMQ calls it, on which names, and the server's refusal if there was one."""

    kind: str
    names: str
    refusal: str | None


def judge_server(server: ServerFacts) -> list[Finding]:
    """Version, capabilities, alarms, and the limits of a connection."""
    return [
        *_judge_version(server),
        _judge_blocked(server.blocked),
        _judge_frame(server.frame_max),
        _judge_channels(server.channel_max),
    ]


def judge_queues(queues: Sequence[QueueFacts]) -> list[Finding]:
    """Whether those that are there are as Nova declares them."""
    found = [
        Finding(
            "harm",
            "queues",
            f"{queue.name}: {queue.refusal}",
            "workers cannot start on it",
            "remove it once it is empty, or use another prefix or group",
        )
        for queue in queues
        if queue.refusal is not None
    ]
    there = sum(queue.is_there for queue in queues)
    return found or [
        Finding("ok", "queues", f"{there} of {len(queues)} there, as Nova declares them; it makes the others")
    ]


def judge_rights(rights: Sequence[Right]) -> list[Finding]:
    """What this user may not do."""
    lost = {
        "configure": "what is missing cannot be made, workers cannot start",
        "write": "nothing can be enqueued, retried or buried",
        "read": "workers cannot handle tasks",
    }
    found = [
        Finding(
            "harm",
            f"right to {right.kind}",
            f"{right.names}: {right.refusal}",
            lost[right.kind],
            f"rabbitmqctl set_permissions: {right.kind} on these names (docs/security.md)",
        )
        for right in rights
        if right.refusal is not None
    ]
    if found or not rights:
        return found
    return [Finding("ok", "rights", "; ".join(f"{right.kind} {right.names}" for right in rights))]


def judge_unread(version: str, long_task_after: float) -> list[Finding]:
    """What AMQP does not tell, with the command that does."""
    flags = "quorum_queue and stream_queue must be enabled"
    return [
        Finding(
            "unread",
            "consumer timeout",
            "not readable over AMQP",
            f"a server that allows less than {long_task_after:g} s (with_rabbitmq(long_task_after=…)) runs long tasks twice",
            "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).' (milliseconds)",
        ),
        Finding(
            "unread",
            "delivery limit",
            "not readable over AMQP",
            "Nova declares 1000000; a policy with a lower delivery-limit wins, and then drops tasks that come back often",
            "rabbitmqctl list_queues name effective_policy_definition",
        ),
        Finding("ok", "feature flags", f"RabbitMQ {version} requires those that Nova needs")
        if _numbers(version) >= FLAGS_REQUIRED
        else Finding(
            "unread", "feature flags", "not readable over AMQP", flags, "rabbitmqctl list_feature_flags name state"
        ),
    ]


def _judge_version(server: ServerFacts) -> list[Finding]:
    shown = f"{server.product} {server.version}"
    missing = [name for name in NEEDED if name not in server.capabilities]
    if missing:
        return [
            Finding(
                "harm",
                "version",
                f"{shown}, without {', '.join(missing)}",
                "Nova's promises rest on these",
                "RabbitMQ 3.10 or newer",
            )
        ]
    if server.product != "RabbitMQ":
        return [
            Finding(
                "hint",
                "version",
                shown,
                "Nova is tested on RabbitMQ alone: quorum queues and their dead lettering may differ",
                "RabbitMQ 3.10 or newer",
            )
        ]
    if _numbers(server.version) < LEAST_VERSION:
        return [
            Finding(
                "harm",
                "version",
                shown,
                "it has no queues with a time to live that lose nothing",
                "RabbitMQ 3.10 or newer",
            )
        ]
    return [Finding("ok", "version", shown)]


def _judge_blocked(blocked: str | None) -> Finding:
    if blocked is None:
        return Finding("ok", "alarms", "none: it takes messages")
    return Finding(
        "harm",
        "alarms",
        blocked,
        "nothing can be enqueued, retried or buried until it ends",
        "free memory or disk (rabbitmq-diagnostics alarms), or move vm_memory_high_watermark or disk_free_limit",
    )


def _judge_frame(frame_max: int) -> Finding:
    found = f"{frame_max} bytes"
    if frame_max == 0 or frame_max >= USUAL_FRAME:
        return Finding("ok", "frame_max", found)
    return Finding(
        "harm" if frame_max < LEAST_FRAME else "hint",
        "frame_max",
        found,
        "a task whose headers (metadata, and the error of a dead letter) fill more is refused or buried",
        f"frame_max = {USUAL_FRAME} in rabbitmq.conf, which is its default",
    )


def _judge_channels(channel_max: int) -> Finding:
    if channel_max == 0 or channel_max >= LEAST_CHANNELS:
        return Finding("ok", "channel_max", f"{channel_max} on a connection")
    return Finding(
        "harm",
        "channel_max",
        f"{channel_max} on a connection",
        "questions asked at once fail",
        f"channel_max = {LEAST_CHANNELS} or more in rabbitmq.conf",
    )


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor; () for a text that is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else ()
