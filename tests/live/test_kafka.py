"""What only a Kafka server can show: who is let in, what is refused and in which words, and the wire of Go's Nova."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    NewTopic,
    ResourceType,
)

from nova import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EncodeError,
    PublishError,
    ReceivedTask,
    Retry,
    Task,
    TaskQueue,
    process_in,
    with_delay_slots,
    with_kafka,
    with_topic_prefix,
)
from nova.options import Option
from tests.conformance.brokers import Broker, make
from tests.eventually import eventually
from tests.live.refusals import is_taken
from tests.servers.kafka.finding import needs_java, private_server
from tests.servers.kafka.secured import MECHANISMS, TOKENS, SecuredKafka, token_for
from tests.servers.ports import free_ports

MARGIN = 1.5
"""Seconds by which a bounded call may overrun on a busy machine."""

secured_only = pytest.mark.xdist_group("secured-kafka")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    needs_java()
    started = SecuredKafka(tmp_path_factory.mktemp("secured"))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def queues() -> Iterator[Callable[..., TaskQueue]]:
    """Builds queues that the end of the test stops."""
    built: list[TaskQueue] = []

    def build(servers: str, *options: Option, prefix: str = "T", **kafka_options: Any) -> TaskQueue:
        given: dict[str, Any] = {"partitions": 2, "replication_factor": 1, "session_timeout": 3, "delivery_timeout": 5}
        built.append(TaskQueue(with_kafka(servers, **{**given, **kafka_options}), with_topic_prefix(prefix), *options))
        return built[-1]

    yield build
    for queue in built:
        queue.stop(timeout=5)


def new_prefix() -> str:
    return f"T{uuid.uuid4().hex[:8]}"


class Collected:
    """A handler that keeps what it got."""

    def __init__(self) -> None:
        self.tasks: list[ReceivedTask] = []

    def __call__(self, task: ReceivedTask) -> None:
        self.tasks.append(task)


class Stopwatch:
    """How long its block took."""

    def __enter__(self) -> Stopwatch:
        self._begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._begin


def create(address: str, topic: str, partitions: int = 2, **settings: str) -> None:
    client = AdminClient({"bootstrap.servers": address})
    named = {name.replace("_", "."): value for name, value in settings.items()}
    client.create_topics([NewTopic(topic, partitions, 1, config=named)])[topic].result(10)


def records(address: str, topic: str, count: int, timeout: float = 10.0) -> list[Message]:
    """The first records of a topic, as they lie there."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "raw", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: list[Message] = []
        deadline = time.monotonic() + timeout
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.append(message)
        return found
    finally:
        consumer.close()


# --- not there, or not whom we think


def test_connecting_to_nobody_ends_in_time_and_names_the_address(queues: Callable[..., TaskQueue]) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"

    with Stopwatch() as took, pytest.raises(BrokerUnavailable) as refused:
        queues(address).connect(timeout=1.0)

    assert took.seconds < 1.0 + MARGIN
    assert f"kafka at {address}: no connection in 1 s" in str(refused.value)
    assert "Connection refused" in str(refused.value)


@pytest.mark.slow
def test_enqueuing_to_nobody_ends_in_time_and_logs_a_handful_of_lines(
    queues: Callable[..., TaskQueue], caplog: pytest.LogCaptureFixture
) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"

    with Stopwatch() as took, caplog.at_level(logging.INFO), pytest.raises(BrokerUnavailable, match=address):
        queues(address).enqueue(Task("t"))

    assert took.seconds < 10 + MARGIN
    assert len(caplog.records) <= 5, caplog.text


def test_a_host_that_does_not_resolve_is_named_with_the_way_out(queues: Callable[..., TaskQueue]) -> None:
    with pytest.raises(
        BrokerUnavailable, match=r"no-such-host\.invalid:9092.*check the host names in bootstrap_servers"
    ):
        queues("no-such-host.invalid:9092").connect(timeout=2.0)


