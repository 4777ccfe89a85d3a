"""Which queue a command is about: `--config`, `--url`, or the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from nova.errors import ConfigError
from nova.taskqueue import TaskQueue

__all__ = ["ConfigFile", "Url", "queue_of"]

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
    if config is not None and url is not None:
        raise ConfigError("--config and --url are both given; keep one")
    if config is not None:
        return TaskQueue.from_config(config)
    if url is not None:
        return TaskQueue.from_url(url)
    try:
        return TaskQueue.from_env()
    except ConfigError as exc:
        raise ConfigError(f"{exc} (or give --config FILE or --url URL)") from exc
