"""One RabbitMQ node of the installed package, with its data, cookie and port mapper (epmd) in a directory of its own.

Entered by the thread of one test; `kill` and `restart` may come from another one at a time.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pika
from pika.exceptions import AMQPError

from tests.servers import pausing
from tests.servers.guard import THIS_PROCESS, guarded
from tests.servers.ports import free_ports

HOST = "127.0.0.1"
OTHER = "NOVA_TEST_RABBITMQ_PROGRAMS"
"""The variable that names the directory of another version's programs."""
STARTS_WITHIN = 90.0
"""Seconds a server may take until it answers; four to eight on an idle machine."""
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian's package has the programs themselves; those on the PATH insist on the user `rabbitmq`."""


def url(port: int) -> str:
    """The address of a server on this machine, with the user that a new node has."""
    return f"amqp://guest:guest@{HOST}:{port}/"


def tls_listener(port: int, keys: Path, shown: str = "server", *, asks: bool = False) -> dict[str, str]:
    """Settings of a port that speaks TLS, with a certificate of `keys` and its `ca.pem`.

    Args:
        shown: the certificate's name there.
        asks: it lets in who shows one of the same authority, and nobody else.
    """
    settings = {
        "listeners.ssl.local": f"{HOST}:{port}",
        "ssl_options.cacertfile": str(keys / "ca.pem"),
        "ssl_options.certfile": str(keys / f"{shown}.crt"),
        "ssl_options.keyfile": str(keys / f"{shown}.key"),
    }
    if asks:
        settings |= {"ssl_options.verify": "verify_peer", "ssl_options.fail_if_no_peer_cert": "true"}
    return settings


def programs() -> Path | None:
    """The directory of `rabbitmq-server` and `rabbitmqctl`; None = not installed.

    Raises:
        FileNotFoundError: `NOVA_TEST_RABBITMQ_PROGRAMS` names a directory without them.
    """
    other = os.environ.get(OTHER)
    if other is not None:
        if not (Path(other) / "rabbitmq-server").exists():
            raise FileNotFoundError(f"{OTHER}: there is no rabbitmq-server in {other}")
        return Path(other)
    if (_PROGRAMS / "rabbitmq-server").exists():
        return _PROGRAMS
    found = shutil.which("rabbitmq-server")
    return None if found is None else Path(found).resolve().parent


class RabbitServer:
    """A node with its data in one directory.

    Args:
        directory: where its data, settings and log are; made when missing. What is there already is served again.
        port: where clients reach it on 127.0.0.1; None = a free one.
        settings: lines of `rabbitmq.conf` on top of the usual ones.
        erlang: arguments of the virtual machine, for settings that have no line.
        owner: the process with which the server dies; None = the server outlives everybody.

    Attributes:
        address: the URL for clients.
        pid: its process; None = it does not run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        erlang: str = "",
        owner: int | None = THIS_PROCESS,
    ) -> None:
        free, self._epmd_port, self._node_port = free_ports(3)
        self.port = port or free
        self.address = url(self.port)
        self.pid: int | None = None
        self.log = directory / "server.log"
        self._directory = directory
        self._erlang = erlang
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node = f"nova-{secrets.token_hex(4)}@localhost"
        self._settings = {
            "listeners.tcp.local": f"{HOST}:{self.port}",
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            "disk_free_limit.absolute": "50MB",
            "vm_memory_high_watermark.relative": "0.6",
            # The write-ahead log of the quorum queues: half a gigabyte by default, for every node of every test.
            "raft.wal_max_size_bytes": "33554432",
            **(settings or {}),
        }

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer within `STARTS_WITHIN`; the message ends with its log.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{key} = {value}\n" for key, value in self._settings.items())
        (self._directory / "rabbitmq.conf").write_text(lines, encoding="utf-8")
        (self._directory / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        if self._epmd is None:
            self._epmd = self._run(["epmd", "-port", str(self._epmd_port), "-address", HOST])
        directory = programs()
        assert directory is not None, "rabbitmq-server is not installed"
        process = self._process = self._run([str(directory / "rabbitmq-server")])
        self.pid = process.pid
        if not until_answers(self.address, lambda: process.poll() is None):
            self.stop()
            raise RuntimeError(f"RabbitMQ at {self.address} did not start; its log ends with:\n{self._tail()}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; a paused one too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self.pid = None

    def restart(self) -> None:
        """Start it again on the same data and port; kills it first if it runs."""
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
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        self._epmd = None

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says to a command.

        Raises:
            RuntimeError: it failed.
        """
        directory = programs()
        assert directory is not None, "rabbitmq-server is not installed"
        done = subprocess.run(
            [str(directory / "rabbitmqctl"), "-q", "-n", self._node, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def end(self) -> tuple[str, ...]:
        """The command by which another process ends it."""
        assert self._epmd is not None, "the server was not started"
        return ("kill", "-KILL", str(self.pid), str(self._epmd.pid))

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                guarded(self._owner, *command),
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        here = self._directory
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(here),  # the cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the server, so that its process id is the server's
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(here / "generated"),
            "RABBITMQ_PID_FILE": str(here / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {self._erlang}",
        }

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def answers(address: str, timeout: float) -> bool:
    """Whether a server lets a client in within about `timeout` seconds."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it reports each refusal with several tracebacks
    parameters = pika.URLParameters(address)
    parameters.socket_timeout = parameters.stack_timeout = timeout
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, OSError):
        return False
    connection.close()
    return True


def until_answers(address: str, runs: Callable[[], bool]) -> bool:
    """Wait until a server answers; False if it stopped running before, or took more than `STARTS_WITHIN`."""
    deadline = time.monotonic() + STARTS_WITHIN
    while runs() and time.monotonic() < deadline:
        if answers(address, timeout=5.0):
            return True
        time.sleep(0.1)
    return False
