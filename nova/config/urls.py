"""Options from a URL: the driver's address, then a query that says the rest by the names of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nova.config.names import DRIVERS, SECTIONS, VALUES, check_known, kinds_of, parameters_of
from nova.config.sections import build
from nova.config.texts import Text
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["from_url", "read_url"]

_SCHEMES = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "kafka": "kafka",
    "memory": "memory",
    "rocketmq": "rocketmq",
    "sqlite": "sqlite",
}
"""The driver that a URL's scheme means."""


def from_url(url: str, environ: Mapping[str, str] = os.environ) -> list[Option]:
    """The options of a URL: `sqlite:///relative.db`, `memory://name`, `kafka://user:password@host:9092,other:9092`.

    RabbitMQ is `amqp://user:password@host:5672/vhost`, or `amqps://…` with TLS; RocketMQ is
    `rocketmq://access-key:secret-key@host:8081,other:8081?admin=host:9876`.

    The query holds the driver's options, `group_id`, `topic_prefix`, `message_format` and `queues`, and those of a section by
    a dotted name: `sqlite:///nova.db?group_id=billing&lease=10&retry.max_retries=5&queues=default,imports`. `${NAME}` stands
    for an environment variable, whose value needs no `%40`. No error shows a password.

    Raises:
        ConfigError: unknown scheme or parameter, an illegal value, or a variable that is not set.
    """
    return build(read_url(url), "from_url", environ)


def read_url(url: str) -> dict[str, Any]:
    """What a URL says, in the form of a file and not checked yet.

    Raises:
        ConfigError: it is none, or of an unknown scheme; or it says something twice.
    """
    if not isinstance(url, str):
        raise ConfigError(f"from_url: expected text, got {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("from_url: this is no URL; expected one such as sqlite:///nova.db") from None
    check_known(parts.scheme, _SCHEMES, "from_url: scheme")
    driver = _SCHEMES[parts.scheme]
    if driver in ("kafka", "rabbitmq", "rocketmq") and "@" in parts.path + parts.query + parts.fragment:
        # Before anything is quoted in an error: a '/', '?' or '#' in a password ends the user's part of the URL.
        raise ConfigError(
            f"from_url: {parts.scheme}: an '@' after the hosts; "
            "write / ? # @ in user names, passwords and values as %2F %3F %23 %40"
        )
    if parts.fragment:
        raise ConfigError("from_url: what follows '#' means nothing here; write # in a path or a value as %23")
    section: dict[str, Any] = {key: Text(text) for key, text in _AUTHORITIES[driver](parts).items()}
    values: dict[str, Any] = {"broker": driver, driver: section}
    for key, text in _query(parts).items():
        if key in section:
            raise ConfigError(
                f"from_url: {parts.scheme}: {key!r} is given twice, before the '?' and after it; keep one"
            )
        _put(values, driver, key, text)
    return values


def _query(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    if len(query) < len(pairs):
        twice = next(key for key in query if [name for name, _ in pairs].count(key) > 1)
        raise ConfigError(f"from_url: the parameter {twice!r} is given twice; keep one")
    return query


def _put(values: dict[str, Any], driver: str, key: str, text: str) -> None:
    """A parameter where it stands in a file: on top, in a section by its dotted name, else in the driver's section."""
    first, dot, rest = key.partition(".")
    parameters = parameters_of(DRIVERS[driver])
    if key in VALUES or key == "queues":
        values[key] = Text(text)
    elif dot and first in SECTIONS:
        values.setdefault(first, {})[rest] = Text(text)
    elif first in parameters and kinds_of(parameters[first])[0].startswith("Mapping"):
        if not rest:
            raise ConfigError(f"from_url: {first!r} is a table; write {first}.<name>=… for each of its entries")
        values[driver].setdefault(first, {})[rest] = Text(text)
    else:
        check_known(key, [*parameters, *VALUES, "queues"], f"from_url: {driver}")
        values[driver][key] = Text(text)


def _sqlite_parts(parts: SplitResult) -> dict[str, str]:
    if "@" in parts.netloc:  # not shown: it looks like a password
        raise ConfigError(
            "from_url: sqlite:// takes a path, no user and no host; write sqlite:///relative.db or sqlite:////absolute.db"
        )
    path = unquote(parts.netloc + parts.path).removeprefix("/")
    return {"path": path} if path else {}


def _memory_parts(parts: SplitResult) -> dict[str, str]:
    _check_no_path(parts, "a name")
    return {"name": unquote(parts.netloc)} if parts.netloc else {}


def _kafka_parts(parts: SplitResult) -> dict[str, str]:
    return _hosts(parts, "bootstrap_servers", "username", "password")


def _rabbitmq_parts(parts: SplitResult) -> dict[str, str]:
    return {"url": f"{parts.scheme}://{parts.netloc}{parts.path}"}


def _rocketmq_parts(parts: SplitResult) -> dict[str, str]:
    return _hosts(parts, "endpoints", "access_key", "secret_key")


def _hosts(parts: SplitResult, hosts: str, user: str, secret: str) -> dict[str, str]:
    """`user:secret@host:port,host:port` under the names that the driver's options have."""
    _check_no_path(parts, "host:port,host:port")
    login, _, servers = parts.netloc.rpartition("@")
    name, has_secret, word = login.partition(":")
    found = {hosts: servers} if servers else {}
    if name:
        found[user] = unquote(name)
    if has_secret:
        found[secret] = unquote(word)
    return found


def _check_no_path(parts: SplitResult, what: str) -> None:
    if parts.path.strip("/"):
        raise ConfigError(f"from_url: {parts.scheme}:// takes {what}, not a path; write {parts.scheme}://{what}")


_AUTHORITIES: dict[str, Callable[[SplitResult], dict[str, str]]] = {
    "kafka": _kafka_parts,
    "memory": _memory_parts,
    "rabbitmq": _rabbitmq_parts,
    "rocketmq": _rocketmq_parts,
    "sqlite": _sqlite_parts,
}
"""What stands before the query of a URL, by driver."""
