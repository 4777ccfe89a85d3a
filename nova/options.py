"""The `with_…` options of a `TaskQueue`: each checks its values when called and names what it sets.

`config` reads the same functions' signatures, so a configuration file knows exactly these options and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from nova.brokers.base import Driver, DriverConfig
from nova.brokers.kafka.config import KafkaConfig, OAuthToken
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.clock import seconds
from nova.codecs import Codec, check_codec, find_codec
from nova.errors import ConfigError
from nova.middleware import Chain, Middleware
from nova.retry import ExponentialBackoff, RetryPolicy
from nova.routing import DEFAULT_QUEUE, Topics, check_name, check_prefix, check_queue

__all__ = [
    "Option",
    "QueueSettings",
    "settle",
    "with_codec",
    "with_delay_slots",
    "with_driver",
    "with_group_id",
    "with_kafka",
    "with_memory",
    "with_message_format",
    "with_middleware",
    "with_priority_weights",
    "with_queues",
    "with_rabbitmq",
    "with_retry",
    "with_rocketmq",
    "with_sqlite",
    "with_topic_prefix",
]


@dataclass(frozen=True, slots=True)
class Option:
    """One checked option of a queue; make it with a `with_…` function.

    Attributes:
        setting: the field of `QueueSettings` it sets; two options of one setting are a mistake.
        source: the function that made it, for messages.
    """

    setting: str
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class DelaySlots:
    """How brokers without exact delays cut time: `count` slots of `duration` seconds."""

    count: int
    duration: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of the priority classes, and the user's own reserve for high."""

    shares: tuple[int, int, int] = (6, 3, 1)
    reserve: int | None = None


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Everything a `TaskQueue` was built with."""

    driver: DriverConfig | Driver = field(default_factory=SQLiteConfig)
    group_id: str = "TASK_QUEUE_GROUP"
    topic_prefix: str = "TASK_QUEUE"
    codec: Codec = field(default_factory=lambda: find_codec("json"))
    delay_slots: DelaySlots | None = None
    retry: RetryPolicy = field(default_factory=ExponentialBackoff)
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    middleware: Chain = field(default_factory=lambda: Chain(()))
    weights: Weights = field(default_factory=Weights)

    @property
    def topics(self) -> Topics:
        """The topic names under the prefix."""
        return Topics(self.topic_prefix)


def settle(options: Sequence[Option]) -> QueueSettings:
    """One settings object from options.

    Raises:
        ConfigError: no option, or two that set the same.
    """
    chosen: dict[str, Option] = {}
    for option in options:
        if not isinstance(option, Option):
            raise ConfigError(f"TaskQueue: expected options such as with_sqlite(…), got {option!r}")
        other = chosen.get(option.setting)
        if other is not None:
            what = "two drivers" if option.setting == "driver" else f"the {option.setting.replace('_', ' ')} twice"
            raise ConfigError(f"TaskQueue: {what} given, by {other.source}() and {option.source}(); keep one")
        chosen[option.setting] = option
    _map_reconsume_times(chosen)
    return QueueSettings(**{setting: option.value for setting, option in chosen.items()})


def _map_reconsume_times(chosen: dict[str, Option]) -> None:
    """RocketMQ's word for `max_retries`; Nova retries by itself, so it is the policy that must know."""
    driver = chosen.get("driver")
    if driver is None or not isinstance(driver.value, RocketMQConfig) or driver.value.max_reconsume_times is None:
        return
    if "retry" in chosen:
        raise ConfigError(
            "TaskQueue: the retries twice given, by with_rocketmq(max_reconsume_times=…) and with_retry(); keep one"
        )
    chosen["retry"] = Option("retry", ExponentialBackoff(driver.value.max_reconsume_times), "with_rocketmq")


def with_memory(*, name: str | None = None, max_messages: int = 1_000_000, max_body_bytes: int = 64 << 20) -> Option:
    """Keep tasks in this process's memory: for tests, nothing survives the process.

    Args:
        name: queues of one process with the same name share a broker; None = a broker of its own.
        max_messages: messages held at most; beyond it enqueue fails with `QueueFull`.
        max_body_bytes: the largest message body.
    """
    config = MemoryConfig(name=name, max_messages=max_messages, max_body_bytes=max_body_bytes)
    return Option("driver", config, "with_memory")


