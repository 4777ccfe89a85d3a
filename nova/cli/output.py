"""What commands print on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["write_json", "write_line", "write_table"]

UNBROKEN = 10_000
"""Columns where no terminal sets their number: a line of a file or a pipe is one row."""


def write_json(value: Any) -> None:
    """One JSON document."""
    write_line(json.dumps(value, indent=2))


def write_line(text: str) -> None:
    """A line of text."""
    sys.stdout.write(f"{text}\n")


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """A table without lines; those of its columns that are `numbers` are set to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else UNBROKEN
    Console(markup=False, highlight=False, emoji=False, width=width).print(table)
