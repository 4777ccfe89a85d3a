"""What a cluster's limits and settings mean for tasks: numbers in, findings out. Pure.

Source of the names: Kafka's broker, topic and consumer group configurations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nova.brokers.base import Finding

__all__ = [
    "ClusterFacts",
    "TopicFacts",
    "judge_cluster",
    "judge_groups",
    "judge_missing",
    "judge_replicas",
    "judge_topic",
    "judge_workers",
]

FOREVER = "-1"
WEEK_MINUTES = 7 * 24 * 60
_RETENTION = ("retention.ms", "retention.bytes")
_SHOWN = frozenset({*_RETENTION, "max.message.bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic as it is, and as Nova would have made it.

    Attributes:
        is_ready: tasks wait in it to be run; else it is one of Nova's own.
        replicas: of the partition that has the fewest.
        settings: its configuration; None = this user may not read it.
        wanted: the configuration with which Nova makes it.
        rights: what this user may do to it, in Kafka's words; None = the cluster has no rules, or does not tell.
    """

    name: str
    is_ready: bool
    partitions: int
    replicas: int
    settings: Mapping[str, str] | None
    wanted: Mapping[str, str]
    rights: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """A cluster as it is.

    Attributes:
        brokers: how many are up.
        settings: one broker's; None = this user may not read them.
    """

    brokers: int
    settings: Mapping[str, str] | None


def judge_topic(topic: TopicFacts, *, reclaim: bool) -> list[Finding]:
    """One topic: what it forgets and refuses, and what this user may not do there. One `ok` if there is nothing to say."""
    found = _judge_rights(topic, reclaim=reclaim)
    if topic.settings is None:
        found.append(_unread_topic(topic.name))
    else:
        found += _judge_settings(topic.name, topic.settings, topic)
    if found:
        return found
    shown = [f"{topic.partitions} partitions"]
    shown += [f"{name}={value}" for name, value in sorted((topic.settings or {}).items()) if name in _SHOWN]
    return [Finding("ok", f"topic {topic.name}", ", ".join(shown))]


def judge_replicas(topics: Sequence[TopicFacts]) -> list[Finding]:
    """Whether a broker can go without a task lost or refused; topics of one kind make one finding."""
    kinds: dict[tuple[int, int], list[str]] = {}
    for topic in topics:
        if topic.settings is not None:
            in_sync = _number(topic.settings, "min.insync.replicas", 1)
            kinds.setdefault((topic.replicas, in_sync), []).append(topic.name)
    return [_judge_replicas(names, *kind) for kind, names in sorted(kinds.items())]


def judge_cluster(cluster: ClusterFacts, *, session_timeout: float, workers: int) -> list[Finding]:
    """What the brokers' own settings say."""
    found = [
        Finding("ok", "brokers", f"{cluster.brokers} up"),
        Finding(
            "unread",
            "version",
            "Kafka's client is not told the broker's version",
            "",
            "kafka-broker-api-versions.sh --bootstrap-server HOST:PORT (Nova needs 2.5)",
        ),
    ]
    settings = cluster.settings
    if settings is None:
        found.append(
            Finding(
                "unread",
                "broker settings",
                "this user may not read them",
                "session and group limits are not checked",
                "grant DescribeConfigs on the cluster, or: kafka-configs.sh --describe --entity-type brokers --all",
            )
        )
        return found
    return [
        *found,
        _judge_session(settings, session_timeout),
        *_judge_group_size(settings, workers),
        _judge_offsets(settings),
    ]


def judge_workers(partitions: Mapping[str, int], workers: int) -> list[Finding]:
    """Whether each worker process gets a part of each ready topic.

    Args:
        partitions: of each ready topic, those that are to be made included.
    """
    if not partitions:
        return []
    name, least = min(partitions.items(), key=lambda entry: entry[1])
    found = f"{least} partitions in {name!r}, {workers} {'worker' if workers == 1 else 'workers'}"
    if least >= workers:
        return [Finding("ok", "partitions", found)]
    return [
        Finding(
            "harm",
            "partitions",
            found,
            f"a partition is read by one worker: {workers - least} of them get no task of this topic",
            f"kafka-topics.sh --alter --topic {name} --partitions {workers}, or run {least} workers",
        )
    ]


