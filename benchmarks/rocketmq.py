"""The suite for RocketMQ: Nova beside the official client's stubs alone, one process each, on one server. There is no peer.

Within a round everything is measured once: what goes in, lone sends, what comes out, every second round in the opposite
order within each of the three; ratios are taken within rounds. What comes out is what the same round put in.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks.report import Ratio, on_server, ratio_data
from benchmarks.rocketmq_server import server
from benchmarks.rounds import Round, Step, new_prefix, run_rounds
from benchmarks.samples import Results

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


def measure_all(a_round: Round) -> None:
    """One round. What it stored stays: the server is the run's own, or tidies up by age."""
    tasks = a_round.tasks
    lone = max(100, tasks // LONE)
    a_round.prepare("nova_rocketmq", *(f"nova-{size}" for size in NOVA_IN), "nova-lone")
    ins = [
        Step(RAW_IN, "raw_rocketmq", "publish", "raw", (tasks,)),
        Step(NOVA_IN[1000], "nova_rocketmq", "enqueue_batch", "nova-1000", (tasks, 1000)),
        Step(NOVA_IN[100], "nova_rocketmq", "enqueue_batch", "nova-100", (tasks, 100)),
    ]
    lones = [
        Step(RAW_LONE, "raw_rocketmq", "publish_one", "raw-lone", (lone,)),
        Step(NOVA_LONE, "nova_rocketmq", "enqueue", "nova-lone", (lone,)),
    ]
    outs = [
        Step(NOVA_OUT, "nova_rocketmq", "handle", "nova-1000", (tasks,)),
        Step(RAW_OUT, "raw_rocketmq", "handle", "raw", (tasks,)),
        Step(NOVA_BATCHES, "nova_rocketmq", "handle_batches", "nova-100", (tasks,)),
    ]
    a_round.measure(ins, lones, outs)


def versions() -> dict[str, str]:
    """What takes part, beside Nova and Python."""
    return {"rocketmq-python-client": version("rocketmq-python-client"), "grpcio": version("grpcio")}


def run(tasks: int, rounds: int) -> tuple[Results, str, dict[str, Any]]:
    """All rounds; returns the results, the report, and what else belongs into the JSON.

    Raises:
        Absent: there is no server.
    """
    with server() as address:
        results = run_rounds(measure_all, address, new_prefix(), tasks, rounds)
    return results, _report(results), {"ratios": ratio_data(results, ratios())}


def _report(results: Results) -> str:
    where = "RocketMQ, name server and proxy with the broker inside it"
    return on_server(where, results, ratios(), (RAW_LONE, NOVA_LONE))
