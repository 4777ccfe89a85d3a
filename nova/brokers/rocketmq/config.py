"""What `with_rocketmq` holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from nova.brokers.checks import Bounds, OptionChecks, Seconds, Whole
from nova.errors import ConfigError

__all__ = ["Node", "RocketMQConfig"]

_CHECK = OptionChecks("with_rocketmq")

PORT = 8081
NAME_SERVER_PORT = 9876


@dataclass(frozen=True, slots=True)
class Node:
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RocketMQConfig:
    """Options of the RocketMQ driver; `with_rocketmq` describes them. Durations are seconds."""

    endpoints: str
    admin: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    secret_key_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    request_timeout: float = 10.0
    send_timeout: float = 20.0
    invisible_duration: float = 120.0
    poll_timeout: float = 5.0
    max_reconsume_times: int | None = None
    consumer_model: str = "clustering"
    max_body_bytes: int = 4 << 20
    queues_per_topic: int = 4
    delay_guard: float = 1.5
    max_delay: float = 86_400.0

    factory = "nova.brokers.rocketmq.driver:RocketMQDriver"
    extra = "rocketmq"
    bounds: ClassVar[Bounds] = {
        "request_timeout": Seconds(0.5, 20.0),
        "send_timeout": Seconds(0.5, 20.0),
        "invisible_duration": Seconds(2.0, 43_200.0),
        "poll_timeout": Seconds(0.1, 60.0),
        "max_reconsume_times": Whole(0, 1_000_000),
        "max_body_bytes": Whole(1, 128 << 20),
        "queues_per_topic": Whole(1, 1024),
        "delay_guard": Seconds(0.0, 60.0),
        "max_delay": Seconds(0.1, 365 * 86_400.0),
    }

    def __post_init__(self) -> None:
        _read_nodes("endpoints", self.endpoints, PORT)
        if self.admin is not None and self.admin != "":
            _read_nodes("admin", self.admin, NAME_SERVER_PORT)
        _CHECK.text("access_key", self.access_key)
        _CHECK.secret("secret_key", self.secret_key, self.secret_key_file)
        if (self.access_key is None) != (self.secret_key is None and self.secret_key_file is None):
            raise ConfigError(
                "with_rocketmq: access_key and secret_key (or secret_key_file) belong together; give both or neither"
            )
        _CHECK.flag("tls", self.tls)
        _CHECK.text("ca_file", self.ca_file)
        _CHECK.needs_tls(self, "ca_file")
        self._check_consumption()
        _CHECK.bounds(self, self.bounds)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The proxies."""
        return _read_nodes("endpoints", self.endpoints, PORT)

    @property
    def name_servers(self) -> tuple[Node, ...]:
        """Who is asked for the brokers; the usual port beside the first proxy unless something else was said, () = nobody."""
        if self.admin is None:
            return (Node(self.nodes[0].host, NAME_SERVER_PORT),)
        return _read_nodes("admin", self.admin, NAME_SERVER_PORT) if self.admin else ()

    @property
    def keys(self) -> tuple[str, str] | None:
        """Access key and secret key."""
        if self.access_key is None or self.secret_key is None:
            return None
        return self.access_key, self.secret_key

    def _check_consumption(self) -> None:
        model = self.consumer_model
        if isinstance(model, str) and model.lower() == "broadcasting":
            raise ConfigError(
                "with_rocketmq(consumer_model='broadcasting'): it would lose what a stopped worker missed; "
                "give each worker a group_id of its own instead"
            )
        if model != "clustering":
            raise ConfigError(f"with_rocketmq(consumer_model): expected 'clustering', got {model!r}")


def _read_nodes(name: str, text: object, port: int) -> tuple[Node, ...]:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"with_rocketmq({name}): expected 'host:port' or several with commas, got {text!r}")
    if "@" in text:  # not shown: what stands before it may be a secret
        raise ConfigError(
            f"with_rocketmq({name}): expected 'host:port' without a user; give access_key and secret_key on their own"
        )
    return tuple(_read_node(name, part.strip(), port, text) for part in re.split("[,;]", text))


def _read_node(name: str, part: str, port: int, text: str) -> Node:
    found = _NODE.fullmatch(part)
    if found is None or not 0 < int(found[3] or port) < 65536:
        raise ConfigError(f"with_rocketmq({name}): expected 'host:port', got {part!r} in {text!r}")
    return Node(found[1] or found[2], int(found[3] or port))


_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+))(?::(\d{1,5}))?")
