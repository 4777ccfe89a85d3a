"""`nova` on every broker: the same module and commands, another configuration file."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nova import Task
from tests.command_line import NovaWorker, run
from tests.conformance.brokers import Broker
from tests.eventually import eventually, never

START = 40.0
"""Seconds in which worker processes have started and share the work, on a busy machine."""
BACK = 60.0
"""Seconds in which the tasks of a killed process are done by another: its session or lease, and a busy machine."""
GRACE = 30.0
"""What the workers are given to stop; under load they need a second or two."""


@pytest.fixture
def directory(broker: Broker, tmp_path: Path, requires: Callable[[str], None]) -> Path:
    """A directory with the broker's configuration in `nova.toml`."""
    requires("shared between processes")
    (tmp_path / "nova.toml").write_text(toml_of(broker.config(retry={"max_retries": 2})), encoding="utf-8")
    return tmp_path


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., NovaWorker]]:
    started: list[NovaWorker] = []

    def start_worker(*arguments: str) -> NovaWorker:
        options = ("--config", "nova.toml", "--concurrency", "4", "--grace", str(GRACE))
        started.append(NovaWorker(directory, "app:handle", *options, *arguments))
        return started[-1]

    yield start_worker
    for worker in started:
        worker.close()


def toml_of(config: dict[str, Any]) -> str:
    """Values first, then sections; what JSON writes for text, numbers, booleans and lists is TOML too."""
    values = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)]
    for key, section in config.items():
        if isinstance(section, dict):
            values += [f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in section.items())]
    return "\n".join(values) + "\n"


def nova(directory: Path, *arguments: str) -> Any:
    """What a command printed as JSON."""
    finished = run(directory, *arguments, "--json", "--config", "nova.toml")
    assert finished.returncode == 0, finished
    return json.loads(finished.stdout)


class Load:
    """Enqueues small tasks in the background until it is stopped."""

    def __init__(self, broker: Broker) -> None:
        self._queue = broker.queue()
        self._over = threading.Event()
        self.accepted: list[str] = []
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def stop(self) -> list[str]:
        """The ids of all that was accepted."""
        self._over.set()
        self._thread.join(30)
        return self.accepted

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.05):
            tasks = [Task("work", n, id=f"t{n}") for n in range(number, number + 20)]
            number += len(tasks)
            self.accepted += [done.task_id for done in self._queue.enqueue_batch(tasks).accepted]


@pytest.fixture
def load(broker: Broker, directory: Path) -> Iterator[Load]:
    made = Load(broker)
    yield made
    made.stop()


def test_a_task_goes_from_the_shell_through_a_worker_and_the_dead_letters_back(
    directory: Path, start: Callable[..., NovaWorker]
) -> None:
    worker = start()
    eventually(lambda: "nova-worker-1 started" in worker.said, START)
    good = nova(directory, "enqueue", "good", '{"n": 1}', "--priority", "high")["task_id"]
    bad = nova(directory, "enqueue", "bad", '{"n": 2}', "--id", "bad-1")["task_id"]
    eventually(lambda: worker.words("done")[good] == 1 and worker.words("start")[bad] == 1, START)
    eventually(lambda: [task["id"] for task in nova(directory, "dead", "list")] == [bad], START)
    eventually(lambda: nova(directory, "queues")["dead"] == 1, START)
    shown = nova(directory, "dead", "show", bad)
    assert (shown["type"], shown["queue"], shown["reason"]) == ("bad", "default", "rejected")
    assert json.loads(shown["payload"]) == {"n": 2}
    assert nova(directory, "dead", "requeue", bad) == {"requeued": 1}
    eventually(lambda: worker.words("start")[bad] == 2, START)
    eventually(lambda: len(nova(directory, "dead", "list")) == 1, START)
    assert nova(directory, "dead", "purge", "--type", "bad", "--yes") == {"purged": 1}
    assert nova(directory, "dead", "list") == []
    worker.signal()
    assert worker.end(GRACE) == 0


def test_a_killed_process_is_started_again_and_nothing_is_lost(
    directory: Path, start: Callable[..., NovaWorker], load: Load
) -> None:
    worker = start("--processes", "2")
    eventually(lambda: len(worker.pids("done")) == 2, START, "both processes work")
    victim = next(iter(worker.pids("done")))
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(worker.pids("done")) == 3, START + BACK, "the new process works too")
    accepted = load.stop()
    eventually(lambda: worker.words("done").keys() >= set(accepted), BACK, "every task is done")
    assert f"pid {victim}, was killed by SIGKILL; starting it again" in worker.said
    assert len(accepted) > 20
    worker.signal()
    assert worker.end(GRACE) == 0


def test_a_stop_under_load_duplicates_nothing_and_is_done_within_the_grace(
    directory: Path, start: Callable[..., NovaWorker], load: Load
) -> None:
    worker = start("--processes", "2")
    eventually(lambda: len(worker.pids("done")) == 2, START, "both processes work")
    done = worker.words("done").total()
    eventually(lambda: worker.words("done").total() > done + 50, START, "they go on working")
    asked = time.monotonic()
    worker.signal()
    assert worker.end(GRACE) == 0
    took = time.monotonic() - asked
    accepted = load.stop()
    ran = worker.words("done").total()
    rest = start()
    eventually(lambda: rest.words("done").keys() >= set(accepted), BACK, "every task is done")
    never(lambda: rest.words("start").total() > len(accepted), 0.5, "a task ran twice")
    print(f"stopped in {took:.2f} s; {ran} of {len(accepted)} tasks were done before, 0 lost, 0 twice")
    rest.signal()
    assert rest.end(GRACE) == 0


@pytest.mark.own_server
def test_a_stop_while_the_broker_does_not_answer_is_in_time(
    broker: Broker, requires: Callable[[str], None], start: Callable[..., NovaWorker]
) -> None:
    """docs/deploying.md tells supervisors to wait ten seconds longer than the grace."""
    requires("broker away")
    worker = start("--processes", "2", "--grace", "5")
    eventually(lambda: worker.said.count("nova-worker-1 started") == 2, START)
    with broker.away():
        threading.Event().wait(1.0)  # so that what was under way has been answered, and what follows is not
        worker.signal()
        assert worker.end(5 + 10) == 0
    assert "did not end in its time" not in worker.said


def test_bench_measures_the_broker_and_leaves_the_queue_alone(broker: Broker, directory: Path) -> None:
    broker.queue().enqueue(Task("mine"))
    found = nova(directory, "bench", "--tasks", "300", "--batch-size", "100", "--lone", "3")
    assert (found["tasks"], found["lost"], found["twice"]) == (300, 0, 0)
    assert 0 < found["start_ms"]["p50"] < 1000 * BACK
    assert not {"NOVA_BENCH"} & {group.name for group in broker.queue().groups.list()}