@pytest.mark.slow
def test_a_server_that_dies_is_named_in_time_and_the_worker_goes_on_when_it_is_back(
    tmp_path: Path, queues: Callable[..., TaskQueue], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_server(tmp_path / "kafka")
    try:
        q = queues(server.address, delivery_timeout=2)
        handled = Collected()
        q.start(handled)
        q.enqueue(Task("t", id="before"))
        eventually(lambda: len(handled.tasks) == 1)

        server.kill()
        with caplog.at_level(logging.INFO), Stopwatch() as took:
            report = q.enqueue_batch([Task("t", id="meanwhile")])
        assert took.seconds < 5.0 + MARGIN
        failures = {**report.failed, **report.unknown}
        assert list(failures) == ["meanwhile"]
        assert server.address in str(failures["meanwhile"])
        assert len(caplog.records) < 60, caplog.text

        server.restart()
        eventually(lambda: is_taken(q, "after"), timeout=20)
        eventually(lambda: "after" in {task.id for task in handled.tasks}, timeout=30)
        q.stop()
    finally:
        server.stop()


@secured_only
@pytest.mark.parametrize("way", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_way_of_logging_in_works_end_to_end_and_a_wrong_password_is_named(
    secured: SecuredKafka, queues: Callable[..., TaskQueue], mechanism: str, way: str
) -> None:
    prefix = new_prefix()
    secured.allow("nova", topics=f"{prefix}_", groups=f"{prefix}.")
    tls = {"tls": True, "ca_file": str(secured.ca)} if way == "SASL_SSL" else {}
    address = secured.sasl_ssl if tls else secured.sasl_plaintext
    login: dict[str, Any] = {"sasl_mechanism": mechanism, "username": "nova", "prefix": prefix, **tls}

    q = queues(address, password=secured.users["nova"], **login)
    handled = Collected()
    q.start(handled)
    q.enqueue(Task("t", {"n": 1}))
    q.enqueue(Task("t", {"n": 2}), process_in=0.2)
    eventually(lambda: len(handled.tasks) == 2, timeout=20)
    eventually(lambda: (q.depth().waiting, q.depth().running, q.depth().delayed) == (0, 0, 0))
    assert (q.dead.list(), len(q.groups.list())) == ([], 1)

    with Stopwatch() as took, pytest.raises(BrokerUnavailable) as refused:
        queues(address, password="wrong-secret", **login).connect(timeout=8.0)
    assert took.seconds < 4  # a refusal is no outage: nobody waits for it to pass
    assert "check username, password and sasl_mechanism" in str(refused.value)
    assert address in str(refused.value)
    assert "wrong-secret" not in str(refused.value)


@secured_only
def test_a_password_may_be_in_a_file(secured: SecuredKafka, queues: Callable[..., TaskQueue], tmp_path: Path) -> None:
    prefix = new_prefix()
    secured.allow("nova", topics=f"{prefix}_", groups=f"{prefix}.")
    file = tmp_path / "password"
    file.write_text(secured.users["nova"] + "\n")
    login: dict[str, Any] = {"sasl_mechanism": "SCRAM-SHA-512", "username": "nova", "prefix": prefix}

    q = queues(secured.sasl_plaintext, password_file=str(file), **login)
    handled = Collected()
    q.start(handled)
    q.enqueue(Task("t"))
    eventually(lambda: len(handled.tasks) == 1, timeout=20)

    file.write_text("wrong-secret")
    with pytest.raises(BrokerUnavailable, match="check username, password"):
        queues(secured.sasl_plaintext, password_file=str(file), **login).connect(timeout=8.0)


@secured_only
def test_tokens_open_the_door_are_renewed_before_they_end_and_a_bad_one_is_named(
    secured: SecuredKafka, queues: Callable[..., TaskQueue]
) -> None:
    prefix = new_prefix()
    secured.allow("nova", topics=f"{prefix}_", groups=f"{prefix}.")
    given: list[float] = []
    # A token is renewed when 0.8 of its life is over, a connection at 0.9 of what its token then has left, and a server
    # refuses that within a second: of a token of 3 s a connection may get 0.6.
    life = 12

    def token(_config: str) -> tuple[str, float]:
        given.append(time.monotonic())
        return token_for("nova", time.time() + life), time.time() + life

    login: dict[str, Any] = {"sasl_mechanism": TOKENS, "prefix": prefix}
    q = queues(secured.sasl_plaintext, oauth_token=token, **login)
    handled = Collected()
    q.start(handled)
    q.enqueue(Task("t"))
    eventually(lambda: len(handled.tasks) == 1, timeout=20)
    clients = len(given)
    eventually(lambda: len(given) >= 2 * clients, timeout=30, what="each client asked again")
    q.enqueue(Task("t"))
    eventually(lambda: len(handled.tasks) == 2, timeout=20)

    def stale(_config: str) -> tuple[str, float]:
        return token_for("nova", time.time() - 3600), time.time() + 60

    with pytest.raises(BrokerUnavailable, match=rf"{secured.sasl_plaintext}.*invalid_token"):
        queues(secured.sasl_plaintext, oauth_token=stale, **login).connect(timeout=8.0)


@secured_only
def test_a_wrong_authority_a_missing_file_and_the_wrong_kind_of_port_are_named(
    secured: SecuredKafka, queues: Callable[..., TaskQueue], tmp_path: Path
) -> None:
    queues(secured.ssl, tls=True, ca_file=str(secured.ca)).connect()

    with Stopwatch() as took, pytest.raises(BrokerUnavailable, match=r"certificate verify failed.*check ca_file"):
        queues(secured.ssl, tls=True, ca_file=str(secured.wrong_ca)).connect(timeout=8.0)
    assert took.seconds < 4
    with pytest.raises(BrokerUnavailable, match="and that the port speaks TLS"):
        queues(secured.address, tls=True, ca_file=str(secured.ca)).connect(timeout=1.0)
    with pytest.raises(BrokerUnavailable, match="check the address, tls and sasl_mechanism"):
        queues(secured.ssl).connect(timeout=1.0)
    with pytest.raises(ConfigError, match=r"with_kafka\(ca_file\): cannot read '.*nothing\.pem'"):
        queues(secured.ssl, tls=True, ca_file=str(tmp_path / "nothing.pem")).connect()


def test_a_token_function_that_raises_is_named_at_once(queues: Callable[..., TaskQueue]) -> None:
    def sealed(_config: str) -> tuple[str, float]:
        raise OSError("the vault is sealed")

    def wrong(_config: str) -> Any:
        return "a token"

    with Stopwatch() as took:
        with pytest.raises(BrokerUnavailable, match="oauth_token raised OSError: the vault is sealed"):
            queues("127.0.0.1:1", sasl_mechanism="OAUTHBEARER", oauth_token=sealed).connect(timeout=2.0)
        with pytest.raises(ConfigError, match=r"expected it to return \(token, epoch seconds"):
            queues("127.0.0.1:1", sasl_mechanism="OAUTHBEARER", oauth_token=wrong).connect(timeout=2.0)
    assert took.seconds < MARGIN


@pytest.mark.parametrize(
    ("properties", "words"),
    [({"no.such": 1}, r"no\.such"), ({"linger.ms": "soon"}, r"queue\.buffering\.max\.ms"), ({"retries": 0}, "retries")],
)
def test_properties_the_client_does_not_know_are_named(
    queues: Callable[..., TaskQueue], properties: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"with_kafka: .*{words}.*see client_config"):
        queues("127.0.0.1:1", client_config=properties).connect(timeout=1.0)


def test_a_session_the_broker_does_not_allow_is_named_with_the_way_out(
    kafka: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.section = {**kafka.section, "session_timeout": 3000, "max_poll_interval": 3000}
    with caplog.at_level(logging.WARNING):
        kafka.queue().start(print)
        eventually(lambda: "must lie between the broker's group.min.session.timeout.ms" in caplog.text)
        eventually(lambda: "cannot receive" in caplog.text)
        time.sleep(2)
    assert len(caplog.records) < 30, caplog.text


# --- permissions


class Stranger:
    """The user who may do nothing but what the test allows."""

    def __init__(self, server: SecuredKafka, queues: Callable[..., TaskQueue]) -> None:
        self.prefix = new_prefix()
        self._server = server
        self._queues = queues

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        self._server.grant("stranger", kind, name, *operations)

    def queue(self) -> TaskQueue:
        return self._queues(
            self._server.sasl_plaintext, prefix=self.prefix, sasl_mechanism="PLAIN", username="stranger",
            password=self._server.users["stranger"],
        )  # fmt: skip

    def master(self) -> TaskQueue:
        """On the same prefix, allowed everything."""
        return self._queues(self._server.address, prefix=self.prefix)

    def prepare(self) -> None:
        """Make the topics, as an administrator would."""
        master = self.master()
        master.start(lambda _: None)
        master.enqueue(Task("t"), process_in=0.01)
        eventually(lambda: master.depth().delayed == 0)
        master.stop()


@pytest.fixture
def stranger(secured: SecuredKafka, queues: Callable[..., TaskQueue]) -> Stranger:
    return Stranger(secured, queues)


@secured_only
def test_a_producer_without_any_right_is_told_the_topic_and_the_right(stranger: Stranger) -> None:
    with Stopwatch() as took, pytest.raises(BrokerError) as refused:
        stranger.queue().enqueue(Task("t"))

    assert took.seconds < 5
    assert f"creating topic '{stranger.prefix}_PRIORITY_NORMAL'" in str(refused.value)
    assert "grant this user Write, Read, Describe and Create on the prefix's topics" in str(refused.value)


@secured_only
def test_what_a_producer_without_the_right_to_write_sends_has_surely_failed(stranger: Stranger) -> None:
    stranger.prepare()
    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.DESCRIBE, AclOperation.READ)

    first, second = stranger.queue(), stranger.queue()
    for q in (first, second):  # with no right to write anywhere it gets no producer id, with another a refusal by topic
        with Stopwatch() as took:
            report = q.enqueue_batch([Task("t", id="a"), Task("t", id="b")])
        assert took.seconds < 5
        assert not report.unknown
        assert sorted(report.failed) == ["a", "b"]
        text = str(report.failed["a"])
        assert f"topic '{stranger.prefix}_PRIORITY_NORMAL'" in text
        assert "grant this user Write" in text
        with pytest.raises(PublishError, match=f"{stranger.prefix}_DELAY_"):
            q.enqueue(Task("t"), process_in=60)
        stranger.allow(ResourceType.TOPIC, f"other-{stranger.prefix}", AclOperation.WRITE)

    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.WRITE)
    eventually(lambda: is_taken(first, "first"), what="the same queue sends once it may")
    eventually(lambda: is_taken(second, "second"), what="the same queue sends once it may")


@secured_only
def test_a_producer_needs_no_right_on_groups(stranger: Stranger) -> None:
    stranger.allow(ResourceType.TOPIC, f"{stranger.prefix}_", AclOperation.WRITE, AclOperation.CREATE)
    q = stranger.queue()

    q.enqueue(Task("t"))
    q.enqueue(Task("t"), process_in=3600)

    assert stranger.master().depth().waiting == 1
    assert stranger.master().depth().delayed == 1


@secured_only
def test_a_worker_without_the_right_to_read_does_not_start(stranger: Stranger) -> None:
    stranger.prepare()
    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.WRITE, AclOperation.CREATE)
    stranger.allow(ResourceType.GROUP, stranger.prefix, AclOperation.READ)

    with Stopwatch() as took, pytest.raises(BrokerError, match=rf"topic '{stranger.prefix}_GROUPS'.*grant this user"):
        stranger.queue().start(print)
    assert took.seconds < 5