def judge_missing(refusals: Mapping[str, str | None]) -> list[Finding]:
    """The topics that are not there, and why each could not be made; None = it could."""
    possible = sorted(topic for topic, refusal in refusals.items() if refusal is None)
    found = []
    if possible:
        found.append(Finding("ok", "missing topics", f"{', '.join(possible)}: Nova makes them at their first use"))
    found += [
        Finding("harm", "missing topics", f"{topic}: {refusal}", "what is enqueued there fails", "see the message")
        for topic, refusal in sorted(refusals.items())
        if refusal is not None
    ]
    return found


def judge_groups(groups: Mapping[str, tuple[frozenset[str] | None, str | None]]) -> list[Finding]:
    """Whether this user may consume.

    Args:
        groups: of each consumer group this user's rights in Kafka's words (None = the cluster does not tell), and why nothing
            could be learned, or None.
    """
    found = [
        Finding(
            "harm",
            "group rights",
            f"{name!r}: {refusal or _listed(rights or frozenset())}",
            "workers cannot start",
            "grant this user Read on the consumer groups that begin with the topic prefix and a dot",
        )
        for name, (rights, refusal) in groups.items()
        if refusal is not None or (rights is not None and "READ" not in rights)
    ]
    return found or [Finding("ok", "group rights", f"READ on {', '.join(groups)}")]


def _judge_rights(topic: TopicFacts, *, reclaim: bool) -> list[Finding]:
    if topic.rights is None:
        return []
    missing = sorted({"READ", "WRITE"} - topic.rights)
    what = f"rights on {topic.name}"
    if missing:
        lost = {"READ": "workers cannot handle tasks", "WRITE": "nothing can be enqueued, retried or buried"}
        return [
            Finding(
                "harm",
                what,
                f"{_listed(topic.rights)}; without {' and '.join(missing)}",
                "; ".join(lost[name] for name in missing),
                f"grant this user {' and '.join(name.capitalize() for name in missing)} on the prefix's topics",
            )
        ]
    if reclaim and "DELETE" not in topic.rights:
        return [
            Finding(
                "hint",
                what,
                f"{_listed(topic.rights)}; without DELETE",
                "what is done stays on the brokers' disks",
                "grant Delete, or delete yourself and say with_kafka(reclaim=False)",
            )
        ]
    return []


def _judge_settings(name: str, settings: Mapping[str, str], topic: TopicFacts) -> list[Finding]:
    found = []
    policy, wanted_policy = settings.get("cleanup.policy"), topic.wanted["cleanup.policy"]
    if policy is not None and policy != wanted_policy:
        found.append(
            Finding(
                "harm",
                f"cleanup.policy of {name}",
                policy,
                "tasks would be lost: Nova refuses the topic",
                _alter(name, f"cleanup.policy={wanted_policy}"),
            )
        )
    if wanted_policy == "delete":
        limited = {key: settings.get(key, FOREVER) for key in _RETENTION}
        found += [
            _judge_retention(name, key, value, is_ready=topic.is_ready)
            for key, value in limited.items()
            if value != FOREVER
        ]
    stamps, wanted_stamps = settings.get("message.timestamp.type"), topic.wanted.get("message.timestamp.type")
    if wanted_stamps is not None and stamps is not None and stamps != wanted_stamps:
        found.append(
            Finding(
                "harm",
                f"message.timestamp.type of {name}",
                stamps,
                "its order would follow the clocks of producers: Nova refuses a delay topic like this",
                _alter(name, f"message.timestamp.type={wanted_stamps}"),
            )
        )
    found += _judge_size(name, settings.get("max.message.bytes", ""), topic.wanted["max.message.bytes"])
    return found


def _judge_retention(name: str, key: str, value: str, *, is_ready: bool) -> Finding:
    shown = f"{value} ({int(value) / 3_600_000:g} h)" if key == "retention.ms" and value.isdigit() else value
    meaning = (
        "tasks that wait longer are lost" if key == "retention.ms" else "the oldest tasks beyond that size are lost"
    )
    meaning = meaning if is_ready else f"{meaning}, and Nova refuses the topic"
    return Finding("harm", f"{key} of {name}", shown, meaning, _alter(name, f"{key}=-1"))


