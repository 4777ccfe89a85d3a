"""Where the suite's RocketMQ is: `NOVA_ROCKETMQ=rocketmq://…`, else a server of its own, as the tests have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import cache_directory
from benchmarks.rocketmq_broker import answers
from benchmarks.samples import Absent

__all__ = ["GIVEN", "server"]

GIVEN = "NOVA_ROCKETMQ"


@contextmanager
def server() -> Generator[str]:
    """Yield the URL.

    Raises:
        Absent: none is given, and none can be started here.
        SystemExit: the given one does not answer.
    """
    given = os.environ.get(GIVEN)
    if given:
        if not answers(given):
            raise SystemExit(f"benchmarks: {GIVEN} is set, but no RocketMQ lets us in there")
        yield given
        return
    # Here, so that a run on a given server needs no pytest.
    from tests.servers.rocketmq.finding import GIVEN as GIVEN_TO_TESTS
    from tests.servers.rocketmq.finding import new_server
    from tests.servers.sharing import Unavailable

    cache_directory().mkdir(parents=True, exist_ok=True)
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix="rocketmq-", dir=cache_directory()) as directory:
        try:
            started = new_server(Path(directory))
            started.start()
        except Unavailable as exc:
            raise Absent(str(exc).replace(GIVEN_TO_TESTS, GIVEN)) from exc
        try:
            yield started.address
        finally:
            started.stop()
