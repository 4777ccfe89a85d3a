"""Secrets in files, as orchestrators mount them: read when a queue opens, never while it is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from nova.errors import ConfigError

__all__ = ["SUFFIX", "read_secrets"]

SUFFIX = "_file"
"""`password_file` names the file that holds `password`."""

C = TypeVar("C")


def read_secrets(config: C) -> C:
    """A driver's config with each secret that it names by a file. Each opening of a queue reads anew.

    Raises:
        ConfigError: a file is missing, cannot be read, is empty, or is no text.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    names = {field.name for field in dataclasses.fields(config)}
    read: dict[str, Any] = {}
    for name in names:
        path = getattr(config, f"{name}{SUFFIX}", None)
        if path is not None:
            read |= {name: _read(f"with_{getattr(config, 'extra', '')}({name}{SUFFIX})", path), f"{name}{SUFFIX}": None}
    return dataclasses.replace(config, **read) if read else config


def _read(option: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{option}: cannot read {path!r}: {exc.strerror}") from exc
    except UnicodeDecodeError:  # not chained: it holds the bytes
        raise ConfigError(f"{option}: {path!r} holds no UTF-8 text; expected the secret alone") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigError(f"{option}: {path!r} is empty; expected the secret, in one line")
    return secret
