"""The small threaded parts: the watchdog, the outage gate, the SQLite writer, lanes and their executor."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nova.brokers.sqlite.connection import Connection
from nova.brokers.sqlite.writer import Writer
from nova.errors import BrokerError, BrokerUnavailable
from nova.execution import Slot, ThreadExecutor
from nova.lanes import Lanes
from nova.outage import Outage
from nova.scheduler import Reserves, Scheduler
from nova.task import uuid7s
from nova.watchdog import Watchdog
from tests.eventually import eventually, never


def test_the_watchdog_calls_in_the_order_of_time() -> None:
    dog, calls = Watchdog("dog"), []
    for name, seconds in (
        ("late", 1.0),
        ("soon", 0.05),
        ("never", 60.0),
    ):  # the first two far enough apart for any machine
        dog.call_after(seconds, lambda name=name: calls.append(name))  # type: ignore[misc]
    eventually(lambda: calls == ["soon", "late"])
    dog.close()


def test_one_batch_probes_at_a_time_and_the_turn_goes_round_until_a_success() -> None:
    gate = Outage(lambda failures: 0.05 * failures)
    assert gate.wait_turn("first")
    gate.declare("first")
    gone: list[str] = []

    def go(name: str) -> None:
        if gate.wait_turn(name):
            gone.append(name)

    threads = {name: threading.Thread(target=go, args=(name,)) for name in ("b", "c", "first")}
    for name in ("b", "c"):
        threads[name].start()
        eventually(lambda: name in gate._queue)  # noqa: B023
    never(lambda: gone, during=0.2, what="the others wait while the first one probes")
    threads["first"].start()
    eventually(lambda: gone == ["b"], what="after a failed probe another batch has the turn")
    never(lambda: len(gone) > 1, during=0.2)
    gate.over()
    eventually(lambda: sorted(gone) == ["b", "c", "first"])
    for thread in threads.values():
        thread.join()


def test_the_waits_of_a_lone_prober_grow() -> None:
    gate = Outage(lambda failures: 0.05 * failures)
    gate.declare("only")
    started = time.monotonic()
    assert gate.wait_turn("only")
    assert gate.wait_turn("only")
    assert time.monotonic() - started >= 0.15


def test_a_prober_that_gives_up_makes_room_for_the_next() -> None:
    gate = Outage(lambda _: 0.01)
    gate.declare("first")
    gone = threading.Event()

    def go() -> None:
        assert gate.wait_turn("second")
        gone.set()

    threading.Thread(target=go).start()
    assert not gone.wait(0.1)
    gate.give_up("first")
    assert gone.wait(5)


def test_a_stop_ends_every_wait_of_an_outage_but_lets_the_healthy_run() -> None:
    gate = Outage(lambda _: 60.0)
    gate.stop()
    assert gate.wait_turn("healthy")
    gate.declare("x")
    assert not gate.wait_turn("x")
    assert not gate.wait_turn("y")
    assert not gate.pause(60.0)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    connection = Connection(str(tmp_path / "n.db"), 0.2)
    connection.query(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    made = Writer(str(tmp_path / "n.db"), connection)
    made.start()
    return made


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (number,)).rowcount


def test_a_failing_operation_fails_alone_within_its_group(writer: Writer) -> None:
    hold = threading.Event()
    first = writer.submit(lambda c: hold.wait(5))
    futures = [writer.submit(insert(n)) for n in (1, 2, 2, 3)]
    hold.set()
    assert first.result(5)
    assert [future.exception(5) is None for future in futures] == [True, True, False, True]
    assert isinstance(futures[2].exception(), BrokerError)
    bug = writer.submit(lambda c: 1 / 0)
    assert "ZeroDivisionError" in str(bug.exception(5))
    assert writer.submit(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]).result(5) == 3
    writer.close(5)
    assert isinstance(writer.submit(insert(9)).exception(5), BrokerUnavailable)


def test_a_cancelled_operation_is_left_out(writer: Writer) -> None:
    hold = threading.Event()
    writer.submit(lambda c: hold.wait(5))
    gone = writer.submit(insert(1))
    assert gone.cancel()
    hold.set()
    assert writer.submit(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]).result(5) == 0
    writer.close(5)


def test_a_locked_file_fails_all_that_waits_at_once(writer: Writer, tmp_path: Path) -> None:
    blocker = sqlite3.connect(tmp_path / "n.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    futures = [writer.submit(insert(n)) for n in range(600)]
    assert all(isinstance(future.exception(10), BrokerUnavailable) for future in futures)
    assert time.monotonic() - started < 5, "0.2 s of busy_timeout, not 600 times"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert writer.submit(insert(1)).result(5) == 1
    writer.close(5)


def test_every_offered_job_runs_once_and_no_more_than_the_slots_at_once() -> None:
    seen: list[int] = []
    running, most = 0, 0
    lock = threading.Lock()

    def run(job: int, slot: Slot) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if job % 100 == 0:
            time.sleep(0.001)  # so that threads meet
        with lock:
            running -= 1
            seen.append(job)

    executor: ThreadExecutor[int] = ThreadExecutor("t", 7, run)
    lanes: Lanes[int] = Lanes(
        Scheduler(4, (6, 3, 1), Reserves(2, 1)),
        on_work=executor.wake,
        on_idle=executor.idle,
        on_low=lambda rank: None,
    )
    executor.bind(lanes)
    for chunk in range(30):
        assert lanes.offer(chunk % 3, range(chunk * 100, chunk * 100 + 100))
        if chunk % 10 == 0:
            eventually(lambda: lanes.running == 0)
    eventually(lambda: len(seen) == 3000)
    assert sorted(seen) == list(range(3000))
    assert most <= 7
    assert lanes.shut() == []
    assert not lanes.offer(0, [1])
    assert executor.close(5)


def test_who_finds_the_lanes_held_for_long_waits_and_takes_a_job_of_its_own() -> None:
    lanes: Lanes[int] = Lanes(
        Scheduler(8, (6, 3, 1), Reserves(0, 0)), on_work=lambda _: None, on_idle=lambda: None, on_low=lambda _: None
    )
    lanes.offer(1, range(8))
    taken: list[int] = []

    def take() -> None:
        found = lanes.take()
        assert found is not None
        taken.append(found[1])

    threads = [threading.Thread(target=take) for _ in range(8)]
    with lanes.lock:
        for thread in threads:
            thread.start()
        never(lambda: taken, during=0.2, what="nobody is in while it is held")
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == list(range(8))


def test_ids_are_version_7_uuids_in_the_order_of_time() -> None:
    import uuid

    made = [uuid7s(1_700_000_000_000 + n, 1)[0] for n in range(50)]
    assert made == sorted(made)
    assert len(set(uuid7s(1, 1000)) | set(uuid7s(1, 1000))) == 2000
    for n, text in enumerate(made):
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
        assert parsed.int >> 80 == 1_700_000_000_000 + n
