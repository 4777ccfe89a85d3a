"""`nova bench`: it counts what it enqueued, touches nobody else's tasks, and says so when a figure is void."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from nova import Task, TaskQueue, with_group_id, with_sqlite, with_topic_prefix
from nova.cli import bench as command
from nova.cli import measuring
from nova.cli.measuring import Figures, Latency
from tests.command_line import assert_complains, run
from tests.docs.reference.drivers import capabilities

URL = "sqlite:///nova.db"


def figures(lost: int, twice: int) -> Figures:
    return Figures(100, 1000.0, 1000.0, Latency(1.0, 2.0), Latency(1.0, 2.0), lost, twice)


@pytest.mark.parametrize("url", [URL, "memory://"])
def test_everything_is_handled_once_and_counted(tmp_path: Path, url: str) -> None:
    finished = run(tmp_path, "bench", "--tasks", "250", "--batch-size", "100", "--lone", "5", "--json", "--url", url)
    assert (finished.returncode, finished.stderr) == (0, "")
    found = json.loads(finished.stdout)
    assert (found["tasks"], found["lost"], found["twice"]) == (250, 0, 0)
    assert found["enqueued_per_s"] > 0
    assert found["handled_per_s"] > 0
    assert 0 < found["enqueue_ms"]["p50"] <= found["enqueue_ms"]["p99"]
    assert 0 < found["start_ms"]["p50"] <= found["start_ms"]["p99"]


def test_it_prints_a_table(tmp_path: Path) -> None:
    finished = run(tmp_path, "bench", "--tasks", "100", "--lone", "1", "--url", URL)
    assert finished.returncode == 0, finished
    lines = finished.stdout.splitlines()
    assert lines[0].split() == ["MEASURED", "FIGURE"]
    assert lines[-1].split() == ["lost", "/", "handled", "twice", "0", "/", "0"]


def test_the_queues_own_tasks_stay_where_they_are_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with TaskQueue(with_sqlite(tmp_path / "nova.db")) as q:
        q.enqueue(Task("email.send", {}))
        finished = run(tmp_path, "bench", "--tasks", "100", "--lone", "1", "--url", f"{URL}?group_id=TASK_QUEUE_GROUP")
        assert finished.returncode == 0, finished
        assert q.depth().waiting == 1
        assert [group.name for group in q.groups.list()] == []
    with TaskQueue(
        with_sqlite(tmp_path / "nova.db"), with_topic_prefix(command.NAME), with_group_id(command.NAME)
    ) as q:
        assert q.groups.list() == []


def test_what_an_interrupted_run_left_is_dropped_and_not_counted(tmp_path: Path) -> None:
    with TaskQueue(
        with_sqlite(tmp_path / "nova.db"), with_topic_prefix(command.NAME), with_group_id(command.NAME)
    ) as q:
        q.start(lambda task: None)
        q.stop()
    with TaskQueue(
        with_sqlite(tmp_path / "nova.db"), with_topic_prefix(command.NAME), with_group_id(command.NAME)
    ) as q:
        q.enqueue_batch([Task("left", {}) for _ in range(50)])
    finished = run(tmp_path, "bench", "--tasks", "100", "--lone", "1", "--json", "--url", URL)
    assert finished.returncode == 0, finished
    assert json.loads(finished.stdout)["twice"] == 0


@pytest.mark.parametrize(("lost", "twice"), [(1, 0), (0, 1)])
def test_lost_or_doubled_tasks_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lost: int, twice: int
) -> None:
    monkeypatch.setattr(command, "measure", lambda *args, **options: figures(lost, twice))
    assert command.bench(url=f"sqlite:///{tmp_path / 'nova.db'}") == 1
    assert f"{lost} tasks were lost, {twice} handled twice" in capsys.readouterr().err


def test_a_task_that_does_not_come_is_lost_and_one_that_comes_again_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The handler sees one task twice and another one not at all."""
    monkeypatch.setattr(measuring, "STALL", 0.3)
    lock, notes = threading.Lock(), measuring._Calls.note
    seen = 0

    def note(calls: measuring._Calls, task: object) -> None:
        nonlocal seen
        with lock:
            seen += 1
            mine = seen
        if mine == 2:
            return
        notes(calls, task)  # type: ignore[arg-type]
        if mine == 1:
            notes(calls, task)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring._Calls, "note", note)
    found = measuring.measure(
        lambda: TaskQueue(with_sqlite(tmp_path / "nova.db"), with_topic_prefix("B"), with_group_id("B")),
        "B",
        tasks=20,
        size=10,
        together=10,
        lone=1,
        concurrency=2,
        enqueued=lambda count: None,
        handled=lambda count: None,
    )
    assert (found.lost, found.twice) == (1, 1)
    assert not found.is_sound


def test_a_task_is_not_lost_while_a_broker_may_still_lend_it() -> None:
    """What was in a connection that broke comes again when its lease is over."""
    assert max(one.lease or 0.0 for one in capabilities()) < measuring.STALL


@pytest.mark.slow
def test_a_wrong_url_exits_2_and_a_broker_that_is_away_1(tmp_path: Path) -> None:
    assert_complains(run(tmp_path, "bench", "--url", "sqlit:///nova.db"), 2, "did you mean 'sqlite'")
    assert_complains(run(tmp_path, "bench", "--url", "amqp://guest:guest@127.0.0.1:1/"), 1, "127.0.0.1:1")
