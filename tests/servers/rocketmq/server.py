"""RocketMQ on this machine's Java: a name server, and a proxy with the broker inside it.

The address is a URL as `TaskQueue.from_url` takes it: the proxy for tasks and the name server for topics and groups. Entered
by the thread of one test; `kill` and `restart` may come from another one at a time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from nova.brokers.rocketmq.remoting import Remoting
from nova.errors import BrokerError
from tests.servers import pausing
from tests.servers.guard import THIS_PROCESS, guarded
from tests.servers.ports import free_ports
from tests.servers.rocketmq.install import install
from tests.servers.rocketmq.settings import HOST, TUNED, Ports, Settings, write_files

STARTS_WITHIN = 90.0
"""Seconds a server may take until it answers; five to eight on an idle machine."""
_ROUTE = 105
_DEFAULT_TOPIC = "TBW102"
_OPENED = ("jdk.internal.ref", "sun.nio.ch", "java.nio", "java.lang", "java.util", "java.net")


def url(grpc: int, names: int) -> str:
    """The address of servers on this machine."""
    return f"rocketmq://{HOST}:{grpc}?admin={HOST}:{names}"


def section(address: str) -> dict[str, str]:
    """The driver's options for an address."""
    parts = urlsplit(address)
    return {"endpoints": parts.netloc, "admin": parse_qs(parts.query)["admin"][0]}


class RocketServer:
    """Servers with their data in one directory.

    Args:
        directory: where data, settings and logs are; made when missing. What is there already is served again.
        port: of the proxy on 127.0.0.1; None = a free one.
        settings: on top of what the servers need.
        owner: the process with which they die; None = they outlive everybody.
        keys: by which a server that asks who you are lets `until_answers` in.

    Attributes:
        address: for clients.
        pid: the process of proxy and broker; None = it does not run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Settings = TUNED,
        owner: int | None = THIS_PROCESS,
        keys: tuple[str, str] | None = None,
    ) -> None:
        names, broker, grpc, remoting = free_ports(4)
        self.ports = Ports(names, broker, port or grpc, remoting)
        self.address = url(self.ports.grpc, names)
        self.pid: int | None = None
        self.log = directory / "server.log"
        self._directory = directory
        self._settings = settings
        self._owner = owner
        self._keys = keys
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start what does not run and wait until it answers.

        Raises:
            RuntimeError: one ended, or did not answer within `STARTS_WITHIN`; the message ends with its log.
        """
        write_files(self._directory, self.ports, self._settings)
        here = self._directory
        if "names" not in self._processes:
            self._run("names", 128, "namesrv.NamesrvStartup", "-c", str(here / "namesrv.conf"))
        files = ("-bc", str(here / "broker.conf"), "-pc", str(here / "rmq-proxy.json"))
        proxy = self._run("proxy", 512, "proxy.ProxyStartup", "-pm", "local", *files)
        self.pid = proxy.pid
        if not until_answers(self.address, lambda: proxy.poll() is None, self._keys):
            self.stop()
            raise RuntimeError(f"RocketMQ at {self.address} did not start; its log ends with:\n{self._tail()}")

    def kill(self) -> None:
        """SIGKILL proxy and broker, and wait until they are gone; paused ones too. The name server lives on."""
        self._end("proxy")
        self.pid = None

    def restart(self) -> None:
        """Start it again on the same data and ports; kills it first if it runs."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        pausing.pause(self._processes["proxy"])

    def resume(self) -> None:
        """End a pause."""
        pausing.resume(self._processes["proxy"])

    def stop(self) -> None:
        """End them; their data stay in the directory. As hard as `kill`: an orderly end takes seconds and proves nothing."""
        self._end("proxy")
        self._end("names")
        self.pid = None

    @property
    def end(self) -> tuple[str, ...]:
        """The command by which another process ends them."""
        return ("kill", "-KILL", *(str(process.pid) for process in self._processes.values()))

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _run(self, name: str, megabytes: int, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        here = self._directory
        options = (
            f"-Xmx{megabytes}m",
            "-XX:MaxDirectMemorySize=256m",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-XX:TieredStopAtLevel=1",
            f"-Duser.home={here / 'user'}",
            "-Drocketmq.client.logUseSlf4j=true",
            f"-Drmq.logback.configurationFile={here / 'logback.xml'}",
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
        )
        command = ["java", *options, "-cp", f"{install()}/*", f"org.apache.rocketmq.{main}", *arguments]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                guarded(self._owner, *command),
                cwd=here,
                env={**os.environ, **_homes(here)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


def answers(address: str, timeout: float, keys: tuple[str, str] | None = None) -> bool:
    """Whether the name server knows a route to the broker: the ports are open a second before that."""
    names = Remoting(section(address)["admin"], keys, timeout)
    try:
        names.call(_ROUTE, {"topic": _DEFAULT_TOPIC})
    except BrokerError:
        return False
    finally:
        names.close()
    return True


def until_answers(address: str, runs: Callable[[], bool], keys: tuple[str, str] | None = None) -> bool:
    """Wait until the servers answer; False if they stopped running before, or took more than `STARTS_WITHIN`."""
    grpc = urlsplit(address)
    deadline = time.monotonic() + STARTS_WITHIN
    while runs() and time.monotonic() < deadline:
        try:
            socket.create_connection((grpc.hostname or HOST, grpc.port or 0), 1).close()
        except OSError:
            time.sleep(0.1)
            continue
        if answers(address, timeout=5.0, keys=keys):
            return True
        time.sleep(0.1)
    return False


def _homes(directory: Path) -> Mapping[str, str]:
    return {"ROCKETMQ_HOME": str(directory), "RMQ_PROXY_HOME": str(directory)}
