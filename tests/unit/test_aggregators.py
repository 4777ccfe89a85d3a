"""Aggregators: each item in exactly one batch, bounds kept, windows from the first item."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova import ConfigError, CountAggregator, TimeAggregator, TimeCountAggregator
from nova.aggregators.limits import MAX_OPEN

events = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abc"), st.floats(0, 2)), max_size=200)


@given(
    events=events,
    max_count=st.integers(1, 20),
    window=st.floats(0.1, 5),
    max_bytes=st.one_of(st.none(), st.integers(1, 500)),
)
def test_each_item_is_in_exactly_one_batch_within_every_bound(
    events: list[tuple[int, str, float]], max_count: int, window: float, max_bytes: int | None
) -> None:
    open_ = TimeCountAggregator(max_count, window, max_bytes=max_bytes).start()
    now = 0.0
    batches: list[list[tuple[int, int, str, float]]] = []
    for number, (size, key, pause) in enumerate(events):
        deadline = open_.deadline()
        now += pause
        due = open_.due(now)
        if deadline is not None and deadline <= now:
            assert due
        batches += due
        batches += open_.add((number, size, key, now), size, key, now)
        assert (open_.deadline() or now) <= now + window
    batches += open_.take()
    assert open_.deadline() is None
    assert sorted(item[0] for batch in batches for item in batch) == list(range(len(events)))
    for batch in batches:
        assert 1 <= len(batch) <= max_count
        assert len({item[2] for item in batch}) == 1
        assert [item[0] for item in batch] == sorted(item[0] for item in batch)
        if max_bytes is not None and len(batch) > 1:
            assert sum(item[1] for item in batch) <= max_bytes


def test_the_window_counts_from_the_first_item() -> None:
    open_ = TimeCountAggregator(100, 1.0).start()
    assert open_.deadline() is None
    open_.add("a", 1, "", 10.0)
    open_.add("b", 1, "", 10.9)
    assert open_.deadline() == 11.0
    assert open_.due(10.999) == []
    assert open_.due(11.0) == [["a", "b"]]


def test_an_item_over_the_bytes_travels_alone_and_leaves_the_open_batch() -> None:
    open_ = CountAggregator(10, max_bytes=100).start()
    assert open_.add("small", 60, "", 0) == []
    assert open_.add("huge", 500, "", 0) == [["huge"]]
    assert open_.add("next", 60, "", 0) == [["small"]]
    assert open_.take() == [["next"]]


def test_the_batch_used_longest_ago_goes_when_too_many_are_open() -> None:
    open_ = CountAggregator(10, None).start()
    for n in range(MAX_OPEN):
        assert open_.add(n, 1, f"k{n}", 0) == []
    assert open_.add("again", 1, "k0", 0) == []
    assert open_.add("new", 1, "knew", 0) == [[1]]


def test_defaults_and_units() -> None:
    assert (CountAggregator().max_count, CountAggregator().window) == (100, 10.0)
    assert (TimeAggregator().max_count, TimeAggregator().window) == (10_000, 10.0)
    assert TimeCountAggregator(5, timedelta(milliseconds=1500)).window == 1.5
    assert CountAggregator(7, None).start().deadline() is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CountAggregator(0), "max_count"),
        (lambda: CountAggregator(True), "max_count"),
        (lambda: TimeCountAggregator(1, 0), "window"),
        (lambda: TimeCountAggregator(1, float("nan")), "window"),
        (
            lambda: TimeAggregator(None),  # type: ignore[arg-type]
            "CountAggregator",
        ),
        (lambda: TimeAggregator(5, max_bytes=0), "max_bytes"),
        (
            lambda: CountAggregator(key="tenant"),  # type: ignore[arg-type]
            "key",
        ),
    ],
)
def test_illegal_limits_are_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()  # type: ignore[operator]
