"""What can be configured and by which name, and what is refused with the reason. Pure."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

from nova import options
from nova.errors import ConfigError
from nova.options import Option
from nova.options.refusals import reason_of

__all__ = ["DRIVERS", "KEYS", "SECTIONS", "VALUES", "Function", "check_known", "is_object", "kinds_of", "parameters_of"]

Function = Callable[..., Option]

DRIVERS: dict[str, Function] = {
    "kafka": options.with_kafka,
    "memory": options.with_memory,
    "rabbitmq": options.with_rabbitmq,
    "rocketmq": options.with_rocketmq,
    "sqlite": options.with_sqlite,
}
SECTIONS: dict[str, Function] = {
    "delay_slots": options.with_delay_slots,
    "retry": options.with_retry,
    "priority_weights": options.with_priority_weights,
}
VALUES: dict[str, Function] = {
    "group_id": options.with_group_id,
    "topic_prefix": options.with_topic_prefix,
    "message_format": options.with_message_format,
}
KEYS = ("broker", "queues", *VALUES, *SECTIONS, *DRIVERS)

_OBJECTS = ("RetryPolicy", "OAuthToken")


def parameters_of(function: Function) -> Mapping[str, inspect.Parameter]:
    """What a section may hold: the function's parameters but a policy, which is an object instead of them."""
    found = inspect.signature(function).parameters
    return {name: parameter for name, parameter in found.items() if name != "policy"}


def kinds_of(parameter: inspect.Parameter) -> list[str]:
    """The types it takes, as they are written."""
    return str(parameter.annotation).split(" | ")


def is_object(parameter: inspect.Parameter) -> bool:
    """Whether no text can say it."""
    return any(kind in _OBJECTS for kind in kinds_of(parameter))


def check_known(name: object, known: Iterable[str], where: str) -> None:
    """See that a name is one of the known ones.

    Raises:
        ConfigError: it is not; with the reason if it is refused, else with the name that may be meant.
    """
    names = list(known)
    if name in names:
        return
    reason = reason_of(name)
    if reason is not None:
        raise ConfigError(f"{where}: {reason}")
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise ConfigError(f"{where}: unknown {name!r}; {hint}")
