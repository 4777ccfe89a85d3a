"""The same server in a container: of a newer RabbitMQ than Debian's."""

from __future__ import annotations

from tests.servers.containers import Container
from tests.servers.guard import THIS_PROCESS
from tests.servers.ports import free_ports
from tests.servers.rabbitmq.server import HOST, until_answers, url

IMAGE = "rabbitmq:4"


class DockerRabbit(Container):
    """A node in a container of the official image."""

    def __init__(self, *, port: int | None = None, owner: int | None = THIS_PROCESS) -> None:
        port = port or free_ports(1)[0]
        address = url(port)
        super().__init__(
            "RabbitMQ",
            IMAGE,
            # A name of its own: the data are found by the host's name, which must outlive a restart.
            ["-p", f"{HOST}:{port}:5672", "--hostname", "nova", "-e", "RABBITMQ_NODENAME=nova@nova"],
            address=address,
            answers=lambda: until_answers(address, lambda: True),
            owner=owner,
        )
