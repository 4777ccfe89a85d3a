"""A queue's options from a mapping, a TOML file, a URL or the environment.

The options are the `with_…` functions: a section's keys are a function's parameters, read from its signature, so nothing
can be configured that code could not say, and the checks are the same.
"""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nova import options
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["from_config", "from_environment", "from_url"]

_DRIVERS: dict[str, Callable[..., Option]] = {
    "kafka": options.with_kafka,
    "memory": options.with_memory,
    "rabbitmq": options.with_rabbitmq,
    "rocketmq": options.with_rocketmq,
    "sqlite": options.with_sqlite,
}
_SCHEMES = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "kafka": "kafka",
    "memory": "memory",
    "rocketmq": "rocketmq",
    "sqlite": "sqlite",
}
"""The driver that a URL's scheme means."""
_SECTIONS: dict[str, Callable[..., Option]] = {
    "delay_slots": options.with_delay_slots,
    "retry": options.with_retry,
    "priority_weights": options.with_priority_weights,
}
_VALUES: dict[str, Callable[..., Option]] = {
    "group_id": options.with_group_id,
    "topic_prefix": options.with_topic_prefix,
    "message_format": options.with_message_format,
}
_REFUSED: dict[object, str] = {
    "auto_commit": "it would acknowledge tasks before they are done; leave it out, Nova acknowledges after success",
    "broadcasting": "it would lose what a stopped worker missed; give each worker a group_id of its own instead",
}
_KEYS = ("broker", "queues", *_VALUES, *_SECTIONS, *_DRIVERS)


def from_config(source: str | Path | Mapping[str, Any]) -> list[Option]:
    """The options of a TOML file or a mapping of the same form.

    `broker = "sqlite"` picks the driver, and `[sqlite]` holds its options; sections of other drivers may stay. Without
    `broker` the only driver section rules; with none at all, SQLite.

    Raises:
        ConfigError: no such file, no TOML, an unknown key (the nearest name is suggested), an illegal value.
    """
    if not isinstance(source, (str, Path, Mapping)):
        raise ConfigError(f"config: expected the path of a TOML file or a mapping, got {source!r}")
    values, where = (source, "config") if isinstance(source, Mapping) else (_read_toml(Path(source)), str(source))
    for key in values:
        _check_known(str(key), _KEYS, where)
    found = [_driver(values, where)]
    for key, value in values.items():
        if key in _VALUES:
            found.append(_VALUES[key](value))
        elif key in _SECTIONS:
            found.append(_call(_SECTIONS[key], value, f"{where}: [{key}]"))
        elif key == "queues":
            found.append(options.with_queues(*options.check_queues(value)))
    return found