@secured_only
def test_a_worker_without_the_right_on_its_group_does_not_start(stranger: Stranger) -> None:
    stranger.prepare()
    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.ALL)

    with (
        Stopwatch() as took,
        pytest.raises(BrokerError, match="grant this user Read on the consumer groups that begin"),
    ):
        stranger.queue().start(print)
    assert took.seconds < 5


@pytest.mark.slow
@secured_only
def test_a_worker_whose_right_to_read_ends_says_so_calmly_and_goes_on_when_it_is_back(
    stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    stranger.prepare()
    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.WRITE, AclOperation.CREATE)
    stranger.allow(ResourceType.TOPIC, f"{stranger.prefix}_GROUPS", AclOperation.READ)
    stranger.allow(ResourceType.GROUP, f"{stranger.prefix}.", AclOperation.READ)
    q = stranger.queue()
    handled = Collected()

    with caplog.at_level(logging.INFO):
        q.start(handled)
        q.enqueue(Task("t"))
        eventually(lambda: "cannot receive" in caplog.text)
        time.sleep(3)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any(f"topic '{stranger.prefix}_PRIORITY_NORMAL'" in text and "grant this user" in text for text in errors)
    assert len(errors) < 60, "\n".join(errors)

    stranger.allow(ResourceType.TOPIC, stranger.prefix, AclOperation.READ)
    # 10 s until the client asks for metadata again, then it joins anew; 10 s until the intake, backing off, asks again
    eventually(lambda: len(handled.tasks) == 1, timeout=90, what="the same worker reads once it may")
    caplog.clear()
    time.sleep(2)
    assert "normal cannot receive" not in caplog.text


