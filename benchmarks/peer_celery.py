"""Runner: Celery on RabbitMQ, executed by the Python of its own environment.

`python -m benchmarks.peer_celery HOW ADDRESS QUEUE TASKS`. Confirmed publishing, late acks (its default loses what a killed
worker had received), no results, no events; a pool of 16 threads, so that the handler counts in this process.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from typing import Any

from benchmarks import workload
from benchmarks.rabbitmq_broker import until_ready


def publish(address: str, queue: str, tasks: int) -> None:
    """`delay` in a loop."""
    task = _task(_app(address, queue), lambda body: None)
    rows = workload.bodies(tasks)
    task.apply_async((rows[0],), queue=f"{queue}-warm")
    start, cpu = time.perf_counter(), time.process_time()
    for body in rows:
        task.delay(body)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    stored = until_ready(address, tasks, queue)
    workload.answer(tasks, seconds, workload.numbered(stored, tasks), cpu_seconds=cpu)


def handle(address: str, queue: str, tasks: int) -> None:
    """A worker in this process."""
    tally = workload.Tally(tasks)
    app = _app(address, queue)
    _task(app, lambda body: tally.one(body["n"]))
    worker = app.Worker(
        pool="threads",
        concurrency=16,
        loglevel="CRITICAL",
        quiet=True,  # or a banner stands before the answer
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    threading.Thread(target=_end_when_done, args=(tally, tasks), daemon=True).start()
    worker.start()  # does not come back


def _end_when_done(tally: workload.Tally, tasks: int) -> None:
    tally.wait()
    tally.handled()
    tally.answer(tasks)
    sys.stdout.flush()
    state: Any = importlib.import_module("celery.worker.state")
    state.should_stop = 0


def _app(address: str, queue: str) -> Any:
    app = importlib.import_module("celery").Celery("bench", broker=address)
    app.conf.update(
        task_default_queue=queue,
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=64,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport_options={"confirm_publish": True},
        broker_connection_retry_on_startup=True,
    )
    return app


def _task(app: Any, function: Any) -> Any:
    def run(body: dict[str, Any]) -> None:
        function(body)

    return app.task(run, name="row")


if __name__ == "__main__":
    {"publish": publish, "handle": handle}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
