"""The suite for Kafka: Nova beside confluent-kafka alone and FastStream, one process each, on one broker.

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

from benchmarks.kafka_broker import delete_topics
from benchmarks.kafka_server import server
from benchmarks.peers import FASTSTREAM
from benchmarks.report import Ratio, percentile, rate_rows, ratio_data, ratio_rows, table
from benchmarks.samples import Results, Sample, measure, spawn

__all__ = ["DEFAULT_TASKS", "TITLE", "run", "versions"]

TITLE = "Kafka"
DEFAULT_TASKS = 200_000
CHUNK = 500
"""What a batch out holds; the tasks of a run are rounded to whole ones."""
SLOW = 10
"""FastStream's one by one gets this fraction of the tasks."""
LONE = 100
"""And lone sends this one."""

RAW_IN, RAW_CHUNKS_IN = "confluent-kafka alone: in", "confluent-kafka alone: in, by 1,000"
NOVA_IN = {size: f"Nova enqueue_batch({size:,})" for size in (10_000, 1000, 100)}
PEER_IN = "FastStream publish_batch(1,000)"
RAW_LONE, NOVA_LONE, PEER_LONE = "confluent-kafka alone: produce, flush", "Nova enqueue", "FastStream publish"
RAW_OUT = "confluent-kafka alone: out"
NOVA_OUT, PEER_OUT = "Nova start, one task a call", "FastStream, one message a call"
NOVA_BATCHES, PEER_BATCHES = "Nova start_batch(500)", "FastStream, batches of 500"

PEER = "peer_faststream"
LONE_SENDS = (RAW_LONE, NOVA_LONE, PEER_LONE)
OUTS = (RAW_OUT, NOVA_OUT, PEER_OUT, NOVA_BATCHES, PEER_BATCHES)


def p50(sample: Sample) -> float:
    """The middle one of a run's lone sends, in ms."""
    return percentile(sample.details["ms"], 0.5)


def ratios() -> list[Ratio]:
    """What is compared; the bounds are those of the issue that asked for the driver."""
    alone = "confluent-kafka alone"
    return [
        Ratio("out: one task a call", NOVA_OUT, "FastStream", (PEER_OUT,), (8.0,)),
        Ratio("out: batches of 500", NOVA_BATCHES, "FastStream", (PEER_BATCHES,), (1.5,)),
        Ratio("in: enqueue_batch(10,000)", NOVA_IN[10_000], alone, (RAW_IN,), (0.5,)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], alone, (RAW_IN,), (0.5,)),
        Ratio("in: enqueue_batch(100)", NOVA_IN[100], alone, (RAW_IN,), (0.5,)),
        Ratio("in: enqueue, p50 in ms", NOVA_LONE, f"{alone}, flush", (RAW_LONE,), (1.5,), value=p50, at_most=True),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], f"{alone}, by 1,000", (RAW_CHUNKS_IN,)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], "FastStream", (PEER_IN,)),
        Ratio("in: enqueue, p50 in ms", NOVA_LONE, "FastStream", (PEER_LONE,), value=p50, at_most=True),
        Ratio("out: one task a call", NOVA_OUT, alone, (RAW_OUT,)),
        Ratio("out: batches of 500", NOVA_BATCHES, alone, (RAW_OUT,)),
    ]


@dataclass(frozen=True, slots=True)
class Step:
    """One measured thing: its runner, what the runner is told to do, on which topic (of Nova: prefix), and how often."""

    name: str
    module: str
    how: str
    topic: str
    numbers: tuple[int, ...]


