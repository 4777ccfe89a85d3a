"""The scheduler: exact slots, shares, reserves, no starvation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova.scheduler import HIGH, LOW, NORMAL, Reserves, Scheduler

WEIGHTS = (6, 3, 1)


def scheduler(concurrency: int, reserve: int | None = None, weights: tuple[int, int, int] = WEIGHTS) -> Scheduler:
    return Scheduler(concurrency, weights, Reserves.of(concurrency, reserve))


def fill(made: Scheduler, *classes: int) -> list[int]:
    ready = [c in classes for c in (HIGH, NORMAL, LOW)]
    while made.pick(ready) is not None:
        pass
    return made.running


@pytest.mark.parametrize(("concurrency", "total"), [(1, 1), (2, 2), (3, 3), (4, 7), (16, 19)])
def test_slots_of_each_class_alone_and_of_all(concurrency: int, total: int) -> None:
    for c in (HIGH, NORMAL, LOW):
        assert sum(fill(scheduler(concurrency), c)) == concurrency
    assert scheduler(concurrency).slots == total
    assert sum(fill(scheduler(concurrency), HIGH, NORMAL, LOW)) == total


def test_high_always_has_two_slots_no_other_may_take_and_low_one() -> None:
    made = scheduler(16)
    assert fill(made, NORMAL, LOW)[HIGH] == 0
    assert sum(made.running) == 17
    fill(made, HIGH)
    assert made.running[HIGH] == 2
    other = scheduler(16)
    fill(other, HIGH, NORMAL)
    assert sum(other.running) == 18
    fill(other, LOW)
    assert other.running[LOW] == 1


def test_an_own_reserve_below_four_is_for_high_alone() -> None:
    made = scheduler(1, reserve=1)
    assert fill(made, NORMAL, LOW) == [0, 1, 0] or sum(made.running) == 1
    fill(made, HIGH)
    assert made.running[HIGH] == 1
    assert made.slots == 2


def test_loaded_classes_share_the_picks_by_weight() -> None:
    made = scheduler(1)
    picks = [0, 0, 0]
    for _ in range(1000):
        chosen = made.pick((True, True, True))
        assert chosen is not None
        picks[chosen] += 1
        made.finish(chosen)
    assert picks == [600, 300, 100]


@given(
    concurrency=st.integers(1, 40),
    reserve=st.one_of(st.none(), st.integers(0, 5)),
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2)), max_size=200),
)
def test_no_bound_is_ever_crossed_and_nothing_waits_beside_a_free_slot(
    concurrency: int, reserve: int | None, steps: list[tuple[bool, bool, bool, int]]
) -> None:
    made = scheduler(concurrency, reserve)
    reserves = Reserves.of(concurrency, reserve)
    for high, normal, low, end in steps:
        ready = (high, normal, low)
        before = list(made.running)
        rooms = [made.room(c) for c in range(3)]
        chosen = made.pick(ready)
        assert (chosen is None) == (not any(ready[c] and rooms[c] for c in range(3)))
        if chosen is not None:
            assert ready[chosen]
            assert made.running[chosen] == before[chosen] + 1
        h, n, w = made.running
        assert max(h, n, w) <= concurrency
        assert n + w <= concurrency + reserves.low
        assert h + n <= concurrency + reserves.high
        assert h + n + w <= concurrency + reserves.high + reserves.low
        if made.running[end]:
            made.finish(end)


@given(ready=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=60, max_size=60))
def test_a_waiting_low_is_picked_within_a_round(ready: list[tuple[bool, bool]]) -> None:
    made = scheduler(1)
    since = 0
    for high, normal in ready:
        chosen = made.pick((high, normal, True))
        assert chosen is not None
        since = 0 if chosen == LOW else since + 1
        assert since < 20
        made.finish(chosen)
