"""Taking turns over the whole cluster: an exclusive queue is its connection's until it is deleted or the connection ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from nova.brokers.rabbitmq.conversation import Conversation
from nova.brokers.rabbitmq.failures import RESOURCE_LOCKED, Refused
from nova.errors import BrokerError, BrokerUnavailable

__all__ = ["give_back", "holding", "take", "turn"]

WAIT_FIRST = 0.005
WAIT_MOST = 0.1

_log = logging.getLogger(__name__)


@contextmanager
def turn(talk: Conversation, name: str, timeout: float, what: str) -> Generator[None]:
    """Hold a name while others wait for it. Threads of one connection must see to each other by themselves.

    Raises:
        BrokerUnavailable: somebody else has held it for `timeout` seconds; the message begins with `what`.
    """
    take(talk, name, timeout, what)
    try:
        yield
    finally:
        give_back(talk, name)


@contextmanager
def holding(lock: threading.Lock, timeout: float, what: str) -> Generator[None]:
    """Hold a lock of this process.

    Raises:
        BrokerUnavailable: another thread has held it for `timeout` seconds; the message begins with `what`.
    """
    if not lock.acquire(timeout=timeout):
        raise BrokerUnavailable(f"{what}: another thread has been at it for {timeout:g} s")
    try:
        yield
    finally:
        lock.release()


def take(talk: Conversation, name: str, timeout: float, what: str) -> None:
    """Wait for a name, and hold it."""
    deadline = time.monotonic() + timeout
    wait = WAIT_FIRST
    while True:
        try:
            talk.declare_queue(name, {}, exclusive=True)
        except Refused as exc:
            if exc.code != RESOURCE_LOCKED:
                raise
            if time.monotonic() + wait > deadline:
                raise BrokerUnavailable(f"{what}: another process has been at it for {timeout:g} s") from exc
            time.sleep(wait)
            wait = min(2 * wait, WAIT_MOST)
        else:
            talk.stay()
            return


def give_back(talk: Conversation, name: str) -> None:
    """Let the next one have it.

    On a channel and in a time of its own: those of `talk` may be over, and the name would be held as long as the connection
    lives. If that has ended the name is free already, and perhaps another's.
    """
    try:
        with talk.another() as own:
            own.delete_queue(name)
    except BrokerError as exc:
        _log.info("giving back %r: %s", name, exc)
