"""The JSON schema of a configuration, for editors: what can be said of an option without looking at another. Pure."""

from __future__ import annotations

from typing import Any

from nova import routing
from nova.brokers.checks import Seconds, Share, Whole
from tests.docs.reference.described import REQUIRED, Described, sections, singles

__all__ = ["schema"]

_REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", "description": "an environment variable"}
_NAME = {"type": "string", "pattern": f"^{routing.NAME_PATTERN}$"}
_JSON_TYPES = {"text": "string", "path": "string", "bool": "boolean"}


def schema() -> dict[str, Any]:
    """The document, draft 2020-12."""
    tables = {name: _table(found) for name, found in sections().items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a Nova task queue",
        "type": "object",
        "additionalProperties": False,
        "properties": {**{option.name: _option(option) for option in singles()}, **tables},
        "$defs": {"reference": _REFERENCE, "name": _NAME},
    }


def _table(found: list[Described]) -> dict[str, Any]:
    said = [option for option in found if option.kind != "object"]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [option.name for option in said if option.default is REQUIRED],
        "properties": {option.name: _option(option) for option in said},
    }


def _option(option: Described) -> dict[str, Any]:
    described: dict[str, Any] = {"description": option.meaning, **_values(option)}
    if option.default is not REQUIRED and option.default is not None and option.name != "broker":
        described["default"] = list(option.default) if isinstance(option.default, tuple) else option.default
    return described


def _values(option: Described) -> dict[str, Any]:
    if option.choices:
        return _or_reference({"enum": list(option.choices)})
    if option.name in ("group_id", "topic_prefix"):
        return _or_reference({"$ref": "#/$defs/name"})
    if option.kind == "names":
        items = _or_reference({"$ref": "#/$defs/name"})
        return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}
    if option.kind == "table":
        return {"type": "object"}
    if option.bound is not None:
        return _or_reference(_between(option.bound))
    if option.kind == "bool":
        return _or_reference({"type": "boolean"})
    # RocketMQ's admin = "" means none.
    return {"type": _JSON_TYPES[option.kind], **({} if option.name in ("admin", "name") else {"minLength": 1})}


def _between(bound: Whole | Seconds | Share) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "integer" if isinstance(bound, Whole) else "number", "minimum": bound.least}
    if bound.most is not None:
        found["maximum"] = bound.most
    if isinstance(bound, Whole) and bound.besides is not None:
        return {"anyOf": [found, {"const": bound.besides}]}
    return found


def _or_reference(values: dict[str, Any]) -> dict[str, Any]:
    """What an option takes, or text with a variable in it."""
    return {"anyOf": [values, {"$ref": "#/$defs/reference"}]}
