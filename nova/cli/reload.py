"""Whether a source file has changed, for development. Needs the extra `reload`; owns the thread `nova-reload`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from nova.errors import ConfigError

__all__ = ["changes_of"]


@contextmanager
def changes_of(directory: Path) -> Generator[Callable[[], bool]]:
    """Watch the directory's Python and TOML files inside the block; gives a function that says if any changed since.

    Raises:
        ConfigError: the package `watchfiles` is missing.
    """
    try:
        import watchfiles  # not above: it needs the extra
    except ImportError as exc:
        raise ConfigError(
            "--reload: the package 'watchfiles' is missing; pip install 'nova-taskqueue[cli,reload]'"
        ) from exc
    changed, over = threading.Event(), threading.Event()

    def watch() -> None:
        wanted = watchfiles.PythonFilter(extra_extensions=(".toml",))
        for _ in watchfiles.watch(directory, watch_filter=wanted, stop_event=over, raise_interrupt=False):
            changed.set()

    def has_changed() -> bool:
        if not changed.is_set():
            return False
        changed.clear()
        return True

    thread = threading.Thread(target=watch, name="nova-reload", daemon=True)
    thread.start()
    try:
        yield has_changed
    finally:
        over.set()
        thread.join(5.0)
