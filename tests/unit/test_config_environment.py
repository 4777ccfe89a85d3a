"""Every option has a variable of its own; a slip in a name and a contradiction are errors, names of others are not."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from nova import ConfigError, config
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.config.environment import VARIABLES
from nova.config.names import DRIVERS, SECTIONS, VALUES
from nova.options import DelaySlots, QueueSettings, Weights, settle
from nova.retry import ExponentialBackoff


def of(**environ: str) -> QueueSettings:
    return settle(config.from_environment(environ))


def test_every_option_that_text_can_say_has_a_variable() -> None:
    for section, function in {**DRIVERS, **SECTIONS}.items():
        for name in inspect.signature(function).parameters:
            variable = f"NOVA_{section}_{name}".upper()
            assert (variable in VARIABLES) == (name not in ("oauth_token", "policy")), variable
    for name in (*VALUES, "queues", "broker"):
        assert f"NOVA_{name}".upper() in VARIABLES


def test_no_two_options_share_a_variable() -> None:
    names = [(s, n) for s, f in {**DRIVERS, **SECTIONS}.items() for n in inspect.signature(f).parameters]
    texts = [pair for pair in names if pair[1] not in ("oauth_token", "policy")]
    assert len(VARIABLES) == len(texts) + len(VALUES) + 2


def test_variables_alone_are_a_configuration() -> None:
    found = of(
        NOVA_KAFKA_BOOTSTRAP_SERVERS="a:1,b:2", NOVA_KAFKA_PARTITIONS="12", NOVA_KAFKA_TLS="true",
        NOVA_KAFKA_SASL_MECHANISM="PLAIN", NOVA_KAFKA_USERNAME="ada", NOVA_KAFKA_PASSWORD="${not a reference}",
        NOVA_KAFKA_CLIENT_CONFIG='{"linger.ms": 5, "compression.type": "zstd"}',
        NOVA_GROUP_ID="billing", NOVA_TOPIC_PREFIX="SHOP", NOVA_MESSAGE_FORMAT="blob", NOVA_QUEUES="default, imports",
        NOVA_RETRY_MAX_RETRIES="7", NOVA_RETRY_BASE="0.5", NOVA_RETRY_CAP="9", NOVA_RETRY_JITTER="0",
        NOVA_DELAY_SLOTS_COUNT="24", NOVA_DELAY_SLOTS_DURATION="3600",
        NOVA_PRIORITY_WEIGHTS_HIGH="10", NOVA_PRIORITY_WEIGHTS_RESERVE="4",
    )  # fmt: skip
    assert found.driver == KafkaConfig(
        bootstrap_servers="a:1,b:2", partitions=12, tls=True, sasl_mechanism="PLAIN", username="ada",
        password="${not a reference}", client_config={"linger.ms": 5, "compression.type": "zstd"},
    )  # fmt: skip
    assert (found.group_id, found.topic_prefix, found.codec.name) == ("billing", "SHOP", "blob")
    assert found.queues == ("default", "imports")
    assert found.retry == ExponentialBackoff(7, 0.5, 9.0, 0.0)
    assert found.delay_slots == DelaySlots(24, 3600.0)
    assert found.weights == Weights((10, 3, 1), 4)


@pytest.mark.parametrize(
    ("environ", "driver"),
    [
        ({"NOVA_BROKER": "sqlite"}, SQLiteConfig()),
        ({"NOVA_BROKER": "memory", "NOVA_MEMORY_NAME": "m", "NOVA_SQLITE_PATH": "x"}, MemoryConfig(name="m")),
        ({"NOVA_SQLITE_PATH": "jobs.db", "NOVA_SQLITE_LEASE": "9"}, SQLiteConfig(path="jobs.db", lease=9.0)),
        (
            {"NOVA_ROCKETMQ_ENDPOINTS": "a", "NOVA_ROCKETMQ_ADMIN": "", "NOVA_ROCKETMQ_QUEUES_PER_TOPIC": "8"},
            RocketMQConfig(endpoints="a", admin="", queues_per_topic=8),
        ),
        (
            {"NOVA_URL": "amqp://shop@host", "NOVA_RABBITMQ_PASSWORD_FILE": "/run/pw", "NOVA_RABBITMQ_PREFETCH": "9"},
            RabbitMQConfig(url="amqp://shop@host", password_file="/run/pw", prefetch=9),
        ),
        ({"NOVA_URL": "memory://m", "NOVA_KAFKA_PASSWORD": "of another driver"}, MemoryConfig(name="m")),
        ({"NOVA_URL": "kafka://${HOST}:9092", "HOST": "a"}, KafkaConfig(bootstrap_servers="a:9092")),
    ],
)
def test_the_driver_follows_from_what_is_set(environ: dict[str, str], driver: object) -> None:
    assert of(**environ).driver == driver


def test_a_variable_is_laid_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nova.toml"
    path.write_text('group_id = "a"\ntopic_prefix = "P"\n[sqlite]\npath = "${NAME}.db"\nlease = 9\n[retry]\ncap = 5\n')
    environ = {"NAME": "n", "NOVA_GROUP_ID": "b", "NOVA_SQLITE_LEASE": "12", "NOVA_RETRY_BASE": "2"}
    found = of(NOVA_CONFIG=str(path), **environ)
    assert (found.group_id, found.topic_prefix) == ("b", "P")
    assert found.driver == SQLiteConfig(path="n.db", lease=12.0)
    assert found.retry == ExponentialBackoff(base=2.0, cap=5.0)
    assert of(NOVA_CONFIG=str(path), NOVA_BROKER="memory").driver == MemoryConfig()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "nothing names a broker; set NOVA_CONFIG"),
        ({"NOVA_GROUP_ID": "b"}, "nothing names a broker"),
        ({"NOVA_CONFIG": "a.toml", "NOVA_URL": "memory://"}, "NOVA_CONFIG and NOVA_URL are both set; keep one"),
        ({"NOVA_URL": "memory://?group_id=a", "NOVA_GROUP_ID": "b"}, "NOVA_URL and NOVA_GROUP_ID both say 'group_id'"),
        ({"NOVA_URL": "memory://m", "NOVA_BROKER": "memory"}, "NOVA_URL and NOVA_BROKER both say 'broker'; keep one"),
        ({"NOVA_URL": "memory://m", "NOVA_MEMORY_NAME": "m"}, "NOVA_URL and NOVA_MEMORY_NAME both say 'name'"),
        ({"NOVA_URL": "memory://?retry.cap=3", "NOVA_RETRY_CAP": "3"}, "NOVA_URL and NOVA_RETRY_CAP both say 'cap'"),
        ({"NOVA_MEMORY_NAME": "m", "NOVA_SQLITE_PATH": "x"}, "two drivers, .* NOVA_BROKER"),
        ({"NOVA_BROKER": "kafak"}, "did you mean 'kafka'"),
        ({"NOVA_BROKER": "kafka"}, "'bootstrap_servers' is missing"),
        ({"NOVA_CONFIG": "amqp://u:hunter2@host"}, "got a URL; use from_url, or NOVA_URL"),
        ({"NOVA_SQLITE_LEASE": "long"}, r"\[sqlite\]: with_sqlite\(lease\)"),
        (
            {"NOVA_KAFKA_BOOTSTRAP_SERVERS": "a:1", "NOVA_KAFKA_CLIENT_CONFIG": "linger.ms=hunter2"},
            "expected a JSON object",
        ),
        ({"NOVA_KAFKA_BOOTSTRAP_SERVERS": "a:1", "NOVA_KAFKA_CLIENT_CONFIG": '"hunter2"'}, "expected a JSON object"),
    ],
)
def test_contradictions_and_mistakes_are_one_error(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        of(**environ)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NOVA_KAFKA_PASSWRD", "NOVA_KAFKA_PASSWRD is no option; did you mean NOVA_KAFKA_PASSWORD"),
        ("NOVA_KAFKA_OAUTH_TOKEN", "is no option"),
        ("NOVA_RABBITMQ_PREFETCH_COUNT", "did you mean NOVA_RABBITMQ_PREFETCH?"),
        ("NOVA_GROUPID", "did you mean NOVA_GROUP_ID"),
        ("NOVA_TOPIC_PREFIXES", "did you mean NOVA_TOPIC_PREFIX"),
        ("NOVA_RETRY_ATTEMPTS", "is no option"),
        ("NOVA_ULR", "did you mean NOVA_URL"),
        ("NOVA_CONFG", "did you mean NOVA_CONFIG"),
    ],
)
def test_a_slip_in_a_name_is_an_error(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        of(NOVA_BROKER="memory", **{name: "hunter2"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "NOVA_TEST_KAFKA", "NOVA_TEST_CACHE", "NOVA_KAFKA", "NOVA_RABBITMQ", "NOVA_ROCKETMQ", "NOVA_APP", "NOVA_LOG_LEVEL",
        "NOVA_SERVICE_HOST", "NOVA_PORT", "NOVA_PORT_80_TCP", "NOVA_KAFKA_SERVICE_HOST", "NOVA_KAFKA_SERVICE_PORT_CLIENT",
        "NOVA_KAFKA_PORT", "NOVA_KAFKA_PORT_9092_TCP_ADDR", "NOVA_ROCKETMQ_PORT_8081_TCP", "OTHER_KAFKA_PASSWRD",
    ],
)  # fmt: skip
def test_names_of_others_are_left_alone(name: str) -> None:
    assert of(NOVA_BROKER="memory", **{name: "x"}).driver == MemoryConfig()


def test_a_url_says_all_that_a_file_can() -> None:
    url = (
        "kafka://a:1?queues=default,imports&retry.max_retries=5&retry.cap=9&delay_slots.count=24&delay_slots.duration=60"
        "&priority_weights.high=9&client_config.linger.ms=5&client_config.compression.type=zstd"
    )
    values: dict[str, Any] = {
        "queues": ["default", "imports"],
        "retry": {"max_retries": 5, "cap": 9},
        "delay_slots": {"count": 24, "duration": 60},
        "priority_weights": {"high": 9},
        "kafka": {"bootstrap_servers": "a:1", "client_config": {"linger.ms": "5", "compression.type": "zstd"}},
    }
    by_url, by_file = settle(config.from_url(url)), settle(config.from_config(values))
    for name in ("driver", "queues", "retry", "delay_slots", "weights"):
        assert getattr(by_url, name) == getattr(by_file, name), name


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://?retry.max_retires=5", r"\[retry\]: unknown 'max_retires'; did you mean 'max_retries'"),
        ("memory://?retry=5", "unknown 'retry'"),
        ("memory://?max_messages=5&max_messages=6", "'max_messages' is given twice"),
        ("memory://?queues=", "queue"),
        ("amqp://a?prefetch_size=5", "'prefetch_size' is refused: no RabbitMQ server takes one"),
        ("amqp://a?prefetch_count=5", "unknown 'prefetch_count'; Nova calls it prefetch"),
        ("kafka://a:1?auto_commit=true", "'auto_commit' is refused: it would acknowledge tasks before they are done"),
        ("rocketmq://a:1?consume_orderly=true", "'consume_orderly' is refused: one failing or slow task"),
    ],
)
def test_wrong_parameters_of_a_url_are_named(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.from_url(url)