def with_sqlite(
    path: str | Path = "nova.db",
    *,
    lease: float | timedelta = 30.0,
    busy_timeout: float | timedelta = 5.0,
    max_bytes: int | None = None,
    max_body_bytes: int = 64 << 20,
) -> Option:
    """Keep tasks in one SQLite file; the default driver, at `./nova.db`.

    Args:
        path: the file, on a local disk; made at first use.
        lease: seconds after which the tasks of a dead process go to another.
        busy_timeout: seconds to wait for another process's write.
        max_bytes: the file's largest size; beyond it enqueue fails with `QueueFull`. None = the disk's.
        max_body_bytes: the largest message body.
    """
    config = SQLiteConfig(
        path=str(path) if isinstance(path, Path) else path,
        lease=seconds("with_sqlite(lease)", lease, strict=True),
        busy_timeout=seconds("with_sqlite(busy_timeout)", busy_timeout),
        max_bytes=max_bytes,
        max_body_bytes=max_body_bytes,
    )
    return Option("driver", config, "with_sqlite")


def with_kafka(
    bootstrap_servers: str,
    *,
    partitions: int = 6,
    replication_factor: int = -1,
    session_timeout: float | timedelta = 10.0,
    max_poll_interval: float | timedelta = 300.0,
    delivery_timeout: float | timedelta = 20.0,
    max_body_bytes: int = 1 << 20,
    revoke_grace: float | timedelta = 5.0,
    escrow_after: float | timedelta = 60.0,
    escrow_lease: float | timedelta = 60.0,
    reclaim: bool = True,
    tls: bool = False,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    sasl_mechanism: str | None = None,
    username: str | None = None,
    password: str | None = None,
    oauth_token: OAuthToken | None = None,
    client_config: Mapping[str, Any] | None = None,
) -> Option:
    """Use a Kafka cluster (2.5 or newer).

    Args:
        bootstrap_servers: `host:port`, several with commas.
        partitions: of the topics Nova makes; at most so many workers share one class of one queue.
        replication_factor: of the topics Nova makes; -1 = the cluster's default.
        session_timeout: seconds after which the tasks of a dead process go to another.
        max_poll_interval: seconds after which a process whose threads hang is dead; handlers may run longer.
        delivery_timeout: seconds after which an unconfirmed task is given up as unknown; at most 20.
        max_body_bytes: the largest message body.
        revoke_grace: seconds that running tasks get to end when their partition goes to another worker.
        escrow_after: seconds after which a running task leaves its partition, so that no rebalance runs it again.
        escrow_lease: seconds after which such a task of a dead worker runs again.
        reclaim: delete what every registered group has finished.
        tls: encrypt the connection.
        ca_file: PEM file of the authority that signed the brokers' certificates; None = the system's.
        cert_file: PEM file of the client's certificate, for mutual TLS.
        key_file: PEM file of its key.
        key_password: of the key file.
        sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
        username: for PLAIN and SCRAM.
        password: for PLAIN and SCRAM.
        oauth_token: for OAUTHBEARER: called with `sasl.oauthbearer.config`, returns (token, epoch seconds it is valid until).
        client_config: further librdkafka properties; those that would break a promise are refused.
    """
    config = KafkaConfig(
        bootstrap_servers=bootstrap_servers,
        partitions=partitions,
        replication_factor=replication_factor,
        session_timeout=seconds("with_kafka(session_timeout)", session_timeout),
        max_poll_interval=seconds("with_kafka(max_poll_interval)", max_poll_interval),
        delivery_timeout=seconds("with_kafka(delivery_timeout)", delivery_timeout),
        max_body_bytes=max_body_bytes,
        revoke_grace=seconds("with_kafka(revoke_grace)", revoke_grace),
        escrow_after=seconds("with_kafka(escrow_after)", escrow_after),
        escrow_lease=seconds("with_kafka(escrow_lease)", escrow_lease),
        reclaim=reclaim,
        tls=tls,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        key_password=key_password,
        sasl_mechanism=sasl_mechanism,
        username=username,
        password=password,
        oauth_token=oauth_token,
        client_config={} if client_config is None else client_config,
    )
    return Option("driver", config, "with_kafka")


