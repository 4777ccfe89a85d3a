"""Asking a broker that is about to know: new topics, moving leaders and loading coordinators answer soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from nova.brokers.kafka.failures import broker_error, code_of
from nova.errors import BrokerUnavailable

__all__ = ["ask", "left", "turn"]

PASSING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)
"""Answers of a broker that does not know yet."""
WAIT_FIRST = 0.02
WAIT_MOST = 0.5

T = TypeVar("T")


def ask(where: str, question: Callable[[], T], timeout: float) -> T:
    """The answer, asked for again while it is only "not yet".

    Raises:
        BrokerError: refused, or still "not yet" after `timeout` seconds; begins with `where`.
    """
    deadline = time.monotonic() + timeout
    wait = WAIT_FIRST
    while True:
        try:
            return question()
        except KafkaException as exc:
            if code_of(exc) not in PASSING or time.monotonic() + wait > deadline:
                raise broker_error(where, exc) from exc
        except TimeoutError as exc:
            raise BrokerUnavailable(f"{where}: no answer in {timeout:g} s") from exc
        time.sleep(wait)
        wait = min(2 * wait, WAIT_MOST)


def left(deadline: float) -> float:
    """Seconds until a monotonic instant; a moment at least, so that what comes last is tried at all."""
    return max(0.1, deadline - time.monotonic())


@contextmanager
def turn(lock: threading.Lock, deadline: float, where: str) -> Generator[None]:
    """Hold a lock from before a monotonic instant on.

    Raises:
        BrokerUnavailable: others held it until then; begins with `where`.
    """
    if not lock.acquire(timeout=left(deadline)):
        raise BrokerUnavailable(f"{where}: others were asking until the time was over")
    try:
        yield
    finally:
        lock.release()
