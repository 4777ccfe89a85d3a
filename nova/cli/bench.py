"""`nova bench`: what the configured broker does with Nova on this machine, beside whatever else it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nova.cli.measuring import measure
from nova.cli.options import AsJson
from nova.cli.outcome import DONE, FAILED, complain
from nova.cli.output import write_json, write_table
from nova.cli.progress import bar
from nova.cli.target import ConfigFile, Url, queues_apart

__all__ = ["NAME", "bench"]

NAME = "NOVA_BENCH"
"""The topic prefix and the group of its tasks: nobody else's are touched."""


def bench(
    tasks: Annotated[int, typer.Option("--tasks", metavar="N", min=100, help="How many go in and come out.")] = 10_000,
    size: Annotated[int, typer.Option("--bytes", metavar="N", min=0, help="Of each payload.")] = 200,
    together: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, max=10_000, help="Tasks of one enqueue_batch.")
    ] = 1000,
    lone: Annotated[int, typer.Option("--lone", metavar="N", min=1, help="How many are enqueued one by one.")] = 100,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, max=10_000, help="Handlers at once.")
    ] = 16,
    config: ConfigFile = None,
    url: Url = None,
    as_json: AsJson = False,
) -> int:
    """Measure the configured broker from this machine, with tasks under a topic prefix of their own, NOVA_BENCH.

    One process enqueues in batches, handles them with handlers that do nothing, then enqueues one by one, the worker idle.
    """
    open_queue = queues_apart(config, url, NAME)
    with bar("enqueue", tasks) as enqueued, bar("handle", tasks) as handled:
        found = measure(
            open_queue,
            NAME,
            tasks=tasks,
            size=size,
            together=together,
            lone=lone,
            concurrency=concurrency,
            enqueued=enqueued,
            handled=handled,
        )
    if as_json:
        write_json(asdict(found))
    else:
        rows = [
            (f"enqueue_batch, {together:,} a call", f"{found.enqueued_per_s:,.0f} tasks/s"),
            (f"start, {concurrency} at once", f"{found.handled_per_s:,.0f} tasks/s"),
            ("enqueue, p50 / p99", f"{found.enqueue_ms.p50:.1f} / {found.enqueue_ms.p99:.1f} ms"),
            ("from enqueue to the handler, p50 / p99", f"{found.start_ms.p50:.1f} / {found.start_ms.p99:.1f} ms"),
            ("lost / handled twice", f"{found.lost} / {found.twice}"),
        ]
        write_table(("MEASURED", "FIGURE"), rows, numbers=("FIGURE",))
    if not found.is_sound:
        complain(f"bench: {found.lost} tasks were lost, {found.twice} handled twice; the figures are void")
        return FAILED
    return DONE