# --- topics that do not fit


def test_a_delay_topic_that_forgets_is_refused_by_name_with_the_fix(kafka: Broker) -> None:
    topic = f"{kafka.prefix}_DELAY_0"
    create(
        kafka.section["bootstrap_servers"], topic, 8, retention_ms="1000", message_timestamp_type="LogAppendTime"
    )  # fmt: skip
    q = kafka.queue()

    for use in (lambda: q.enqueue(Task("t"), process_in=2), lambda: q.start(print)):
        with pytest.raises(BrokerError, match=rf"topic '{topic}' has retention\.ms=1000.*set retention\.ms=-1"):
            use()

    client = AdminClient({"bootstrap.servers": kafka.section["bootstrap_servers"]})
    set_config(client, topic, "retention.ms", "-1")
    handled = Collected()
    eventually(lambda: started(q, handled), what="the same queue works once the topic is right")
    q.enqueue(Task("t"), process_in=0.2)
    eventually(lambda: len(handled.tasks) == 1)


def started(q: TaskQueue, handler: Callable[[ReceivedTask], None]) -> bool:
    try:
        q.start(handler)
    except BrokerError:
        return False
    return True


def set_config(client: AdminClient, topic: str, name: str, value: str) -> None:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in client.incremental_alter_configs([resource]).values():
        future.result(10)


