"""The same server in a container, for machines without Java. Kill and pause go through Docker, so tests of those run too.

Through the `docker` program and not a library: the server must outlive the pytest-xdist worker that started it and die
with the run, which is what `guard.when_gone` sees to, and `docker run` needs no more than what is written here.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from tests.servers.guard import THIS_PROCESS, when_gone
from tests.servers.kafka.install import VERSION
from tests.servers.kafka.server import HOST, properties, until_answers
from tests.servers.ports import free_ports

IMAGE = f"apache/kafka:{VERSION}"


@functools.cache
def why_not() -> str | None:
    """What keeps this machine from running containers; None = nothing."""
    if shutil.which("docker") is None:
        return "no docker on the PATH"
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return None if asked.returncode == 0 else f"docker has no engine: {asked.stderr.strip().splitlines()[-1]}"


class DockerKafka:
    """`KafkaServer` in a container of the official image; its data live and die with the container."""

    def __init__(
        self, *, port: int | None = None, extra: Mapping[str, str] | None = None, owner: int | None = THIS_PROCESS
    ) -> None:
        free, controller = free_ports(2)
        self._port = port or free
        self._owner = owner
        self._name = f"nova-tests-kafka-{uuid.uuid4().hex[:12]}"
        self._properties = {**properties(self._port, controller), **(extra or {})}
        # Inside the container it listens to all, so that Docker can forward to it; outside only this machine reaches it.
        self._properties["listeners"] = f"PLAINTEXT://:{self._port},CONTROLLER://{HOST}:{controller}"
        self.address = f"{HOST}:{self._port}"

    def start(self) -> None:
        """Make the container, start it and wait until it answers.

        Raises:
            RuntimeError: it did not answer; the message ends with its log.
        """
        port = f"{HOST}:{self._port}:{self._port}"
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        given = {"CLUSTER_ID": identity, **{variable(key): value for key, value in self._properties.items()}}
        environment = [word for key, value in given.items() for word in ("-e", f"{key}={value}")]
        _docker("create", "--name", self._name, "-p", port, *environment, IMAGE)
        when_gone(self._owner, *self.end)
        self.restart()

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same data and port."""
        self.kill()
        _docker("start", self._name)
        if not until_answers(self.address, lambda: True):
            log = subprocess.run(
                ["docker", "logs", "--tail", "40", self._name], capture_output=True, text=True, check=False
            )
            raise RuntimeError(f"Kafka in {self._name} did not start; its log ends with:\n{log.stdout}{log.stderr}")

    def kill(self) -> None:
        """SIGKILL."""
        subprocess.run(["docker", "kill", self._name], capture_output=True, check=False)

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered."""
        _docker("pause", self._name)

    def resume(self) -> None:
        """End a pause."""
        _docker("unpause", self._name)

    def stop(self) -> None:
        """End it and drop its data."""
        subprocess.run(self.end, capture_output=True, check=False)

    @property
    def end(self) -> tuple[str, ...]:
        """The command by which another process ends it."""
        return ("docker", "rm", "--force", "--volumes", self._name)


def variable(key: str) -> str:
    """The environment variable by which the image takes a setting of Kafka's."""
    return "KAFKA_" + key.upper().translate({ord("."): "_", ord("_"): "__", ord("-"): "___"})


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
