"""gRPC channels to the proxies: what they are told, where they lead, whose certificates they trust. Any thread.

* A channel that has been down waits for up to two minutes before it tries again; here for at most a second.
* A list of proxies must be of addresses, names are refused as a whole; so names are looked up here.
* A file of authorities that cannot be used would be said on stderr only, and the channel then never connects.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc

from nova.brokers.rocketmq.config import Node, RocketMQConfig
from nova.errors import BrokerUnavailable, ConfigError

__all__ = ["Channels"]

_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

_log = logging.getLogger(__name__)


class Channels:
    """Opens channels.

    Args:
        where: the proxies, for messages.

    Raises:
        ConfigError: `ca_file` cannot be read, or holds no certificate.
    """

    def __init__(self, config: RocketMQConfig, where: str) -> None:
        self._config = config
        self._where = where
        self._authorities = None if config.ca_file is None else _certificates(config.ca_file)

    def open(self) -> grpc.Channel:
        """A channel, which connects at its first use.

        Raises:
            BrokerUnavailable: none of several proxies' names is known.
        """
        nodes = self._config.nodes
        target, options = f"{nodes[0].host}:{nodes[0].port}", list[tuple[str, object]](_OPTIONS)
        if len(nodes) > 1:
            options.append(("grpc.default_authority", target))
            target = _addresses(nodes, self._where)
        if self._config.tls:
            return grpc.secure_channel(target, grpc.ssl_channel_credentials(self._authorities), options)
        return grpc.insecure_channel(target, options)


def _certificates(file: str) -> bytes:
    try:
        ssl.create_default_context(cafile=file)
        return Path(file).read_bytes()
    except OSError as exc:  # those of ssl are too
        raise ConfigError(f"with_rocketmq(ca_file): {file!r}: {exc.strerror or exc}; give a PEM file") from exc


def _addresses(nodes: Sequence[Node], where: str) -> str:
    """Several proxies as gRPC takes them: IPv6 addresses, and those of IPv4 written as such."""
    found: list[str] = []
    unknown: list[str] = []
    for node in nodes:
        try:
            answers = socket.getaddrinfo(
                node.host, node.port, socket.AF_INET6, socket.SOCK_STREAM, flags=socket.AI_V4MAPPED | socket.AI_ALL
            )
        except OSError as exc:
            unknown.append(f"{node}: {exc}")
            continue
        found += [f"[{address[0]}]:{node.port}" for *_, address in answers]
    if not found:
        raise BrokerUnavailable(f"{where}: no address for any of these: {'; '.join(unknown)}")
    if unknown:
        _log.warning("%s: going without what has no address: %s", where, "; ".join(unknown))
    return f"ipv6:{','.join(dict.fromkeys(found))}"
