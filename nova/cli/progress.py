"""A bar on stderr while many tasks go one way; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["bar"]


@contextmanager
def bar(what: str, total: int | None) -> Generator[Callable[[int], None]]:
    """Show a bar inside the block; gives a function to call with how many tasks are done so far.

    Args:
        what: the verb in front of it.
        total: how many there are; None = nobody knows.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} tasks"),
        TimeElapsedColumn(),
    )
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
