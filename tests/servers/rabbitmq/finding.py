"""How a test finds a RabbitMQ server: the one of `NOVA_TEST_RABBITMQ=amqp://…`; one in Docker; Debian's package.

Without any of them a test is skipped and says why, or fails where `CI` is set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from tests.servers import containers, sharing
from tests.servers.guard import THIS_PROCESS
from tests.servers.rabbitmq import install
from tests.servers.rabbitmq.docker import DockerRabbit
from tests.servers.rabbitmq.server import RabbitServer, answers
from tests.servers.sharing import Server, Unavailable, absent

GIVEN = "NOVA_TEST_RABBITMQ"
"""The variable that names a server which runs already."""


def new_server(directory: Path, *, port: int | None = None, owner: int | None = THIS_PROCESS) -> Server:
    """A server of the caller's own, not started yet.

    Raises:
        Unavailable: neither Docker nor Debian's package can run it here.
    """
    if containers.why_not() is None:
        return DockerRabbit(port=port, owner=owner)
    if install.why_not() is None:
        install.install()
        return RabbitServer(directory, port=port, owner=owner)
    raise Unavailable(
        f"RabbitMQ cannot be started: {install.why_not()}, and {containers.why_not()}. "
        f"Install the package rabbitmq-server, or start Docker, or set {GIVEN}=amqp://user:password@host:port/"
    )


def private_server(directory: Path) -> Server:
    """A server of the test's own, started, also where `NOVA_TEST_RABBITMQ` is set; the test must stop it."""
    return sharing.started(lambda: new_server(directory))


def private_node(directory: Path, *, settings: Mapping[str, str] | None = None, erlang: str = "") -> RabbitServer:
    """A node of the package, for tests that need `rabbitmqctl`, started; the test must stop it."""
    reason = install.why_not()
    if reason is not None:
        absent(f"RabbitMQ cannot be started: {reason}")
    try:
        install.install()
    except Unavailable as exc:
        absent(str(exc))
    server = RabbitServer(directory, settings=settings, erlang=erlang)
    server.start()
    return server


def prepare() -> None:
    """Install the server if it will be needed; what goes wrong is for the test to report that needs it."""
    if containers.why_not() is not None and install.why_not() is None:
        with contextlib.suppress(Unavailable):
            install.install()


def shared_address() -> str:
    """The address of the server that this run's tests share."""
    return sharing.given_or_shared("rabbitmq", GIVEN, answers, new_server)
