"""How a test finds a RocketMQ server: that of `NOVA_TEST_ROCKETMQ`, one on this machine's Java, or one in Docker.

The variable holds a URL: `rocketmq://host:8081?admin=host:9876`.

Without any of them a test is skipped and says why, or fails where `CI` is set.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.servers import containers, sharing
from tests.servers.guard import THIS_PROCESS
from tests.servers.rocketmq import install
from tests.servers.rocketmq.docker import DockerRocket
from tests.servers.rocketmq.server import RocketServer, answers
from tests.servers.rocketmq.settings import STOCK, Settings
from tests.servers.sharing import Server, Started, Unavailable, absent

GIVEN = "NOVA_TEST_ROCKETMQ"
"""The variable that names a server which runs already."""


def new_server(directory: Path, *, port: int | None = None, owner: int | None = THIS_PROCESS) -> Server:
    """A server of the caller's own, not started yet.

    Raises:
        Unavailable: neither Java nor Docker can run it here.
    """
    if install.why_not() is None:
        return RocketServer(directory, port=port, owner=owner)
    if containers.why_not() is None:
        return DockerRocket(port=port, owner=owner)
    raise Unavailable(
        f"RocketMQ cannot be started: {install.why_not()}, and {containers.why_not()}. "
        f"Install Java {install.MINIMUM_JAVA} and Maven, or start Docker, or set {GIVEN}=rocketmq://host:8081?admin=host:9876"
    )


def private_server(directory: Path) -> Server:
    """A server of the test's own, started, also where `NOVA_TEST_ROCKETMQ` is set; the test must stop it."""
    return sharing.started(lambda: new_server(directory))


def private_java(directory: Path, settings: Settings, keys: tuple[str, str] | None = None) -> RocketServer:
    """A server on Java with settings of the test's own, started; the test must stop it."""
    needs_java()
    server = RocketServer(directory, settings=settings, keys=keys)
    server.start()
    return server


def needs_java() -> None:
    """Skip or fail a test that only the server on Java can show, such as one with other settings."""
    reason = install.why_not()
    if reason is not None:
        absent(f"RocketMQ cannot be started: {reason}")


def prepare() -> None:
    """Fetch the server if it will be needed; what goes wrong is for the test to report that needs it."""
    if install.why_not() is None:
        with contextlib.suppress(Unavailable):
            install.install()


def shared_address() -> str:
    """The address of the server that this run's tests share."""
    return sharing.given_or_shared("rocketmq", GIVEN, answers, new_server)


def shared_stock() -> str:
    """The address of a server as RocketMQ comes, which this run's tests share as well."""
    return sharing.shared_address("rocketmq-stock", _start_stock)


def _start_stock(directory: Path, owner: int) -> Started:
    reason = install.why_not()
    if reason is not None:
        raise Unavailable(f"RocketMQ cannot be started: {reason}")
    server = RocketServer(directory, settings=STOCK, owner=owner)
    server.start()
    return Started(server.address, server.end)
