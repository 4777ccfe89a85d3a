"""Which broker an example uses: the URL on its command line, else `NOVA_URL`, else a SQLite file that is thrown away."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def broker_url() -> Generator[str]:
    """Yield a URL for `TaskQueue.from_url`; a temporary file lives until the block ends."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("NOVA_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="nova-example-") as directory:
        # Three slashes and an absolute path: sqlite:////tmp/…/nova.db
        yield f"sqlite:///{Path(directory) / 'nova.db'}"
