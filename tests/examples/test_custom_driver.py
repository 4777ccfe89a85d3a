"""The example driver, judged by the conformance suite: all of it that one process can see, and a worker that is killed."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from examples.custom_driver import TableDriver
from nova import ReceivedTask, Task, TaskQueue, config, with_driver
from nova.brokers.base import Driver, DriverContext
from nova.options import Option
from tests.conformance import (
    test_batches,
    test_delay,
    test_enqueue,
    test_groups,
    test_priority,
    test_retry,
    test_seam,
    test_workers,
)
from tests.conformance.brokers import Broker

ROOT = Path(__file__).parents[2]
SUITE = (test_batches, test_delay, test_enqueue, test_groups, test_priority, test_retry, test_seam, test_workers)
NO_LIST = "it has no list of groups"
LEFT_OUT = {
    "test_groups_are_listed_with_their_queues_and_what_is_kept_for_them": NO_LIST,
    "test_removing_a_group_drops_what_is_kept_for_it_and_leaves_the_others_alone": NO_LIST,
    "test_a_removed_group_that_starts_again_gets_what_is_enqueued_from_then_on": NO_LIST,
    "test_a_queue_whose_last_group_is_removed_waits_for_a_first_one_again": NO_LIST,
    "test_a_group_with_running_workers_is_not_removed": NO_LIST,
    "test_a_group_is_removed_from_its_own_prefix_only": NO_LIST,
    "test_dead_letters_listed_fifty_times_are_filtered_requeued_and_purged": "it does not count the dead by queue",
    "test_max_body_bytes_is_the_largest_body": "it has a limit, and no option for it",
    "test_many_keys_that_use_up_the_prefetch_still_go": "without a window the last keys go only at a pace that it lacks",
}
"""What the example says that it does not promise; nothing else may be left out."""

for module in SUITE:
    for name, scenario in vars(module).items():
        if name.startswith("test_") and name not in LEFT_OUT:
            assert name not in globals(), f"two scenarios are called {name}"
            globals()[name] = scenario  # collected here, they run on the fixture `broker` of this file

driver = test_seam.driver


@dataclass
class TableBroker(Broker):
    """A file that is gone with the test's directory."""

    def queue(self, *options: Option, group: str = "g", **values: Any) -> TaskQueue:
        values.setdefault("retry", {"max_retries": 2, "base": 0.02, "cap": 0.05})
        given = config.from_config({"broker": "memory", "group_id": group, "topic_prefix": self.prefix, **values})
        others = [option for option in given if option.setting != "driver"]
        queue = TaskQueue(with_driver(TableDriver(self.section["file"])), *others, *options)
        self._queues.append(queue)
        return queue

    def driver(self) -> Driver:
        driver = TableDriver(self.section["file"])
        driver.open(DriverContext(prefix=self.prefix), 10)
        return driver


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr("examples.custom_driver.LEASE", 2.0)  # so that what waits for its end is quick
    monkeypatch.setattr(TableDriver, "capabilities", replace(TableDriver.capabilities, lease=2.0))
    made = TableBroker("sql", {"file": tmp_path / "broker.db"})
    yield made
    made.close()


def test_what_is_left_out_exists() -> None:
    assert LEFT_OUT.keys() <= {name for module in SUITE for name in vars(module)}


WORKER = """
import sys, time
from pathlib import Path
from examples import custom_driver
from nova import TaskQueue, with_driver
custom_driver.LEASE = 1.0
q = TaskQueue(with_driver(custom_driver.TableDriver(Path(sys.argv[1]))))
q.start(lambda task: (print(task.id, flush=True), time.sleep(60)))
time.sleep(60)
"""


def test_tasks_of_a_killed_worker_come_back(tmp_path: Path) -> None:
    file = tmp_path / "broker.db"
    queue = TaskQueue(with_driver(TableDriver(file)))
    queue.enqueue(Task("t", id="held"))
    with subprocess.Popen([sys.executable, "-c", WORKER, str(file)], cwd=ROOT, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"held\n"
        worker.kill()
    seen: list[str] = []
    came = threading.Event()

    def handle(task: ReceivedTask) -> None:
        seen.append(task.id)
        came.set()

    queue.start(handle)
    assert came.wait(20)
    queue.stop()
    assert seen == ["held"]


def test_the_driver_is_sixty_lines_of_python() -> None:
    source = Path(inspect.getfile(TableDriver)).read_text(encoding="utf-8")
    count = 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name not in ("main", "Group"):
            body = source.splitlines()[node.lineno - 1 : node.end_lineno]
            count += sum(bool(line.strip()) and not line.strip().startswith(("#", '"""')) for line in body)

    assert count <= 60
