"""What a worker calls: one function for every task, or the decorated function of the task's type. Checked when given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from nova.batch import Batch, BatchResult
from nova.errors import ConfigError, NovaError
from nova.received import ReceivedTask

__all__ = ["BatchHandler", "Handler", "Handlers", "OneHandler", "ByType", "UnknownType", "check_handler", "is_async"]

Handler = Callable[[ReceivedTask], Any] | Callable[[ReceivedTask], Awaitable[Any]]
BatchHandler = Callable[[Batch], BatchResult | None] | Callable[[Batch], Awaitable[BatchResult | None]]


class UnknownType(NovaError):
    """No handler here knows the task's type; a newer worker may."""

    burial_reason = "unknown type"


class Handlers(Protocol):
    """Finds the function for a task."""

    @property
    def any_async(self) -> bool:
        """Whether any of them is `async def`."""
        ...

    def find(self, task: ReceivedTask) -> tuple[Callable[[ReceivedTask], Any], bool]:
        """The function and whether it is `async def`.

        Raises:
            UnknownType: there is none.
        """
        ...


class OneHandler:
    """The same function for every task."""

    def __init__(self, handler: Handler) -> None:
        self.any_async = is_async(handler)
        self._found = (handler, self.any_async)

    def find(self, task: ReceivedTask) -> tuple[Callable[[ReceivedTask], Any], bool]:
        """That function."""
        del task
        return self._found


class ByType:
    """The function decorated for the task's type."""

    def __init__(self, by_type: Mapping[str, Handler]) -> None:
        self._by_type = by_type
        self.any_async = any(is_async(handler) for handler in by_type.values())
        self._is_async = functools.cache(is_async)

    def find(self, task: ReceivedTask) -> tuple[Callable[[ReceivedTask], Any], bool]:
        """The function of the task's type.

        Raises:
            UnknownType: nothing was decorated for it.
        """
        handler = self._by_type.get(task.type)
        if handler is None:
            raise UnknownType(f"no handler for type {task.type!r}; known here: {', '.join(sorted(self._by_type))}")
        return handler, self._is_async(handler)


def check_handler(handler: object, what: str = "handler", *arguments: str) -> None:
    """Refuse what could not be called with these arguments (default: one task).

    Raises:
        ConfigError: not callable, a generator, or not with these positional arguments.
    """
    names = arguments or ("task",)
    count = "one argument" if len(names) == 1 else f"{len(names)} arguments"
    if not callable(handler):
        raise ConfigError(f"{what}: expected a function of {count}, got {handler!r}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigError(f"{what}: {_name(handler)} is a generator; its body would never run: return instead of yield")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # a builtin that does not tell; the call itself will
    try:
        signature.bind(*names)
    except TypeError as exc:
        raise ConfigError(
            f"{what}: {_name(handler)}{signature} cannot be called with {count} ({exc}); expected a function of "
            f"({', '.join(names)})"
        ) from exc


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)
