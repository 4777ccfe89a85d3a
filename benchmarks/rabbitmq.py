"""The suite for RabbitMQ: Nova beside pika alone, Dramatiq, FastStream, Taskiq and Celery, one process each, on one server.

Within a round everything is measured once: what goes in, lone sends, what comes out, every second round in the opposite
order within each of the three; ratios are taken within rounds. What comes out is what the same round put in.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks.peers import CELERY, DRAMATIQ, FASTSTREAM_RABBIT, TASKIQ
from benchmarks.rabbitmq_broker import delete
from benchmarks.rabbitmq_server import server
from benchmarks.report import Ratio, on_server, ratio_data
from benchmarks.rounds import Round, Step, new_prefix, run_rounds
from benchmarks.samples import Results

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


def measure_all(a_round: Round) -> None:
    """One round, which leaves no queue behind."""
    tasks = a_round.tasks
    few, lone = max(100, tasks // SLOW), max(100, tasks // LONE)
    a_round.prepare("nova_rabbitmq", *(f"nova-{size}" for size in NOVA_IN), "nova-lone")
    ins = [
        Step(RAW_IN, "raw_pika", "publish", "raw", (tasks,)),
        Step(RAW_TOPIC, "raw_pika", "publish_topic", "raw-topic", (tasks,)),
        *(
            Step(name, "nova_rabbitmq", "enqueue_batch", f"nova-{size}", (tasks, size))
            for size, name in NOVA_IN.items()
        ),
        *(Step(PEERS_IN[name], module, "publish", name, (few,)) for name, (_, module) in PEERS.items()),
    ]
    lones = [
        Step(RAW_LONE, "raw_pika", "publish_one", "raw-lone", (lone,)),
        Step(NOVA_LONE, "nova_rabbitmq", "enqueue", "nova-lone", (lone,)),
    ]
    outs = [
        Step(NOVA_OUT, "nova_rabbitmq", "handle", "nova-1000", (tasks,)),
        Step(RAW_OUT, "raw_pika", "handle", "raw", (tasks,)),
        Step(NOVA_BATCHES, "nova_rabbitmq", "handle_batches", "nova-100", (tasks,)),
        *(Step(PEERS_OUT[name], module, "handle", name, (few,)) for name, (_, module) in PEERS.items()),
    ]
    a_round.measure(ins, lones, outs)
    delete(a_round.address, *(f"{a_round.prefix}{step.place}" for step in (*ins, *lones)))


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    return {"pika": version("pika"), **{name: peer.version for name, (peer, _) in PEERS.items()}}


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON.

    Raises:
        Absent: there is no server.
    """
    with server() as address:
        pythons = {module: peer.python() for peer, module in PEERS.values()}
        results = run_rounds(measure_all, address, new_prefix(), tasks, rounds, pythons)
    return results, _report(results), {"ratios": ratio_data(results, ratios())}


def _report(results: Results) -> str:
    where = "RabbitMQ on one node; Nova, pika and FastStream on quorum queues, the other peers on theirs (classic)"
    return on_server(where, results, ratios(), (RAW_LONE, NOVA_LONE))
