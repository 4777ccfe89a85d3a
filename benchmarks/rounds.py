"""The rounds of a suite on a server: everything once in each, every second one backwards, after one that does not count."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.samples import Results, measure, spawn

__all__ = ["Round", "Step", "new_prefix", "run_rounds"]

WARM = 5
"""The round before gets this fraction of the tasks."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measured thing: its runner, what that is told to do, on which topic or queue (of Nova: prefix), and how often."""

    name: str
    module: str
    how: str
    place: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One round on topics or queues of its own.

    Attributes:
        prefix: what their names begin with.
        backwards: whether the steps of each group come in the opposite order.
        pythons: the interpreters of the peers, by the module of their runner.
    """

    results: Results
    address: str
    prefix: str
    tasks: int
    backwards: bool
    pythons: Mapping[str, str]

    def prepare(self, module: str, *places: str) -> None:
        """Let Nova make what its runs then find."""
        for place in places:
            spawn(module, "prepare", self.address, f"{self.prefix}{place}", 0)

    def measure(self, *groups: Sequence[Step]) -> None:
        """Run the steps of one group after those of the other."""
        for steps in groups:
            for step in reversed(steps) if self.backwards else steps:
                self._measure(step)

    def _measure(self, step: Step) -> None:
        place = f"{self.prefix}{step.place}"
        python = self.pythons.get(step.module, sys.executable)
        sample = measure(step.module, step.how, self.address, place, *step.numbers, python=python)
        self.results.add(step.name, sample)


def run_rounds(
    measure_all: Callable[[Round], None],
    address: str,
    prefix: str,
    tasks: int,
    rounds: int,
    pythons: Mapping[str, str] | None = None,
) -> Results:
    """What `measure_all` measured in that many rounds, the smaller one before them left out."""
    pythons = pythons or {}
    print("a smaller round first, for the server to get warm; it does not count", file=sys.stderr, flush=True)
    measure_all(Round(Results(), address, f"{prefix}warm-", max(1000, tasks // WARM), backwards=False, pythons=pythons))
    results = Results()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        measure_all(Round(results, address, f"{prefix}{number}-", tasks, backwards=number % 2 == 1, pythons=pythons))
    return results


def new_prefix() -> str:
    """What nobody else's topics or queues begin with."""
    return f"bench-{secrets.token_hex(3)}-"
