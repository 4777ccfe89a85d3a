"""What `with_kafka` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from nova.brokers.checks import Bounds, OptionChecks, Seconds, Whole
from nova.errors import ConfigError

__all__ = ["KafkaConfig", "OAuthToken"]

OAuthToken = Callable[[str], tuple[str, float]]
"""Given `sasl.oauthbearer.config`, returns a token and the epoch seconds until which it is valid."""

_CHECK = OptionChecks("with_kafka")

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

_LOSES = "it would acknowledge tasks before they are done; Nova acknowledges after success"
_REFUSED: dict[str, str] = {
    "enable.auto.commit": _LOSES,
    "auto.commit.enable": _LOSES,
    "enable.auto.offset.store": _LOSES,
    "auto.offset.reset": "'latest' would skip tasks sent while no worker was up; Nova needs 'earliest'",
    "acks": "anything but 'all' would call a task stored that a broker's death can lose",
    "request.required.acks": "anything but 'all' would call a task stored that a broker's death can lose",
    "enable.idempotence": "without it the client's own retries would duplicate tasks",
    "transactional.id": "Nova publishes without transactions: a stalled one would hold up a whole topic",
    "isolation.level": "tasks of aborted transactions were never sent",
    "partition.assignment.strategy": "'cooperative-sticky' lets a worker keep its tasks while others come and go",
    "group.protocol": "Nova's takeover times are those of the classic protocol",
    "group.instance.id": "a dead static member's tasks would wait for its return",
    "group.id": "the group is with_group_id(…)",
    "group.remote.assignor": "Nova uses the classic protocol",
    "bootstrap.servers": "they are the first argument of with_kafka(…)",
    "metadata.broker.list": "the servers are the first argument of with_kafka(…)",
    "session.timeout.ms": "use with_kafka(session_timeout=…)",
    "heartbeat.interval.ms": "it follows with_kafka(session_timeout=…)",
    "max.poll.interval.ms": "use with_kafka(max_poll_interval=…)",
    "delivery.timeout.ms": "use with_kafka(delivery_timeout=…)",
    "message.timeout.ms": "use with_kafka(delivery_timeout=…)",
    "message.max.bytes": "use with_kafka(max_body_bytes=…)",
    "allow.auto.create.topics": "topics the broker creates by itself have finite retention and would lose tasks",
    "delivery.report.only.error": "without a report of success enqueue would never return",
    "default.topic.config": "write its properties into client_config itself",
    "enable.partition.eof": "Nova reads no end marks",
    "on_commit": "Nova needs this callback itself",
    "on_delivery": "Nova needs this callback itself",
    "error_cb": "Nova needs this callback itself; errors are logged by nova.brokers.kafka",
    "logger": "the client logs to nova.brokers.kafka.client",
    "oauth_cb": "use with_kafka(oauth_token=…)",
    "sasl.username": "use with_kafka(username=…)",
    "sasl.password": "use with_kafka(password=…)",
    "sasl.mechanism": "use with_kafka(sasl_mechanism=…)",
    "sasl.mechanisms": "use with_kafka(sasl_mechanism=…)",
    "security.protocol": "it follows from with_kafka(tls=…, sasl_mechanism=…)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """Options of the Kafka driver; `with_kafka` describes them. Durations are seconds."""

    bootstrap_servers: str
    partitions: int = 6
    replication_factor: int = -1
    session_timeout: float = 10.0
    max_poll_interval: float = 300.0
    delivery_timeout: float = 20.0
    max_body_bytes: int = 1 << 20
    revoke_grace: float = 5.0
    escrow_after: float = 60.0
    escrow_lease: float = 60.0
    reclaim: bool = True
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    key_password_file: str | None = None
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    oauth_token: OAuthToken | None = field(default=None, repr=False)
    client_config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    factory = "nova.brokers.kafka.driver:KafkaDriver"
    extra = "kafka"
    bounds: ClassVar[Bounds] = {
        "partitions": Whole(1, 10_000),
        "replication_factor": Whole(1, 100, besides=-1, hint="; -1 = the cluster's default"),
        "session_timeout": Seconds(1.0, 3600.0),
        "max_poll_interval": Seconds(1.0, 86_400.0),
        "delivery_timeout": Seconds(1.0, 20.0),
        "max_body_bytes": Whole(1, 100 << 20),
        "revoke_grace": Seconds(0.0, 43_200.0),
        "escrow_after": Seconds(1.0, 86_400.0),
        "escrow_lease": Seconds(3.0, 3600.0),
    }

    def __post_init__(self) -> None:
        _check_servers(self.bootstrap_servers)
        _CHECK.bounds(self, self.bounds)
        _CHECK.seconds("max_poll_interval", self.max_poll_interval, self.session_timeout, 86400.0)
        _CHECK.seconds("revoke_grace", self.revoke_grace, 0.0, self.max_poll_interval / 2)
        for name in ("reclaim", "tls"):
            _CHECK.flag(name, getattr(self, name))
        self._check_texts()
        self._check_security()
        _check_client_config(self.client_config)

    @property
    def security_protocol(self) -> str:
        """Kafka's name for what `tls` and `sasl_mechanism` say."""
        transport = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{transport}" if self.sasl_mechanism else transport

    def _check_texts(self) -> None:
        for name in ("ca_file", "cert_file", "key_file", "username"):
            _CHECK.text(name, getattr(self, name))
        for name in ("key_password", "password"):
            _CHECK.secret(name, getattr(self, name), getattr(self, f"{name}_file"))

    def _check_security(self) -> None:
        mechanism = self.sasl_mechanism
        if mechanism is not None and mechanism not in MECHANISMS:
            raise ConfigError(f"with_kafka(sasl_mechanism): expected one of {', '.join(MECHANISMS)}, got {mechanism!r}")
        is_oauth = mechanism == "OAUTHBEARER"
        given = [name for name in ("username", "password", "password_file") if getattr(self, name) is not None]
        if mechanism is None and (given or self.oauth_token is not None):
            name = given[0] if given else "oauth_token"
            raise ConfigError(f"with_kafka({name}): needs sasl_mechanism, one of {', '.join(MECHANISMS)}")
        if mechanism is not None and not is_oauth and len(given) < 2:
            raise ConfigError(
                f"with_kafka(sasl_mechanism={mechanism!r}): needs username and password, or password_file"
            )
        if is_oauth and given:
            raise ConfigError("with_kafka(sasl_mechanism='OAUTHBEARER'): takes oauth_token, not username and password")
        if is_oauth and not callable(self.oauth_token) and "sasl.oauthbearer.method" not in self.client_config:
            raise ConfigError(
                "with_kafka(sasl_mechanism='OAUTHBEARER'): needs oauth_token, a function that returns (token, valid until), "
                "or sasl.oauthbearer.method in client_config"
            )
        if not is_oauth and self.oauth_token is not None:
            raise ConfigError(f"with_kafka(oauth_token): needs sasl_mechanism='OAUTHBEARER', got {mechanism!r}")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("with_kafka: cert_file and key_file belong together; give both or neither")
        _CHECK.needs_key_file(self)
        _CHECK.needs_tls(self, "ca_file", "cert_file")


