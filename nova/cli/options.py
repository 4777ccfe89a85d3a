"""Options and arguments that several commands share."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import typer

from nova.errors import ConfigError

__all__ = ["AsJson", "Yes", "confirm", "need_somebody", "split_names"]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def need_somebody(command: str, yes: bool) -> None:
    """Refuse what must be confirmed where nobody can answer.

    Raises:
        ConfigError: there is no terminal, and no `--yes`.
    """
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"{command}: nobody is there to confirm it; give --yes")


def confirm(question: str) -> None:
    """Ask on the terminal; a no ends the command."""
    typer.confirm(question, abort=True, err=True)


def split_names(given: list[str] | None) -> list[str] | None:
    """The names of an option that may be repeated and hold several, as `--queues a,b --queues c`."""
    if not given:
        return None
    return [name.strip() for names in given for name in names.split(",")]
