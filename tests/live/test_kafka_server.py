"""The Kafka server of the tests itself: it keeps data over a kill, hangs when paused, refuses strangers, dies with us."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.eventually import eventually
from tests.servers.guard import alive
from tests.servers.kafka.docker import DockerKafka, variable
from tests.servers.kafka.finding import needs_java, private_server
from tests.servers.kafka.secured import MECHANISMS, SecuredKafka
from tests.servers.kafka.server import answers, delete_topics, properties
from tests.servers.sharing import Server

ROOT = Path(__file__).parents[2]
QUIET: dict[str, Any] = {"log_level": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = private_server(tmp_path_factory.mktemp("kafka"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    needs_java()
    started = SecuredKafka(tmp_path_factory.mktemp("secured"))
    started.start()
    started.allow("nova", topics="T", groups="T")
    yield started
    started.stop()


def create(address: str, *topics: str) -> None:
    client = AdminClient({"bootstrap.servers": address})
    for future in client.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        future.result(10)


def produced(config: dict[str, Any], topic: str) -> KafkaError | None:
    """What became of one record that all replicas must have: None = stored."""
    errors: list[KafkaError | None] = []
    producer = Producer({"acks": "all", "message.timeout.ms": 5000, **QUIET, **config})
    producer.produce(topic, b"kept", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(10) == 0
    return errors[0]


def refusal(config: dict[str, Any]) -> int:
    """The code of the error for which a client does not get in."""
    codes: set[int] = set()
    given: dict[str, Any] = {**config, **QUIET, "error_cb": lambda error: codes.add(error.code())}
    client = AdminClient(given)

    def refused() -> set[int]:
        with contextlib.suppress(KafkaException):
            assert not client.list_topics(timeout=0.2).brokers, "it got in"
        client.poll(0)
        return codes - {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}

    eventually(refused)
    (code,) = refused()
    return code


def first_record(address: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "g", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()


def test_a_stored_record_survives_sigkill_and_restart(server: Server) -> None:
    create(server.address, "kept")
    assert produced({"bootstrap.servers": server.address}, "kept") is None

    server.kill()
    assert not answers(server.address, timeout=0.5)
    server.restart()

    assert first_record(server.address, "kept") == b"kept"


def test_a_paused_server_answers_nobody_until_it_is_resumed(server: Server) -> None:
    client = AdminClient({"bootstrap.servers": server.address, **QUIET})
    assert client.list_topics(timeout=10).brokers

    server.pause()
    try:
        with pytest.raises(KafkaException) as raised:
            client.list_topics(timeout=0.5)
        assert raised.value.args[0].code() in {KafkaError._TIMED_OUT, KafkaError._TRANSPORT}
    finally:
        server.resume()

    assert client.list_topics(timeout=10).brokers


def test_only_the_topics_of_the_given_prefix_are_deleted(server: Server) -> None:
    create(server.address, "T1-1_DEAD", "T1-1-mail_PRIORITY_HIGH", "T1-12_DEAD")

    delete_topics(server.address, "T1-1")

    client = AdminClient({"bootstrap.servers": server.address})
    eventually(lambda: {topic for topic in client.list_topics(timeout=10).topics if topic[0] == "T"} == {"T1-12_DEAD"})


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    needs_java()
    code = (
        "import sys; from pathlib import Path; from tests.servers.kafka.server import KafkaServer;"
        "server = KafkaServer(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    with owner:
        server = int(owner.stdout.readline())
        assert alive(server)
        owner.kill()

    eventually(lambda: not alive(server))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_way_of_logging_in_works_and_refuses_a_wrong_password(secured: SecuredKafka, mechanism: str) -> None:
    create(secured.address, f"T{mechanism}")
    ways = {"SASL_PLAINTEXT": secured.sasl_plaintext, "SASL_SSL": secured.sasl_ssl}
    for protocol, address in ways.items():
        way = {"bootstrap.servers": address, "security.protocol": protocol, "ssl.ca.location": str(secured.ca)}
        user = {"sasl.mechanism": mechanism, "sasl.username": "nova", "sasl.password": secured.users["nova"]}

        assert produced({**way, **user}, f"T{mechanism}") is None
        assert refusal({**way, **user, "sasl.password": "wrong"}) == KafkaError._AUTHENTICATION


def test_a_certificate_of_another_authority_is_refused(secured: SecuredKafka) -> None:
    config: dict[str, Any] = {"bootstrap.servers": secured.ssl, "security.protocol": "SSL"}

    assert AdminClient({**config, "ssl.ca.location": str(secured.ca)}).list_topics(timeout=10).brokers
    assert refusal({**config, "ssl.ca.location": str(secured.wrong_ca)}) == KafkaError._SSL


def test_a_user_without_permission_is_refused(secured: SecuredKafka) -> None:
    create(secured.address, "Tforbidden")
    user = {"sasl.mechanism": "PLAIN", "sasl.username": "stranger", "sasl.password": secured.users["stranger"]}

    error = produced(
        {"bootstrap.servers": secured.sasl_plaintext, "security.protocol": "SASL_PLAINTEXT", **user}, "Tforbidden"
    )

    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_the_container_takes_every_setting() -> None:
    assert variable("share.coordinator.state.topic.min.isr") == "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR"
    assert variable("a-b_c.d") == "KAFKA_A___B__C_D"
    assert all(key == key.lower() for key in properties(1, 2))
    assert DockerKafka(port=1234, owner=None).address == "127.0.0.1:1234"
