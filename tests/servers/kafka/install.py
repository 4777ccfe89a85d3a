"""Apache Kafka's server from Maven Central."""

from __future__ import annotations

from pathlib import Path

from tests.servers.maven import MINIMUM_JAVA, MavenServer

__all__ = ["MINIMUM_JAVA", "VERSION", "install", "why_not"]

VERSION = "4.2.0"
_SERVER = MavenServer("Kafka", VERSION, Path(__file__).with_name("pom.xml"))

why_not = _SERVER.why_not
install = _SERVER.install
