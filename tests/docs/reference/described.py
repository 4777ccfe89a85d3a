"""Every option that can be configured, with all that its function, its docstring and its bounds say. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nova import options
from nova.brokers.checks import Seconds, Share, Whole
from nova.config.names import DRIVERS, SECTIONS, VALUES, Function, kinds_of, parameters_of
from nova.options.bounds import BOUNDS, CHOICES

__all__ = ["REQUIRED", "Described", "sections", "singles"]

REQUIRED = inspect.Parameter.empty
"""The default of an option that must be given."""


@dataclass(frozen=True, slots=True)
class Described:
    """One option.

    Attributes:
        section: the TOML table it stands in, "" = on top.
        kind: `text`, `path`, `bool`, `integer`, `number`, `seconds`, `table`, `names` or `object`.
    """

    section: str
    name: str
    kind: str
    default: Any
    meaning: str
    bound: Whole | Seconds | Share | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "_".join(part for part in ("NOVA", self.section, self.name) if part).upper()


def sections() -> dict[str, list[Described]]:
    """The options of every table, those of the drivers first."""
    return {name: _described(name, function) for name, function in {**DRIVERS, **SECTIONS}.items()}


def singles() -> list[Described]:
    """The options that stand on top."""
    driver = Described("", "broker", "text", "the only section, else sqlite", "The driver.", choices=tuple(DRIVERS))
    found = [driver]
    defaults = {"group_id": "TASK_QUEUE_GROUP", "topic_prefix": "TASK_QUEUE", "message_format": "json"}
    for name, function in VALUES.items():
        (parameter,) = parameters_of(function)
        choices = CHOICES.get((function.__name__, parameter), ())
        found.append(Described("", name, "text", defaults[name], _summary(function), choices=choices))
    return [*found, Described("", "queues", "names", ("default",), _summary(options.with_queues))]


def _described(section: str, function: Function) -> list[Described]:
    meanings = _meanings(function)
    bounds = BOUNDS.get(function.__name__, {})
    return [
        Described(
            section,
            name,
            _kind(name, parameter, bounds.get(name)),
            parameter.default,
            meanings[name],
            bounds.get(name),
            CHOICES.get((function.__name__, name), ()),
        )
        for name, parameter in parameters_of(function).items()
    ]


def _kind(name: str, parameter: inspect.Parameter, bound: object) -> str:
    by_bound: dict[type, str] = {Whole: "integer", Seconds: "seconds", Share: "number"}
    if bound is not None:
        return by_bound[type(bound)]
    if name.endswith("_file") or name == "path":
        return "path"
    return {"str": "text", "bool": "bool", "Mapping[str, Any]": "table"}.get(kinds_of(parameter)[0], "object")


def _meanings(function: Function) -> Mapping[str, str]:
    """The `Args:` of a docstring."""
    text = inspect.getdoc(function) or ""
    _, _, args = text.partition("Args:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", args, flags=re.MULTILINE)
    return {name: _sentence(meaning) for name, meaning in found}


def _summary(function: Function) -> str:
    return _sentence((inspect.getdoc(function) or "").split("\n\n")[0])


def _sentence(text: str) -> str:
    joined = " ".join(text.split())
    return joined[0].upper() + joined[1:]
