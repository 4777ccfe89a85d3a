"""Runner: how soon an idle worker on SQLite starts a task. `python -m benchmarks.wakeup inside|across FILE TASKS`.

Tasks are enqueued one at a time with pauses. `stored` is the time from the return of `enqueue` (the task is on disk) to the
first line of the handler, never below 0; `called` counts from the call of `enqueue`, its fsync included.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

from benchmarks import workload
from nova import ReceivedTask, Task, TaskQueue, with_sqlite

PAUSE = (0.02, 0.08)


class Started:
    """When each task was started, on the clock that all processes of the machine share."""

    def __init__(self) -> None:
        self.at: list[tuple[int, int]] = []

    def handle(self, task: ReceivedTask) -> None:
        """Note it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self.at.append((task.json()["n"], now))


def inside(path: str, tasks: int) -> None:
    started = Started()
    with TaskQueue(with_sqlite(path)) as queue:
        queue.start(started.handle)
        sent = _send(queue, tasks)
        workload.wait_for(lambda: len(started.at), tasks)
    _answer(sent, started.at)


def across(path: str, tasks: int) -> None:
    command = [sys.executable, "-m", "benchmarks.wakeup", "worker", path, str(tasks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker, TaskQueue(with_sqlite(path)) as queue:
        assert worker.stdout is not None
        worker.stdout.readline()  # it consumes
        sent = _send(queue, tasks)
        _answer(sent, [(n, at) for n, at in json.loads(worker.stdout.readline())])


def worker(path: str, tasks: int) -> None:
    started = Started()
    with TaskQueue(with_sqlite(path)) as queue:
        queue.start(started.handle)
        print("ready", flush=True)
        workload.wait_for(lambda: len(started.at), tasks)
    print(json.dumps(started.at), flush=True)


def _send(queue: TaskQueue, tasks: int) -> dict[int, tuple[int, int]]:
    """Enqueue with uneven pauses, so as not to fall into step with anybody's poll; returns call and return of each."""
    pause = random.Random(1)
    sent = {}
    for body in workload.bodies(tasks):
        time.sleep(pause.uniform(*PAUSE))
        called = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        queue.enqueue(Task("bench.row", body))
        sent[body["n"]] = called, time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return sent


def _answer(sent: dict[int, tuple[int, int]], started: list[tuple[int, int]]) -> None:
    at = dict(started)
    called = [(at[n] - times[0]) / 1e6 for n, times in sent.items() if n in at]
    stored = [max(0.0, (at[n] - times[1]) / 1e6) for n, times in sent.items() if n in at]
    workload.answer(len(sent), sum(called) / 1000, [n for n, _ in started], called_ms=called, stored_ms=stored)


if __name__ == "__main__":
    {"inside": inside, "across": across, "worker": worker}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
