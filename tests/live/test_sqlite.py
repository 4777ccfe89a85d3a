"""What only the SQLite file can show: full disks, foreign files, fences, size, speed of waking."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from nova import BrokerError, BrokerUnavailable, PublishError, QueueFull, ReceivedTask, Task, TaskQueue, with_sqlite
from nova.brokers.base import DriverContext, Message, SubscribeRequest
from nova.brokers.sqlite import statements
from nova.brokers.sqlite.config import SQLiteConfig
from nova.brokers.sqlite.driver import SQLiteDriver
from nova.brokers.sqlite.writer import CommitUnclear
from nova.clock import SystemClock
from tests.eventually import eventually, never

ROOT = Path(__file__).parents[2]


def opened(path: Path, **options: object) -> SQLiteDriver:
    driver = SQLiteDriver(SQLiteConfig(path=str(path), **options))  # type: ignore[arg-type]
    driver.open(DriverContext(prefix="T"), 5)
    return driver


def message(number: int, size: int = 200, **fields: object) -> Message:
    return Message("T", bytes(size), {"nova-id": f"m{number}"}, f"m{number}", **fields)  # type: ignore[arg-type]


def test_every_commit_is_synced_and_the_journal_is_a_wal(tmp_path: Path) -> None:
    driver = opened(tmp_path / "n.db")
    settings = driver.run(
        lambda c: (c.execute("PRAGMA synchronous").fetchone()[0], c.execute("PRAGMA journal_mode").fetchone()[0])
    )
    assert settings == (2, "wal")
    driver.close()


def test_a_full_file_refuses_new_tasks_clearly_keeps_the_old_and_recovers(tmp_path: Path) -> None:
    queue = TaskQueue(with_sqlite(tmp_path / "n.db", max_bytes=1 << 20))
    stored: list[str] = []

    def fill() -> None:
        for number in range(10_000):
            stored.append(queue.enqueue(Task("t", bytes(2000), id=f"t{number}")).task_id)

    with pytest.raises(QueueFull, match="free some disk or raise") as refused:
        fill()
    assert refused.value.may_be_stored is False
    report = queue.enqueue_batch([Task("t", bytes(20_000), id="x")])
    assert list(report.failed) == ["x"]
    assert not report.unknown
    seen: list[str] = []
    queue.start(lambda task: seen.append(task.id))
    eventually(lambda: sorted(seen) == sorted(stored))
    eventually(lambda: queue.depth().running == 0)
    queue.enqueue(Task("t", bytes(2000), id="after"))
    eventually(lambda: "after" in seen)
    queue.stop()


def test_a_full_disk_is_an_error_and_loses_nothing_accepted(tmp_path: Path) -> None:
    """The operating system itself refuses to write (a limit on the file size of the process)."""
    script = """
        import resource, signal, sys
        from nova import PublishError, Task, TaskQueue, with_sqlite
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        queue = TaskQueue(with_sqlite(sys.argv[1]))
        queue.connect()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        try:
            for n in range(10_000):
                queue.enqueue(Task("t", bytes(2000), id=f"t{n}"))
                print(f"t{n}", flush=True)
        except PublishError as exc:
            print("refused", type(exc).__name__, exc, file=sys.stderr)
            sys.exit(3)
    """
    path = tmp_path / "n.db"
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 3, ran.stderr
    assert "sqlite" in ran.stderr
    accepted = ran.stdout.split()
    assert len(accepted) > 10
    seen: set[str] = set()
    queue = TaskQueue(with_sqlite(path))
    queue.start(lambda task: seen.add(task.id))
    eventually(lambda: set(accepted) <= seen)
    queue.stop()


def test_files_that_cannot_be_used_are_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, but long enough to be read as a header" * 20)
    newer = tmp_path / "newer.db"
    opened(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE nova_schema SET version = 99")
    for path, words in [
        (tmp_path / "missing" / "n.db", "writable file"),
        (tmp_path / "text.db", "writable file"),
        (newer, "upgrade nova-taskqueue"),
    ]:
        with pytest.raises(BrokerUnavailable, match=words) as refused:
            TaskQueue(with_sqlite(path)).connect()
        assert str(path) in str(refused.value)


def test_a_file_locked_by_another_program_fails_in_the_stated_time(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    queue = TaskQueue(with_sqlite(path, busy_timeout=0.3)).connect()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(PublishError, match="locked by another process") as refused:
        queue.enqueue(Task("t"))
    assert refused.value.may_be_stored is False
    assert time.monotonic() - started < 5
    blocker.execute("ROLLBACK")
    queue.enqueue(Task("t"))
    assert queue.depth().waiting == 1
    queue.stop()
    blocker.close()


def test_a_stale_claim_neither_acks_nor_extends_nor_releases(tmp_path: Path) -> None:
    driver = opened(tmp_path / "n.db", lease=0.5)
    driver.publish([message(1)]).result(5)
    request = SubscribeRequest(topics=("T",), group="g", prefetch=10)
    stale, heir = driver.subscribe(request), driver.subscribe(request)
    (old,) = stale.receive(1, 5)

    def taken_over() -> bool:
        driver.housekeeping()
        found = heir.receive(1, 0.1)
        heirs.extend(found)
        return bool(found)

    heirs: list[object] = []
    eventually(taken_over)
    assert stale.extend([old]) == [old]
    assert old.lost
    stale.ack([old])
    stale.release([old])
    stale.close()
    assert driver.depth(["T"], "g")["T"].running == 1
    heir.close()
    assert driver.depth(["T"], "g")["T"].waiting == 1
    driver.close()


def test_third_unclean_return_makes_a_suspect_and_a_clean_one_does_not_count(tmp_path: Path) -> None:
    driver = opened(tmp_path / "n.db", lease=0.5)
    driver.publish([message(1)]).result(5)
    request = SubscribeRequest(topics=("T",), group="g", prefetch=10)
    suspects = []
    for _ in range(3):
        for _clean in range(3):
            subscription = driver.subscribe(request)
            (delivery,) = subscription.receive(1, 5)
            subscription.close()
        subscription = driver.subscribe(request)
        (delivery,) = subscription.receive(1, 5)
        suspects.append(delivery.suspect)
        driver.run(lambda c: c.execute("UPDATE nova_messages SET lease = 0"))  # its process is dead
        driver.housekeeping()
    assert suspects == [False, False, True]
    driver.close()


def test_a_file_is_shared_with_the_users_own_tables(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('ann')")
    queue = TaskQueue(with_sqlite(path))
    queue.enqueue(Task("t"))
    queue.stop()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM users").fetchall() == [("ann",)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from /proc")
def test_a_million_delayed_tasks_cost_a_worker_little_memory(tmp_path: Path) -> None:
    """DESIGN section 3: under 100 MB of growth with 1,000,000 tasks that wait for their time."""
    path = tmp_path / "n.db"
    driver = opened(path)
    driver.publish([message(0, due_ms=SystemClock().now_ms() + 3_600_000)]).result(5)
    driver.run(_multiply)
    driver.close()
    script = """
        import sys, threading
        from pathlib import Path
        from nova import Task, TaskQueue, with_sqlite
        queue = TaskQueue(with_sqlite(sys.argv[1]))
        seen = threading.Event()
        def resident_kib():
            return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
        queue.connect()
        before = resident_kib()
        queue.start(lambda task: seen.set(), queues=["q"])
        for n in range(20):
            seen.clear()
            queue.enqueue(Task("now"), queue="q", process_in=0.01)
            assert seen.wait(10)
        assert queue.depth(["q"]).delayed == 1_000_000, queue.depth(["q"])
        print((resident_kib() - before) // 1024)
        queue.stop()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    grown = int(ran.stdout)
    print(f"1,000,000 delayed tasks: worker grew by {grown} MB, file {os.path.getsize(path) >> 20} MB")
    assert grown < 100


def _multiply(connection: sqlite3.Connection) -> None:
    """A million rows like the first, in the lane of the topic the worker reads."""
    connection.execute("UPDATE nova_lanes SET topic = 'TASK_QUEUE-q'")
    connection.execute(
        """WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
        INSERT INTO nova_messages (lane, due, stored, headers, body)
        SELECT lane, due + i, stored, headers, body FROM n, (SELECT * FROM nova_messages LIMIT 1)"""
    )


def test_waking_takes_milliseconds_in_a_process_and_tens_across(tmp_path: Path) -> None:
    """The stated figures (5 and 60 ms) are measured by `make bench`; here the bound is 1 s, for a loaded machine."""
    queue = TaskQueue(with_sqlite(tmp_path / "n.db"))
    other = TaskQueue(with_sqlite(tmp_path / "n.db"))
    waits: list[float] = []

    def handle(task: ReceivedTask) -> None:
        waits.append(time.time() - task.json())

    queue.start(handle)
    for producer in (queue, other):
        waits.clear()
        for n in range(20):
            producer.enqueue(Task("t", time.time()))
            eventually(lambda n=n: len(waits) > n)  # type: ignore[misc]
        assert sorted(waits)[10] < 1.0
        print(f"{'same' if producer is queue else 'other'} driver: p50 {sorted(waits)[10] * 1000:.1f} ms")
    queue.stop()
    other.stop()


def test_the_file_itself_refuses_a_stale_ack(tmp_path: Path) -> None:
    """The fence is in the row, not in the memory of the process that holds the stale claim."""
    driver = opened(tmp_path / "n.db")
    driver.publish([message(1)]).result(5)
    driver.run(lambda c: statements.register(c, "T", "g"))
    lane = driver.run(lambda c: statements.lane_id(c, "T", "g"))

    def claim() -> statements.Claim:
        (delivery,) = driver.run(lambda c: statements.claim(c, lane, "T", 1, SystemClock().now_ms(), 0, 0))
        driver.housekeeping()
        found: statements.Claim = delivery.handle
        return found

    stale, fresh = claim(), claim()
    assert (stale.row, stale.number + 1) == (fresh.row, fresh.number)
    assert driver.run(lambda c: statements.delete(c, [stale])) == 0
    assert driver.run(lambda c: statements.extend(c, [stale], 1)) == set()
    assert driver.run(lambda c: statements.delete(c, [fresh])) == 1
    driver.close()


def test_tasks_of_nobody_join_a_group_that_had_an_address_before(tmp_path: Path) -> None:
    driver = opened(tmp_path / "n.db")
    driver.publish([message(1, group="g"), message(2), message(3)]).result(5)
    subscription = driver.subscribe(SubscribeRequest(topics=("T",), group="g", prefetch=10))
    assert sorted(d.headers["nova-id"] for d in subscription.receive(10, 5)) == ["m1", "m2", "m3"]
    subscription.close()
    driver.close()


def test_a_commit_that_fails_half_way_is_unknown_not_failed(tmp_path: Path) -> None:
    driver = opened(tmp_path / "n.db")

    # A deferred constraint makes the commit itself fail, as a broken disk does.
    driver.run(lambda c: c.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
    driver.run(
        lambda c: c.execute("CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
    )
    with driver.writer._connection.use() as connection:
        connection.execute("PRAGMA foreign_keys = ON")
    future = driver.writer.submit(lambda c: c.execute("INSERT INTO child VALUES (7)"))
    assert isinstance(future.exception(5), CommitUnclear)
    hold = threading.Event()
    driver.writer.submit(lambda c: hold.wait(5))
    driver.writer.submit(lambda c: c.execute("INSERT INTO child VALUES (7)"))
    confirmation = driver.publish([message(1)])
    hold.set()
    (error,) = confirmation.result(5)
    assert error is not None
    assert error.may_be_stored
    driver.close()


def test_another_process_is_seen_without_its_help(tmp_path: Path) -> None:
    """Only the watcher can wake this worker: the producer is another process. The bound is far above the stated 60 ms."""
    path = tmp_path / "n.db"
    queue = TaskQueue(with_sqlite(path))
    seen: list[str] = []
    queue.start(lambda task: seen.append(task.id))
    script = "import sys; from nova import *; TaskQueue(with_sqlite(sys.argv[1])).enqueue(Task('t'))"
    eventually(lambda: queue.last_receive_age is not None)
    for n in range(3):
        subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=True, timeout=60)
        eventually(lambda n=n: len(seen) == n + 1, timeout=5)  # type: ignore[misc]
    queue.stop()


def test_a_deleted_file_is_an_error_not_a_new_queue(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    queue = TaskQueue(with_sqlite(path))
    queue.enqueue(Task("t"))
    path.unlink()
    with pytest.raises(PublishError, match="deleted or replaced"):
        queue.enqueue(Task("t"))
    assert not path.exists()
    queue.stop()


def test_a_file_deleted_under_a_running_task_costs_no_busy_loop(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    queue = TaskQueue(with_sqlite(path))
    ended = threading.Event()

    def handle(task: ReceivedTask) -> None:
        path.unlink()
        ended.set()

    queue.start(handle)
    queue.enqueue(Task("t"))
    assert ended.wait(10)
    cpu = time.process_time()
    never(lambda: False, during=1.0)
    assert time.process_time() - cpu < 0.5, "half a core, a wide margin over the pollers' few per cent"
    queue.stop(timeout=5)


def test_a_killed_worker_counts_until_its_lease_ends(tmp_path: Path) -> None:
    killed, other = opened(tmp_path / "n.db", lease=0.6), opened(tmp_path / "n.db")
    killed.subscribe(SubscribeRequest(topics=("T_PRIORITY_NORMAL",), group="g", prefetch=10))
    assert [group.active for group in other.groups()] == [True]
    with pytest.raises(BrokerError, match=r"stop its workers first \(one that was killed counts for up to 1 s more\)"):
        other.remove_group("g")
    eventually(lambda: other.groups()[0].active is False)
    assert other.remove_group("g")
    killed.close()
    other.close()


def test_a_worker_that_paused_while_its_group_was_removed_begins_anew(tmp_path: Path) -> None:
    paused, other = opened(tmp_path / "n.db", lease=0.5), opened(tmp_path / "n.db")
    request = SubscribeRequest(topics=("T_PRIORITY_NORMAL", "T_PRIORITY_LOW"), group="g", prefetch=10)
    subscription = paused.subscribe(request)
    normal = Message("T_PRIORITY_NORMAL", b"", {"nova-id": "old"}, "old")
    other.publish([normal]).result(5)
    (stale,) = subscription.receive(1, 5)
    eventually(lambda: other.groups()[0].active is False)
    assert other.remove_group("g")
    strangers = other.subscribe(SubscribeRequest(topics=("U_PRIORITY_NORMAL",), group="g", prefetch=10))
    assert subscription.extend([stale]) == [stale]
    paused.housekeeping()
    other.publish([Message("U_PRIORITY_NORMAL", b"", {"nova-id": "x"}, "x")]).result(5)
    other.publish([Message("T_PRIORITY_NORMAL", b"", {"nova-id": "new"}, "new")]).result(5)
    (fresh,) = subscription.receive(10, 5)
    assert fresh.headers["nova-id"] == "new"
    assert [group.active for group in other.groups()] == [True]
    subscription.close()
    strangers.close()
    paused.close()
    other.close()


def test_a_large_group_is_removed_without_keeping_other_writers_out(tmp_path: Path) -> None:
    size = 100_000
    driver = opened(tmp_path / "n.db")
    driver.subscribe(SubscribeRequest(topics=("T_PRIORITY_NORMAL",), group="old", prefetch=1)).close()
    for _ in range(size // 10_000):
        driver.publish([Message("T_PRIORITY_NORMAL", bytes(200), {"nova-id": "m"}, "m")] * 10_000).result(30)
    assert driver.groups()[0].waiting == size
    other = opened(tmp_path / "n.db", busy_timeout=1.0)
    removed: list[bool] = []
    remover = threading.Thread(target=lambda: removed.append(driver.remove_group("old")))
    remover.start()
    while remover.is_alive():
        assert other.publish([message(1, group="g")]).result(5) == [None]
    remover.join()
    assert removed == [True]
    eventually(lambda: not driver.run(left_behind), timeout=30)
    driver.close()
    other.close()


def left_behind(connection: sqlite3.Connection) -> int:
    """Rows of removed groups that are not freed yet."""
    query = "SELECT count(*) FROM nova_messages m JOIN nova_lanes l ON l.id = m.lane WHERE l.grp LIKE '!%'"
    return int(connection.execute(query).fetchone()[0])
