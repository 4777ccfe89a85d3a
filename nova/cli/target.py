"""Which queue a command is about: `--config`, `--url`, or the environment. The one door to `TaskQueue`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from nova.config import from_config, from_environment, from_url
from nova.errors import ConfigError
from nova.options import with_group_id, with_topic_prefix
from nova.signals import StopRequests
from nova.taskqueue import TaskQueue

__all__ = [
    "ConfigFile",
    "TaskQueue",
    "Url",
    "check_one",
    "is_told_by_environment",
    "lonely_driver",
    "queue_of",
    "queues_apart",
    "serve",
]

ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The queue's TOML file; else NOVA_CONFIG.")
]
Url: TypeAlias = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The queue's URL, such as sqlite:///nova.db; else NOVA_URL.")
]


def queue_of(config: Path | None, url: str | None) -> TaskQueue:
    """The queue that was named, not opened yet. The environment counts only if neither option is given.

    Raises:
        ConfigError: none or two are named, or what is named is wrong.
    """
    check_one(config, url)
    if config is not None:
        return TaskQueue.from_config(config)
    if url is not None:
        return TaskQueue.from_url(url)
    try:
        return TaskQueue.from_env()
    except ConfigError as exc:
        raise ConfigError(f"{exc} (or give --config FILE or --url URL)") from exc


def queues_apart(config: Path | None, url: str | None, name: str) -> Callable[[], TaskQueue]:
    """Makes queues on the broker that was named which share no task with anybody else's.

    Args:
        name: their topic prefix and their group.

    Raises:
        ConfigError: none or two are named, or what is named is wrong.
    """
    check_one(config, url)
    if config is not None:
        found = from_config(config)
    else:
        found = from_environment() if url is None else from_url(url)
    kept = [option for option in found if option.setting not in ("topic_prefix", "group_id", "queues")]
    return lambda: TaskQueue(*kept, with_topic_prefix(name), with_group_id(name))


def check_one(config: Path | None, url: str | None) -> None:
    """Refuse two ways to say which.

    Raises:
        ConfigError: both are given.
    """
    if config is not None and url is not None:
        raise ConfigError("--config and --url are both given; keep one")


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