def from_url(url: str) -> list[Option]:
    """The options of a URL: `sqlite:///relative.db`, `memory://name`, `kafka://user:password@host:9092,other:9092`.

    RabbitMQ is `amqp://user:password@host:5672/vhost`, or `amqps://…` with TLS; RocketMQ is
    `rocketmq://access-key:secret-key@host:8081,other:8081?admin=host:9876`.

    The query holds the driver's options and `group_id`, `topic_prefix`, `message_format`:
    `sqlite:///nova.db?group_id=billing&lease=10`. No error shows a password.

    Raises:
        ConfigError: unknown scheme or parameter, or an illegal value.
    """
    if not isinstance(url, str):
        raise ConfigError(f"from_url: expected text, got {url!r}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("from_url: this is no URL; expected one such as sqlite:///nova.db") from None
    _check_known(parts.scheme, _SCHEMES, "from_url: scheme")
    driver = _SCHEMES[parts.scheme]
    if driver in ("kafka", "rabbitmq", "rocketmq") and "@" in parts.path + parts.query + parts.fragment:
        # Before anything is quoted in an error: a '/', '?' or '#' in a password ends the user's part of the URL.
        raise ConfigError(
            f"from_url: {parts.scheme}: an '@' after the hosts; "
            "write / ? # @ in user names, passwords and values as %2F %3F %23 %40"
        )
    if parts.fragment:
        raise ConfigError(f"from_url: '#{parts.fragment}' means nothing here; write # in a path as %23")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    if len(query) < len(pairs):
        twice = next(key for key in query if [name for name, _ in pairs].count(key) > 1)
        raise ConfigError(f"from_url: the parameter {twice!r} is given twice; keep one")
    found = [_VALUES[key](query.pop(key)) for key in list(query) if key in _VALUES]
    function = _DRIVERS[driver]
    section = {key: _read_text(function, key, text) for key, text in query.items()}
    for key, text in _AUTHORITIES[driver](parts).items():
        if key in section:
            raise ConfigError(
                f"from_url: {parts.scheme}: {key!r} is given twice, before the '?' and after it; keep one"
            )
        section[key] = text
    return [_call(function, section, f"from_url: {parts.scheme}"), *found]


def from_environment(environ: Mapping[str, str]) -> list[Option]:
    """The options of `NOVA_CONFIG` (a TOML file) or `NOVA_URL`.

    Raises:
        ConfigError: neither or both are set, or what they name is wrong.
    """
    path, url = environ.get("NOVA_CONFIG"), environ.get("NOVA_URL")
    if path and url:
        raise ConfigError("from_env: NOVA_CONFIG and NOVA_URL are both set; keep one")
    if path:
        return from_config(path)
    if url:
        return from_url(url)
    raise ConfigError("from_env: set NOVA_CONFIG to a TOML file or NOVA_URL to a URL such as sqlite:///nova.db")


def _driver(values: Mapping[str, Any], where: str) -> Option:
    sections = [name for name in _DRIVERS if name in values]
    broker = values.get("broker")
    if broker is None:
        if len(sections) > 1:
            raise ConfigError(f'{where}: two drivers, [{sections[0]}] and [{sections[1]}]; say which: broker = "…"')
        broker = sections[0] if sections else "sqlite"
    _check_known(broker, _DRIVERS, f"{where}: broker")
    return _call(_DRIVERS[broker], values.get(broker, {}), f"{where}: [{broker}]")


def _call(function: Callable[..., Option], section: Any, where: str) -> Option:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: expected a table of options, got {type(section).__name__}")
    parameters = inspect.signature(function).parameters
    known = [name for name in parameters if name != "policy"]
    for key in section:
        _check_known(str(key), known, where)
    missing = [name for name in known if parameters[name].default is inspect.Parameter.empty and name not in section]
    if missing:
        raise ConfigError(f"{where}: {missing[0]!r} is missing")
    try:
        return function(**section)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _check_known(name: object, known: Iterable[str], where: str) -> None:
    names = list(known)
    if name in names:
        return
    if name in _REFUSED:
        raise ConfigError(f"{where}: {name!r} is refused: {_REFUSED[name]}")
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise ConfigError(f"{where}: unknown {name!r}; {hint}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"config: cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"config: {path} is no TOML: {exc}") from exc


def _sqlite_parts(parts: SplitResult) -> dict[str, str]:
    path = unquote(parts.netloc + parts.path).removeprefix("/")
    return {"path": path} if path else {}


def _memory_parts(parts: SplitResult) -> dict[str, str]:
    _check_no_path(parts, "a name")
    return {"name": unquote(parts.netloc)} if parts.netloc else {}


def _kafka_parts(parts: SplitResult) -> dict[str, str]:
    _check_no_path(parts, "host:port,host:port")
    user, _, servers = parts.netloc.rpartition("@")
    username, has_password, password = user.partition(":")
    found = {"bootstrap_servers": servers} if servers else {}
    if username:
        found["username"] = unquote(username)
    if has_password:
        found["password"] = unquote(password)
    return found


def _rabbitmq_parts(parts: SplitResult) -> dict[str, str]:
    return {"url": f"{parts.scheme}://{parts.netloc}{parts.path}"}


def _rocketmq_parts(parts: SplitResult) -> dict[str, str]:
    _check_no_path(parts, "host:port,host:port")
    user, _, servers = parts.netloc.rpartition("@")
    access_key, has_secret, secret_key = user.partition(":")
    found = {"endpoints": servers} if servers else {}
    if access_key:
        found["access_key"] = unquote(access_key)
    if has_secret:
        found["secret_key"] = unquote(secret_key)
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


def _read_text(function: Callable[..., Option], key: str, text: str) -> Any:
    """A query's text as what the function takes; what cannot be read is left for the function to refuse."""
    parameter = inspect.signature(function).parameters.get(key)
    kinds = str(parameter.annotation).split(" | ") if parameter is not None else []
    if not kinds or "str" in kinds:
        return text
    if kinds[0] == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kinds[0] in ("int", "float"):
        return _number(text)
    raise ConfigError(f"from_url: {key!r} cannot be said in a URL; use {function.__name__}({key}=…)")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
