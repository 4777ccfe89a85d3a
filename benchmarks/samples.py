"""One measured thing, run as a process of its own, and what it answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Absent", "Results", "Sample", "measure", "spawn"]

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 900.0
"""Seconds after which a runner is killed."""


class Absent(Exception):
    """What a suite is about is not to be had on this machine; the message says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `lost` and `duplicates` of a sound one are 0; the figures of any other are void."""

    tasks: int
    seconds: float
    lost: int
    duplicates: int
    details: Mapping[str, Any]

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    @property
    def void(self) -> bool:
        """Whether tasks were lost or handled twice."""
        return bool(self.lost or self.duplicates)


@dataclass(slots=True)
class Results:
    """The samples of a suite by what was measured, in rounds; entry i of each list belongs to round i."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, name: str, sample: Sample) -> None:
        """Keep a sample and show that it is there."""
        self.samples.setdefault(name, []).append(sample)
        fate = f"VOID: lost {sample.lost}, twice {sample.duplicates}" if sample.void else "sound"
        print(f"  {name}: {sample.tasks:,} tasks in {sample.seconds:.2f} s, {fate}", file=sys.stderr, flush=True)

    @property
    def void(self) -> list[str]:
        """What lost or doubled a task in any round."""
        return [name for name, samples in self.samples.items() if any(sample.void for sample in samples)]

    def of_rounds(self, names: tuple[str, ...], value: Callable[[Sample], float]) -> list[float]:
        """The largest value of several measured things, round by round."""
        rounds = zip(*(self.samples[name] for name in names), strict=True)
        return [max(map(value, samples)) for samples in rounds]


def measure(module: str, *arguments: object, python: str = sys.executable) -> Sample:
    """Run a runner that answers with a sample."""
    return Sample(**spawn(module, *arguments, python=python))


def spawn(module: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """Run a runner and parse its answer.

    Raises:
        SystemExit: it failed or hung; its own words were printed.
    """
    command = [python, "-m", f"benchmarks.{module}", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=LONGEST, check=True, text=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise SystemExit(f"benchmarks: the runner {module} {arguments[0]} failed: {exc}") from exc
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
