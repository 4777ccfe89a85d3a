"""What the proxy's and the brokers' limits mean for tasks: numbers in, findings out. Pure.

Source of the names: RocketMQ's `BrokerConfig`, `MessageStoreConfig`, `ProxyConfig` and `SubscriptionGroupConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nova.brokers.base import Finding
from nova.brokers.rocketmq.config import RocketMQConfig

__all__ = [
    "BrokerFacts",
    "GroupFacts",
    "ProxyFacts",
    "judge_broker",
    "judge_groups",
    "judge_no_admin",
    "judge_proxy",
    "judge_topics",
]

KEEPS_LONG = 30 * 24
"""Hours; a broker that deletes messages sooner than that is worth a word."""
FULL, DELETES = 90, 85
"""Percent of a broker's disk from which it stores nothing more, and from which it deletes, unless it says otherwise."""
LEAST_RETRIES = 100_000
"""Of a consumer group: after so many returns the server would take a task away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFacts:
    """What a proxy takes; None = it does not tell this user."""

    max_body_bytes: int | None
    least_invisible_ms: int | None
    most_invisible_ms: int | None
    most_delay_ms: int | None


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A broker's own settings, and what it tells of its run."""

    name: str
    settings: Mapping[str, str]
    runtime: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A consumer group on one broker; None = there is none there."""

    name: str
    broker: str
    retry_max_times: int | None


def judge_proxy(proxy: ProxyFacts, config: RocketMQConfig) -> list[Finding]:
    """What the proxy takes, against what Nova will send."""
    return [_judge_body(proxy, config), _judge_lease(proxy, config), _judge_delay(proxy, config)]


def judge_broker(broker: BrokerFacts, config: RocketMQConfig) -> list[Finding]:
    """How long a broker keeps messages, how it times them, and what it may lose."""
    settings, at = broker.settings, f"of {broker.name}"
    return [
        Finding("ok", f"version {at}", broker.runtime.get("brokerVersionDesc", "?")),
        _judge_age(settings, at),
        _judge_disk(broker, at),
        *_judge_timers(settings, at, config),
        _judge_handing_out(settings, at),
        *_judge_flush(settings, at),
    ]


def judge_groups(groups: list[GroupFacts]) -> list[Finding]:
    """Whether the server would take tasks away from them."""
    found = [
        Finding(
            "harm",
            "retryMaxTimes",
            f"{group.retry_max_times} of {group.name!r} on {group.broker}",
            "after so many the server takes a task away while it runs: Nova refuses the group",
            f"mqadmin updateSubGroup -n NAMESERVER -c CLUSTER -g '{group.name}' -r 1000000",
        )
        for group in groups
        if group.retry_max_times is not None and group.retry_max_times < LEAST_RETRIES
    ]
    if found:
        return found
    shown = [
        f"{group.name}: {'missing, Nova makes it' if group.retry_max_times is None else group.retry_max_times}"
        for group in groups
    ]
    return [Finding("ok", "retryMaxTimes", ", ".join(shown))]


def judge_topics(topics: Mapping[str, str | None], *, can_make: bool) -> list[Finding]:
    """Whether the topics are there, or can be made.

    Args:
        topics: why each cannot be used; "" = it can, None = it is missing.
        can_make: the brokers' own port can be reached.
    """
    missing = [topic for topic, trouble in topics.items() if trouble is None]
    found = [
        Finding("harm", "topics", trouble, "nothing can be enqueued there, or handled", "as the message says")
        for trouble in topics.values()
        if trouble
    ]
    if missing and not can_make:
        found.append(
            Finding(
                "harm",
                "topics",
                f"missing: {', '.join(missing)}",
                "nothing can be enqueued there, and without the brokers' own port Nova cannot make them",
                "give with_rocketmq(admin='host:9876'), or mqadmin updateTopic for each",
            )
        )
    if found:
        return found
    made = f"; Nova makes {', '.join(missing)}" if missing else ""
    return [Finding("ok", "topics", f"{len(topics) - len(missing)} of {len(topics)} there{made}")]


def judge_no_admin(why: str) -> Finding:
    """The brokers' own port is out of reach, or refuses this user."""
    return Finding(
        "unread",
        "brokers",
        why,
        "how long they keep tasks, their timers, and the groups' retryMaxTimes are not checked",
        "give with_rocketmq(admin='host:9876'), or: mqadmin getBrokerConfig -n NAMESERVER -c CLUSTER",
    )


def _judge_body(proxy: ProxyFacts, config: RocketMQConfig) -> Finding:
    most = proxy.max_body_bytes
    if not most:
        return _unread("body size", "maxMessageSize")
    found = f"{most} bytes, with_rocketmq(max_body_bytes={config.max_body_bytes})"
    if most >= config.max_body_bytes:
        return Finding("ok", "body size", found)
    return Finding(
        "harm",
        "body size",
        found,
        "larger tasks are refused by the server, not before they are sent",
        f"with_rocketmq(max_body_bytes={most}), or raise maxMessageSize of proxy and broker",
    )


def _judge_lease(proxy: ProxyFacts, config: RocketMQConfig) -> Finding:
    least, most = proxy.least_invisible_ms, proxy.most_invisible_ms
    if least is None or most is None:
        return _unread("invisible duration", "minInvisibleTimeMillsForRecv and maxInvisibleTimeMills")
    found = f"{least} to {most} ms, with_rocketmq(invisible_duration={config.invisible_duration:g})"
    if least <= config.invisible_duration * 1000 <= most:
        return Finding("ok", "invisible duration", found)
    return Finding(
        "harm",
        "invisible duration",
        found,
        "every receive is refused: workers get nothing",
        f"with_rocketmq(invisible_duration=…) from {least / 1000:g} to {most / 1000:g}, or the proxy's "
        "minInvisibleTimeMillsForRecv and maxInvisibleTimeMills",
    )


