"""The tables of docs/configuration.md: what stands between two marks is written from the code. Pure."""

from __future__ import annotations

import re

from nova.brokers.checks import Seconds, Share, Whole
from tests.docs.reference.described import REQUIRED, Described, sections, singles

__all__ = ["fill"]

_MARKED = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->\n)", flags=re.DOTALL)

_BEFORE_THE_QUERY = {
    ("kafka", "bootstrap_servers"): "`kafka://…`",
    ("kafka", "username"): "`kafka://…:password@host`",
    ("kafka", "password"): "`kafka://user:…@host`",
    ("memory", "name"): "`memory://…`",
    ("rabbitmq", "url"): "the URL itself",
    ("rocketmq", "endpoints"): "`rocketmq://…`",
    ("rocketmq", "access_key"): "`rocketmq://…:secret@host`",
    ("rocketmq", "secret_key"): "`rocketmq://key:…@host`",
    ("sqlite", "path"): "`sqlite:///…`",
    ("", "broker"): "the scheme",
}
"""Options that stand in a URL before its '?'."""


def fill(page: str) -> str:
    """The page with every marked table written anew."""
    tables = {"queue": singles(), **sections()}
    return _MARKED.sub(lambda found: f"{found[1]}{_table(tables[found[2]])}{found[3]}", page)


def _table(found: list[Described]) -> str:
    head = "| option | type | unit | default | meaning | in a URL | variable |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_row(option))} |\n" for option in found)


def _row(option: Described) -> list[str]:
    is_object = option.kind == "object"
    return [
        f"`{option.name}`",
        _type(option),
        _unit(option),
        _default(option),
        option.meaning.replace("|", "\\|"),
        "–" if is_object else _in_url(option),
        "–" if is_object else f"`{option.variable}`",
    ]


def _type(option: Described) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    names = {"bool": "true or false", "names": "list of names", "object": "function, in code only"}
    bound = option.bound
    if not isinstance(bound, Whole | Seconds | Share):
        return names.get(option.kind, option.kind)
    least, most = (_number(option, value) for value in (bound.least, bound.most))
    kind = "integer" if isinstance(bound, Whole) else "number"
    besides = f", or {bound.besides}" if isinstance(bound, Whole) and bound.besides is not None else ""
    return f"{kind}, {least} to {most}{besides}" if most else f"{kind}, at least {least}"


def _unit(option: Described) -> str:
    if option.kind == "seconds":
        return "s"
    return "bytes" if option.name.endswith("_bytes") else ""


def _default(option: Described) -> str:
    value = option.default
    if value is REQUIRED:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _number(option, value)
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return value if " " in value else f"`{value}`"


def _number(option: Described, value: float | None) -> str:
    if value is None:
        return ""
    if option.name.endswith("_bytes") and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{int(value) >> 20:,} MiB"
    return f"{value:,.10g}"


def _in_url(option: Described) -> str:
    before = _BEFORE_THE_QUERY.get((option.section, option.name))
    if before is not None:
        return before
    if option.kind == "table":
        return f"`?{option.name}.<name>=…`"
    is_dotted = option.section in ("retry", "delay_slots", "priority_weights")
    return f"`?{option.section}.{option.name}=…`" if is_dotted else f"`?{option.name}=…`"
