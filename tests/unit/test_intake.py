"""What an intake's feed collects, and when it lets go of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nova.aggregators import CountAggregator
from nova.brokers.base import Delivery
from nova.envelope import Envelope
from nova.intake import BatchFeed
from nova.lanes import Lanes
from nova.received import ReceivedTask
from nova.scheduler import Reserves, Scheduler

SIZE = 5


def feed(key: Any = None) -> tuple[BatchFeed, list[int]]:
    """A feed that holds up to 20 tasks, and the sizes of the batches it has passed on."""
    lanes: Lanes[list[ReceivedTask]] = Lanes(
        Scheduler(1, (1, 1, 1), Reserves.of(1, None)),
        on_work=lambda _: None,
        on_idle=lambda: None,
        on_low=lambda _: None,
    )
    passed: list[int] = []
    lanes.offer = lambda rank, jobs: passed.extend(map(len, jobs)) or True  # type: ignore[method-assign, func-returns-value]
    made = BatchFeed(lanes, 1, CountAggregator(SIZE, None, key=key), 20, 20, lambda task, exc: None)
    return made, passed


def tasks(count: int) -> list[ReceivedTask]:
    envelope = Envelope("t", "application/json", 2)
    return [
        ReceivedTask(str(n), "t", b"", "application/json", "default", 1, 1, envelope, Delivery("T", b"", {}), None)
        for n in range(count)
    ]


def test_a_batch_is_not_cut_short_while_what_was_handled_is_being_settled() -> None:
    """Else the last one of a queue may be too small, and waits out its window."""
    made, passed = feed()
    made.put(tasks(7))
    assert passed == [5]
    made.full(7)
    assert passed == [5], "five will make room"
    made.full(2)
    assert passed == [5, 2], "nothing else will"
    made.put(tasks(5))
    assert passed == [5, 2, 5]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=20))
def test_whatever_comes_a_full_feed_never_stands_still(rounds: list[tuple[int, int]]) -> None:
    """When all that is held lies in open batches of however many keys, and only then, they go."""
    keys = 1
    made, passed = feed(lambda task: str(int(task.id) % keys))
    put = settled = 0
    for count, more in rounds:
        keys += more
        made.put(tasks(count))
        put += count
        settled = sum(passed)
        made.full(put - settled + 1)
        assert sum(passed) == settled, "one is not settled yet"
        made.full(put - settled)
        assert sum(passed) == put
        assert all(size <= SIZE for size in passed)
