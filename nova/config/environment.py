"""Options from environment variables: `NOVA_CONFIG` or `NOVA_URL`, and one variable for every option.

`NOVA_GROUP_ID` is `group_id`, `NOVA_KAFKA_PASSWORD` is `password` in `[kafka]`: the names are those of the TOML file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

from nova.config.files import read_file
from nova.config.names import DRIVERS, SECTIONS, VALUES, is_object, parameters_of
from nova.config.sections import build
from nova.config.texts import Text, escape
from nova.config.urls import read_url
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["VARIABLES", "from_environment"]

_SOURCES = ("NOVA_CONFIG", "NOVA_URL")

VARIABLES: Mapping[str, tuple[str, ...]] = {
    **{f"NOVA_{key.upper()}": (key,) for key in ("broker", *VALUES, "queues")},
    **{
        f"NOVA_{section}_{name}".upper(): (section, name)
        for section, function in {**SECTIONS, **DRIVERS}.items()
        for name, parameter in parameters_of(function).items()
        if not is_object(parameter)
    },
}
"""Where the option of each variable stands in a file."""

_OTHERS = re.compile(
    r"NOVA_TEST_.*"  # Nova's own tests
    r"|NOVA_(KAFKA|RABBITMQ|ROCKETMQ)"  # the servers of the demo and the benchmarks
    # What Kubernetes and Docker set for a service called nova or nova-kafka.
    r"|NOVA_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Names that are no options, however near to one."""

_NEAR = 0.85
"""How alike a name must be to an option's to be taken for a slip; a program may have variables of its own."""


def from_environment(environ: Mapping[str, str] = os.environ) -> list[Option]:
    """The options of `NOVA_CONFIG` (a TOML file) or `NOVA_URL`, and of the variables of single options.

    A variable of one option is laid over the file. Beside `NOVA_URL` it adds what the URL does not say. Without both,
    variables alone must name the broker.

    Raises:
        ConfigError: nothing names a broker, an option is said twice, a name looks like an option's and is none, or what is
            named is wrong.
    """
    said = _read_variables(environ)
    path, url = (environ.get(name) for name in _SOURCES)
    if path and url:
        raise ConfigError("from_env: NOVA_CONFIG and NOVA_URL are both set; keep one")
    if url:
        return build(_beside(read_url(url), said), "from_env", environ)
    if path:
        return build(_over(read_file(path), said), f"from_env: {path}", environ)
    if "broker" not in said and not any(driver in said for driver in DRIVERS):
        raise ConfigError(
            "from_env: nothing names a broker; set NOVA_CONFIG to a TOML file, NOVA_URL to a URL such as sqlite:///nova.db, "
            "or NOVA_BROKER"
        )
    return build(said, "from_env", environ)


def _read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(environ):
        if name in VARIABLES:
            *section, key = VARIABLES[name]
            table = found.setdefault(section[0], {}) if section else found
            table[key] = Text(escape(environ[name]))
        elif name.startswith("NOVA_") and name not in _SOURCES and not _OTHERS.fullmatch(name):
            _check_unlike(name)
    return found


def _check_unlike(name: str) -> None:
    begins = [f"NOVA_{section}_".upper() for section in (*SECTIONS, *DRIVERS)]
    near = difflib.get_close_matches(name, [*VARIABLES, *_SOURCES], n=1, cutoff=_NEAR)
    if not near and not name.startswith(tuple(begins)):
        return
    begin = next((begin for begin in begins if name.startswith(begin)), "")
    near = near or difflib.get_close_matches(name, [known for known in VARIABLES if known.startswith(begin)], n=1)
    hint = f"; did you mean {near[0]}?" if near else "; docs/configuration.md lists the variables"
    raise ConfigError(f"from_env: {name} is no option{hint}")


def _beside(values: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What a URL and variables say together: nothing twice."""
    for name, (*section, key) in VARIABLES.items():
        there = values.get(section[0], {}) if section else values
        mine = said.get(section[0], {}) if section else said
        if key in there and key in mine:
            raise ConfigError(f"from_env: NOVA_URL and {name} both say {key!r}; keep one")
    return _over(values, said)


def _over(values: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Values with those of variables laid over them."""
    found = dict(values)
    for key, value in said.items():
        under = found.get(key, {})
        found[key] = {**under, **value} if isinstance(value, Mapping) and isinstance(under, Mapping) else value
    return found
