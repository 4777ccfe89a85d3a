"""Text as what an option takes, with `${NAME}` in it replaced by environment variables. Pure.

No error shows a value: it may be a secret, and one that stands where it does not belong, too.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from nova.config.names import is_object, kinds_of
from nova.errors import ConfigError

__all__ = ["Text", "escape", "read_text", "resolve", "resolve_url"]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[a-z]+://([^@/]*)@")


@dataclass(frozen=True, slots=True)
class Text:
    """An option from a URL or a variable, not yet read as what it takes; references in it stand for variables."""

    text: str = field(repr=False)


def escape(text: str) -> str:
    """Text without references that `resolve` gives back as it is."""
    return text.replace("${", "$${")


def resolve(text: str, environ: Mapping[str, str], where: str, encode: Callable[[str], str] = str) -> str:
    """Text with each `${NAME}` replaced by that variable, and each `$${` by `${`.

    Raises:
        ConfigError: a variable is not set, or something between the braces is no name.
    """

    def value(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        name = found[1]
        if not found[2] or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{where}: expected ${{NAME}}, the name of an environment variable; write $${{ for a literal ${{"
            )
        if name not in environ:
            raise ConfigError(
                f"{where}: the environment variable {name} is not set; set it, or write $${{ for a literal ${{"
            )
        return encode(environ[name])

    return _REFERENCE.sub(value, text)


def resolve_url(text: str, environ: Mapping[str, str], where: str) -> str:
    """`resolve` for a URL: a user name or password from a variable may hold any character and needs no `%40`."""
    user = _USER.match(text)
    if user is None:
        return resolve(text, environ, where)
    begin, end = user.span(1)
    encoded = resolve(text[begin:end], environ, where, lambda value: quote(value, safe=""))
    return text[:begin] + encoded + resolve(text[end:], environ, where)


def read_text(parameter: inspect.Parameter, text: str, where: str) -> Any:
    """Text as what a parameter takes; a wrong number is left for the function to refuse.

    Raises:
        ConfigError: text cannot say it, or it is no JSON object where one is expected.
    """
    if is_object(parameter):
        raise ConfigError(f"{where}: cannot be said by text; it is an object, which code makes")
    kinds = kinds_of(parameter)
    if "str" in kinds:
        return text
    if kinds[0] == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kinds[0].startswith("Mapping"):
        return _read_object(text, where)
    return _number(text)


def _read_object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:  # not chained: it holds the text
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f'{where}: expected a JSON object such as {{"linger.ms": 5}}')
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
