"""Options from a TOML file or a mapping of the same form."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nova.config.sections import build
from nova.errors import ConfigError
from nova.options import Option

__all__ = ["from_config", "read_file"]

_URL = re.compile(r"[a-z]{2,}:/")
"""How a URL begins, also one that went through `Path`, which drops a slash; it may hold a password. Not `c:/`."""


def from_config(source: str | Path | Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> list[Option]:
    """The options of a TOML file or a mapping of the same form.

    `broker = "sqlite"` picks the driver, and `[sqlite]` holds its options; sections of other drivers may stay. Without
    `broker` the only driver section rules; with none at all, SQLite. `${NAME}` in a text stands for an environment
    variable, `$${` for `${` itself.

    Raises:
        ConfigError: no such file, no TOML, an unknown key (the nearest name is suggested), an illegal value, a variable
            that is not set.
    """
    if isinstance(source, Mapping):
        return build(source, "config", environ)
    if not isinstance(source, (str, Path)):
        raise ConfigError(f"config: expected the path of a TOML file or a mapping, got {type(source).__name__}")
    return build(read_file(source), str(source), environ)


def read_file(path: str | Path) -> dict[str, Any]:
    """What a TOML file says, not checked yet.

    Raises:
        ConfigError: no such file, or no TOML. It names the place, and shows none of the text.
    """
    if _URL.match(str(path)):
        raise ConfigError("config: expected the path of a TOML file, got a URL; use from_url, or NOVA_URL")
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"config: cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:  # not chained: it holds the file's bytes
        raise ConfigError(f"config: {path} is no TOML: byte {exc.start} is no UTF-8") from None
    except tomllib.TOMLDecodeError as exc:  # not chained: from Python 3.14 on it holds the file's text
        raise ConfigError(f"config: {path} is no TOML: {exc}") from None
