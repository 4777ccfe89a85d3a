"""Enqueue three tasks, handle them in the background, stop.

$ python -m examples.quickstart                        # a temporary SQLite file
$ python -m examples.quickstart sqlite:///nova.db      # a file you keep
$ python -m examples.quickstart memory://              # nothing on disk
$ python -m examples.quickstart kafka://localhost:9092 # a Kafka cluster
$ python -m examples.quickstart amqp://localhost       # a RabbitMQ server
$ python -m examples.quickstart rocketmq://localhost   # a RocketMQ cluster
"""

from __future__ import annotations

import threading

from examples.broker import broker_url
from nova import ReceivedTask, Task, TaskQueue

PEOPLE = ["ada@example.org", "grace@example.org", "linus@example.org"]


def main() -> None:
    sent: list[str] = []
    all_sent = threading.Event()

    def send_email(task: ReceivedTask) -> None:
        # Returning acknowledges the task; raising makes it run again later.
        sent.append(task.json()["to"])
        if len(sent) >= len(PEOPLE):
            all_sent.set()

    with broker_url() as url, TaskQueue.from_url(url) as queue:
        for person in PEOPLE:
            stored = queue.enqueue(Task("email.send", {"to": person}))
            # `enqueue` has returned, so the broker holds the task: on SQLite it is on disk.
            print(f"stored for {person} in queue {stored.queue!r}, priority {stored.priority.name}")
        print(f"waiting: {queue.depth().waiting}")

        queue.start(send_email, concurrency=4)
        all_sent.wait(timeout=10)
    # Leaving `with` has stopped the queue: what ran is finished and settled, nothing more is received.

    for person in sorted(sent):
        print(f"sent to {person}")


if __name__ == "__main__":
    main()
