"""What the servers of a test are told: as little as they need, and on top of that settings that suit short tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"

LOGBACK = """<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %p %c{0} %t - %m%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT"/></root>
</configuration>
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is said to broker and proxy beyond names and ports.

    Attributes:
        broker: lines of its properties file.
        proxy: entries of its JSON file.
    """

    broker: Mapping[str, str] = field(default_factory=dict)
    proxy: Mapping[str, Any] = field(default_factory=dict)

    def with_proxy(self, **entries: Any) -> Settings:
        """The same with more said to the proxy."""
        return Settings(self.broker, {**self.proxy, **entries})


STOCK = Settings()
"""As RocketMQ comes: timers to the second, leases of at least 10 s, polls of at least 5 s, acks one by one."""
TUNED = Settings(
    broker={
        "timerPrecisionMs": "100",
        "popConsumerKVServiceInit": "true",
        "popConsumerKVServiceEnable": "true",
    },
    proxy={
        "minInvisibleTimeMillsForRecv": 1000,
        "grpcClientConsumerMinLongPollingTimeoutMillis": 300,
        "enableBatchAck": True,
    },
)
"""As docs/brokers.md advises, but for the short polls, which let a test's queue close at once."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers listen on this machine."""

    names: int
    broker: int
    grpc: int
    remoting: int


def write_files(directory: Path, ports: Ports, settings: Settings) -> None:
    """Configuration files of name server, broker and proxy, and the folder for their data."""
    (directory / "user").mkdir(parents=True, exist_ok=True)
    (directory / "logback.xml").write_text(LOGBACK, encoding="utf-8")
    _write_properties(directory / "namesrv.conf", _name_server(directory, ports))
    _write_properties(directory / "broker.conf", {**broker_lines(str(directory), ports), **settings.broker})
    proxy = {**proxy_entries(ports), **settings.proxy}
    (directory / "rmq-proxy.json").write_text(json.dumps(proxy, indent=1), encoding="utf-8")


def _name_server(directory: Path, ports: Ports) -> dict[str, str]:
    return {
        "listenPort": str(ports.names),
        "bindAddress": HOST,
        "rocketmqHome": str(directory),
        "kvConfigPath": str(directory / "kvConfig.json"),
        "configStorePath": str(directory / "namesrv.properties"),
    }


def broker_lines(directory: str, ports: Ports) -> dict[str, str]:
    """The broker's properties."""
    return {
        "brokerClusterName": "DefaultCluster",
        "brokerName": "broker-a",
        "brokerId": "0",
        "brokerIP1": HOST,
        "bindAddress": HOST,
        "listenPort": str(ports.broker),
        "namesrvAddr": f"{HOST}:{ports.names}",
        "rocketmqHome": directory,
        "storePathRootDir": f"{directory}/store",
        "storePathCommitLog": f"{directory}/store/commitlog",
        # Small files, and no refusal on the disk of a busy build machine.
        "mappedFileSizeCommitLog": "67108864",
        "mappedFileSizeConsumeQueue": "1200000",
        "mappedFileSizeTimerLog": "16777216",
        "maxHashSlotNum": "200000",
        "maxIndexNum": "800000",
        "diskMaxUsedSpaceRatio": "95",
    }


def proxy_entries(ports: Ports) -> dict[str, Any]:
    """The proxy's settings."""
    return {
        "rocketMQClusterName": "DefaultCluster",
        "proxyMode": "LOCAL",
        "namesrvAddr": f"{HOST}:{ports.names}",
        "localServeAddr": HOST,
        "grpcServerPort": ports.grpc,
        "remotingListenPort": ports.remoting,
    }


def _write_properties(file: Path, values: Mapping[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in values.items()), encoding="utf-8")
