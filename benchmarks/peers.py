"""Peers, each pinned and installed into an environment of its own in the user's cache directory, never into ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CELERY", "DRAMATIQ", "FASTSTREAM", "FASTSTREAM_RABBIT", "HUEY", "TASKIQ", "Peer", "cache_directory"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A package from PyPI at one version.

    Attributes:
        extra: one of its extras, empty for none.
        beside: what else it gets, each as `name==version`.
    """

    name: str
    version: str
    extra: str = ""
    beside: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What pip is told."""
        return (f"{self.name}{f'[{self.extra}]' if self.extra else ''}=={self.version}", *self.beside)

    def python(self) -> str:
        """The interpreter of its environment, made now if it is missing (pip needs the network once).

        Raises:
            SystemExit: it could not be installed.
        """
        named = "-".join(filter(None, (self.name, self.version, self.extra)))
        tag = f"{named}-py{sys.version_info.major}.{sys.version_info.minor}"
        home = cache_directory() / "peers" / tag
        python = home / "bin" / "python"
        complete = home / "complete"
        wanted = "\n".join(self.requirements)
        if complete.exists() and python.exists() and complete.read_text(encoding="utf-8") == wanted:
            return str(python)
        print(f"installing {self.name} {self.version} into its own environment …", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *self.requirements]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"benchmarks: pip could not install {' '.join(self.requirements)}; is there a network?")
        complete.write_text(wanted, encoding="utf-8")
        return str(python)


HUEY = Peer("huey", "3.5.4")
FASTSTREAM = Peer("faststream", "0.7.8", "confluent", ("confluent-kafka==2.16.1", "orjson==3.13.0", "uvloop==0.23.0"))
"""With the client library that Nova is measured with, and what makes it fastest: it takes orjson where that is installed."""
FASTSTREAM_RABBIT = Peer("faststream", "0.7.8", "rabbit", ("orjson==3.13.0", "uvloop==0.23.0", "pika==1.4.4"))
DRAMATIQ = Peer("dramatiq", "2.2.1", "rabbitmq", ("pika==1.4.4",))
TASKIQ = Peer("taskiq-aio-pika", "0.6.1", "", ("taskiq==0.13.0", "uvloop==0.23.0", "pika==1.4.4"))
CELERY = Peer("celery", "5.7.0", "", ("pika==1.4.4",))
"""pika, where a peer does not bring it, is how its runner asks the server what is stored."""


def cache_directory() -> Path:
    """Ours under XDG_CACHE_HOME, default ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "nova-benchmarks"
