"""Options from one mapping, whichever form it was read from: a section is a call of its function. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nova import options
from nova.config.names import DRIVERS, KEYS, SECTIONS, VALUES, Function, check_known, kinds_of, parameters_of
from nova.config.texts import Text, read_text, resolve, resolve_url
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["build"]


def build(values: Mapping[str, Any], where: str, environ: Mapping[str, str]) -> list[Option]:
    """The options that values say. Of the drivers' sections only that of the chosen one is looked at.

    Args:
        values: `broker`, single options, and sections by name.
        where: what errors begin with.
        environ: the variables that `${NAME}` stands for.

    Raises:
        ConfigError: an unknown key, an illegal value, or a variable that is not set.
    """
    for key in values:
        check_known(str(key), KEYS, where)
    driver = _driver_of(values, where, environ)
    found = [_call(DRIVERS[driver], values.get(driver, {}), f"{where}: [{driver}]", environ)]
    for key, value in values.items():
        if key in VALUES:
            found.append(VALUES[key](_resolved(value, f"{where}: {key}", environ)))
        elif key in SECTIONS:
            found.append(_call(SECTIONS[key], value, f"{where}: [{key}]", environ))
        elif key == "queues":
            found.append(options.with_queues(*options.check_queues(_names(value, f"{where}: queues", environ))))
    return found


def _driver_of(values: Mapping[str, Any], where: str, environ: Mapping[str, str]) -> str:
    """The driver's name: `broker`, or the only driver that has a section, or SQLite.

    Raises:
        ConfigError: an unknown name, or sections of two drivers and no `broker`.
    """
    sections = [name for name in DRIVERS if name in values]
    broker = _resolved(values.get("broker"), f"{where}: broker", environ)
    if broker is None:
        if len(sections) > 1:
            raise ConfigError(
                f"{where}: two drivers, [{sections[0]}] and [{sections[1]}]; "
                "say which by `broker`, or the variable NOVA_BROKER"
            )
        broker = sections[0] if sections else "sqlite"
    if isinstance(broker, str) and not broker.isidentifier():  # not shown: a URL with a password may have come here
        raise ConfigError(f"{where}: broker: expected one of {', '.join(DRIVERS)}; a URL goes to from_url, or NOVA_URL")
    check_known(broker, DRIVERS, f"{where}: broker")
    return str(broker)


def _call(function: Function, section: Any, where: str, environ: Mapping[str, str]) -> Option:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: expected a table of options, got {type(section).__name__}")
    parameters = parameters_of(function)
    for key in section:
        check_known(str(key), parameters, where)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in section:
            raise ConfigError(f"{where}: {name!r} is missing")
    try:
        read = {key: _read(parameters[key], value, f"{where} {key}", environ) for key, value in section.items()}
        return function(**read)
    except ConfigError as exc:
        if str(exc).startswith(where):
            raise
        raise ConfigError(f"{where}: {exc}") from exc


def _read(parameter: inspect.Parameter, value: Any, where: str, environ: Mapping[str, str]) -> Any:
    """A value of a section: text from a URL or a variable, or with references, is read as what the option takes."""
    if isinstance(value, Mapping):
        return {key: _resolved(one, where, environ) for key, one in value.items()}
    text = value.text if isinstance(value, Text) else value
    if not isinstance(text, str) or (text is value and "${" not in text):
        return value
    resolved = resolve_url(text, environ, where) if parameter.name == "url" else resolve(text, environ, where)
    read = read_text(parameter, resolved, where)
    if isinstance(read, str) and resolved != text and "str" not in kinds_of(parameter):  # not shown: it may be a secret
        raise ConfigError(f"{where}: expected {parameter.annotation}, and what {text} stands for is none")
    return read


def _resolved(value: Any, where: str, environ: Mapping[str, str]) -> Any:
    text = value.text if isinstance(value, Text) else value
    return resolve(text, environ, where) if isinstance(text, str) else value


def _names(value: Any, where: str, environ: Mapping[str, str]) -> Any:
    """Names of queues: a list, or text with commas from a URL or a variable."""
    if isinstance(value, Text):
        return [name.strip() for name in resolve(value.text, environ, where).split(",")]
    if isinstance(value, list | tuple):
        return [_resolved(name, where, environ) for name in value]
    return value
