"""Which queue a command is about: `--config`, `--url`, or the environment. The one door to `TaskQueue`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from nova.config import from_environment
from nova.errors import ConfigError
from nova.options import Option, with_group_id, with_topic_prefix
from nova.signals import StopRequests
from nova.taskqueue import TaskQueue

__all__ = [
    "ConfigFile",
    "TaskQueue",
    "Url",
    "is_told_by_environment",
    "lonely_driver",
    "queue_of",
    "queues_apart",
    "serve",
    "variables_of",
]

ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The queue's TOML file; else NOVA_CONFIG.")
]
Url: TypeAlias = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The queue's URL, such as sqlite:///nova.db; else NOVA_URL.")
]


def queue_of(config: Path | None, url: str | None) -> TaskQueue:
    """The queue that was named, not opened yet.

    Raises:
        ConfigError: none or two are named, or what is named is wrong.
    """
    return TaskQueue(*_options_of(config, url))


def queues_apart(config: Path | None, url: str | None, name: str) -> Callable[[], TaskQueue]:
    """Makes queues on the broker that was named which share no task with anybody else's.

    Args:
        name: their topic prefix and their group.

    Raises:
        ConfigError: none or two are named, or what is named is wrong.
    """
    found = _options_of(config, url)
    kept = [option for option in found if option.setting not in ("topic_prefix", "group_id", "queues")]
    return lambda: TaskQueue(*kept, with_topic_prefix(name), with_group_id(name))


def _options_of(config: Path | None, url: str | None) -> list[Option]:
    named = variables_of(config, url)
    try:
        return from_environment({**os.environ, **named})
    except ConfigError as exc:
        if named:
            raise
        raise ConfigError(f"{exc} (or give --config FILE or --url URL)") from exc


def variables_of(config: Path | None, url: str | None) -> dict[str, str]:
    """The variables by which a file or URL that was named takes the place of the environment's own; {} = none was named.

    Raises:
        ConfigError: both are given, or the URL says nothing, such as that of a shell's variable that is not set.
    """
    if config is not None and url is not None:
        raise ConfigError("--config and --url are both given; keep one")
    if url == "":
        raise ConfigError("--url: expected a URL such as sqlite:///nova.db, got an empty one")
    if config is None and url is None:
        return {}
    return {"NOVA_CONFIG": "" if config is None else str(config), "NOVA_URL": url or ""}


def lonely_driver(queue: TaskQueue) -> str | None:
    """The name of the queue's driver if no other process sees its broker. Opens the queue if it is not open."""
    capabilities = queue._open().capabilities
    return None if capabilities.shared else capabilities.name


def is_told_by_environment(queue: TaskQueue) -> bool:
    """Whether `TaskQueue.from_env()` made it, so that another configuration reaches it."""
    return queue._is_from_environment


def serve(queue: TaskQueue, requests: StopRequests, begin: Callable[[], None], grace: float) -> tuple[int, bool]:
    """What `queue.run()` does, with requests to stop from elsewhere.

    Args:
        begin: starts the queue's worker.
        grace: seconds the stop may take.

    Returns:
        The exit code that the queue asks for, and whether all that ran was finished.
    """
    code = queue._serve(requests, begin, grace)
    return code, queue.stop(0)
