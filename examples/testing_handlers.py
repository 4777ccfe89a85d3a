"""How to test your own handlers: the memory driver, `drain`, and no waiting.

$ pytest examples/testing_handlers.py
$ python -m examples.testing_handlers

`drain` runs everything that is due now in the calling thread and returns how many runs there were. `with_retry(base=0)`
makes retries due at once, so that they happen in the same `drain`.
"""

from __future__ import annotations

from collections.abc import Callable

from nova import ReceivedTask, Reject, Task, TaskQueue, with_memory, with_retry

# --- the code under test ------------------------------------------------------------------------------------------------


class Mailer:
    """The service the handler talks to; a test puts a fake in its place."""

    def send(self, to: str) -> None:
        raise NotImplementedError


def make_handler(mailer: Mailer) -> Callable[[ReceivedTask], None]:
    """The handler with what it needs handed in, so that a test can choose."""

    def welcome(task: ReceivedTask) -> None:
        to = task.json()["to"]
        if "@" not in to:
            raise Reject(f"not an address: {to}")
        mailer.send(to)

    return welcome


# --- its tests ----------------------------------------------------------------------------------------------------------


class FakeMailer(Mailer):
    """Remembers what was sent; fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[str] = []
        self.calls = 0
        self._failures = failures

    def send(self, to: str) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise ConnectionError("no mail server")
        self.sent.append(to)


def open_queue() -> TaskQueue:
    return TaskQueue(with_memory(), with_retry(max_retries=2, base=0))


def test_sends_one_mail() -> None:
    mailer = FakeMailer()
    with open_queue() as queue:
        queue.enqueue(Task("welcome", {"to": "ada@example.org"}))

        assert queue.drain(make_handler(mailer)) == 1

        assert mailer.sent == ["ada@example.org"]


def test_tries_again_when_the_mail_server_is_away() -> None:
    mailer = FakeMailer(failures=2)
    with open_queue() as queue:
        queue.enqueue(Task("welcome", {"to": "ada@example.org"}))

        assert queue.drain(make_handler(mailer)) == 3

        assert mailer.sent == ["ada@example.org"]
        assert queue.dead.list() == []


def test_gives_up_after_three_runs_and_keeps_the_task() -> None:
    mailer = FakeMailer(failures=99)
    with open_queue() as queue:
        queue.enqueue(Task("welcome", {"to": "ada@example.org"}, id="w-1"))

        queue.drain(make_handler(mailer))

        (dead,) = queue.dead.list()
        assert (dead.id, dead.reason, dead.error_type) == ("w-1", "retries exhausted", "ConnectionError")


def test_rejects_what_is_no_address() -> None:
    mailer = FakeMailer()
    with open_queue() as queue:
        queue.enqueue(Task("welcome", {"to": "nobody"}))

        assert queue.drain(make_handler(mailer)) == 1

        assert mailer.calls == 0
        assert [dead.reason for dead in queue.dead.list()] == ["rejected"]


def test_delayed_tasks_wait() -> None:
    mailer = FakeMailer()
    with open_queue() as queue:
        queue.enqueue(Task("welcome", {"to": "ada@example.org"}), process_in=3600)

        assert queue.drain(make_handler(mailer)) == 0

        assert queue.depth().delayed == 1


def main() -> None:
    """Run the tests without pytest."""
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"passed: {name}")


if __name__ == "__main__":
    main()
