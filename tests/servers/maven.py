"""Servers on this machine's Java, fetched through Maven, once per machine."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.cache import cache_directory, locked
from tests.servers.sharing import Unavailable

MINIMUM_JAVA = 17


@dataclass(frozen=True)
class MavenServer:
    """The jars of one server.

    Args:
        name: as people write it; in small letters the property of the `pom.xml` that holds the version.
        version: which one.
        pom: what is fetched.
        goal: of Maven's dependency plugin, which copies it.
    """

    name: str
    version: str
    pom: Path
    goal: str = "dependency:copy-dependencies"

    @functools.cache  # noqa: B019 - one object per server, as long as the process
    def why_not(self) -> str | None:
        """What keeps this machine from running it on its own Java; None = nothing."""
        java = shutil.which("java")
        if java is None:
            return f"no java on the PATH; {self.name} needs Java {MINIMUM_JAVA} or newer"
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', said)
        if version is None or int(version[1]) < MINIMUM_JAVA:
            return f"{java} is {said.splitlines()[0] if said else 'silent'}; {self.name} needs Java {MINIMUM_JAVA} or newer"
        if not self._directory.exists() and shutil.which("mvn") is None:
            return f"no mvn on the PATH to fetch {self.name} with"
        return None

    def install(self) -> Path:
        """The directory of the jars; fetched at the first call. Safe in several processes at once.

        Raises:
            Unavailable: Maven failed; the message ends with what it said.
        """
        directory = self._directory
        with locked(directory.with_name(f"{directory.name}.lock")):
            if not directory.exists():
                self._fetch(directory)
        return directory

    @property
    def _directory(self) -> Path:
        return cache_directory() / f"{self.name.lower()}-{self.version}"

    def _fetch(self, directory: Path) -> None:
        unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=directory.parent))
        version = f"-D{self.name.lower()}.version={self.version}"
        try:
            shutil.copy(self.pom, unfinished / "pom.xml")
            done = subprocess.run(
                ["mvn", "-q", "-B", version, self.goal, "-DincludeScope=runtime", "-DoutputDirectory=libs"],
                cwd=unfinished,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise Unavailable(f"Maven could not fetch {self.name} {self.version}:\n{done.stdout[-3000:]}")
            (unfinished / "libs").rename(directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
