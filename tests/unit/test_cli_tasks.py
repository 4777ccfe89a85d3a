"""`nova enqueue`, `nova queues` and `nova dead`: what they print, where, how they exit. On each broker: tests/conformance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nova import BrokerUnavailable, ReceivedTask, Reject, Task, TaskQueue, with_driver, with_retry, with_sqlite
from nova.brokers.base import Confirmation, Message
from nova.brokers.memory.config import MemoryConfig
from nova.brokers.memory.driver import MemoryDriver
from nova.cli import dead
from nova.cli.outcome import Failed
from tests.command_line import NOVA, assert_complains, clean_environment, run
from tests.eventually import eventually

URL = "sqlite:///nova.db"


def queue_in(directory: Path) -> TaskQueue:
    return TaskQueue(with_sqlite(directory / "nova.db"), with_retry(max_retries=0))


def receive(directory: Path, count: int) -> list[ReceivedTask]:
    """Run so many tasks; what a handler saw."""
    seen: list[ReceivedTask] = []
    with queue_in(directory) as q:
        q.start(seen.append, queues=["default", "mail"])
        eventually(lambda: len(seen) == count)
    return seen


def bury(directory: Path, *tasks: Task, reason: str = "rejected") -> None:
    """Let these tasks die."""

    def handle(task: ReceivedTask) -> None:
        raise Reject("it is bad") if reason == "rejected" else RuntimeError("it broke")

    with queue_in(directory) as q:
        before = q.depth().dead
        q.enqueue_batch(tasks).raise_for_failures()
        q.start(handle, concurrency=1)
        eventually(lambda: q.depth().dead == before + len(tasks))


def ids_of(directory: Path, *options: str) -> list[str]:
    listed = run(directory, "dead", "list", "--json", "--url", URL, *options)
    assert listed.returncode == 0, listed
    return [task["id"] for task in json.loads(listed.stdout)]


# --- enqueue -----------------------------------------------------------------------------------------------------------


def test_enqueue_says_what_was_stored(tmp_path: Path) -> None:
    finished = run(tmp_path, "enqueue", "email.send", '{"to": "ada"}', "--id", "a1", "--url", URL)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == "enqueued a1 in default, normal\n"
    (task,) = receive(tmp_path, 1)
    assert (task.id, task.type, task.json()) == ("a1", "email.send", {"to": "ada"})


def test_every_option_of_enqueue_reaches_the_task(tmp_path: Path) -> None:
    before = datetime.now().astimezone()
    finished = run(
        tmp_path, "enqueue", "t", "--queue", "mail", "--priority", "high", "--delay", "0.2", "--key", "k",
        "--metadata", "tenant=7", "--metadata", "note=a=b", "--max-retries", "5", "--json", "--url", URL,
    )  # fmt: skip
    stored = json.loads(finished.stdout)
    assert list(stored) == ["task_id", "queue", "priority", "due_at"]
    assert (stored["queue"], stored["priority"]) == ("mail", "high")
    assert datetime.fromisoformat(stored["due_at"]) >= before + timedelta(seconds=0.2)
    (task,) = receive(tmp_path, 1)
    assert task.id == stored["task_id"]
    assert (task.queue, task.priority.name, task.json()) == ("mail", "HIGH", None)
    assert dict(task.metadata) == {"tenant": "7", "note": "a=b"}
    assert task._envelope.max_retries == 5


def test_enqueue_at_a_time(tmp_path: Path) -> None:
    finished = run(tmp_path, "enqueue", "t", "1", "--at", "2030-01-31T08:00:00+01:00", "--json", "--url", URL)
    assert json.loads(finished.stdout)["due_at"] == "2030-01-31T07:00:00+00:00"


def test_enqueue_many_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    lines = [{"type": "row", "payload": {"n": n}, "id": f"row-{n}"} for n in range(2500)]
    text = "".join(f"{json.dumps(line)}\n\n" for line in lines)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    finished = run(tmp_path, "enqueue", "--batch", "rows.jsonl", "--url", URL)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "2500 accepted, 0 failed, 0 unknown\n", "")
    more = '{"type": "row", "payload": [1], "id": "x", "key": "k", "metadata": {"a": "b"}}'
    finished = run(tmp_path, "enqueue", "--batch", "-", "--queue", "mail", "--json", "--url", URL, text=more)
    assert json.loads(finished.stdout) == {"accepted": 1, "failed": {}, "unknown": {}}
    seen = {task.id: task for task in receive(tmp_path, 2501)}
    assert seen.keys() == {"x", *(f"row-{n}" for n in range(2500))}
    assert seen["row-2499"].json() == {"n": 2499}
    assert (seen["x"].queue, seen["x"].json(), dict(seen["x"].metadata)) == ("mail", [1], {"a": "b"})


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("{", "truncated"),
        ('{"payload": 1}', "type"),
        ('{"type": "t", "paylod": 1}', "paylod"),
        ('{"type": " "}', "task type"),
    ],
)
def test_a_line_that_is_no_task_ends_the_batch_and_says_what_was_accepted(tmp_path: Path, bad: str, word: str) -> None:
    text = '{"type": "t"}\n' * 3 + bad + '\n{"type": "t"}\n'
    finished = run(tmp_path, "enqueue", "--batch", "-", "--json", "--url", URL, text=text)
    assert finished.returncode == 1
    assert json.loads(finished.stdout)["accepted"] == 3
    assert "line 4 is no task" in finished.stderr
    assert word in finished.stderr
    assert "nothing behind it was read" in finished.stderr
    assert len(receive(tmp_path, 3)) == 3


def test_what_the_broker_does_not_take_is_reported_and_exits_1(tmp_path: Path) -> None:
    text = '{"type": "t"}\n' * 1000 + json.dumps({"type": "t", "payload": "x" * (65 << 20)})
    finished = run(tmp_path, "enqueue", "--batch", "-", "--url", URL, text=text)
    assert finished.returncode == 1
    assert finished.stdout == "1000 accepted, 0 failed, 0 unknown\n"
    assert "at most" in finished.stderr


def test_tasks_that_a_full_broker_refuses_are_counted_and_exit_1(tmp_path: Path) -> None:
    text = "".join(json.dumps({"type": "t", "payload": "x" * 1000, "id": f"t{n}"}) + "\n" for n in range(3000))
    finished = run(tmp_path, "enqueue", "--batch", "-", "--json", "--url", f"{URL}?max_bytes=1000000", text=text)
    assert finished.returncode == 1
    report = json.loads(finished.stdout)
    assert report["failed"]
    assert not report["unknown"]
    assert report["accepted"] + len(report["failed"]) == 3000
    assert finished.stderr.startswith(f"nova: enqueue: {len(report['failed'])} tasks failed")


def test_ctrl_c_in_a_batch_says_what_was_accepted_and_exits_130(tmp_path: Path) -> None:
    with subprocess.Popen(
        [NOVA, "enqueue", "--batch", "-", "--url", URL],
        cwd=tmp_path, env=clean_environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(b'{"type": "t"}\n' * 10_000)
        process.stdin.flush()
        eventually(lambda: run(tmp_path, "queues", "--json", "--url", URL).stdout.count('"waiting": 0') < 3)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    accepted = int(stdout.split()[0])
    assert accepted >= 1000
    assert len(receive(tmp_path, accepted)) == accepted


def test_a_batch_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [NOVA, "enqueue", "--batch", "-", "--url", URL],
        cwd=tmp_path, env=clean_environment({"TERM": "xterm"}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs,
    ) as process:  # fmt: skip
        stdout, _ = process.communicate(b'{"type": "t"}\n' * 3000, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert stdout == b"3000 accepted, 0 failed, 0 unknown\n"
    assert "enqueuing" in shown
    assert "tasks" in shown


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "expected TYPE"),
        (("t", "{to: ada}"), "no JSON"),
        (("t", '{"price": NaN}'), "no JSON"),
        (("t", "--priority", "urgent"), "urgent"),
        (("t", "--at", "tomorrow"), "2030-01-31"),
        (("t", "--at", "2030-01-31T08:00:00"), "got '2030-01-31T08:00:00' without its offset"),
        (("t", "--at", "2030-01-31T08:00:00+00:00", "--delay", "1"), "keep one"),
        (("t", "--delay", "-1"), "process_in"),
        (("t", "--metadata", "tenant"), "NAME=TEXT"),
        (("t", "--max-retries", "-1"), "max_retries"),
        (("t", "--queue", "a.b"), "no dots"),
        (("t", "--id", "a b"), "task id"),
        (("t", "--batch", "-"), "leave TYPE"),
        (("--batch", "no.jsonl"), "no.jsonl"),
    ],
)
def test_a_wrong_enqueue_exits_2_and_opens_nothing(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    assert_complains(run(tmp_path, "enqueue", *arguments, "--url", URL), 2, word)
    assert list(tmp_path.iterdir()) == []


def test_a_task_for_a_memory_that_ends_with_the_command_is_refused(tmp_path: Path) -> None:
    finished = run(tmp_path, "enqueue", "t", "1", "--url", "memory://shop")
    assert_complains(
        finished, 2, "'memory' keeps tasks in one process", "would be gone with this command", "sqlite:///"
    )
    (tmp_path / "rows.jsonl").write_text('{"type": "t"}\n', encoding="utf-8")
    assert_complains(run(tmp_path, "enqueue", "--batch", "rows.jsonl", "--url", "memory://"), 2, "'memory'")


# --- queues ------------------------------------------------------------------------------------------------------------


def test_queues_counts_what_is_configured_and_what_workers_read(tmp_path: Path) -> None:
    with queue_in(tmp_path) as q:
        q.start(lambda task: None, queues=["imports"])
    bury(tmp_path, Task("t", id="dead"))
    with queue_in(tmp_path) as q:
        q.enqueue_batch([Task("t"), Task("t")], queue="imports", priority=3)
        q.enqueue(Task("t"), process_in=600)
    finished = run(tmp_path, "queues", "--url", URL)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert [line.split() for line in finished.stdout.splitlines()] == [
        ["QUEUE", "PRIORITY", "WAITING", "DELAYED", "RUNNING", "DEAD"],
        ["default", "high", "0", "0", "0", "0"],
        ["default", "normal", "0", "1", "0", "1"],
        ["default", "low", "0", "0", "0", "0"],
        ["imports", "high", "2", "0", "0", "0"],
        ["imports", "normal", "0", "0", "0", "0"],
        ["imports", "low", "0", "0", "0", "0"],
        ["group", "TASK_QUEUE_GROUP:", "1", "dead,", "0", "in", "quarantine"],
    ]


def test_queues_prints_json(tmp_path: Path) -> None:
    run(tmp_path, "enqueue", "t", "--queue", "mail", "--url", URL)
    finished = run(tmp_path, "queues", "--queues", "mail", "--json", "--url", f"{URL}?group_id=g")
    found = json.loads(finished.stdout)
    assert list(found) == ["group", "queues", "dead", "quarantined"]
    assert (found["group"], found["dead"], found["quarantined"]) == ("g", 0, 0)
    assert [entry["priority"] for entry in found["queues"]] == ["high", "normal", "low"]
    assert list(found["queues"][1]) == ["queue", "priority", "waiting", "delayed", "running", "dead"]


# --- dead --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with `nova.db`, in which three tasks are dead."""
    bury(tmp_path, Task("mail", {"to": "ada"}, id="m1"), Task("mail", id="m2"))
    bury(tmp_path, Task("row", id="r1"), reason="retries exhausted")
    return tmp_path


