"""Fetches Apache RocketMQ's server, once per machine, through Maven."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers.cache import cache_directory, locked
from tests.servers.sharing import Unavailable

VERSION = "5.4.0"
MINIMUM_JAVA = 17
_POM = Path(__file__).with_name("pom.xml")
_GOAL = (
    "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
    "-DincludeScope=runtime",
    "-DoutputDirectory=libs",
)


@functools.cache
def why_not() -> str | None:
    """What keeps this machine from running RocketMQ on its own Java; None = nothing."""
    java = shutil.which("java")
    if java is None:
        return f"no java on the PATH; RocketMQ needs Java {MINIMUM_JAVA} or newer"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < MINIMUM_JAVA:
        return f"{java} is {said.splitlines()[0] if said else 'silent'}; RocketMQ needs Java {MINIMUM_JAVA} or newer"
    if not _directory().exists() and shutil.which("mvn") is None:
        return "no mvn on the PATH to fetch RocketMQ with"
    return None


def install() -> Path:
    """The directory of the server's jars; fetched at the first call. Safe in several processes at once.

    Raises:
        Unavailable: Maven failed; the message ends with what it said.
    """
    directory = _directory()
    with locked(directory.with_name(f"{directory.name}.lock")):
        if not directory.exists():
            _fetch(directory)
    return directory


def _directory() -> Path:
    return cache_directory() / f"rocketmq-{VERSION}"


def _fetch(directory: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=directory.parent))
    try:
        shutil.copy(_POM, unfinished / "pom.xml")
        done = subprocess.run(
            ["mvn", "-q", "-B", f"-Drocketmq.version={VERSION}", *_GOAL],
            cwd=unfinished,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"Maven could not fetch RocketMQ {VERSION}:\n{done.stdout[-3000:]}")
        (unfinished / "libs").rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
