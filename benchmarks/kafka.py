"""The suite for Kafka: Nova beside confluent-kafka alone and FastStream, one process each, on one broker.

Within a round everything is measured once: what goes in, lone sends, what comes out, every second round in the opposite
order within each of the three; ratios are taken within rounds. What comes out is what the same round put in.
"""

from __future__ import annotations

import statistics
from importlib.metadata import version
from typing import Any

from benchmarks.kafka_broker import delete_topics
from benchmarks.kafka_server import server
from benchmarks.peers import FASTSTREAM
from benchmarks.report import Ratio, median_ms, on_server, ratio_data, table
from benchmarks.rounds import Round, Step, new_prefix, run_rounds
from benchmarks.samples import Results, spawn

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


def ratios() -> list[Ratio]:
    """What is compared; the bounds are those of the issue that asked for the driver."""
    alone = "confluent-kafka alone"
    return [
        Ratio("out: one task a call", NOVA_OUT, "FastStream", (PEER_OUT,), (8.0,)),
        Ratio("out: batches of 500", NOVA_BATCHES, "FastStream", (PEER_BATCHES,), (1.5,)),
        Ratio("in: enqueue_batch(10,000)", NOVA_IN[10_000], alone, (RAW_IN,), (0.5,)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], alone, (RAW_IN,), (0.5,)),
        Ratio("in: enqueue_batch(100)", NOVA_IN[100], alone, (RAW_IN,), (0.5,)),
        Ratio(
            "in: enqueue, p50 in ms", NOVA_LONE, f"{alone}, flush", (RAW_LONE,), (1.5,), value=median_ms, at_most=True
        ),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], f"{alone}, by 1,000", (RAW_CHUNKS_IN,)),
        Ratio("in: enqueue_batch(1,000)", NOVA_IN[1000], "FastStream", (PEER_IN,)),
        Ratio("in: enqueue, p50 in ms", NOVA_LONE, "FastStream", (PEER_LONE,), value=median_ms, at_most=True),
        Ratio("out: one task a call", NOVA_OUT, alone, (RAW_OUT,)),
        Ratio("out: batches of 500", NOVA_BATCHES, alone, (RAW_OUT,)),
    ]


def measure_all(a_round: Round) -> None:
    """One round."""
    tasks = a_round.tasks
    few, lone = max(CHUNK, tasks // SLOW), max(CHUNK, tasks // LONE)
    a_round.prepare("nova_kafka", *(f"nova-{size}" for size in NOVA_IN), "nova-lone")
    spawn("raw_kafka", "produce", a_round.address, f"{a_round.prefix}peer-few", few)
    ins = [
        Step(RAW_IN, "raw_kafka", "produce", "raw", (tasks,)),
        Step(NOVA_IN[10_000], "nova_kafka", "enqueue_batch", "nova-10000", (tasks, 10_000)),
        Step(NOVA_IN[1000], "nova_kafka", "enqueue_batch", "nova-1000", (tasks, 1000)),
        Step(RAW_CHUNKS_IN, "raw_kafka", "produce_chunks", "chunks", (tasks, 1000)),
        Step(NOVA_IN[100], "nova_kafka", "enqueue_batch", "nova-100", (tasks, 100)),
        Step(PEER_IN, PEER, "publish_batch", "peer", (tasks, 1000)),
    ]
    lones = [
        Step(RAW_LONE, "raw_kafka", "produce_one", "raw-lone", (lone,)),
        Step(NOVA_LONE, "nova_kafka", "enqueue", "nova-lone", (lone,)),
        Step(PEER_LONE, PEER, "publish", "peer-lone", (lone,)),
    ]
    outs = [
        Step(NOVA_OUT, "nova_kafka", "handle", "nova-1000", (tasks,)),
        Step(PEER_OUT, PEER, "handle", "peer-few", (few,)),
        Step(RAW_OUT, "raw_kafka", "handle", "raw", (tasks,)),
        Step(NOVA_BATCHES, "nova_kafka", "handle_batches", "nova-100", (tasks,)),
        Step(PEER_BATCHES, PEER, "handle_batches", "peer", (tasks,)),
    ]
    a_round.measure(ins, lones, outs)


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
    prefix = new_prefix()
    with server() as (address, which):
        try:
            results = run_rounds(measure_all, address, prefix, tasks, rounds, {PEER: FASTSTREAM.python()})
        finally:
            delete_topics(address, prefix)
    return results, _report(results, which), {"server": which, "ratios": ratio_data(results, ratios())}


def _report(results: Results, which: str) -> str:
    where = f"Kafka server {which}, one broker, 6 partitions a topic, replication 1"
    return f"{on_server(where, results, ratios(), LONE_SENDS, *LONE_SENDS)}\n\n{_around(results)}"


def _around(results: Results) -> str:
    """What the rates leave out, and what of them is the wait for the last commit."""
    rows = []
    for name in OUTS:
        samples = results.samples[name]
        keys = ("start_seconds", "last_commit_seconds")
        rows.append([name, *(f"{statistics.median(s.details[key] for s in samples):.2f}" for key in keys)])
    head = ["medians, in seconds", "from the start to the first task", "from the last task to its commit"]
    return table("Before and after", head, rows)
