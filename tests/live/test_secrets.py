"""Secrets stand in no error of a connection and no log line of any level, of Nova or of a client. Needs no server."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nova import BrokerError, ConfigError, Task, TaskQueue
from tests.servers.ports import free_ports

SECRET = "open-sesame"
KAFKA: dict[str, Any] = {"sasl_mechanism": "PLAIN", "username": "ada", "delivery_timeout": 1}


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Every logger says all it can, pika's too."""
    before = {name: logging.getLogger(name).level for name in ("", "nova", "pika")}
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def sections(nobody: str, directory: Path) -> list[dict[str, Any]]:
    (directory / "secret").write_text(SECRET)
    file = str(directory / "secret")
    return [
        {
            "kafka": {
                "bootstrap_servers": nobody,
                **KAFKA,
                "password": SECRET,
                "client_config": {"debug": "conf,security"},
            }
        },
        {"kafka": {"bootstrap_servers": nobody, **KAFKA, "password_file": file}},
        {"rabbitmq": {"url": f"amqp://ada:{SECRET}@{nobody}/"}},
        {"rabbitmq": {"url": f"amqp://{nobody}/", "username": "ada", "password": SECRET}},
        {"rabbitmq": {"url": f"amqp://ada@{nobody}/", "password_file": file}},
        {"rocketmq": {"endpoints": nobody, "admin": nobody, "access_key": "ada", "secret_key": SECRET}},
        {"rocketmq": {"endpoints": nobody, "admin": "", "access_key": "ada", "secret_key_file": file}},
    ]


@pytest.mark.parametrize("number", range(7))
def test_a_broker_that_is_not_there_is_named_without_the_secret(
    number: int, nobody: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    q = TaskQueue.from_config(sections(nobody, tmp_path)[number])
    errors: list[BrokerError] = []
    for use in (lambda: q.connect(timeout=1.0), lambda: q.enqueue(Task("t"))):
        with pytest.raises(BrokerError) as refused:
            use()
        errors.append(refused.value)
    q.stop(timeout=2)
    for error in errors:
        assert nobody in str(error)
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(error)
    assert SECRET not in caplog.text + repr(q) + repr([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    ("driver", "section"),
    [
        ("kafka", {"bootstrap_servers": "a:1"}),
        ("rabbitmq", {"url": "amqps://a"}),
    ],
)
def test_a_key_that_cannot_be_read_is_named_without_its_password(
    driver: str, section: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no certificate")
    files = {"cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key"), "key_password": SECRET}
    tls = {"tls": True} if driver == "kafka" else {}
    q = TaskQueue.from_config({driver: {**section, **tls, **files}})
    with pytest.raises((ConfigError, BrokerError)) as refused:
        q.connect(timeout=1.0)
    assert SECRET not in "".join(traceback.format_exception(refused.value)) + repr(refused.value) + caplog.text