class Round:
    """One round on topics of its own; their names begin with `prefix`."""

    def __init__(self, results: Results, address: str, prefix: str, tasks: int, python: str) -> None:
        self._results = results
        self._address = address
        self._prefix = prefix
        self._tasks = tasks
        self._python = python

    def run(self, *, backwards: bool) -> None:
        """Measure everything once."""
        few, lone = max(CHUNK, self._tasks // SLOW), max(CHUNK, self._tasks // LONE)
        ins = [
            Step(RAW_IN, "raw_kafka", "produce", "raw", (self._tasks,)),
            Step(NOVA_IN[10_000], "nova_kafka", "enqueue_batch", "nova-10000", (self._tasks, 10_000)),
            Step(NOVA_IN[1000], "nova_kafka", "enqueue_batch", "nova-1000", (self._tasks, 1000)),
            Step(RAW_CHUNKS_IN, "raw_kafka", "produce_chunks", "chunks", (self._tasks, 1000)),
            Step(NOVA_IN[100], "nova_kafka", "enqueue_batch", "nova-100", (self._tasks, 100)),
            Step(PEER_IN, PEER, "publish_batch", "peer", (self._tasks, 1000)),
        ]
        lones = [
            Step(RAW_LONE, "raw_kafka", "produce_one", "raw-lone", (lone,)),
            Step(NOVA_LONE, "nova_kafka", "enqueue", "nova-lone", (lone,)),
            Step(PEER_LONE, PEER, "publish", "peer-lone", (lone,)),
        ]
        outs = [
            Step(NOVA_OUT, "nova_kafka", "handle", "nova-1000", (self._tasks,)),
            Step(PEER_OUT, PEER, "handle", "peer-few", (few,)),
            Step(RAW_OUT, "raw_kafka", "handle", "raw", (self._tasks,)),
            Step(NOVA_BATCHES, "nova_kafka", "handle_batches", "nova-100", (self._tasks,)),
            Step(PEER_BATCHES, PEER, "handle_batches", "peer", (self._tasks,)),
        ]
        for prefix in (*(f"nova-{size}" for size in NOVA_IN), "nova-lone"):
            spawn("nova_kafka", "prepare", self._address, f"{self._prefix}{prefix}", 0)
        spawn("raw_kafka", "produce", self._address, f"{self._prefix}peer-few", few)
        for steps in (ins, lones, outs):
            for step in reversed(steps) if backwards else steps:
                self._measure(step)

    def _measure(self, step: Step) -> None:
        python = self._python if step.module == PEER else sys.executable
        topic = f"{self._prefix}{step.topic}"
        sample = measure(step.module, step.how, self._address, topic, *step.numbers, python=python)
        self._results.add(step.name, sample)


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    # Not imported at the top: this environment may be without Kafka, and the other suites run all the same.
    from confluent_kafka import libversion

    return {
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": libversion()[0],
        FASTSTREAM.name: FASTSTREAM.version,
    }


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON.

    Raises:
        Absent: there is no server.
    """
    tasks = max(CHUNK, tasks // CHUNK * CHUNK)
    results = Results()
    with server() as (address, which):
        python = FASTSTREAM.python()
        prefix = f"bench-{secrets.token_hex(3)}-"
        try:
            print("a smaller round first, for the server to get warm; it does not count", file=sys.stderr, flush=True)
            Round(Results(), address, f"{prefix}warm-", max(CHUNK, tasks // 5), python).run(backwards=False)
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                Round(results, address, f"{prefix}{number}-", tasks, python).run(backwards=number % 2 == 1)
        finally:
            delete_topics(address, prefix)
    return results, _report(results, which), {"server": which, "ratios": ratio_data(results, ratios())}


def _report(results: Results, which: str) -> str:
    head = ["measured", "tasks", "tasks/s by round", "median", "CPU µs/task", "lost", "twice"]
    measured = sorted(name for name in results.samples if name not in LONE_SENDS)
    sections = [
        f"Kafka server {which}, one broker, 6 partitions a topic, replication 1",
        table("Rates", head, rate_rows(results, measured)),
        table("Ratios", ["Nova", "against", "by round", "median", "target"], ratio_rows(results, ratios())),
        _lone(results),
        _around(results),
    ]
    return "\n\n".join(sections)


def _lone(results: Results) -> str:
    rows = []
    for name in LONE_SENDS:
        samples = results.samples[name]
        rounds = [[percentile(sample.details["ms"], share) for sample in samples] for share in (0.5, 0.99)]
        figures = [
            text for by in rounds for text in (" ".join(f"{ms:.2f}" for ms in by), f"{statistics.median(by):.2f}")
        ]
        faults = [str(sum(sample.lost for sample in samples)), str(sum(sample.duplicates for sample in samples))]
        rows.append([name, f"{samples[0].tasks:,}", *figures, *faults])
    head = ["confirmed one by one", "sends", "p50 ms by round", "median", "p99 ms by round", "median", "lost", "twice"]
    return table("A lone send", head, rows)


def _around(results: Results) -> str:
    """What the rates leave out, and what of them is the wait for the last commit."""
    rows = []
    for name in OUTS:
        samples = results.samples[name]
        keys = ("start_seconds", "last_commit_seconds")
        rows.append([name, *(f"{statistics.median(s.details[key] for s in samples):.2f}" for key in keys)])
    head = ["medians, in seconds", "from the start to the first task", "from the last task to its commit"]
    return table("Before and after", head, rows)
