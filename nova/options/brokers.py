"""The options that pick a driver, each with all that its broker can be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from nova.brokers.base import Driver
from nova.brokers.kafka.config import KafkaConfig, OAuthToken
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.clock import seconds
from nova.errors import ConfigError
from nova.options.option import Option
from nova.options.refusals import explained

__all__ = ["with_driver", "with_kafka", "with_memory", "with_rabbitmq", "with_rocketmq", "with_sqlite"]


@explained
def with_memory(*, name: str | None = None, max_messages: int = 1_000_000, max_body_bytes: int = 64 << 20) -> Option:
    """Keep tasks in this process's memory: for tests, nothing survives the process.

    Args:
        name: queues of one process with the same name share a broker; None = a broker of its own.
        max_messages: messages held at most; beyond it enqueue fails with `QueueFull`.
        max_body_bytes: the largest message body.
    """
    config = MemoryConfig(name=name, max_messages=max_messages, max_body_bytes=max_body_bytes)
    return Option("driver", config, "with_memory")


@explained
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
        lease=seconds("with_sqlite(lease)", lease),
        busy_timeout=seconds("with_sqlite(busy_timeout)", busy_timeout),
        max_bytes=max_bytes,
        max_body_bytes=max_body_bytes,
    )
    return Option("driver", config, "with_sqlite")


@explained
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
    key_password_file: str | None = None,
    sasl_mechanism: str | None = None,
    username: str | None = None,
    password: str | None = None,
    password_file: str | None = None,
    oauth_token: OAuthToken | None = None,
    client_config: Mapping[str, Any] | None = None,
) -> Option:
    """Use a Kafka cluster (2.5 or newer).

    Args:
        bootstrap_servers: `host:port`, several with commas; no user in it.
        partitions: of the topics Nova makes; at most so many workers share one class of one queue.
        replication_factor: of the topics Nova makes; -1 = the cluster's default.
        session_timeout: seconds after which the tasks of a dead process go to another; the broker has bounds too.
        max_poll_interval: seconds after which a process whose threads hang is dead; handlers may run longer. At least
            `session_timeout`.
        delivery_timeout: seconds after which an unconfirmed task is given up as unknown.
        max_body_bytes: the largest message body; topics are made for it and 256 KiB of headers.
        revoke_grace: seconds that running tasks get to end when their partition goes to another worker; at most half of
            `max_poll_interval`.
        escrow_after: seconds after which a running task leaves its partition, so that no rebalance runs it again.
        escrow_lease: seconds after which such a task of a dead worker runs again.
        reclaim: delete what every registered group has finished.
        tls: encrypt the connection.
        ca_file: PEM file of the authority that signed the brokers' certificates; None = the system's.
        cert_file: PEM file of the client's certificate, for mutual TLS; with `key_file`.
        key_file: PEM file of its key.
        key_password: of the key file.
        key_password_file: the file that holds it.
        sasl_mechanism: how the client proves who it is; None = not at all.
        username: for PLAIN and SCRAM.
        password: for PLAIN and SCRAM.
        password_file: the file that holds it.
        oauth_token: for OAUTHBEARER: called with `sasl.oauthbearer.config`, returns (token, epoch seconds it is valid until),
            of a token with ten seconds or more to go: servers refuse a connection that has to be let in anew within a second.
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
        key_password_file=key_password_file,
        sasl_mechanism=sasl_mechanism,
        username=username,
        password=password,
        password_file=password_file,
        oauth_token=oauth_token,
        client_config={} if client_config is None else client_config,
    )
    return Option("driver", config, "with_kafka")


