"""`nova version`: which Nova, Python and client libraries run here; what a report of a bug should hold."""

from __future__ import annotations

import platform
import re
import sqlite3
from importlib import metadata

from nova.cli.options import AsJson
from nova.cli.output import write_json, write_table

__all__ = ["show_version"]

DISTRIBUTION = "nova-taskqueue"


def show_version(as_json: AsJson = False) -> None:
    """Print the versions of Nova, of Python, and of each library that an extra of Nova brings."""
    libraries = {name: _version_of(name) for name in _libraries()}
    nova, python = _version_of(DISTRIBUTION) or "?", platform.python_version()
    if as_json:
        write_json({"nova": nova, "python": python, "sqlite": sqlite3.sqlite_version, "libraries": libraries})
        return
    rows = [("nova", nova), ("python", python), ("sqlite", sqlite3.sqlite_version)]
    write_table(("NAME", "VERSION"), [*rows, *((name, found or "-") for name, found in libraries.items())])


def _libraries() -> list[str]:
    """What Nova and its extras require, by the names in its own metadata."""
    names = (re.match(r"[\w.-]+", requirement) for requirement in metadata.requires(DISTRIBUTION) or ())
    return sorted({name[0] for name in names if name is not None and name[0] != DISTRIBUTION})


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
