"""Kafka's options: every one checked when it is given, the same in code, TOML and URLs, and no secret in any text."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nova import ConfigError, Task, TaskQueue, config, with_kafka, with_sqlite
from nova.brokers.kafka.config import _REFUSED, KafkaConfig
from nova.options import settle

SECRET = "open-sesame"
SASL: dict[str, Any] = {"sasl_mechanism": "PLAIN", "username": "ada", "password": SECRET}


def kafka(servers: Any = "localhost:9092", **options: Any) -> KafkaConfig:
    found = settle([with_kafka(servers, **options)]).driver
    assert isinstance(found, KafkaConfig)
    return found


def from_url(url: str) -> KafkaConfig:
    found = settle(config.from_url(url)).driver
    assert isinstance(found, KafkaConfig)
    return found


def token(text: str) -> tuple[str, float]:
    return text, 0.0


@pytest.mark.parametrize("servers", ["localhost:9092", "a:1,b:2", "a:1, b:65535", "[::1]:9092"])
def test_servers_are_hosts_with_ports(servers: str) -> None:
    assert kafka(servers).bootstrap_servers == servers


@pytest.mark.parametrize(
    "servers", ["", " ", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:1,", "kafka://a:1", 9092, None]
)
def test_other_servers_are_refused(servers: Any) -> None:
    with pytest.raises(ConfigError, match=r"with_kafka\(bootstrap_servers\): expected 'host:port'"):
        kafka(servers)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("partitions", [1, 10_000], [0, 10_001, 1.5, True, "6"]),
        ("replication_factor", [-1, 1, 100], [0, -2, 101, True, "3"]),
        ("max_body_bytes", [1, 100 << 20], [0, (100 << 20) + 1, 1e6]),
        ("session_timeout", [1, 60, timedelta(seconds=30)], [0.5, 3601, "10", None, float("nan")]),
        ("max_poll_interval", [10, timedelta(hours=1)], [9.9, 86_401, "300", True]),
        ("delivery_timeout", [1, 20], [0.5, 21, float("inf")]),
        ("revoke_grace", [0, 150], [-1, 150.5, "5"]),
        ("escrow_after", [1, 86_400], [0, 86_401]),
        ("escrow_lease", [3, 3600], [2.9, 3601]),
        ("reclaim", [True, False], [1, "yes", None]),
        ("tls", [True, False], [0, "true"]),
        ("sasl_mechanism", [None], ["plain", "GSSAPI", "SCRAM-SHA-1", 5]),
        ("ca_file", [None], ["", 5]),
        ("cert_file", [None], ["", 5]),
        ("key_file", [None], ["", 5]),
        ("key_password", [None], ["", 5]),
        ("username", [None], ["", 5]),
        ("password", [None], ["", 5]),
        ("password_file", [None], ["", 5]),
        ("key_password_file", [None], ["", 5]),
        ("client_config", [None, {}, {"linger.ms": 5}], [5, [("linger.ms", 5)], {5: "x"}, {"stats_cb": "x"}]),
    ],
)
def test_every_option_has_its_bounds(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        kafka(**{name: value})
    for value in bad:
        with pytest.raises(ConfigError, match=rf"^with_kafka\({name}\): "):
            kafka(**{name: value})


def test_every_option_is_in_the_tests_above_or_below() -> None:
    import inspect

    text = Path(__file__).read_text(encoding="utf-8")
    for name in inspect.signature(with_kafka).parameters:
        assert text.count(name) >= 2, name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_poll_interval": 5}, "10 to 86400 seconds, got 5"),
        ({"username": "ada", "password": "x"}, r"\(username\): needs sasl_mechanism, one of PLAIN"),
        ({"password": "x"}, r"\(password\): needs sasl_mechanism"),
        ({"oauth_token": token}, r"\(oauth_token\): needs sasl_mechanism"),
        ({"sasl_mechanism": "PLAIN"}, "needs username and password"),
        ({"sasl_mechanism": "SCRAM-SHA-512", "username": "ada"}, "needs username and password"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "needs oauth_token, a function"),
        ({"sasl_mechanism": "OAUTHBEARER", "oauth_token": "abc"}, "needs oauth_token, a function"),
        ({"sasl_mechanism": "OAUTHBEARER", "username": "a", "password": "b", "oauth_token": token}, "not username"),
        ({**SASL, "oauth_token": token}, "needs sasl_mechanism='OAUTHBEARER', got 'PLAIN'"),
        ({"ca_file": "ca.pem"}, r"\(ca_file\): needs tls=True"),
        ({"cert_file": "c.pem", "key_file": "k.pem"}, r"\(cert_file\): needs tls=True"),
        ({"tls": True, "cert_file": "c.pem"}, "cert_file and key_file belong together"),
        ({"tls": True, "key_file": "k.pem"}, "cert_file and key_file belong together"),
        ({"tls": True, "key_password": "x"}, "needs key_file"),
        ({"tls": True, "key_password_file": "x"}, r"\(key_password_file\): needs key_file"),
        ({"password_file": "x"}, r"\(password_file\): needs sasl_mechanism"),
        ({**SASL, "password_file": "x"}, "password and password_file are both given; keep one"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kafka(**options)


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        (SASL, "SASL_PLAINTEXT"),
        ({**SASL, "tls": True, "ca_file": "ca.pem"}, "SASL_SSL"),
        ({"sasl_mechanism": "OAUTHBEARER", "oauth_token": token}, "SASL_PLAINTEXT"),
        ({"sasl_mechanism": "OAUTHBEARER", "client_config": {"sasl.oauthbearer.method": "oidc"}}, "SASL_PLAINTEXT"),
    ],
)
def test_the_protocol_follows_from_tls_and_sasl(options: dict[str, Any], protocol: str) -> None:
    assert kafka(**options).security_protocol == protocol


@pytest.mark.parametrize("key", sorted(_REFUSED))
def test_properties_that_would_break_a_promise_are_refused_with_the_reason(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        kafka(client_config={key: SECRET})
    assert str(refused.value) == f"with_kafka(client_config): {key!r} is refused: {_REFUSED[key]}"
    assert len(_REFUSED[key]) > 15


def test_secrets_are_in_no_repr() -> None:
    option = with_kafka(
        "localhost:9092", **SASL, tls=True, cert_file="c", key_file="k", key_password=SECRET,
        client_config={"sasl.oauthbearer.client.secret": SECRET},
    )  # fmt: skip
    for shown in (option, option.value, settle([option]), TaskQueue(option)):
        assert SECRET not in repr(shown)


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://ada:{SECRET}@localhost",  # no port
        f"kafka://ada:{SECRET}@localhost:9092",  # no mechanism
        f"kafka://ada:{SECRET}@localhost:9092?sasl_mechanism=X",
        f"kafka://ada:{SECRET}@localhost:9092/shop?sasl_mechanism=PLAIN",
        f"kafka://ada:{SECRET}@localhost:9092?sasl_mechanism=PLAIN&partitons=3",
        f"kafka://ada:{SECRET}@localhost:9092?sasl_mechanism=PLAIN&sasl_mechanism=PLAIN",
        f"kafka://ada:{SECRET}@localhost:9092?sasl_mechanism=PLAIN&password={SECRET}",
        f"kafka://ada@localhost:9092?password={SECRET}&password={SECRET}",
        f"kafka://ada:x/{SECRET}@localhost:9092?sasl_mechanism=PLAIN",
        f"kafka://ada:x?{SECRET}@localhost:9092",
        f"kafka://ada:x#{SECRET}@localhost:9092",
        f"kafka://ada:{SECRET}@[localhost:9092",
        f"kafka://ada:{SECRET}@localhost\u2100:9092",
        f"kafka://ada:{SECRET}@localhost:9092?tls=maybe",
        f"kafka://localhost:9092?client_config={SECRET}",
        f"ada:{SECRET}@localhost:9092",
    ],
)
def test_secrets_are_in_no_error_of_a_url(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TaskQueue.from_url(url)
    error: BaseException | None = refused.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


def test_secrets_are_in_no_error_of_the_code_or_a_file() -> None:
    wrong: list[dict[str, Any]] = [
        {"bootstrap_servers": f"ada:{SECRET}@localhost:9092"},
        {"bootstrap_servers": "a:1", "client_config": SECRET},
        {"bootstrap_servers": "a:1", "client_config": {"sasl.password": SECRET}},
        {"bootstrap_servers": "a:1", "password": SECRET},
        {"bootstrap_servers": "a:1", "sasl_mechanism": "OAUTHBEARER", "oauth_token": SECRET},
    ]
    for section in wrong:
        for source in ({"kafka": section}, {"broker": "kafka", "kafka": f"ada:{SECRET}@localhost:9092"}):
            with pytest.raises(ConfigError) as refused:
                TaskQueue.from_config(source)
            assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://localhost:9092", KafkaConfig(bootstrap_servers="localhost:9092")),
        ("kafka://a:1,b:2?partitions=3", KafkaConfig(bootstrap_servers="a:1,b:2", partitions=3)),
        ("kafka://a:1/", KafkaConfig(bootstrap_servers="a:1")),
        ("kafka://[::1]:9092", KafkaConfig(bootstrap_servers="[::1]:9092")),
        (
            "kafka://a:1?reclaim=false&session_timeout=4.5",
            KafkaConfig(bootstrap_servers="a:1", reclaim=False, session_timeout=4.5),
        ),
        (
            "kafka://ada:p%40ss%2Fw%3Ard%23@a:1,b:2?sasl_mechanism=SCRAM-SHA-512&tls=True&ca_file=/etc/ca.pem",
            KafkaConfig(
                bootstrap_servers="a:1,b:2", username="ada", password="p@ss/w:rd#", sasl_mechanism="SCRAM-SHA-512",
                tls=True, ca_file="/etc/ca.pem",
            ),
        ),
        (
            "kafka://12:34@a:1?sasl_mechanism=PLAIN",  # digits stay text
            KafkaConfig(bootstrap_servers="a:1", username="12", password="34", sasl_mechanism="PLAIN"),
        ),
    ],
)  # fmt: skip
def test_urls(url: str, expected: KafkaConfig) -> None:
    assert from_url(url) == expected


def test_a_url_carries_the_group_and_the_prefix() -> None:
    found = settle(config.from_url("kafka://a:1?group_id=7&topic_prefix=SHOP&partitions=3"))
    assert (found.group_id, found.topic_prefix) == ("7", "SHOP")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://", r"\[kafka\]: 'bootstrap_servers' is missing"),
        ("kafka://?partitions=3", "'bootstrap_servers' is missing"),
        ("kafka://a", "expected 'host:port', got 'a'"),
        ("kafka://a:1?partitons=3", "unknown 'partitons'; did you mean 'partitions'"),
        ("kafka://a:1?partitions=many", "an integer from 1 to 10000, got 'many'"),
        ("kafka://a:1?partitions=1.5", "an integer from 1 to 10000, got 1.5"),
        ("kafka://a:1?tls=1", r"with_kafka\(tls\): expected true or false, got '1'"),
        ("kafka://a:1?bootstrap_servers=b:2", "'bootstrap_servers' is given twice, before the '\\?' and after it"),
        ("kafka://a:1/topic", "takes host:port,host:port, not a path"),
        ("kafka://a:1?client_config=x", "is a table; write client_config.<name>="),
        ("kafka://a:1?oauth_token=x", "oauth_token: cannot be said by text"),
        ("kafka://u:p/w@a:1", "write / \\? # @ in user names, passwords and values as %2F %3F %23 %40"),
    ],
)
def test_wrong_urls_say_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TaskQueue.from_url(url)


TOML = """
broker = "kafka"
group_id = "billing"

