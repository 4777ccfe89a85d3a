"""Where the suite's RabbitMQ is: `NOVA_RABBITMQ=amqp://…`, else a server of its own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.rabbitmq_broker import answers
from benchmarks.servers import given_or_own

__all__ = ["GIVEN", "server"]

GIVEN = "NOVA_RABBITMQ"


@contextmanager
def server() -> Generator[str]:
    """Yield the URL; raises as `given_or_own` does."""
    with given_or_own("rabbitmq", GIVEN, answers) as (address, _):
        yield address