def test_a_ready_topic_that_forgets_is_one_warning_with_the_fix(
    kafka: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{kafka.prefix}_PRIORITY_NORMAL"
    create(kafka.section["bootstrap_servers"], topic, retention_ms="86400000")
    q = kafka.queue()
    handled = Collected()

    with caplog.at_level(logging.WARNING):
        q.enqueue(Task("t"))
        q.start(handled)
        q.enqueue(Task("t"))
        eventually(lambda: len(handled.tasks) == 2)

    said = [record.getMessage() for record in caplog.records if topic in record.getMessage()]
    assert len(said) == 1, said
    assert "retention.ms=86400000" in said[0]
    assert "set retention.ms=-1" in said[0]


def test_a_compacted_topic_is_refused_for_tasks(kafka: Broker) -> None:
    create(kafka.section["bootstrap_servers"], f"{kafka.prefix}_PRIORITY_NORMAL", cleanup_policy="compact")

    with pytest.raises(BrokerError, match=r"cleanup\.policy=compact.*set cleanup\.policy=delete"):
        kafka.queue().enqueue(Task("t"))


def test_too_large_a_task_is_refused_before_it_is_sent(kafka: Broker) -> None:
    kafka.section = {**kafka.section, "max_body_bytes": 1000}
    q = kafka.queue()

    with pytest.raises(EncodeError, match=r"type 'big'.*the driver takes at most 1000"):
        q.enqueue(Task("big", b"x" * 1001))
    assert q.depth().waiting == 0


def test_too_large_a_task_for_its_topic_has_surely_failed_and_one_warning_told_so_before(
    kafka: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{kafka.prefix}_PRIORITY_NORMAL"
    create(kafka.section["bootstrap_servers"], topic, 1, max_message_bytes="5000")
    q = kafka.queue()

    with caplog.at_level(logging.WARNING):
        q.enqueue(Task("t", b"x", id="small"))
        report = q.enqueue_batch([Task("t", b"x" * 10_000, id="big")])

    assert (report.accepted, report.unknown, list(report.failed)) == ([], {}, ["big"])
    assert f"topic '{topic}'" in str(report.failed["big"])
    assert "max.message.bytes" in str(report.failed["big"])
    assert [message.key() for message in records(kafka.section["bootstrap_servers"], topic, 1)] == [b"small"]
    said = [record.getMessage() for record in caplog.records if topic in record.getMessage()]
    assert len(said) == 1, said
    assert "max.message.bytes=5000" in said[0]
    assert "lower with_kafka(max_body_bytes=…)" in said[0]


def test_a_task_whose_copy_is_too_large_for_its_topic_is_buried(kafka: Broker) -> None:
    """It was moved on again for ever."""
    q, runs = kafka.queue(), list[str]()

    def fail(task: ReceivedTask) -> None:
        runs.append(task.id)
        raise Retry(delay=0.0)

    q.enqueue(Task("t", b"x" * 5000, id="big"))
    topic = f"{kafka.prefix}_PRIORITY_NORMAL"
    set_config(
        AdminClient({"bootstrap.servers": kafka.section["bootstrap_servers"]}), topic, "max.message.bytes", "2000"
    )
    assert started(q, fail)
    eventually(lambda: len(q.dead.list()) == 1, timeout=30)
    (letter,) = q.dead.list()
    assert (letter.id, letter.reason, runs) == ("big", "refused by the broker", ["big"])
    assert "max.message.bytes" in letter.error


def test_more_replicas_than_brokers_is_named(kafka: Broker) -> None:
    kafka.section = {**kafka.section, "replication_factor": 3}
    q = kafka.queue()

    for use in (lambda: q.enqueue(Task("t")), lambda: q.start(print)):
        with pytest.raises(BrokerError, match=r"creating topic '.*'.*lower with_kafka\(replication_factor=…\)"):
            use()


@pytest.mark.parametrize("other", [with_delay_slots(8, 60), with_delay_slots(3, 60), with_delay_slots(4, 30)])
def test_other_delay_slots_than_the_prefix_was_made_with_are_refused(kafka: Broker, other: Option) -> None:
    kafka.queue(with_delay_slots(4, 60)).enqueue(Task("t"), process_in=100)
    with pytest.raises(PublishError, match=r"are 4 of 60 s, not .*: use with_delay_slots\(4, 60\), or another prefix"):
        kafka.queue(other).enqueue(Task("t"), process_in=100)


# --- the wire of Go's Nova


def go_body(task_id: str, kind: str, payload: bytes | None, queue: str, priority: int) -> bytes:
    """As Go's encoding/json writes its envelope."""
    text = "null" if payload is None else f'"{base64.b64encode(payload).decode()}"'
    return (
        f'{{"task_id":"{task_id}","task":{{"Type":"{kind}","Payload":{text}}},"queue":"{queue}","priority":{priority}}}'
    ).encode()


def go_send(address: str, topic: str, task_id: str, body: bytes, queue: str, priority: int, kind: str) -> None:
    producer = Producer({"bootstrap.servers": address, "acks": "all"})
    headers: list[tuple[str, str | bytes | None]] = [
        ("queue", queue.encode()), ("priority", str(priority).encode()), ("task_type", kind.encode())
    ]  # fmt: skip
    producer.produce(topic, body, task_id, headers=headers)
    assert producer.flush(10) == 0


def test_a_go_task_on_a_class_topic_is_handled(kafka: Broker) -> None:
    address, topic = kafka.section["bootstrap_servers"], f"{kafka.prefix}_PRIORITY_HIGH"
    handled = Collected()
    q = kafka.queue()
    q.start(handled)

    full, empty = f"{uuid.uuid4()}_TASKS", f"{uuid.uuid4()}_TASKS"
    go_send(address, topic, full, go_body(full, "email.send", b'{"to":"a<b>"}', topic, 3), topic, 3, "email.send")
    go_send(address, topic, empty, go_body(empty, "ping", None, topic, 3), topic, 3, "ping")

    eventually(lambda: len(handled.tasks) == 2)
    found = {task.id: (task.type, task.payload, task.priority, task.queue, task.metadata) for task in handled.tasks}
    assert found == {
        full: ("email.send", b'{"to":"a<b>"}', 3, "default", {}),
        empty: ("ping", b"", 3, "default", {}),
    }
    assert all((task.attempt, task.run) == (1, 1) for task in handled.tasks)
    eventually(lambda: q.depth().waiting + q.depth().running == 0)


@pytest.mark.slow
def test_what_go_delays_is_handled_also_if_its_topic_comes_after_the_worker(kafka: Broker) -> None:
    address, topic = kafka.section["bootstrap_servers"], f"{kafka.prefix}_TASKS"
    handled = Collected()
    kafka.queue().start(handled)

    create(address, topic, 3)
    task_id = f"{uuid.uuid4()}_TASKS"
    go_send(address, topic, task_id, go_body(task_id, "report.make", b"1", "", 1), "", 1, "report.make")

    eventually(lambda: len(handled.tasks) == 1, timeout=30, what="topics are looked for every 10 s")
    (task,) = handled.tasks
    assert (task.id, task.type, task.payload, task.queue, task.priority) == (
        task_id, "report.make", b"1", "default", 1
    )  # fmt: skip


def test_a_go_task_that_fails_is_retried_and_buried_with_its_bytes(kafka: Broker) -> None:
    address, topic = kafka.section["bootstrap_servers"], f"{kafka.prefix}_PRIORITY_HIGH"
    attempts: list[tuple[int, int]] = []

    def fail(task: ReceivedTask) -> None:
        attempts.append((task.attempt, task.run))
        raise ValueError("no")

    q = kafka.queue()
    q.start(fail)
    task_id = f"{uuid.uuid4()}_TASKS"
    body = go_body(task_id, "email.send", b"{}", topic, 3)
    go_send(address, topic, task_id, body, topic, 3, "email.send")

    eventually(lambda: len(q.dead.list()) == 1, timeout=20)
    (dead,) = q.dead.list()
    assert attempts == [(1, 1), (2, 2), (3, 3)]
    assert (dead.id, dead.type, dead.reason, dead.error_type) == (
        task_id, "email.send", "retries exhausted", "ValueError"
    )  # fmt: skip
    (buried,) = records(address, f"{kafka.prefix}_DEAD", 1)
    assert buried.value() == body

    handled = Collected()
    q.stop()
    again = kafka.queue()
    again.start(handled)
    assert again.dead.requeue() == 1
    eventually(lambda: [(task.id, task.attempt, task.run) for task in handled.tasks] == [(task_id, 1, 4)])


def test_a_task_of_ours_lies_there_as_go_reads_it(kafka: Broker) -> None:
    task_id = f"{uuid.uuid4()}_TASKS"
    topic = f"{kafka.prefix}-mails_PRIORITY_HIGH"
    kafka.queue().enqueue(Task("email.send", {"to": "a@b.c"}, id=task_id), queue="mails", priority=3)

    (found,) = records(kafka.section["bootstrap_servers"], topic, 1)

    assert found.key() == task_id.encode()
    assert (
        found.value()
        == (
            f'{{"task_id":"{task_id}","task":{{"Type":"email.send","Payload":"eyJ0byI6ImFAYi5jIn0="}},'
            f'"queue":"{topic}","priority":3}}'
        ).encode()
    )
    headers = dict(found.headers() or [])
    assert {name: headers[name] for name in ("queue", "priority", "task_type")} == {
        "queue": topic.encode(),
        "priority": b"3",
        "task_type": b"email.send",
    }
    assert all(type(value) is bytes for value in headers.values())
    assert json.loads(found.value() or b"")["task"]["Type"] == "email.send"


def test_a_delayed_task_hides_its_way_from_the_handler(kafka: Broker) -> None:
    handled = Collected()
    q = kafka.queue()
    q.start(handled)
    q.enqueue(Task("t", id="later", key="customer-7"), process_in(0.3))
    eventually(lambda: len(handled.tasks) == 1)

    address = kafka.section["bootstrap_servers"]
    (waiting,) = records(address, f"{kafka.prefix}_DELAY_0", 1)
    (arrived,) = records(address, f"{kafka.prefix}_PRIORITY_NORMAL", 1)
    assert {"nova-x-due", "nova-x-target", "nova-x-key"} <= dict(waiting.headers() or []).keys()
    assert {name for name in dict(arrived.headers() or []) if name.startswith("nova-x-")} == {"nova-x-sent"}
    assert arrived.key() == waiting.key() == b"customer-7"
    assert not [name for name in handled.tasks[0]._delivery.headers if name.startswith("nova-x-")]
