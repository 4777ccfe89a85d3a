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
from urllib.parse import parse_qsl, unquote, urlsplit

from nova import options
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["from_config", "from_environment", "from_url"]

_DRIVERS: dict[str, Callable[..., Option]] = {
    "kafka": options.with_kafka,
    "memory": options.with_memory,
    "sqlite": options.with_sqlite,
}
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
    """The options of a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `memory://name`.

    The query holds the driver's options and `group_id`, `topic_prefix`, `message_format`:
    `sqlite:///nova.db?group_id=billing&lease=10`.

    Raises:
        ConfigError: unknown scheme or parameter, or an illegal value.
    """
    if not isinstance(url, str):
        raise ConfigError(f"from_url: expected text, got {url!r}")
    parts = urlsplit(url)
    if parts.fragment:
        raise ConfigError(f"from_url: '#{parts.fragment}' means nothing here; write # in a path as %23")
    _check_known(parts.scheme, _DRIVERS, "from_url: scheme")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    if len(query) < len(pairs):
        raise ConfigError(f"from_url: a parameter is given twice in ?{parts.query}; keep one")
    found = [_VALUES[key](query.pop(key)) for key in list(query) if key in _VALUES]
    section: dict[str, Any] = {key: _number(value) for key, value in query.items()}
    if parts.scheme == "sqlite":
        path = unquote(parts.netloc + parts.path).removeprefix("/")
        if path:
            section["path"] = path
    else:
        if parts.path.strip("/"):
            raise ConfigError(f"from_url: {parts.scheme}:// takes a name, not a path; write {parts.scheme}://name")
        if parts.netloc:
            section["name"] = unquote(parts.netloc)
    return [_call(_DRIVERS[parts.scheme], section, f"from_url: {parts.scheme}"), *found]


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
        raise ConfigError(f"{where}: expected a table of options, got {section!r}")
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


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
