"""`${NAME}` in a configuration stands for an environment variable, in every form and whatever characters it holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, config
from nova.brokers.kafka.config import KafkaConfig
from nova.brokers.rabbitmq.config import RabbitMQConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.config.texts import escape, resolve
from nova.options import QueueSettings, settle

ODD = "p@ss/w:rd?#%40 ${PATH}'\""
"""A password with every character that means something in a URL, and one that looks like a reference."""


def of(values: dict[str, Any], **environ: str) -> QueueSettings:
    return settle(config.from_config(values, environ))


def test_a_text_may_hold_variables_anywhere() -> None:
    found = of({"group_id": "${TEAM}-jobs", "sqlite": {"path": "/var/${TEAM}/${FILE}"}}, TEAM="billing", FILE="n.db")
    assert found.group_id == "billing-jobs"
    assert found.driver == SQLiteConfig(path="/var/billing/n.db")


def test_a_variable_is_read_as_what_the_option_takes() -> None:
    kafka = {"bootstrap_servers": "a:1", "partitions": "${N}", "reclaim": "${NO}", "session_timeout": "${S}"}
    found = of({"kafka": kafka, "retry": {"max_retries": "${N}"}}, N="3", NO="false", S="4.5")
    assert found.driver == KafkaConfig(bootstrap_servers="a:1", partitions=3, reclaim=False, session_timeout=4.5)
    assert found.retry.max_retries == 3


@pytest.mark.parametrize("option", ["partitions", "reclaim", "session_timeout"])
def test_a_variable_where_it_does_not_belong_is_not_shown(option: str) -> None:
    with pytest.raises(ConfigError, match=option) as caught:
        of({"kafka": {"bootstrap_servers": "a:1", option: "${PASSWORD}"}}, PASSWORD="hunter2")
    assert "hunter2" not in str(caught.value)
    assert "${PASSWORD}" in str(caught.value)


def test_queues_and_tables_may_hold_variables() -> None:
    kafka = {"bootstrap_servers": "a:1", "client_config": {"client.rack": "${ZONE}"}}
    found = of(
        {"broker": "${BROKER}", "queues": ["default", "${Q}"], "kafka": kafka}, BROKER="kafka", Q="imports", ZONE="a"
    )
    assert found.queues == ("default", "imports")
    assert found.driver == KafkaConfig(bootstrap_servers="a:1", client_config={"client.rack": "a"})


def test_what_a_variable_holds_is_not_looked_into() -> None:
    kafka = {"bootstrap_servers": "a:1", "sasl_mechanism": "PLAIN", "username": "ada", "password": "${PW}"}
    driver = of({"kafka": kafka}, PW=ODD).driver
    assert isinstance(driver, KafkaConfig)
    assert driver.password == ODD


def test_the_user_in_a_url_of_rabbitmq_may_hold_any_character() -> None:
    for found in (
        of({"rabbitmq": {"url": "amqp://shop:${PW}@host/v"}}, PW=ODD),
        settle(config.from_url("amqp://shop:${PW}@host/v", {"PW": ODD})),
    ):
        assert isinstance(found.driver, RabbitMQConfig)
        assert (found.driver.address.username, found.driver.address.password) == ("shop", ODD)


def test_a_variable_may_hold_the_url_or_its_hosts() -> None:
    for url in ("${URL}", "amqp://shop:pw@${HOSTS}/v"):
        driver = of({"rabbitmq": {"url": url}}, URL="amqp://shop:pw@a:1,b:2/v", HOSTS="a:1,b:2").driver
        assert isinstance(driver, RabbitMQConfig)
        assert driver.address.shown == "a:1,b:2, vhost 'v'"


def test_urls_of_the_others_take_variables_as_they_are() -> None:
    kafka = settle(
        config.from_url("kafka://shop:${PW}@a:1?sasl_mechanism=PLAIN&partitions=${N}", {"PW": ODD, "N": "2"})
    )
    assert kafka.driver == KafkaConfig(
        bootstrap_servers="a:1", username="shop", password=ODD, sasl_mechanism="PLAIN", partitions=2
    )
    rocketmq = settle(config.from_url("rocketmq://key:${PW}@a:1", {"PW": ODD}))
    assert rocketmq.driver == RocketMQConfig(endpoints="a:1", access_key="key", secret_key=ODD)


def test_sections_of_other_drivers_need_no_variables() -> None:
    found = of({"broker": "sqlite", "sqlite": {}, "rocketmq": {"endpoints": "${NOT_SET}"}})
    assert found.driver == SQLiteConfig()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"sqlite": {"path": "${FILE}"}},
            r"config: \[sqlite\] path: the environment variable FILE is not set; set it, or",
        ),
        ({"group_id": "${TEAM}"}, "config: group_id: the environment variable TEAM is not set"),
        ({"queues": ["${Q}"]}, "config: queues: the environment variable Q is not set"),
        ({"broker": "${B}"}, "config: broker: the environment variable B is not set"),
        ({"sqlite": {"path": "${FILE"}}, r"expected \$\{NAME\}, the name of an environment variable; write \$\$\{"),
        ({"sqlite": {"path": "${}"}}, r"expected \$\{NAME\}"),
        ({"sqlite": {"path": "${a-b}"}}, r"expected \$\{NAME\}"),
    ],
)
def test_a_variable_that_is_missing_is_one_error_that_names_it(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        of(values)
    assert "None" not in str(refused.value)


def test_a_missing_variable_of_a_url_is_named() -> None:
    with pytest.raises(ConfigError, match=r"from_url: \[kafka\] password: the environment variable PW is not set"):
        config.from_url("kafka://shop:${PW}@a:1?sasl_mechanism=PLAIN", {})
    with pytest.raises(ConfigError, match=r"from_url: \[rabbitmq\] url: the environment variable PW is not set"):
        config.from_url("amqp://shop:${PW}@a:1", {})


def test_an_object_is_in_no_variable() -> None:
    kafka = {"bootstrap_servers": "a:1", "sasl_mechanism": "OAUTHBEARER", "oauth_token": "${TOKEN}"}
    with pytest.raises(ConfigError, match=r"\[kafka\] oauth_token: cannot be said by text"):
        of({"kafka": kafka}, TOKEN="x")


@given(st.text())
def test_what_is_escaped_comes_back_as_it_was(text: str) -> None:
    assert resolve(escape(text), {}, "here") == text


@given(st.text().filter(lambda text: "${" not in text))
def test_text_without_references_is_left_alone(text: str) -> None:
    assert resolve(text, {}, "here") == text
