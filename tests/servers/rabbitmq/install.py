"""Installs Debian's package of RabbitMQ where this machine lets us: root with apt-get. Its system service never starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers.cache import cache_directory, locked
from tests.servers.rabbitmq.server import programs
from tests.servers.sharing import Unavailable

_POLICY = Path("/usr/sbin/policy-rc.d")


def why_not() -> str | None:
    """What keeps this machine from running RabbitMQ by itself; None = nothing, though it may have to be installed first."""
    if programs() is not None:
        return None
    if shutil.which("apt-get") is None:
        return "no rabbitmq-server on the PATH"
    if os.geteuid() != 0:
        return "no rabbitmq-server on the PATH, and only root may install it"
    return None


def install() -> None:
    """Make sure that the programs are there. Safe in several processes at once.

    Raises:
        Unavailable: apt-get failed; the message ends with what it said.
    """
    with locked(cache_directory() / "rabbitmq-install.lock"):
        if programs() is None:
            _install()


def _install() -> None:
    quiet = not _POLICY.exists()
    if quiet:  # Debian's way to install a server without starting it
        _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        _POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        said = ""
        for command in (["update"], ["install", "-y", "--no-install-recommends", "rabbitmq-server"]):
            said = subprocess.run(
                ["apt-get", "-q", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            ).stdout
        if programs() is None:
            raise Unavailable(f"apt-get could not install rabbitmq-server:\n{said[-3000:]}")
    finally:
        if quiet:
            _POLICY.unlink()