def test_dead_list_prints_a_table(directory: Path) -> None:
    finished = run(directory, "dead", "list", "--url", URL)
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert lines[0].split() == ["ID", "TYPE", "QUEUE", "REASON", "ERROR", "ATTEMPT", "DIED"]
    assert lines[1].split()[:6] == ["m1", "mail", "default", "rejected", "Reject", "1"]
    assert lines[3].split()[:6] == ["r1", "row", "default", "retries", "exhausted", "RuntimeError"]
    assert datetime.fromisoformat(lines[1].split()[6]).tzinfo is not None


def test_dead_list_filters(directory: Path) -> None:
    assert ids_of(directory) == ["m1", "m2", "r1"]
    assert ids_of(directory, "--type", "mail") == ["m1", "m2"]
    assert ids_of(directory, "--reason", "retries exhausted") == ["r1"]
    assert ids_of(directory, "--queue", "imports") == []
    assert ids_of(directory, "--limit", "1") == ["m1"]
    assert run(directory, "dead", "list", "--type", "x", "--url", URL).stdout == "no dead tasks\n"


def test_dead_show_says_why_and_what(directory: Path) -> None:
    found = json.loads(run(directory, "dead", "show", "m1", "--json", "--url", URL).stdout)
    summary = ["id", "type", "queue", "reason", "error_type", "attempt", "died_at", "worker"]
    assert list(found) == [*summary, "error", "payload", "body_base64", "headers"]
    assert (found["id"], found["payload"], found["headers"]["nova-id"]) == ("m1", '{"to":"ada"}', "m1")
    assert "it is bad" in found["error"]
    text = run(directory, "dead", "show", "r1", "--url", URL).stdout
    assert "reason:     retries exhausted\n" in text
    assert "RuntimeError: it broke" in text
    assert_complains(run(directory, "dead", "show", "m9", "--url", URL), 1, "'m9'", "nova dead list")