def _judge_delay(proxy: ProxyFacts, config: RocketMQConfig) -> Finding:
    most = proxy.most_delay_ms
    if most is None:
        return _unread("delay", "maxDelayTimeMills")
    found = f"{most} ms ({most / 3_600_000:g} h), with_rocketmq(max_delay={config.max_delay:.10g})"
    if config.max_delay * 1000 <= most:
        return Finding("ok", "delay", f"{found}; longer ones are chained")
    return Finding(
        "harm",
        "delay",
        found,
        "tasks that are due later than that are refused",
        f"with_rocketmq(max_delay={most / 1000:.10g}), or raise the proxy's maxDelayTimeMills",
    )


def _judge_age(settings: Mapping[str, str], at: str) -> Finding:
    name, hours = f"fileReservedTime {at}", _number(settings, "fileReservedTime")
    if hours is None:
        return _unread(name, "fileReservedTime")
    found = f"{hours} h ({hours / 24:g} days)"
    if hours >= KEEPS_LONG:
        return Finding("ok", name, found)
    return Finding(
        "harm",
        name,
        found,
        "tasks that wait longer are deleted, whether anybody has read them or not",
        f"fileReservedTime={KEEPS_LONG} or more in broker.conf",
    )


def _judge_disk(broker: BrokerFacts, at: str) -> Finding:
    """Source: `CleanCommitLogService`; a file that is deleted `cleanAtOnce` may hold what nobody has read."""
    name, settings = f"disk {at}", broker.settings
    try:
        used = round(float(broker.runtime.get("commitLogDiskRatio", "-1")) * 100)
    except ValueError:
        used = -1
    if used < 0:
        return _unread(name, "diskSpaceWarningLevelRatio")
    full = min(_number(settings, "diskSpaceWarningLevelRatio") or FULL, FULL)
    if used >= full:
        return Finding(
            "harm", name, f"{used} % used", f"from {full} % on nothing more is stored: enqueue fails", "free some"
        )
    if settings.get("cleanFileForciblyEnable", "true") == "false":
        return Finding("ok", name, f"{used} % used; from {full} % on nothing more is stored")
    deletes = min(_number(settings, "diskSpaceCleanForciblyRatio") or DELETES, DELETES)
    return Finding(
        "harm" if used >= deletes else "hint",
        name,
        f"{used} % used, cleanFileForciblyEnable=true",
        f"from {deletes} % on the oldest tasks are deleted, whether anybody has read them or not",
        "keep it well below that; cleanFileForciblyEnable=false in broker.conf has enqueue fail instead",
    )


def _judge_timers(settings: Mapping[str, str], at: str, config: RocketMQConfig) -> list[Finding]:
    if settings.get("timerWheelEnable") == "false":
        return [
            Finding(
                "harm",
                f"timers {at}",
                "timerWheelEnable=false",
                "delayed tasks and retries are refused",
                "set it to true",
            )
        ]
    found: list[Finding] = []
    longest, precision = _number(settings, "timerMaxDelaySec"), _number(settings, "timerPrecisionMs")
    if longest is not None:
        shown = f"{longest} s, with_rocketmq(max_delay={config.max_delay:.10g})"
        found.append(
            Finding("ok", f"timerMaxDelaySec {at}", shown)
            if config.max_delay <= longest
            else Finding(
                "harm",
                f"timerMaxDelaySec {at}",
                shown,
                "tasks that are due later than that are refused",
                f"with_rocketmq(max_delay={longest})",
            )
        )
    if precision is not None:
        shown = f"{precision} ms, with_rocketmq(delay_guard={config.delay_guard:g})"
        found.append(
            Finding("ok", f"timerPrecisionMs {at}", f"{shown}; a worker holds tasks for the rest")
            if precision <= config.delay_guard * 1000
            else Finding(
                "harm",
                f"timerPrecisionMs {at}",
                shown,
                "delayed tasks come late by the difference",
                f"with_rocketmq(delay_guard={precision / 1000 + 0.5:g}), or a smaller timerPrecisionMs",
            )
        )
    return found


def _judge_handing_out(settings: Mapping[str, str], at: str) -> Finding:
    name, value = f"popConsumerKVServiceEnable {at}", settings.get("popConsumerKVServiceEnable", "not known to it")
    if value == "true":
        return Finding("ok", name, value)
    return Finding(
        "harm",
        name,
        value,
        "a task that arrives while a worker that was just killed still counts as waiting can be lost",
        "popConsumerKVServiceInit=true and popConsumerKVServiceEnable=true in broker.conf",
    )


def _judge_flush(settings: Mapping[str, str], at: str) -> list[Finding]:
    value = settings.get("flushDiskType")
    if value != "ASYNC_FLUSH":
        return [] if value is None else [Finding("ok", f"flushDiskType {at}", value)]
    return [
        Finding(
            "hint",
            f"flushDiskType {at}",
            value,
            "a machine that loses its power loses the last moments of what was confirmed",
            "flushDiskType=SYNC_FLUSH in broker.conf, if that must not be",
        )
    ]


def _unread(name: str, setting: str) -> Finding:
    return Finding(
        "unread", name, "the server does not tell this user", "", f"{setting} in rmq-proxy.json or broker.conf"
    )


def _number(settings: Mapping[str, str], name: str) -> int | None:
    text = settings.get(name, "")
    return int(text) if text.isdigit() else None