[kafka]
bootstrap_servers = "a:9092,b:9092"
partitions = 12
replication_factor = 3
session_timeout = 20
max_poll_interval = 600
delivery_timeout = 15.0
max_body_bytes = 500000
revoke_grace = 2.0
escrow_after = 30
escrow_lease = 90
reclaim = false
tls = true
ca_file = "ca.pem"
cert_file = "client.pem"
key_file = "client.key"
key_password = "k"
sasl_mechanism = "SCRAM-SHA-256"
username = "ada"
password = "p"

[kafka.client_config]
"linger.ms" = 5
"compression.type" = "zstd"
"""


def test_a_file_says_everything_but_a_function(tmp_path: Path) -> None:
    (tmp_path / "nova.toml").write_text(TOML)
    assert settle(config.from_config(tmp_path / "nova.toml")).driver == KafkaConfig(
        bootstrap_servers="a:9092,b:9092", partitions=12, replication_factor=3, session_timeout=20.0,
        max_poll_interval=600.0, delivery_timeout=15.0, max_body_bytes=500_000, revoke_grace=2.0, escrow_after=30.0,
        escrow_lease=90.0, reclaim=False, tls=True, ca_file="ca.pem", cert_file="client.pem", key_file="client.key",
        key_password="k", sasl_mechanism="SCRAM-SHA-256", username="ada", password="p",
        client_config={"linger.ms": 5, "compression.type": "zstd"},
    )  # fmt: skip


def test_defaults_are_the_same_in_code_and_in_the_dataclass() -> None:
    assert kafka() == KafkaConfig(bootstrap_servers="localhost:9092")


def test_the_servers_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"\[kafka\]: 'bootstrap_servers' is missing"):
        TaskQueue.from_config({"broker": "kafka"})
    with pytest.raises(ConfigError, match=r"two drivers given, by with_kafka.* and with_sqlite"):
        TaskQueue(with_kafka("a:1"), with_sqlite())


def test_a_missing_package_is_one_error_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nova.brokers.kafka.")]:
        if not name.endswith(".config"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    q = TaskQueue(with_kafka("localhost:9092"))
    for use in (q.connect, lambda: q.enqueue(Task("t")), lambda: q.start(print)):
        with pytest.raises(ConfigError, match=r"'confluent_kafka' is missing; pip install 'nova-taskqueue\[kafka\]'"):
            use()
