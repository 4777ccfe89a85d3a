"""Where the suite's Kafka is: `NOVA_KAFKA=host:port`, else a server of its own, as the tests have, that ends with the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kafka_broker import answers
from benchmarks.peers import cache_directory
from benchmarks.samples import Absent

__all__ = ["GIVEN", "server"]

GIVEN = "NOVA_KAFKA"


@contextmanager
def server() -> Generator[tuple[str, str]]:
    """Yield the address, and what is known about the server.

    Raises:
        Absent: none is given, and none can be started here.
        SystemExit: the given one does not answer.
    """
    given = os.environ.get(GIVEN)
    if given:
        if not answers(given):
            raise SystemExit(f"benchmarks: {GIVEN}={given}, but no Kafka answers there")
        yield given, f"at {given}"
        return
    # Here, so that a run on a given server needs no pytest.
    from tests.servers.kafka.finding import GIVEN as GIVEN_TO_TESTS
    from tests.servers.kafka.finding import new_server
    from tests.servers.kafka.install import VERSION
    from tests.servers.sharing import Unavailable

    cache_directory().mkdir(parents=True, exist_ok=True)
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=cache_directory()) as directory:
        try:
            started = new_server(Path(directory))
            started.start()
        except Unavailable as exc:
            raise Absent(str(exc).replace(GIVEN_TO_TESTS, GIVEN)) from exc
        try:
            yield started.address, VERSION
        finally:
            started.stop()
