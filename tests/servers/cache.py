"""Where servers for tests are kept between runs, and the lock that two processes take turns by."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """`$NOVA_TEST_CACHE`, else `nova-tests` in `$XDG_CACHE_HOME` or `~/.cache`: never in the checkout."""
    given = os.environ.get("NOVA_TEST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(given) if given else Path(base) / "nova-tests"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a file's lock; other processes wait. It ends with the process, however that ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
