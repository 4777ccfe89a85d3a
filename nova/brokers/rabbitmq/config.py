"""What `with_rabbitmq` holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from nova.brokers.checks import Bounds, OptionChecks, Seconds, Whole
from nova.errors import ConfigError

__all__ = ["Address", "Node", "RabbitMQConfig"]

PORT = 5672
TLS_PORT = 5671
GUEST = "guest"
"""The user, and its password, of a server as it comes."""

_CHECK = OptionChecks("with_rabbitmq")


@dataclass(frozen=True, slots=True)
class Node:
    """One server of a cluster."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and as whom."""

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
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
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
    key_password_file: str | None = None
    go_compatible: bool = False

    factory = "nova.brokers.rabbitmq.driver:RabbitMQDriver"
    extra = "rabbitmq"
    bounds: ClassVar[Bounds] = {
        "prefetch": Whole(0, 65_535, hint="; 0 = as the worker's speed asks for"),
        "max_body_bytes": Whole(1, 512 << 20),
        "confirm_timeout": Seconds(1.0, 20.0),
        "blocked_timeout": Seconds(0.1, 20.0),
        "heartbeat": Seconds(1.0, 3600.0),
        "long_task_after": Seconds(1.0, 86_400.0),
        "delay_guard": Seconds(0.0, 60.0),
    }

    def __post_init__(self) -> None:
        address, user, password = read_url(self.url)
        _CHECK.bounds(self, self.bounds)
        _CHECK.flag("go_compatible", self.go_compatible)
        self._check_texts()
        self._check_user(user, password)
        for name in ("ca_file", "cert_file"):
            if getattr(self, name) is not None and not address.tls:
                raise ConfigError(f"with_rabbitmq({name}): needs a URL that begins with amqps://")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("with_rabbitmq: cert_file and key_file belong together; give both or neither")
        _CHECK.needs_key_file(self)

    @property
    def address(self) -> Address:
        """The URL, read, with the user that was given apart from it."""
        found, user, password = read_url(self.url)
        return replace(
            found,
            username=self.username or user or found.username,
            password=next((text for text in (self.password, password) if text is not None), found.password),
        )

    def _check_user(self, user: str | None, password: str | None) -> None:
        if self.username is not None and user is not None:
            raise ConfigError("with_rabbitmq(username): the URL has a user already; keep one")
        is_apart = self.password is not None or self.password_file is not None
        if is_apart and password is not None:
            raise ConfigError("with_rabbitmq(password): the URL has a password already; keep one")
        has_user = self.username is not None or user is not None
        if is_apart and not has_user:
            raise ConfigError("with_rabbitmq(password): needs username, or user@ in the URL")
        if has_user and not is_apart and password is None:
            raise ConfigError(
                "with_rabbitmq: a user without a password; give user:password in the URL, password or password_file"
            )

    def _check_texts(self) -> None:
        for name in ("exchange", "connection_name", "ca_file", "cert_file", "key_file", "username"):
            _CHECK.text(name, getattr(self, name))
        for name in ("key_password", "password"):
            _CHECK.secret(name, getattr(self, name), getattr(self, f"{name}_file"))
        if self.exchange is not None and (len(self.exchange) > 120 or self.exchange.startswith("amq.")):
            raise ConfigError(
                f"with_rabbitmq(exchange): expected up to 120 characters that do not begin with 'amq.', got {self.exchange!r}"
            )


def read_url(url: object) -> tuple[Address, str | None, str | None]:
    """Read `amqp://user:password@host:port,host:port/vhost`: the address, and user and password as far as it names them.

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
    if has_user and not username:
        raise ConfigError("with_rabbitmq(url): expected user:password or user before the '@'")
    path = parts.path.removeprefix("/")
    if "/" in path:
        raise ConfigError("with_rabbitmq(url): a vhost with '/' in its name; write it as %2F")
    address = Address(
        nodes=tuple(_read_node(server.strip(), TLS_PORT if tls else PORT) for server in servers.split(",")),
        vhost=unquote(path) if path else "/",
        username=unquote(username) if has_user else GUEST,
        password=unquote(password) if has_password else GUEST,
        tls=tls,
    )
    return address, unquote(username) if has_user else None, unquote(password) if has_password else None


def _read_node(server: str, default: int) -> Node:
    found = _NODE.fullmatch(server)
    if found is None or not 0 < int(found[3] or default) < 65536:
        raise ConfigError(f"with_rabbitmq(url): expected host, host:port or several with commas, got {server!r}")
    return Node(found[1] or found[2], int(found[3] or default))


_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+))(?::(\d{1,5}))?")
