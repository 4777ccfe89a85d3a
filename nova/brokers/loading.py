"""Builds a driver from its config at first use, so that `import nova` needs no client library."""

from __future__ import annotations

import importlib
from typing import cast

from nova.brokers.base import Driver, DriverConfig
from nova.brokers.secrets import read_secrets
from nova.errors import ConfigError

__all__ = ["build_driver"]


def build_driver(config: DriverConfig) -> Driver:
    """The driver of a config, with the secrets that the config names by their files.

    Raises:
        ConfigError: its client library is not installed (the message has the install line), or a secret's file is missing,
            unreadable or empty.
    """
    module_name, _, class_name = config.factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        if exc.name and exc.name.split(".")[0] == "nova":
            raise
        raise ConfigError(
            f"{type(config).__name__}: the package {exc.name!r} is missing; "
            f"pip install 'nova-taskqueue[{config.extra}]'"
        ) from exc
    return cast("Driver", getattr(module, class_name)(read_secrets(config)))
