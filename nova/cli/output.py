"""What commands print on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from nova.cli.outcome import Failed

__all__ = ["write_json", "write_line", "write_table"]

UNBROKEN = 10_000
"""Columns where no terminal sets their number: a line of a file or a pipe is one row."""


@contextmanager
def _written() -> Generator[None]:
    """See that what the block writes has gone out, while the command can still say that it has not.

    Raises:
        Failed: it has not, say because the disk is full.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, as `head`
        raise
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter tries again at its end
        raise Failed(f"cannot write to standard output: {exc.strerror}") from exc


def write_json(value: Any) -> None:
    """One JSON document."""
    write_line(json.dumps(value, indent=2))


def write_line(text: str) -> None:
    """A line of text."""
    with _written():
        sys.stdout.write(f"{text}\n")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """A table without lines; those of its columns that are `numbers` are set to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else UNBROKEN
    with _written():
        Console(markup=False, highlight=False, emoji=False, width=width).print(table)
