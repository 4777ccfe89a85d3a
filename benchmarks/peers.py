"""Peers, each pinned and installed into an environment of its own in the user's cache directory, never into ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HUEY", "Peer", "cache_directory"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A package from PyPI at one version."""

    name: str
    version: str

    def python(self) -> str:
        """The interpreter of its environment, made now if it is missing (pip needs the network once).

        Raises:
            SystemExit: it could not be installed.
        """
        tag = f"{self.name}-{self.version}-py{sys.version_info.major}.{sys.version_info.minor}"
        home = cache_directory() / "peers" / tag
        python = home / "bin" / "python"
        complete = home / "complete"
        if complete.exists() and python.exists():
            return str(python)
        print(f"installing {self.name} {self.version} into its own environment …", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", f"{self.name}=={self.version}"]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"benchmarks: pip could not install {self.name}=={self.version}; is there a network?")
        complete.touch()
        return str(python)


HUEY = Peer("huey", "3.5.4")


def cache_directory() -> Path:
    """Ours under XDG_CACHE_HOME, default ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "nova-benchmarks"
