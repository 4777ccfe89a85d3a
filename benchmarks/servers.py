"""Where a suite's server is: one that the environment names, else one as the tests have, that ends with the run."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import cache_directory
from benchmarks.samples import Absent

__all__ = ["given_or_own"]


@contextmanager
def given_or_own(name: str, variable: str, answers: Callable[[str], bool]) -> Generator[tuple[str, bool]]:
    """Yield the address, and whether it was given.

    Args:
        name: the package of the broker in `tests.servers`.
        variable: names a server that runs already; its value may hold a password.

    Raises:
        Absent: none is given, and none can be started here.
        SystemExit: the given one does not answer.
    """
    given = os.environ.get(variable)
    if given:
        if not answers(given):
            raise SystemExit(f"benchmarks: {variable} is set, but no server lets us in there")
        yield given, True
        return
    # Here, so that a run on a given server needs no pytest.
    finding = importlib.import_module(f"tests.servers.{name}.finding")
    from tests.servers.sharing import Unavailable

    cache_directory().mkdir(parents=True, exist_ok=True)
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache_directory()) as directory:
        try:
            started = finding.new_server(Path(directory))
            started.start()
        except Unavailable as exc:
            raise Absent(str(exc).replace(finding.GIVEN, variable)) from exc
        try:
            yield started.address, False
        finally:
            started.stop()
