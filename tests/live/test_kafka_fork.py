"""A forked child must never destroy the client handles its parent had: that crashes or hangs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.brokers import Broker, make

PROGRAM = """
import gc, os, sys
from nova import ConfigError, Task, TaskQueue

def queue():
    return TaskQueue.from_config({config!r})

codes = []
for number in range(4):
    q = queue()
    q.enqueue(Task("t"))
    closed = queue()
    closed.enqueue(Task("t"))
    closed.stop()  # what is left of it may be collected by the child
    pid = os.fork()
    if pid == 0:
        try:
            q.enqueue(Task("t"))
        except ConfigError:
            gc.collect()
            sys.exit(0)
        sys.exit(1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    q.enqueue(Task("t"))
    q.stop()
assert codes == [0] * 4, codes
q = queue()
print(q.depth().waiting)
q.stop()
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = make("kafka", tmp_path)
    yield made
    made.close()


def test_children_are_refused_and_exit(broker: Broker) -> None:
    program = PROGRAM.replace("{config!r}", repr(broker.config()))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12"], "two of each parent and one of each closed queue"
