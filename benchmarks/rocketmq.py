"""The suite for RocketMQ: Nova beside the official client's stubs alone, one process each, on one server. There is no peer.

Within a round everything is measured once: what goes in, lone sends, what comes out, every second round in the opposite
order within each of the three; ratios are taken within rounds. What comes out is what the same round put in.
"""

from __future__ import annotations

import secrets
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from benchmarks.report import Ratio, percentile, rate_rows, ratio_data, ratio_rows, table
from benchmarks.rocketmq_server import server
from benchmarks.samples import Results, measure, spawn

__all__ = ["DEFAULT_TASKS", "TITLE", "run", "versions"]

TITLE = "RocketMQ"
DEFAULT_TASKS = 20_000
LONE = 50
"""Lone sends get this fraction of the tasks."""

RAW_IN, RAW_LONE = "stubs alone: in, 128 a request", "stubs alone: one a request"
RAW_OUT = "stubs alone: out, receive 32 + ack"
NOVA_IN = {1000: "Nova enqueue_batch(1,000)", 100: "Nova enqueue_batch(100)"}
NOVA_LONE, NOVA_OUT, NOVA_BATCHES = "Nova enqueue", "Nova start, one task a call", "Nova start_batch(500)"


def ratios() -> list[Ratio]:
    """What is compared; the bounds are those of the issue that asked for the driver."""
    return [
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], "stubs alone", (RAW_IN,), (0.6, 0.8)),
        Ratio("out: one task a call", NOVA_OUT, "stubs alone", (RAW_OUT,), (0.6, 0.8)),
        Ratio("in: enqueue", NOVA_LONE, "stubs alone, one a request", (RAW_LONE,), (0.6,)),
        Ratio("in: enqueue_batch(100)", NOVA_IN[100], "stubs alone", (RAW_IN,)),
        Ratio("out: batches of 500", NOVA_BATCHES, "stubs alone", (RAW_OUT,)),
    ]


@dataclass(frozen=True, slots=True)
class Step:
    """One measured thing: its runner, what the runner is told to do, on which queue (of Nova: prefix), and how often."""

    name: str
    module: str
    how: str
    queue: str
    numbers: tuple[int, ...]


class Round:
    """One round on queues of its own; their names begin with `prefix`."""

    def __init__(self, results: Results, address: str, prefix: str, tasks: int) -> None:
        self._results = results
        self._address = address
        self._prefix = prefix
        self._tasks = tasks

    def run(self, *, backwards: bool) -> None:
        """Measure everything once. What it stored stays: the server is the run's own, or tidies up by age."""
        lone = max(100, self._tasks // LONE)
        ins = [
            Step(RAW_IN, "raw_rocketmq", "publish", "raw", (self._tasks,)),
            Step(NOVA_IN[1000], "nova_rocketmq", "enqueue_batch", "nova-1000", (self._tasks, 1000)),
            Step(NOVA_IN[100], "nova_rocketmq", "enqueue_batch", "nova-100", (self._tasks, 100)),
        ]
        lones = [
            Step(RAW_LONE, "raw_rocketmq", "publish_one", "raw-lone", (lone,)),
            Step(NOVA_LONE, "nova_rocketmq", "enqueue", "nova-lone", (lone,)),
        ]
        outs = [
            Step(NOVA_OUT, "nova_rocketmq", "handle", "nova-1000", (self._tasks,)),
            Step(RAW_OUT, "raw_rocketmq", "handle", "raw", (self._tasks,)),
            Step(NOVA_BATCHES, "nova_rocketmq", "handle_batches", "nova-100", (self._tasks,)),
        ]
        for prefix in ("nova-1000", "nova-100", "nova-lone"):
            spawn("nova_rocketmq", "prepare", self._address, f"{self._prefix}{prefix}", 0)
        for steps in (ins, lones, outs):
            for step in reversed(steps) if backwards else steps:
                self._measure(step)

    def _measure(self, step: Step) -> None:
        queue = f"{self._prefix}{step.queue}"
        sample = measure(step.module, step.how, self._address, queue, *step.numbers)
        self._results.add(step.name, sample)


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    return {"rocketmq-python-client": version("rocketmq-python-client"), "grpcio": version("grpcio")}


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON.

    Raises:
        Absent: there is no server.
    """
    results = Results()
    with server() as address:
        prefix = f"bench-{secrets.token_hex(3)}-"
        print("a smaller round first, for the server to get warm; it does not count", file=sys.stderr, flush=True)
        Round(Results(), address, f"{prefix}warm-", max(1000, tasks // 5)).run(backwards=False)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            Round(results, address, f"{prefix}{number}-", tasks).run(backwards=number % 2 == 1)
    return results, _report(results), {"ratios": ratio_data(results, ratios())}


def _report(results: Results) -> str:
    head = ["measured", "tasks", "tasks/s by round", "median", "CPU µs/task", "lost", "twice"]
    return "\n\n".join(
        [
            "RocketMQ, name server and proxy with the broker inside it",
            table("Rates", head, rate_rows(results, sorted(results.samples))),
            table("Ratios", ["Nova", "against", "by round", "median", "target"], ratio_rows(results, ratios())),
            _lone(results),
        ]
    )


def _lone(results: Results) -> str:
    rows = []
    for name in (RAW_LONE, NOVA_LONE):
        samples = results.samples[name]
        rounds = [[percentile(sample.details["ms"], share) for sample in samples] for share in (0.5, 0.99)]
        figures = [
            text for by in rounds for text in (" ".join(f"{ms:.2f}" for ms in by), f"{statistics.median(by):.2f}")
        ]
        rows.append([name, f"{samples[0].tasks:,}", *figures])
    head = ["confirmed one by one", "sends", "p50 ms by round", "median", "p99 ms by round", "median"]
    return table("A lone send", head, rows)
