"""Names that other clients and the Go Nova have for an option, and why Nova has none of that name. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec

from nova.errors import ConfigError
from nova.options.option import Option

__all__ = ["CALLED", "REFUSED", "explained", "reason_of"]

P = ParamSpec("P")

REFUSED: Mapping[object, str] = {
    "auto_commit": "it would acknowledge tasks before they are done; leave it out, Nova acknowledges after success",
    "broadcasting": "it would lose what a stopped worker missed; give each worker a group_id of its own instead",
    "consume_orderly": "one failing or slow task would hold up all behind it; leave it out, and give order to a handler by "
    "enqueueing its next task from it",
    "prefetch_size": "no RabbitMQ server takes one; bound the bytes with prefetch and max_body_bytes",
}
"""What would break a promise, and the reason."""
CALLED: Mapping[object, str] = {
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
"""The same under another name, and Nova's."""


def reason_of(name: object) -> str | None:
    """Why there is no option of this name, and what there is; None if nobody would expect one."""
    if name in REFUSED:
        return f"{name!r} is refused: {REFUSED[name]}"
    if name in CALLED:
        return f"unknown {name!r}; Nova calls it {CALLED[name]}"
    return None


def explained(function: Callable[P, Option]) -> Callable[P, Option]:
    """The function, where such a name raises `ConfigError` with the reason; any other unknown one is Python's `TypeError`."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Option:
        for name in kwargs:
            reason = None if name in known else reason_of(name)
            if reason is not None:
                raise ConfigError(f"{function.__name__}: {reason}")
        return function(*args, **kwargs)

    return checked
