"""Servers in containers, for machines that cannot run them otherwise. Kill and pause go through Docker too.

Through the `docker` program and not a library: the server must outlive the pytest-xdist worker that started it and die
with the run, which is what `guard.when_gone` sees to, and `docker run` needs no more than what is written here.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence

from tests.servers.guard import when_gone


@functools.cache
def why_not() -> str | None:
    """What keeps this machine from running containers; None = nothing."""
    if shutil.which("docker") is None:
        return "no docker on the PATH"
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return None if asked.returncode == 0 else f"docker has no engine: {asked.stderr.strip().splitlines()[-1]}"


class Container:
    """A server in a container; its data live and die with it.

    Args:
        kind: the broker's name, for people.
        image: what it is made of.
        options: of `docker create`, without the name.
        answers: waits until the server answers; False = it does not.
        owner: the process with which it dies; None = it outlives everybody.
        command: what runs inside; () = what the image says.
    """

    def __init__(
        self,
        kind: str,
        image: str,
        options: Sequence[str],
        *,
        command: Sequence[str] = (),
        address: str,
        answers: Callable[[], bool],
        owner: int | None,
    ) -> None:
        self.address = address
        self.name = f"nova-tests-{kind.lower()}-{uuid.uuid4().hex[:12]}"
        self._kind = kind
        self._image = image
        self._command = command
        self._options = options
        self._answers = answers
        self._owner = owner

    def start(self) -> None:
        """Make the container, start it and wait until it answers.

        Raises:
            RuntimeError: it did not answer; the message ends with its log.
        """
        _docker("create", "--name", self.name, *self._options, self._image, *self._command)
        when_gone(self._owner, *self.end)
        self.restart()

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same data and port."""
        self.kill()
        _docker("start", self.name)
        if not self._answers():
            log = subprocess.run(
                ["docker", "logs", "--tail", "40", self.name], capture_output=True, text=True, check=False
            )
            raise RuntimeError(
                f"{self._kind} in {self.name} did not start; its log ends with:\n{log.stdout}{log.stderr}"
            )

    def kill(self) -> None:
        """SIGKILL."""
        subprocess.run(["docker", "kill", self.name], capture_output=True, check=False)

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered."""
        _docker("pause", self.name)

    def resume(self) -> None:
        """End a pause."""
        _docker("unpause", self.name)

    def stop(self) -> None:
        """End it and drop its data."""
        subprocess.run(self.end, capture_output=True, check=False)

    @property
    def end(self) -> tuple[str, ...]:
        """The command by which another process ends it."""
        return ("docker", "rm", "--force", "--volumes", self.name)


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
