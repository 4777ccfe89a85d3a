"""The suite for RabbitMQ: Nova beside pika alone, Dramatiq, FastStream, Taskiq and Celery, one process each, on one server.

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

from benchmarks.peers import CELERY, DRAMATIQ, FASTSTREAM_RABBIT, TASKIQ
from benchmarks.rabbitmq_broker import delete
from benchmarks.rabbitmq_server import server
from benchmarks.report import Ratio, percentile, rate_rows, ratio_data, ratio_rows, table
from benchmarks.samples import Results, Sample, measure, spawn

__all__ = ["DEFAULT_TASKS", "TITLE", "run", "versions"]

TITLE = "RabbitMQ"
DEFAULT_TASKS = 50_000
SLOW = 10
"""The peers get this fraction of the tasks."""
LONE = 50
"""And lone sends this one."""

RAW_IN, RAW_LONE, RAW_OUT = "pika alone: in, pipelined confirms", "pika alone: blocking confirm", "pika alone: out"
RAW_TOPIC = "pika alone: in, through a topic exchange"
NOVA_IN = {size: f"Nova enqueue_batch({size:,})" for size in (10_000, 1000, 100)}
NOVA_LONE, NOVA_OUT, NOVA_BATCHES = "Nova enqueue", "Nova start, one task a call", "Nova start_batch(500)"
PEERS = {
    "Dramatiq": (DRAMATIQ, "peer_dramatiq"),
    "FastStream": (FASTSTREAM_RABBIT, "peer_faststream_rabbit"),
    "Taskiq": (TASKIQ, "peer_taskiq"),
    "Celery": (CELERY, "peer_celery"),
}
PEERS_IN = {name: f"{name}: in" for name in PEERS}
PEERS_OUT = {name: f"{name}: out, one task a call" for name in PEERS}


def p50(sample: Sample) -> float:
    """The middle one of a run's lone sends, in ms."""
    return percentile(sample.details["ms"], 0.5)


def ratios() -> list[Ratio]:
    """What is compared; the bounds are those of the issue that asked for the driver."""
    best_in, best_out = tuple(PEERS_IN.values()), tuple(PEERS_OUT.values())
    return [
        Ratio("out: one task a call", NOVA_OUT, "the best peer", best_out, (3.0, 4.0)),
        Ratio("in: enqueue_batch(10,000)", NOVA_IN[10_000], "pika alone", (RAW_IN,), (0.8, 0.9)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], "pika alone", (RAW_IN,), (0.8, 0.9)),
        Ratio("in: enqueue_batch(10,000)", NOVA_IN[10_000], "pika alone, topic exchange", (RAW_TOPIC,)),
        Ratio("in: pika alone, topic exchange", RAW_TOPIC, "pika alone", (RAW_IN,)),
        Ratio("in: enqueue", NOVA_LONE, "pika alone, blocking", (RAW_LONE,), (0.8,)),
        Ratio("in: enqueue_batch(100)", NOVA_IN[100], "pika alone", (RAW_IN,)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], "the best peer", best_in),
        Ratio("out: one task a call", NOVA_OUT, "pika alone", (RAW_OUT,)),
        Ratio("out: batches of 500", NOVA_BATCHES, "pika alone", (RAW_OUT,)),
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

    def __init__(self, results: Results, address: str, prefix: str, tasks: int, pythons: dict[str, str]) -> None:
        self._results = results
        self._address = address
        self._prefix = prefix
        self._tasks = tasks
        self._pythons = pythons

    def run(self, *, backwards: bool) -> None:
        """Measure everything once, and leave no queue behind."""
        few, lone = max(100, self._tasks // SLOW), max(100, self._tasks // LONE)
        ins = [
            Step(RAW_IN, "raw_pika", "publish", "raw", (self._tasks,)),
            Step(RAW_TOPIC, "raw_pika", "publish_topic", "raw-topic", (self._tasks,)),
            *(
                Step(name, "nova_rabbitmq", "enqueue_batch", f"nova-{size}", (self._tasks, size))
                for size, name in NOVA_IN.items()
            ),
            *(Step(PEERS_IN[name], module, "publish", name, (few,)) for name, (_, module) in PEERS.items()),
        ]
        lones = [
            Step(RAW_LONE, "raw_pika", "publish_one", "raw-lone", (lone,)),
            Step(NOVA_LONE, "nova_rabbitmq", "enqueue", "nova-lone", (lone,)),
        ]
        outs = [
            Step(NOVA_OUT, "nova_rabbitmq", "handle", "nova-1000", (self._tasks,)),
            Step(RAW_OUT, "raw_pika", "handle", "raw", (self._tasks,)),
            Step(NOVA_BATCHES, "nova_rabbitmq", "handle_batches", "nova-100", (self._tasks,)),
            *(Step(PEERS_OUT[name], module, "handle", name, (few,)) for name, (_, module) in PEERS.items()),
        ]
        for prefix in (*(f"nova-{size}" for size in NOVA_IN), "nova-lone"):
            spawn("nova_rabbitmq", "prepare", self._address, f"{self._prefix}{prefix}", 0)
        for steps in (ins, lones, outs):
            for step in reversed(steps) if backwards else steps:
                self._measure(step)
        delete(self._address, *(f"{self._prefix}{step.queue}" for step in (*ins, *lones)))

    def _measure(self, step: Step) -> None:
        python = self._pythons.get(step.module, sys.executable)
        queue = f"{self._prefix}{step.queue}"
        sample = measure(step.module, step.how, self._address, queue, *step.numbers, python=python)
        self._results.add(step.name, sample)


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    return {"pika": version("pika"), **{name: peer.version for name, (peer, _) in PEERS.items()}}


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON.

    Raises:
        Absent: there is no server.
    """
    results = Results()
    with server() as address:
        pythons = {module: peer.python() for peer, module in PEERS.values()}
        prefix = f"bench-{secrets.token_hex(3)}-"
        print("a smaller round first, for the server to get warm; it does not count", file=sys.stderr, flush=True)
        Round(Results(), address, f"{prefix}warm-", max(1000, tasks // 5), pythons).run(backwards=False)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            Round(results, address, f"{prefix}{number}-", tasks, pythons).run(backwards=number % 2 == 1)
    return results, _report(results), {"ratios": ratio_data(results, ratios())}


def _report(results: Results) -> str:
    head = ["measured", "tasks", "tasks/s by round", "median", "CPU µs/task", "lost", "twice"]
    return "\n\n".join(
        [
            "RabbitMQ on one node; Nova, pika and FastStream on quorum queues, the other peers on theirs (classic)",
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
