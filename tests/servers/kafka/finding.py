"""How a test finds a Kafka server: the one of `NOVA_TEST_KAFKA=host:port`; one on this machine's Java; one in Docker.

Without any of them a test is skipped and says why, or fails where `CI` is set.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.servers import containers, sharing
from tests.servers.guard import THIS_PROCESS
from tests.servers.kafka import install
from tests.servers.kafka.docker import DockerKafka
from tests.servers.kafka.server import KafkaServer, answers
from tests.servers.sharing import Server, Unavailable, absent

GIVEN = "NOVA_TEST_KAFKA"
"""The variable that names a server which runs already."""


def new_server(directory: Path, *, port: int | None = None, owner: int | None = THIS_PROCESS) -> Server:
    """A server of the caller's own, not started yet.

    Raises:
        Unavailable: neither Java nor Docker can run it here.
    """
    if install.why_not() is None:
        return KafkaServer(directory, port=port, owner=owner)
    if containers.why_not() is None:
        return DockerKafka(port=port, owner=owner)
    raise Unavailable(
        f"Kafka cannot be started: {install.why_not()}, and {containers.why_not()}. "
        f"Install Java {install.MINIMUM_JAVA} and Maven, or start Docker, or set {GIVEN}=host:port"
    )


def private_server(directory: Path) -> Server:
    """A server of the test's own, started, also where `NOVA_TEST_KAFKA` is set; the test must stop it."""
    return sharing.started(lambda: new_server(directory))


def needs_java() -> None:
    """Skip or fail a test that only the server on Java can show, such as a secured one."""
    reason = install.why_not()
    if reason is not None:
        absent(f"Kafka cannot be started: {reason}")


def prepare() -> None:
    """Fetch the server if it will be needed; what goes wrong is for the test to report that needs it."""
    if install.why_not() is None:
        with contextlib.suppress(Unavailable):
            install.install()


def shared_address() -> str:
    """The address of the server that this run's tests share."""
    return sharing.given_or_shared("kafka", GIVEN, answers, new_server)
