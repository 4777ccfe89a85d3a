"""The same server in a container, for machines without Java."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from tests.servers.containers import Container
from tests.servers.guard import THIS_PROCESS
from tests.servers.kafka.install import VERSION
from tests.servers.kafka.server import HOST, properties, until_answers
from tests.servers.ports import free_ports

IMAGE = f"apache/kafka:{VERSION}"


class DockerKafka(Container):
    """`KafkaServer` in a container of the official image."""

    def __init__(
        self, *, port: int | None = None, extra: Mapping[str, str] | None = None, owner: int | None = THIS_PROCESS
    ) -> None:
        free, controller = free_ports(2)
        port = port or free
        settings = {**properties(port, controller), **(extra or {})}
        # Inside the container it listens to all, so that Docker can forward to it; outside only this machine reaches it.
        settings["listeners"] = f"PLAINTEXT://:{port},CONTROLLER://{HOST}:{controller}"
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        given = {"CLUSTER_ID": identity, **{variable(key): value for key, value in settings.items()}}
        environment = [word for key, value in given.items() for word in ("-e", f"{key}={value}")]
        address = f"{HOST}:{port}"
        super().__init__(
            "Kafka",
            IMAGE,
            ["-p", f"{HOST}:{port}:{port}", *environment],
            address=address,
            answers=lambda: until_answers(address, lambda: True),
            owner=owner,
        )


def variable(key: str) -> str:
    """The environment variable by which the image takes a setting of Kafka's."""
    return "KAFKA_" + key.upper().translate({ord("."): "_", ord("_"): "__", ord("-"): "___"})
