"""What can be configured and by which name, and what is refused with the reason. Pure."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

from nova import options
from nova.errors import ConfigError
from nova.options import Option

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

_REFUSED: Mapping[object, str] = {
    "auto_commit": "it would acknowledge tasks before they are done; leave it out, Nova acknowledges after success",
    "broadcasting": "it would lose what a stopped worker missed; give each worker a group_id of its own instead",
    "consume_orderly": "one failing or slow task would hold up all behind it; leave it out, and give order to a handler by "
    "enqueueing its next task from it",
    "prefetch_size": "no RabbitMQ server takes one; bound the bytes with prefetch and max_body_bytes",
}
_CALLED: Mapping[object, str] = {
    "brokers": "bootstrap_servers",
    "consume_timeout": "invisible_duration (how long a task of a dead worker waits), and process_timeout of a task",
    "consumer_group": "group_id",
    "exchange_name": "exchange",
    "max_poll_interval_ms": "max_poll_interval, in seconds",
    "name_servers": "endpoints (the gRPC proxies) and admin (the name server)",
    "prefetch_count": "prefetch",
    "security_protocol": "tls and sasl_mechanism",
    "session_timeout_ms": "session_timeout, in seconds",
}
"""Names that other clients and the Go Nova have for an option, and Nova's."""
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
    if name in _REFUSED:
        raise ConfigError(f"{where}: {name!r} is refused: {_REFUSED[name]}")
    if name in _CALLED:
        raise ConfigError(f"{where}: unknown {name!r}; Nova calls it {_CALLED[name]}")
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise ConfigError(f"{where}: unknown {name!r}; {hint}")
