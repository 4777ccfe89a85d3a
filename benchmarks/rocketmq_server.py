"""Where the suite's RocketMQ is: `NOVA_ROCKETMQ=rocketmq://…`, else a server of its own, as the tests have."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.rocketmq_broker import answers
from benchmarks.servers import given_or_own

__all__ = ["GIVEN", "server"]

GIVEN = "NOVA_ROCKETMQ"


@contextmanager
def server() -> Generator[str]:
    """Yield the URL; raises as `given_or_own` does."""
    with given_or_own("rocketmq", GIVEN, answers) as (address, _):
        yield address
