"""Where the suite's Kafka is: `NOVA_KAFKA=host:port`, else a server of its own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.kafka_broker import answers
from benchmarks.servers import given_or_own

__all__ = ["GIVEN", "server"]

GIVEN = "NOVA_KAFKA"


@contextmanager
def server() -> Generator[tuple[str, str]]:
    """Yield the address, and what is known about the server; raises as `given_or_own` does."""
    with given_or_own("kafka", GIVEN, answers) as (address, is_given):
        yield address, f"at {address}" if is_given else _version()


def _version() -> str:
    from tests.servers.kafka.install import VERSION  # here, so that a run on a given server needs no pytest

    return VERSION