def _check_servers(servers: object) -> None:
    if not isinstance(servers, str) or not servers.strip():
        raise ConfigError(
            f"with_kafka(bootstrap_servers): expected 'host:port' or several with commas, got {servers!r}"
        )
    if "@" in servers:  # not shown: what stands before it may be a password
        raise ConfigError(
            "with_kafka(bootstrap_servers): expected 'host:port' without a user; give username and password on their own"
        )
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise ConfigError(
                f"with_kafka(bootstrap_servers): expected 'host:port', got {server.strip()!r} in {servers!r}"
            )


def _kind(value: object) -> str:
    """What it is, without what it says: it may hold a secret."""
    return type(value).__name__


def _check_client_config(found: object) -> None:
    if not isinstance(found, Mapping):
        raise ConfigError(f"with_kafka(client_config): expected a mapping of librdkafka properties, got {_kind(found)}")
    for key, value in found.items():
        if not isinstance(key, str):
            raise ConfigError(f"with_kafka(client_config): expected property names, got {key!r}")
        if key in _REFUSED:
            raise ConfigError(f"with_kafka(client_config): {key!r} is refused: {_REFUSED[key]}")
        if key.endswith("_cb") and not callable(value):
            raise ConfigError(f"with_kafka(client_config): {key!r} takes a function, got {_kind(value)}")