class Leaving(MemoryDriver):
    """A broker that goes away after the first messages that are sent to it from now on."""

    left: int | None = None

    def publish(self, messages: Sequence[Message]) -> Confirmation:
        if self.left is not None and self.left < len(messages):
            raise BrokerUnavailable("gone")
        self.left = None if self.left is None else self.left - len(messages)
        return super().publish(messages)


def test_what_was_requeued_before_the_broker_went_is_said() -> None:
    driver = Leaving(MemoryConfig())
    q = TaskQueue(with_driver(driver), with_retry(max_retries=0))
    q.enqueue_batch([Task("t", id=f"t{n}") for n in range(1500)])
    q.start(lambda task: task.json()["no such key"])
    eventually(lambda: q.depth().dead == 1500)
    driver.left = 1000
    with pytest.raises(Failed, match=r"gone \(done before: 1000\)"):
        dead._many(q, "requeue", {}, None, yes=True)
    driver.left = None
    q.stop()


def test_dead_requeue_by_id(directory: Path) -> None:
    finished = run(directory, "dead", "requeue", "m1", "r1", "--json", "--url", URL)
    assert (finished.returncode, json.loads(finished.stdout)) == (0, {"requeued": 2})
    assert ids_of(directory) == ["m2"]
    assert sorted((task.id, task.attempt, task.run) for task in receive(directory, 2)) == [("m1", 1, 2), ("r1", 1, 2)]


