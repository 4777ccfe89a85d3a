"""One server per broker for a whole pytest run, shared by the workers of pytest-xdist.

The controller of the run makes a directory (`begin_run`) and names it in the environment, which the workers inherit.
Whoever first needs a server starts it there, under a lock; the controller ends all of them (`end_run`). If it is killed
itself, the servers notice: each is started with the controller as its owner (`tests.servers.guard`).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from tests.servers.cache import locked

RUN = "NOVA_TEST_RUN"
"""The variable in which a run's controller tells its workers the directory they share."""


class Unavailable(Exception):
    """This machine cannot run a server; the message says why, and the way out."""


class Server(Protocol):
    """What a test may do to a server of its own."""

    address: str

    @property
    def end(self) -> tuple[str, ...]: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a start: a server with its address and the command that ends it, or why there is none."""

    address: str = ""
    end: tuple[str, ...] = ()
    absent: str = ""
    error: str = ""


def begin_run() -> None:
    """Make the directory that the workers of this run share; nothing is started."""
    directory = Path(tempfile.mkdtemp(prefix="nova-tests-"))
    (directory / "owner").write_text(str(os.getpid()), encoding="utf-8")
    os.environ[RUN] = str(directory)


def end_run() -> None:
    """End the servers that were started, and drop the directory."""
    directory = Path(os.environ.pop(RUN))
    for file in directory.glob("*.json"):
        end = _read(file).end
        if end:
            subprocess.run(end, capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)


def shared_address(name: str, start: Callable[[Path, int], Started]) -> str:
    """The address of the run's server; the first who asks starts it, the others wait for that.

    Args:
        name: the broker's.
        start: starts it in a directory, owned by a process. May raise `Unavailable`, or `RuntimeError` when it failed:
            either is kept, so that the next test need not wait for the same end.
    """
    directory = Path(os.environ[RUN])
    file = directory / f"{name}.json"
    with locked(directory / f"{name}.lock"):
        if not file.exists():
            owner = int((directory / "owner").read_text(encoding="utf-8"))
            file.write_text(json.dumps(asdict(_outcome(directory / name, owner, start))), encoding="utf-8")
        started = _read(file)
    if started.absent:
        absent(started.absent)
    if started.error:
        pytest.fail(started.error, pytrace=False)
    return started.address


def given_or_shared(
    name: str, variable: str, answers: Callable[[str, float], bool], new_server: Callable[..., Server]
) -> str:
    """The address of the server that a variable names, whose value may hold a password; else of the run's own."""

    def start(directory: Path, owner: int) -> Started:
        server = new_server(directory, owner=owner)
        server.start()
        return Started(server.address, server.end)

    given = os.environ.get(variable)
    if given is None:
        return shared_address(name, start)
    if not _asked(answers, given):
        pytest.fail(f"{variable} is set, but no {name} server answers us there", pytrace=False)
    return given


def started(make: Callable[[], Server]) -> Server:
    """A server of the test's own, running; the test must stop it."""
    try:
        server = make()
        server.start()
    except Unavailable as exc:
        absent(str(exc))
    return server


def absent(reason: str) -> NoReturn:
    """Skip the test and say why; fail it where `CI` is set, since every broker must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is a failure)", pytrace=False)
    pytest.skip(reason)


def _outcome(directory: Path, owner: int, start: Callable[[Path, int], Started]) -> Started:
    try:
        return start(directory, owner)
    except Unavailable as exc:
        return Started(absent=str(exc))
    except RuntimeError as exc:
        return Started(error=str(exc))


@functools.cache
def _asked(answers: Callable[[str, float], bool], address: str) -> bool:
    return answers(address, 10.0)


def _read(file: Path) -> Started:
    return Started(**json.loads(file.read_text(encoding="utf-8")))
