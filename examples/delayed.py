"""Tasks for later: by a delay or at an instant. They wait in the broker, survive restarts and never run early.

$ python -m examples.delayed [URL]
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from examples.broker import broker_url
from nova import ReceivedTask, Task, TaskQueue, process_at, process_in


def main() -> None:
    lateness: dict[str, float] = {}
    done = threading.Event()

    def remind(task: ReceivedTask) -> None:
        now = datetime.now(UTC)
        if task.due_at is not None:
            lateness[task.id] = (now - task.due_at).total_seconds()
        if len(lateness) == 3:
            done.set()

    with broker_url() as url:
        with TaskQueue.from_url(url) as queue:
            soon = datetime.now(UTC) + timedelta(seconds=1)
            # As functions or as keywords; seconds or timedelta; instants are aware datetimes.
            queue.enqueue(Task("remind", id="in-0.4-s"), process_in(0.4))
            queue.enqueue(Task("remind", id="in-700-ms"), process_in=timedelta(milliseconds=700))
            at = queue.enqueue(Task("remind", id="at-an-instant"), process_at(soon))
            print(f"due_at is an aware UTC datetime: {at.due_at is not None and at.due_at.utcoffset() == timedelta(0)}")
            print(f"delayed: {queue.depth().delayed}")
        # That queue is closed, as if its process had ended. Another one on the same broker runs the tasks.
        with TaskQueue.from_url(url) as queue:
            queue.start(remind)
            if not done.wait(timeout=10):
                raise SystemExit("not all tasks came; memory:// ends with its queue, use memory://NAME")

    for name, late in lateness.items():
        print(f"{name}: never early {late >= 0}, late by {1000 * late:.1f} ms")


if __name__ == "__main__":
    main()