def test_dead_requeue_names_the_ids_that_are_not_there(directory: Path) -> None:
    assert_complains(run(directory, "dead", "requeue", "m1", "m9", "--url", URL), 1, "'m9'", "done: 1")
    assert ids_of(directory) == ["m2", "r1"]


def test_dead_requeue_by_filter_and_all(directory: Path) -> None:
    assert run(directory, "dead", "requeue", "--type", "mail", "--limit", "1", "--yes", "--url", URL).stdout == (
        "1 requeued\n"
    )
    assert ids_of(directory) == ["m2", "r1"]
    assert run(directory, "dead", "requeue", "--all", "--yes", "--url", URL).stdout == "2 requeued\n"
    assert ids_of(directory) == []


def test_dead_requeue_of_many_moves_each_once(tmp_path: Path) -> None:
    bury(tmp_path, *(Task("row", n, id=f"r{n}") for n in range(2300)))
    assert run(tmp_path, "dead", "requeue", "--all", "--yes", "--url", URL).stdout == "2300 requeued\n"
    assert len({task.id for task in receive(tmp_path, 2300)}) == 2300


def test_dead_purge(directory: Path) -> None:
    purged = run(directory, "dead", "purge", "--reason", "rejected", "--yes", "--json", "--url", URL)
    assert json.loads(purged.stdout) == {"purged": 2}
    assert ids_of(directory) == ["r1"]
    assert run(directory, "dead", "purge", "r1", "--yes", "--url", URL).stdout == "1 purged\n"
    assert run(directory, "queues", "--json", "--url", URL).stdout.count('"dead": 0') == 4


@pytest.mark.parametrize(
    ("arguments", "answer", "question", "left"),
    [
        (("requeue", "--all"), "y", "Send 3 dead tasks back", []),
        (("requeue", "--type", "mail"), "n", "up to 3 dead tasks (type 'mail')", ["m1", "m2", "r1"]),
        (("purge", "--all"), "y", "Delete 3 dead tasks", []),
        (("purge", "m1"), "y", "Delete 1 dead task for good", ["m2", "r1"]),
        (("purge", "m1"), "n", "Delete 1 dead task for good", ["m1", "m2", "r1"]),
    ],
)
def test_what_concerns_many_or_is_for_good_is_asked_on_a_terminal(
    directory: Path, arguments: tuple[str, ...], answer: str, question: str, left: list[str]
) -> None:
    ours, theirs = os.openpty()
    os.write(ours, f"{answer}\n".encode())
    finished = subprocess.run(
        [NOVA, "dead", *arguments, "--url", URL],
        cwd=directory, stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert finished.returncode == (0 if answer == "y" else 1), finished
    assert question in finished.stderr
    assert ids_of(directory) == left


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("requeue",), "say which"),
        (("purge", "--yes"), "say which"),
        (("requeue", "m1", "--all"), "one or the other"),
        (("purge", "--all", "--type", "mail", "--yes"), "keep one"),
        (("requeue", "--all"), "give --yes"),
        (("purge", "m1"), "give --yes"),
        (("list", "--limit", "0"), "limit"),
        (("show",), "ID"),
    ],
)
def test_a_wrong_dead_exits_2_and_opens_nothing(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    assert_complains(run(tmp_path, "dead", *arguments, "--url", URL), 2, word)
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_is_not_there_exits_1(tmp_path: Path) -> None:
    url = "sqlite:///no/nova.db"
    commands: list[Any] = [("enqueue", "t"), ("queues",), ("dead", "list"), ("dead", "requeue", "x")]
    for command in commands:
        assert_complains(run(tmp_path, *command, "--url", url), 1, "no/nova.db")