def with_rabbitmq(
    url: str,
    *,
    exchange: str | None = None,
    prefetch: int = 0,
    max_body_bytes: int = 8 << 20,
    confirm_timeout: float | timedelta = 20.0,
    blocked_timeout: float | timedelta = 5.0,
    heartbeat: float | timedelta = 30.0,
    long_task_after: float | timedelta = 1200.0,
    delay_guard: float | timedelta = 0.512,
    connection_name: str | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    go_compatible: bool = False,
) -> Option:
    """Use a RabbitMQ server or cluster (3.10 or newer).

    Args:
        url: `amqp://user:password@host:5672/vhost`, or `amqps://…` for TLS; several hosts with commas, tried in turn.
        exchange: the topic exchange of the tasks; None = `{prefix}-exchange`.
        prefetch: tasks of one class of one queue that may be ahead of the worker; 0 = as its speed asks for.
        max_body_bytes: the largest message body.
        confirm_timeout: seconds after which an unconfirmed task is given up as unknown; at most 20.
        blocked_timeout: seconds after which an enqueue is given up while the server, short of memory or disk, takes none.
        heartbeat: seconds; a connection that is silent for two of them is dead.
        long_task_after: seconds after which a running task is taken out of the server's delivery timeout (30 minutes there).
        delay_guard: seconds before its time at which a delayed task leaves the server's levels and is held by a worker.
        connection_name: how connections show in the server's lists.
        ca_file: PEM file of the authority that signed the server's certificate; None = the system's.
        cert_file: PEM file of the client's certificate, for mutual TLS.
        key_file: PEM file of its key.
        key_password: of the key file.
        go_compatible: consume the queues of Go Nova's consumers, which know no groups.
    """
    config = RabbitMQConfig(
        url=url,
        exchange=exchange,
        prefetch=prefetch,
        max_body_bytes=max_body_bytes,
        confirm_timeout=seconds("with_rabbitmq(confirm_timeout)", confirm_timeout),
        blocked_timeout=seconds("with_rabbitmq(blocked_timeout)", blocked_timeout),
        heartbeat=seconds("with_rabbitmq(heartbeat)", heartbeat),
        long_task_after=seconds("with_rabbitmq(long_task_after)", long_task_after),
        delay_guard=seconds("with_rabbitmq(delay_guard)", delay_guard),
        connection_name=connection_name,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        key_password=key_password,
        go_compatible=go_compatible,
    )
    return Option("driver", config, "with_rabbitmq")


def with_rocketmq(
    endpoints: str,
    *,
    admin: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    tls: bool = False,
    request_timeout: float | timedelta = 10.0,
    send_timeout: float | timedelta = 20.0,
    invisible_duration: float | timedelta = 120.0,
    poll_timeout: float | timedelta = 5.0,
    max_reconsume_times: int | None = None,
    consumer_model: str = "clustering",
    max_body_bytes: int = 4 << 20,
    queues: int = 4,
    delay_guard: float | timedelta = 1.5,
    max_delay: float | timedelta = 86_400.0,
) -> Option:
    """Use a RocketMQ 5 cluster with gRPC proxies.

    Args:
        endpoints: `host:port` of the gRPC proxy (8081 unless said otherwise), several with commas.
        admin: `host:port` of the name server, by which topics and groups are made, counted and removed; None = port
            9876 of the first endpoint's host, if it answers; "" = none, then all must exist.
        access_key: of a user of a server with ACL.
        secret_key: of that user.
        tls: encrypt the connection to the proxy; its certificate must be signed by an authority of the system's.
        request_timeout: seconds one request may take; at most 20.
        send_timeout: seconds after which an unconfirmed task is given up; at most 20.
        invisible_duration: seconds after which the tasks of a dead process go to another; 10 or more on a server as it comes.
        poll_timeout: seconds a receive waits on the server, by which a stop may last longer; 5 or more on a server as
            it comes.
        max_reconsume_times: runs after the first, as `with_retry(max_retries=…)`.
        consumer_model: `clustering`; broadcasting is refused.
        max_body_bytes: the largest message body.
        queues: of each topic Nova makes, on each broker.
        delay_guard: seconds before its time at which a delayed task leaves the server's timers and is held by a worker.
        max_delay: the longest delay the server takes (`maxDelayTimeMills` of the proxy, a day); longer ones are chained.
    """
    config = RocketMQConfig(
        endpoints=endpoints,
        admin=admin,
        access_key=access_key,
        secret_key=secret_key,
        tls=tls,
        request_timeout=seconds("with_rocketmq(request_timeout)", request_timeout),
        send_timeout=seconds("with_rocketmq(send_timeout)", send_timeout),
        invisible_duration=seconds("with_rocketmq(invisible_duration)", invisible_duration),
        poll_timeout=seconds("with_rocketmq(poll_timeout)", poll_timeout),
        max_reconsume_times=max_reconsume_times,
        consumer_model=consumer_model,
        max_body_bytes=max_body_bytes,
        queues=queues,
        delay_guard=seconds("with_rocketmq(delay_guard)", delay_guard),
        max_delay=seconds("with_rocketmq(max_delay)", max_delay),
    )
    return Option("driver", config, "with_rocketmq")


def with_driver(driver: Driver) -> Option:
    """Use a driver of your own; see docs/writing-a-driver.md.

    Args:
        driver: an object that follows `nova.brokers.base.Driver`, not opened yet.
    """
    if not isinstance(driver, Driver):
        raise ConfigError(
            f"with_driver: expected an object with the methods of nova.brokers.base.Driver, got {driver!r}"
        )
    return Option("driver", driver, "with_driver")


def with_group_id(group_id: str) -> Option:
    """Workers of one group share the tasks; each group gets every task. 1 to 50 of `A-Za-z0-9_-`."""
    return Option("group_id", check_name("with_group_id", group_id), "with_group_id")