@explained
def with_rabbitmq(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    password_file: str | None = None,
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
    key_password_file: str | None = None,
    go_compatible: bool = False,
) -> Option:
    """Use a RabbitMQ server or cluster (3.10 or newer).

    Args:
        url: `amqp://user:password@host:5672/vhost`, or `amqps://…` for TLS; several hosts with commas, tried in turn.
            `/ ? # @` in its parts are written `%2F %3F %23 %40`.
        username: instead of the one in the URL; guest if neither names one.
        password: instead of the one in the URL.
        password_file: the file that holds it.
        exchange: the topic exchange of the tasks; None = `{prefix}-exchange`.
        prefetch: tasks of one class of one queue that may be ahead of the worker; 0 = as its speed asks for.
        max_body_bytes: the largest message body; RabbitMQ 4 takes 16 MiB unless `max_message_size` says otherwise.
        confirm_timeout: seconds after which an unconfirmed task is given up as unknown.
        blocked_timeout: seconds after which an enqueue is given up while the server, short of memory or disk, takes none.
        heartbeat: seconds; a connection that is silent for two of them is dead.
        long_task_after: seconds after which a running task is taken out of the server's delivery timeout (30 minutes there);
            keep it well below that.
        delay_guard: seconds before its time at which a delayed task leaves the server's levels and is held by a worker.
        connection_name: how connections show in the server's lists; None = `nova`.
        ca_file: PEM file of the authority that signed the server's certificate; None = the system's.
        cert_file: PEM file of the client's certificate, for mutual TLS; with `key_file`.
        key_file: PEM file of its key.
        key_password: of the key file.
        key_password_file: the file that holds it.
        go_compatible: consume the queues of Go Nova's consumers, which know no groups.
    """
    config = RabbitMQConfig(
        url=url,
        username=username,
        password=password,
        password_file=password_file,
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
        key_password_file=key_password_file,
        go_compatible=go_compatible,
    )
    return Option("driver", config, "with_rabbitmq")


@explained
def with_rocketmq(
    endpoints: str,
    *,
    admin: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    secret_key_file: str | None = None,
    tls: bool = False,
    ca_file: str | None = None,
    request_timeout: float | timedelta = 10.0,
    send_timeout: float | timedelta = 20.0,
    invisible_duration: float | timedelta = 120.0,
    poll_timeout: float | timedelta = 5.0,
    max_reconsume_times: int | None = None,
    consumer_model: str = "clustering",
    max_body_bytes: int = 4 << 20,
    queues_per_topic: int = 4,
    delay_guard: float | timedelta = 1.5,
    max_delay: float | timedelta = 86_400.0,
) -> Option:
    """Use a RocketMQ 5 cluster with gRPC proxies.

    Args:
        endpoints: `host:port` of the gRPC proxy (8081 unless said otherwise), several with commas. The first that answers
            is used, and with `tls` all need a certificate for the name of the first.
        admin: `host:port` of the name server, by which topics and groups are made, counted and removed; None = port
            9876 of the first endpoint's host, if it answers; "" = none, then all must exist.
        access_key: of a user of a server with ACL.
        secret_key: of that user.
        secret_key_file: the file that holds it.
        tls: encrypt the connection to the proxies.
        ca_file: PEM file of the authority that signed the proxies' certificates; None = the system's.
        request_timeout: seconds one request may take.
        send_timeout: seconds after which an unconfirmed task is given up.
        invisible_duration: seconds after which the tasks of a dead process go to another; 10 or more on a server as it comes.
        poll_timeout: seconds a receive waits on the server, by which a stop may last longer; 5 or more on a server as
            it comes.
        max_reconsume_times: runs after the first, as `with_retry(max_retries=…)`; give one of the two.
        consumer_model: `clustering`; broadcasting is refused.
        max_body_bytes: the largest message body; servers as they come take 4 MiB.
        queues_per_topic: of each topic Nova makes, on each broker.
        delay_guard: seconds before its time at which a delayed task leaves the server's timers and is held by a worker.
        max_delay: the longest delay the server takes (`maxDelayTimeMills` of the proxy, a day); longer ones are chained.
    """
    config = RocketMQConfig(
        endpoints=endpoints,
        admin=admin,
        access_key=access_key,
        secret_key=secret_key,
        secret_key_file=secret_key_file,
        tls=tls,
        ca_file=ca_file,
        request_timeout=seconds("with_rocketmq(request_timeout)", request_timeout),
        send_timeout=seconds("with_rocketmq(send_timeout)", send_timeout),
        invisible_duration=seconds("with_rocketmq(invisible_duration)", invisible_duration),
        poll_timeout=seconds("with_rocketmq(poll_timeout)", poll_timeout),
        max_reconsume_times=max_reconsume_times,
        consumer_model=consumer_model,
        max_body_bytes=max_body_bytes,
        queues_per_topic=queues_per_topic,
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
            f"with_driver: expected an object with the methods of nova.brokers.base.Driver, got {type(driver).__name__}"
        )
    return Option("driver", driver, "with_driver")