def _judge_size(name: str, value: str, wanted: str) -> list[Finding]:
    if not value.isdigit() or int(value) >= int(wanted):
        return []
    return [
        Finding(
            "harm",
            f"max.message.bytes of {name}",
            f"{value} bytes, {wanted} wanted for with_kafka(max_body_bytes=…) and headers",
            "larger tasks, and what is sent together with them, are refused",
            f"{_alter(name, f'max.message.bytes={wanted}')}; or lower with_kafka(max_body_bytes=…)",
        )
    ]


def _judge_replicas(names: Sequence[str], replicas: int, in_sync: int) -> Finding:
    found = f"{replicas}, min.insync.replicas={in_sync}: {', '.join(names)}"
    others = ", and likewise for the other topics" if len(names) > 1 else ""
    if in_sync > replicas:
        return Finding(
            "harm",
            "replicas",
            found,
            "every enqueue fails: acks=all waits for more replicas than there are",
            f"{_alter(names[0], f'min.insync.replicas={max(1, replicas - 1)}')}{others}",
        )
    if replicas == 1:
        meaning, fix = "tasks are gone with this one broker's disk", "three replicas and min.insync.replicas=2"
    elif in_sync == 1:
        meaning = "a task may be confirmed while one replica alone has it, and be lost with that broker"
        fix = f"{_alter(names[0], 'min.insync.replicas=2')}{others}"
    elif in_sync == replicas:
        meaning = "while one broker is down nothing can be enqueued"
        fix = f"{_alter(names[0], f'min.insync.replicas={replicas - 1}')}{others}, or one replica more"
    else:
        return Finding("ok", "replicas", found)
    return Finding("hint", "replicas", found, meaning, fix)


def _judge_session(settings: Mapping[str, str], session_timeout: float) -> Finding:
    least = _number(settings, "group.min.session.timeout.ms", 0)
    most = _number(settings, "group.max.session.timeout.ms", 1 << 31)
    found = f"{least} to {most} ms, with_kafka(session_timeout={session_timeout:g})"
    if least <= session_timeout * 1000 <= most:
        return Finding("ok", "session timeout", found)
    return Finding(
        "harm",
        "session timeout",
        found,
        "workers are not let into their group and receive nothing",
        "with_kafka(session_timeout=…) between group.min.session.timeout.ms and group.max.session.timeout.ms",
    )


def _judge_group_size(settings: Mapping[str, str], workers: int) -> list[Finding]:
    most = _number(settings, "group.max.size", 1 << 31)
    if workers <= most:
        return []
    return [
        Finding(
            "harm",
            "group size",
            f"group.max.size={most}, {workers} workers",
            f"{workers - most} workers are not let in",
            f"raise group.max.size to {workers}, or run {most} workers",
        )
    ]


def _judge_offsets(settings: Mapping[str, str]) -> Finding:
    minutes = _number(settings, "offsets.retention.minutes", WEEK_MINUTES)
    found = f"offsets.retention.minutes={minutes} ({minutes / 1440:g} days)"
    if minutes >= WEEK_MINUTES:
        return Finding("ok", "offsets", found)
    return Finding(
        "hint",
        "offsets",
        found,
        "a group whose workers are all away for longer runs again what is not deleted yet",
        f"offsets.retention.minutes={WEEK_MINUTES} or more on the brokers",
    )


def _unread_topic(name: str) -> Finding:
    return Finding(
        "unread",
        f"settings of {name}",
        "this user may not read them",
        "whether it forgets or refuses tasks is not checked",
        f"grant DescribeConfigs on it, or: kafka-configs.sh --describe --all --topic {name}",
    )


def _number(settings: Mapping[str, str], name: str, default: int) -> int:
    text = settings.get(name, "")
    return int(text) if text.isdigit() else default


def _alter(topic: str, setting: str) -> str:
    return f"kafka-configs.sh --alter --topic {topic} --add-config {setting}"


def _listed(rights: frozenset[str]) -> str:
    shown: Sequence[str] = sorted(rights & {"READ", "WRITE", "CREATE", "DELETE", "DESCRIBE", "DESCRIBE_CONFIGS"})
    return ", ".join(shown) or "none"
