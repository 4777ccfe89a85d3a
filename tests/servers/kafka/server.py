"""One Kafka server on this machine's Java: a broker and its controller in one process.

Entered by the thread of one test; `kill` and `restart` may come from another one at a time.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers import pausing
from tests.servers.guard import THIS_PROCESS, guarded
from tests.servers.kafka.install import install
from tests.servers.ports import free_ports

HOST = "127.0.0.1"
STARTS_WITHIN = 60.0
"""Seconds a server may take until it answers; two to five on an idle machine."""


def properties(port: int, controller: int) -> dict[str, str]:
    """The settings of a server of one node; where nothing is said here, Kafka's own defaults hold."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        # A killed broker that comes back is let in when its old session has ended, by default after 9 s.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "file.delete.delay.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
    }


class KafkaServer:
    """A server with its data in one directory.

    Args:
        directory: where its data, settings and log are; made when missing. What is there already is served again.
        port: where clients reach it on 127.0.0.1; None = a free one.
        extra: settings on top of `properties`.
        format_options: what Kafka's `StorageTool format` is told beside, such as the first users.
        owner: the process with which the server dies; None = the server outlives everybody.

    Attributes:
        address: `host:port` for clients.
        pid: its process; None = it does not run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        extra: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
        owner: int | None = THIS_PROCESS,
    ) -> None:
        free, controller = free_ports(2)
        self.address = f"{HOST}:{port or free}"
        self.pid: int | None = None
        self.log = directory / "server.log"
        self._directory = directory
        self._format_options = format_options
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = {
            **properties(port or free, controller),
            "log.dirs": str(directory / "data"),
            **(extra or {}),
        }

    def start(self) -> None:
        """Start it and wait until it answers; the first time it is given its identity.

        Raises:
            RuntimeError: it ended, or did not answer within `STARTS_WITHIN`; the message ends with its log.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()), encoding="utf-8")
        if not (self._directory / "data").exists():
            self._format(file)
        self._run(file)
        process = self._process
        if not until_answers(self.address, lambda: process is not None and process.poll() is None):
            self.kill()
            raise RuntimeError(f"Kafka on {self.address} did not start; its log ends with:\n{self._tail()}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; a paused one too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self.pid = None

    def restart(self) -> None:
        """Start it again on the same data and ports; kills it first if it runs."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        pausing.pause(self._process)

    def resume(self) -> None:
        """End a pause."""
        pausing.resume(self._process)

    def stop(self) -> None:
        """End it; its data stay in the directory. As hard as `kill`: an orderly end takes seconds and proves nothing."""
        self.kill()

    @property
    def end(self) -> tuple[str, ...]:
        """The command by which another process ends it."""
        return ("kill", "-KILL", str(self.pid))

    def _run(self, file: Path) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded(self._owner, *_java("kafka.Kafka", str(file))),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def _format(self, file: Path) -> None:
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            _java(
                "kafka.tools.StorageTool", "format", f"--cluster-id={identity}", "-c", str(file), *self._format_options
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"Kafka could not format {self._directory}:\n{done.stdout}{done.stderr}")

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def answers(address: str, timeout: float) -> bool:
    """Whether a server answers clients within `timeout` seconds, with a broker among what it lists."""
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    with contextlib.suppress(KafkaException):
        return bool(client.list_topics(timeout=timeout).brokers)
    return False


def delete_topics(address: str, prefix: str) -> None:
    """Delete the topics of one topic prefix, `<prefix>_…` and `<prefix>-…`; brokers may list them a moment longer."""
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    topics = [
        topic for topic in client.list_topics(timeout=10).topics if topic.startswith((f"{prefix}_", f"{prefix}-"))
    ]
    if topics:
        for future in client.delete_topics(topics, operation_timeout=10).values():
            future.result(20)


def until_answers(address: str, runs: Callable[[], bool]) -> bool:
    """Wait until a server answers; False if it stopped running before, or took more than `STARTS_WITHIN`."""
    deadline = time.monotonic() + STARTS_WITHIN
    while runs() and time.monotonic() < deadline:
        if answers(address, timeout=1.0):
            return True
    return False


def _java(main: str, *arguments: str) -> list[str]:
    """Quick to start and content with little: a test's server lives for seconds or minutes."""
    options = (
        "-Xms256m",
        "-Xmx1g",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Dlog4j2.level=WARN",
    )
    return ["java", *options, "-cp", f"{install()}/*", main, *arguments]
