"""Apache RocketMQ's name server, broker and proxy from Maven Central."""

from __future__ import annotations

from pathlib import Path

from tests.servers.maven import MINIMUM_JAVA, MavenServer

__all__ = ["MINIMUM_JAVA", "VERSION", "install", "why_not"]

VERSION = "5.4.0"
_SERVER = MavenServer(
    "RocketMQ",
    VERSION,
    Path(__file__).with_name("pom.xml"),
    "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
)

why_not = _SERVER.why_not
install = _SERVER.install
