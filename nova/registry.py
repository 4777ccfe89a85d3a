"""Decorated tasks: a function becomes a task type, its signature the payload's form.

The payload is a JSON object by parameter name, checked by the annotations when it is enqueued and again when it is run.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, get_type_hints

import msgspec

from nova import payload
from nova.enqueue_options import EnqueueOption, resolve
from nova.errors import ConfigError, DecodeError, EncodeError
from nova.handlers import Handler, is_async
from nova.received import ReceivedTask
from nova.task import Enqueued, Task, check_type

__all__ = ["DecoratedTask", "Registry"]

P = ParamSpec("P")
R = TypeVar("R")


_DUE = {"process_in", "process_at"}
"""Two names of one choice: either replaces the other."""


class Enqueuer(Protocol):
    """The queue's own verbs, as far as a decorated task needs them."""

    def enqueue(self, task: Task, *options: EnqueueOption, **keywords: Any) -> Enqueued:
        """Enqueue and wait."""
        ...

    async def aenqueue(self, task: Task, *options: EnqueueOption, **keywords: Any) -> Enqueued:
        """Enqueue and await."""
        ...


class Registry:
    """The decorated functions of one queue, by type. Registering is safe from any thread."""

    def __init__(self) -> None:
        self.by_type: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._sealed = False

    def seal(self) -> dict[str, Handler]:
        """Refuse further functions, since a worker runs these from now on."""
        with self._lock:
            self._sealed = True
            return self.by_type

    def add(self, type: str, handler: Handler) -> None:
        """Register a handler.

        Raises:
            ConfigError: the type is taken, or a worker has started on the decorated tasks.
        """
        with self._lock:
            if self._sealed:
                raise ConfigError(
                    f"task {type!r}: decorated after start(); decorate every task before the worker starts"
                )
            if type in self.by_type:
                raise ConfigError(f"task: the type {type!r} is registered already; a type has one function")
            self.by_type[type] = handler


class DecoratedTask(Generic[P, R]):
    """A function that is also a task type. Calling it runs it; `enqueue` sends it to a worker."""

    def __init__(
        self, queue: Enqueuer, function: Callable[P, R], type: str, options: dict[str, Any], arguments: Arguments
    ) -> None:
        self._queue = queue
        self._function = function
        self._options = options
        self._arguments = arguments
        self.type = type
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type)
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now."""
        return self._function(*args, **kwargs)

    def options(self, *options: EnqueueOption, **keywords: Any) -> DecoratedTask[P, R]:
        """The same task with other enqueue options; a later one replaces an earlier one of its name.

        Raises:
            ConfigError: unknown, illegal, or given twice here.
        """
        resolve(options, keywords)
        given = {**{option.name: option for option in options}, **keywords}
        kept = self._options
        if given.keys() & _DUE:
            kept = {name: value for name, value in kept.items() if name not in _DUE}
        merged = {**kept, **given}
        return DecoratedTask(self._queue, self._function, self.type, merged, self._arguments)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """Enqueue a call with these arguments; returns when the broker has stored it.

        Raises:
            TypeError: the arguments do not fit the signature.
            EncodeError: one is not of its annotated type, or cannot be encoded.
            PublishError: the broker did not confirm it.
        """
        task = self._task(args, kwargs)
        functions, keywords = self._split_options()
        return self._queue.enqueue(task, *functions, **keywords)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """`enqueue` for asyncio."""
        task = self._task(args, kwargs)
        functions, keywords = self._split_options()
        return await self._queue.aenqueue(task, *functions, **keywords)

    def _task(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Task:
        return Task(self.type, self._arguments.pack(args, kwargs))

    def _split_options(self) -> tuple[list[EnqueueOption], dict[str, Any]]:
        functions = [value for value in self._options.values() if isinstance(value, EnqueueOption)]
        return functions, {name: v for name, v in self._options.items() if not isinstance(v, EnqueueOption)}


class Arguments:
    """A function's parameters as a strict JSON object.

    Raises:
        ConfigError: a parameter that has no name in JSON (`*args`, `**kwargs`, positional-only), or a type nobody can read.
    """

    def __init__(self, function: Callable[..., Any], type: str) -> None:
        self._type = type
        self._signature = inspect.signature(function)
        try:
            hints = get_type_hints(function, include_extras=True)
        except (NameError, TypeError) as exc:
            raise ConfigError(
                f"task {type!r}: expected a plain function whose annotations can be read, got {function!r}: {exc}"
            ) from exc
        fields: list[Any] = []
        for name, parameter in self._signature.parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ConfigError(
                    f"task {type!r}: the parameter {parameter} has no name in a payload; "
                    "give each argument a name of its own"
                )
            field: tuple[Any, ...] = (name, hints.get(name, Any))
            if parameter.default is not parameter.empty:
                field = (*field, msgspec.field(default_factory=functools.partial(_same, parameter.default)))
            fields.append(field)
        fields.sort(key=len)
        self._model: Any = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True)
        self._decode = payload.decoder(self._model).decode

    def pack(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The payload of a call, checked as the worker will check it.

        Raises:
            TypeError: the arguments do not fit the signature.
            EncodeError: one is not of its annotated type.
        """
        bound = self._signature.bind(*args, **kwargs)
        values = dict(bound.arguments)
        data, _ = payload.encode(values)
        try:
            self._decode(data)
        except msgspec.MsgspecError as exc:
            raise EncodeError(f"task {self._type!r}: the arguments do not fit its signature: {exc}") from exc
        return values

    def unpack(self, task: ReceivedTask) -> dict[str, Any]:
        """The keyword arguments of a received task.

        Raises:
            DecodeError: the payload does not fit the signature.
        """
        try:
            found = self._decode(task.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise DecodeError(f"task {task.id} (type {task.type!r}): payload does not fit the function: {exc}") from exc
        return {name: getattr(found, name) for name in self._signature.parameters}


def _same(value: Any) -> Any:
    return value


def as_handler(function: Callable[..., Any], arguments: Arguments) -> Handler:
    """A handler that calls the function with the task's arguments."""
    if is_async(function):

        async def handle_async(task: ReceivedTask) -> None:
            await function(**arguments.unpack(task))

        return handle_async

    def handle(task: ReceivedTask) -> Any:
        result = function(**arguments.unpack(task))
        return result if isinstance(result, Awaitable) else None

    return handle


def decorate(
    queue: Enqueuer, registry: Registry, function: Callable[P, R], type: str | None, options: dict[str, Any]
) -> DecoratedTask[P, R]:
    """Register a function under a type (default: module and name) and return its task.

    Raises:
        ConfigError: an illegal type or option, a taken type, or a signature that no payload can have.
    """
    name = type if type is not None else f"{function.__module__}.{function.__qualname__}"
    check_type(name)
    settings = resolve((), options)
    if settings != replace(settings, task_id=None):
        raise ConfigError(f"task {name!r}: task_id cannot be the same for every call")
    arguments = Arguments(function, name)
    registry.add(name, as_handler(function, arguments))
    return DecoratedTask(queue, function, name, options, arguments)