def with_topic_prefix(prefix: str) -> Option:
    """What all topic names begin with. 1 to 50 of `A-Za-z0-9_-`."""
    return Option("topic_prefix", check_prefix(prefix), "with_topic_prefix")


def with_message_format(name: str) -> Option:
    """The form of message bodies: `json`, `orjson` (alias `sonic`), `blob` or `protobuf`."""
    return Option("codec", find_codec(name), "with_message_format")


def with_codec(codec: Codec) -> Option:
    """A form of your own; every worker that should read it needs the same option."""
    return Option("codec", check_codec(codec), "with_codec")


def with_delay_slots(count: int, duration: float | timedelta) -> Option:
    """How brokers without exact delays cut time; memory and SQLite index due times and need no slots.

    Args:
        count: 1 to 64 slots.
        duration: length of one slot, 1 second to 30 days.
    """
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 64:
        raise ConfigError(
            f"delay_slots: expected an integer from 1 to 64, got {count!r}; leave with_delay_slots() out for the default"
        )
    length = seconds("delay_slots: duration", duration, minimum=1.0)
    if length > 30 * 86400:
        raise ConfigError(f"delay_slots: expected a duration of at most 30 days, got {length:g} s")
    return Option("delay_slots", DelaySlots(count, length), "with_delay_slots")


def with_retry(
    policy: RetryPolicy | None = None,
    *,
    max_retries: int = 3,
    base: float | timedelta = 1.0,
    cap: float | timedelta = 60.0,
    jitter: float = 0.1,
) -> Option:
    """When a failed task runs again: after `min(cap, base * 2 ** (attempt - 1))` seconds, spread by `jitter`.

    Args:
        policy: a policy of your own, instead of the other arguments.
        max_retries: runs after the first.
        base: seconds after the first failure.
        cap: the longest wait, before jitter.
        jitter: 0 to 1.
    """
    if policy is not None:
        if not callable(getattr(policy, "delay", None)) or not isinstance(getattr(policy, "max_retries", None), int):
            raise ConfigError(
                f"with_retry: expected an object with max_retries and delay(attempt, random), got {policy!r}"
            )
        return Option("retry", policy, "with_retry")
    if not isinstance(max_retries, int) or isinstance(max_retries, bool) or not 0 <= max_retries <= 1_000_000:
        raise ConfigError(f"with_retry(max_retries): expected an integer from 0 to 1000000, got {max_retries!r}")
    if not isinstance(jitter, (int, float)) or isinstance(jitter, bool) or not 0 <= jitter <= 1:
        raise ConfigError(f"with_retry(jitter): expected a number from 0 to 1, got {jitter!r}")
    backoff = ExponentialBackoff(
        max_retries, seconds("with_retry(base)", base), seconds("with_retry(cap)", cap), float(jitter)
    )
    return Option("retry", backoff, "with_retry")


def with_queues(*names: str) -> Option:
    """The queues workers read when `start` names none; default only `default`."""
    if not names:
        raise ConfigError("with_queues: expected at least one queue name")
    return Option("queues", check_queues(names), "with_queues")


def with_middleware(*middlewares: Middleware) -> Option:
    """Hooks around every task, in this order."""
    return Option("middleware", Chain(middlewares), "with_middleware")


def with_priority_weights(high: int = 6, normal: int = 3, low: int = 1, *, reserve: int | None = None) -> Option:
    """How the classes share the slots when all have work.

    Args:
        high, normal, low: shares, 1 to 1000 each.
        reserve: slots on top of the concurrency that only high may take; None = 2 from concurrency 4 on, else 0. Below 4
            the default is strict: high then waits for one running task.
    """
    for name, share in (("high", high), ("normal", normal), ("low", low)):
        if not isinstance(share, int) or isinstance(share, bool) or not 1 <= share <= 1000:
            raise ConfigError(f"with_priority_weights({name}): expected an integer from 1 to 1000, got {share!r}")
    if reserve is not None and (not isinstance(reserve, int) or isinstance(reserve, bool) or not 0 <= reserve <= 1000):
        raise ConfigError(f"with_priority_weights(reserve): expected an integer from 0 to 1000, got {reserve!r}")
    return Option("weights", Weights((high, normal, low), reserve), "with_priority_weights")


def check_queues(names: Sequence[str]) -> tuple[str, ...]:
    """Legal queue names, each once.

    Raises:
        ConfigError: an illegal name, or one given twice.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"queues: expected a list of names, got {names!r}; write [{names!r}]")
    checked = tuple(check_queue(name) for name in names)
    if not checked or len(set(checked)) != len(checked):
        raise ConfigError(f"queues: expected one or more different names, got {list(names)!r}")
    return checked
