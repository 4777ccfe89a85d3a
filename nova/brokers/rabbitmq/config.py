"""What `with_rabbitmq` holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from nova.brokers.checks import OptionChecks
from nova.errors import ConfigError

__all__ = ["Address", "Node", "RabbitMQConfig"]

PORT = 5672
TLS_PORT = 5671

_CHECK = OptionChecks("with_rabbitmq")


@dataclass(frozen=True, slots=True)
class Node:
    """One server of a cluster."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says."""

    nodes: tuple[Node, ...]
    vhost: str
    username: str
    password: str = field(repr=False)
    tls: bool

    @property
    def shown(self) -> str:
        """For messages: without the password."""
        nodes = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return nodes if self.vhost == "/" else f"{nodes}, vhost {self.vhost!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQConfig:
    """Options of the RabbitMQ driver; `with_rabbitmq` describes them. Durations are seconds."""

    url: str = field(repr=False)
    exchange: str | None = None
    prefetch: int = 0
    max_body_bytes: int = 8 << 20
    confirm_timeout: float = 20.0
    blocked_timeout: float = 5.0
    heartbeat: float = 30.0
    long_task_after: float = 1200.0
    delay_guard: float = 0.512
    connection_name: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    go_compatible: bool = False

    factory = "nova.brokers.rabbitmq.driver:RabbitMQDriver"
    extra = "rabbitmq"

    def __post_init__(self) -> None:
        address = read_url(self.url)
        _CHECK.integer("prefetch", self.prefetch, 0, 65_535, "; 0 = as the worker's speed asks for")
        _CHECK.integer("max_body_bytes", self.max_body_bytes, 1, 512 << 20)
        _CHECK.seconds("confirm_timeout", self.confirm_timeout, 1.0, 20.0)
        _CHECK.seconds("blocked_timeout", self.blocked_timeout, 0.1, 20.0)
        _CHECK.seconds("heartbeat", self.heartbeat, 1.0, 3600.0)
        _CHECK.seconds("long_task_after", self.long_task_after, 1.0, 86_400.0)
        _CHECK.seconds("delay_guard", self.delay_guard, 0.0, 60.0)
        _CHECK.flag("go_compatible", self.go_compatible)
        self._check_texts()
        for name in ("ca_file", "cert_file"):
            if getattr(self, name) is not None and not address.tls:
                raise ConfigError(f"with_rabbitmq({name}): needs a URL that begins with amqps://")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("with_rabbitmq: cert_file and key_file belong together; give both or neither")
        if self.key_password is not None and self.key_file is None:
            raise ConfigError("with_rabbitmq(key_password): needs key_file")

    @property
    def address(self) -> Address:
        """The URL, read."""
        return read_url(self.url)

    def _check_texts(self) -> None:
        for name in ("exchange", "connection_name", "ca_file", "cert_file", "key_file", "key_password"):
            _CHECK.text(name, getattr(self, name))
        if self.exchange is not None and (len(self.exchange) > 120 or self.exchange.startswith("amq.")):
            raise ConfigError(
                f"with_rabbitmq(exchange): expected up to 120 characters that do not begin with 'amq.', got {self.exchange!r}"
            )


def read_url(url: object) -> Address:
    """Read `amqp://user:password@host:port,host:port/vhost`.

    Raises:
        ConfigError: it is none; the message does not show it, because it may hold a password.
    """
    if not isinstance(url, str) or not url.startswith(("amqp://", "amqps://")):
        raise ConfigError("with_rabbitmq(url): expected text such as amqp://user:password@host:5672/vhost")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("with_rabbitmq(url): this is no URL; expected amqp://user:password@host:5672/vhost") from None
    tls = parts.scheme == "amqps"
    if "@" in parts.path + parts.query + parts.fragment:
        raise ConfigError(
            "with_rabbitmq(url): an '@' after the hosts; write / ? # @ in user names, passwords and vhosts as %2F %3F %23 %40"
        )
    if parts.query or parts.fragment:
        raise ConfigError("with_rabbitmq(url): a '?' or '#' in it; give options as arguments, and write # in it as %23")
    user, has_user, servers = parts.netloc.rpartition("@")
    username, has_password, password = user.partition(":")
    if has_user and not (username and has_password):
        raise ConfigError("with_rabbitmq(url): expected user:password before the '@'")
    path = parts.path.removeprefix("/")
    if "/" in path:
        raise ConfigError("with_rabbitmq(url): a vhost with '/' in its name; write it as %2F")
    return Address(
        nodes=tuple(_read_node(server.strip(), TLS_PORT if tls else PORT) for server in servers.split(",")),
        vhost=unquote(path) if path else "/",
        username=unquote(username) if has_user else "guest",
        password=unquote(password) if has_user else "guest",
        tls=tls,
    )


def _read_node(server: str, default: int) -> Node:
    found = _NODE.fullmatch(server)
    if found is None or not 0 < int(found[3] or default) < 65536:
        raise ConfigError(f"with_rabbitmq(url): expected host, host:port or several with commas, got {server!r}")
    return Node(found[1] or found[2], int(found[3] or default))


_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+))(?::(\d{1,5}))?")
